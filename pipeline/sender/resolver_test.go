package sender

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

// carrierKeys are the submissions that any process has handed over, or asked about.
type carrierKeys struct {
	mu   sync.Mutex
	seen map[carrier.Key]bool
}

// add adds keys and reports whether one of them was there.
func (k *carrierKeys) add(keys []carrier.Key) (again bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range keys {
		again = again || k.seen[key]
		k.seen[key] = true
	}
	return again
}

// mortal is the connector of a process that the test kills: from then on no message reaches the carrier, and no answer
// arrives.
type mortal struct {
	*sim.Connector
	keys *carrierKeys
	at   func(point string) // called at each point of a repetition or a question
	dead atomic.Bool
}

func (m *mortal) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	keys := make([]carrier.Key, len(batch))
	for i := range batch {
		keys[i] = batch[i].Key
	}
	again := m.keys.add(keys)
	at := func(point string) {
		if again {
			m.at(point)
		}
	}
	at("before a repetition")
	if m.dead.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	err := m.Connector.Send(ctx, batch, func(i int, r carrier.Result) {
		at("before its answer")
		if !m.dead.Load() {
			done(i, r)
			at("after its answer")
		}
	})
	at("after a repetition")
	return err
}

func (m *mortal) Query(ctx context.Context, keys []carrier.Key) ([]carrier.Result, error) {
	m.keys.add(keys)
	m.at("before a question")
	if m.dead.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	results, err := m.Connector.Query(ctx, keys)
	m.at("after a question")
	return results, err
}

// X15: if the carrier ignores a submission that it already had, or answers questions, every doubt of a crash ends
// within 30 s of the takeover, and the carrier accepts no message twice, wherever the crash happens. Each process in
// this test is killed at another point while it ends the doubts of its predecessor. The carrier also leaves some
// hand-overs without an answer. The test checks the carrier's own record.
func TestDoubtsEndWhateverACrashInterrupts(t *testing.T) {
	type kill struct {
		point string
		wait  time.Duration
	}
	var answered []kill
	for _, wait := range []time.Duration{0, 500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond} {
		answered = append(answered, kill{"after its answer", wait})
	}
	repeats := append([]kill{{"before a repetition", 0}, {"after a repetition", 0}, {"after a repetition", 3 * time.Millisecond}, {"before its answer", 0}}, answered...)
	asks := []kill{{"before a question", 0}, {"after a question", 0}, {"after a question", 500 * time.Microsecond}, {"after a question", 2 * time.Millisecond}, {"after a question", 8 * time.Millisecond}}
	for how, kills := range map[carrier.Doubt][]kill{
		carrier.DoubtKeyHeader: repeats, carrier.DoubtNaturalID: repeats[:4], carrier.DoubtQuery: slices.Concat(asks, repeats[:5]),
	} {
		t.Run(how.String(), func(t *testing.T) {
			t.Parallel()
			truth := filepath.Join(t.TempDir(), "carrier-sim.ndjson")
			synctest.Test(t, func(t *testing.T) {
				p := newVirtualProcessEnv(t)
				c, _ := p.simulatorAt(t, truth, sim.Profile{
					Answer: sim.Lognormal{P50: 20 * time.Millisecond, P99: 120 * time.Millisecond}, Silent: 0.02, Dropped: 0.02, Doubt: how,
				})
				p.route(&fanfarev1.Route{Name: "sim", Connector: "sim", Rate: 500, P99Ms: 120, Enabled: true})
				p.campaign(1, schemas.StateSending)
				s := p.follow()
				keys := &carrierKeys{seen: map[carrier.Key]bool{}}
				const each = 250
				n := 0
				start := func(name string, k *kill) (x *process, killed chan struct{}) {
					p.send(n, n+each)
					n += each
					m := &mortal{keys: keys, Connector: c.Connector(sim.Options{}), at: func(string) {}}
					killed = make(chan struct{})
					once := sync.Once{}
					die := func() {
						once.Do(func() {
							m.dead.Store(true)
							x.net.cutOff()
							close(killed)
						})
					}
					var ready atomic.Bool
					m.at = func(point string) {
						if k == nil || point != k.point || !ready.Load() {
							return
						}
						if k.wait == 0 {
							die()
						} else {
							time.AfterFunc(k.wait, die)
						}
					}
					x = p.start(name, func(context.Context, *fanfarev1.Route) (Line, error) { return Line{Live: m, Test: m}, nil })
					ready.Store(true)
					if k != nil && k.point == "" {
						time.AfterFunc(k.wait, die)
					}
					return x, killed
				}
				for i, k := range append([]kill{{"", 2100 * time.Millisecond}}, kills...) {
					_, killed := start(fmt.Sprint("p", i), &k)
					select {
					case <-killed:
					case <-time.After(time.Minute):
						t.Fatalf("process %d never came to %q", i, k.point)
					}
				}
				last, _ := start("last", nil)
				// A session ends 1.5 s after the crash; a message that is sent meanwhile may be in doubt until two
				// seconds later.
				eventually(t, time.Minute, "an outcome for every message", func() bool { return s.known() == n })
				eventually(t, 30*time.Second, "the end of all doubts", func() bool { return s.counts()[ambiguousKind] == 0 })
				if err := last.stop(); err != nil {
					t.Errorf("stop: %v", err)
				}
				counts := s.counts() // messages that the breaker returned were never handed over
				if counts[sent]+counts[returnedKind] != n || counts[sent] < n*9/10 {
					t.Errorf("got %v, want all %d sent or returned, and hardly one returned", counts, n)
				}
				tr, err := sim.ReadTruth(truth)
				if err != nil {
					t.Fatal(err)
				}
				if got := tr.Doubles(); len(got) > 0 {
					t.Errorf("the carrier took %d messages twice, the first %s", len(got), got[0].Submission)
				}
				if got := len(tr.Accepted()); got != counts[sent] {
					t.Errorf("the carrier took %d messages, want %d as we say", got, counts[sent])
				}
				t.Logf("%d messages, %d processes killed, at the carrier %v", n, len(kills)+1, tr.Outcomes())
			})
		})
	}
}
