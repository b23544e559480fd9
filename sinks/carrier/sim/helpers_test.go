package sim

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("a key of the simulator's tests"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func truthPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "carrier-sim.ndjson")
}

// start opens a carrier and runs it until the test ends.
func start(t testing.TB, cfg Config) *Carrier {
	t.Helper()
	c, _ := startStop(t, cfg)
	return c
}

func startStop(t testing.TB, cfg Config) (c *Carrier, stop func()) {
	t.Helper()
	if cfg.Keys == nil {
		cfg.Keys = testKeys(t)
	}
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop = run(t, c)
	return c, stop
}

// run runs c until stop is called, or the test ends.
func run(t testing.TB, c *Carrier) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("run: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

// messages returns n messages with the given first seq, at the given try.
func messages(t testing.TB, first, n int, try uint8) []carrier.Outbound {
	t.Helper()
	keys := testKeys(t)
	batch := make([]carrier.Outbound, n)
	for i := range batch {
		batch[i] = carrier.Outbound{
			Key: keys.Submission(10001, uint32(first+i), try), Channel: schemas.ChannelSMS,
			To: fmt.Sprintf("+39347%07d", first+i), From: "FANFARE",
			Body: carrier.Body{Text: carrier.Text{Body: fmt.Sprintf("hello no. %d", first+i), Encoding: schemas.EncodingGSM7, Segments: 1}},
		}
	}
	return batch
}

// log collects answers and receipts.
type log struct {
	mu       sync.Mutex
	answers  map[carrier.Key][]carrier.Result
	receipts []carrier.Receipt
	order    []string // "answer" and "receipt" of any submission, as they came
}

func newLog() *log { return &log{answers: map[carrier.Key][]carrier.Result{}} }

func (l *log) send(t testing.TB, c carrier.Connector, batch []carrier.Outbound) {
	t.Helper()
	keys := make([]carrier.Key, len(batch))
	for i := range batch {
		keys[i] = batch[i].Key
	}
	err := c.Send(t.Context(), batch, func(i int, r carrier.Result) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.answers[keys[i]] = append(l.answers[keys[i]], r)
		l.order = append(l.order, "answer")
	})
	if err != nil {
		t.Fatalf("send: %v", err)
	}
}

func (l *log) emit(list []carrier.Receipt) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.receipts = append(l.receipts, list...)
	for range list {
		l.order = append(l.order, "receipt")
	}
	return nil
}

// listen takes receipts until the test ends.
func (l *log) listen(t testing.TB, s carrier.ReceiptSource) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Receipts(ctx, l.emit) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("receipts: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func (l *log) answered() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.answers {
		n += len(a)
	}
	return n
}

func (l *log) received() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.receipts)
}

// byKey returns the receipts of each submission.
func (l *log) byKey() map[carrier.Key][]carrier.Receipt {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := map[carrier.Key][]carrier.Receipt{}
	for _, r := range l.receipts {
		m[r.Key] = append(m[r.Key], r)
	}
	return m
}

// eventually waits in real time until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func readTruth(t testing.TB, path string) *Truth {
	t.Helper()
	tr, err := ReadTruth(path)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// pass lets fake time pass within a bubble of synctest, and everything that happens in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
