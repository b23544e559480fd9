package voice_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/voice"
	"fanfare/sinks/carrier/voice/ari"
)

// The connection for events breaks again and again in the middle of calls. No call may be made twice, every place must
// become free, and every call must get a receipt that says what was heard, or that the end was missed.
func TestEventsBreakOff(t *testing.T) {
	profile := fates(schemas.ReceiptStatusDelivered, schemas.CodeDelivered)
	profile.Receipt = sim.Lognormal{P50: 300 * time.Millisecond, P99: time.Second}
	p := startPeer(t, profile, ari.Config{Play: 200 * time.Millisecond, Detect: 100 * time.Millisecond})
	cfg := p.config()
	cfg.MaxConcurrent = 20
	c := open(t, cfg)
	in := take(t, c)
	stop := make(chan struct{})
	var down atomic.Bool
	p.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !down.Load() || r.URL.Path != "/ari/events" {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(600 * time.Millisecond):
			}
			down.Store(true)
			p.server.Cut()
			time.Sleep(200 * time.Millisecond)
			down.Store(false)
		}
	})
	batch := calls(t, 0, 80, carrier.Call{Media: audio.Media, MachineAction: "hangup"})
	made := map[carrier.Key]bool{}
	for i := range batch {
		for {
			r := hand(t, c, batch[i])
			if r.Outcome == carrier.Accepted {
				made[batch[i].Key] = true
				break
			}
			if r.Outcome != carrier.Retryable {
				t.Fatalf("got %+v, want accepted, or retryable while there is no connection", r)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	close(stop)
	cutting.Wait()
	words := map[string]int{}
	for k := range made {
		words[in.last(t, k).Code]++
	}
	eventually(t, "all places are free", func() bool { return len(c.Living()) == 0 })
	seen, err := p.seen()
	if err != nil {
		t.Fatal(err)
	}
	for i := range batch {
		if n := seen[batch[i].Key]; n != 1 {
			t.Errorf("call %d was made %d times, want 1", i, n)
		}
	}
	if peak := p.server.Stats().Peak; peak > cfg.MaxConcurrent {
		t.Errorf("%d calls lived at once, want at most %d", peak, cfg.MaxConcurrent)
	}
	if words["human"] == 0 || words["missed"] == 0 || words["human"]+words["missed"]+words["abandoned"] != len(batch) {
		t.Errorf("got %v, want some heard, some missed, and nothing else", words)
	}
	t.Logf("80 calls: %v", words)
}

// A process is killed 32 times in the middle of calls, and each time another process opens the account at once. By the
// count of the Asterisk server there are never more calls than maxConcurrent, and no call is made twice. The next
// process follows existing calls until their receipts.
func TestNeverMoreCallsThanAllowedOver32Kills(t *testing.T) {
	const kills, most = 32, 7
	profile := fates(schemas.ReceiptStatusDelivered, schemas.CodeDelivered)
	profile.Receipt = sim.Lognormal{P50: 150 * time.Millisecond, P99: 700 * time.Millisecond}
	p := startPeer(t, profile, ari.Config{Play: 300 * time.Millisecond, Detect: 100 * time.Millisecond, Machines: 0.3, HangUps: 0.2, Talk: 300 * time.Millisecond})
	cfg := p.config()
	cfg.MaxConcurrent = most
	random := rand.New(rand.NewPCG(12, 32))
	told := &inbox{}
	handed, next := 0, 0
	var full int
	for kill := range kills {
		c, err := voice.New(cfg, voice.Deps{Account: "voice"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var working sync.WaitGroup
		working.Go(func() {
			_ = c.Receipts(ctx, func(list []carrier.Receipt) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				told.mu.Lock()
				defer told.mu.Unlock()
				told.list = append(told.list, list...)
				return nil
			})
		})
		batch := calls(t, next, 40, carrier.Call{Media: audio.Media, MachineAction: []string{"", "hangup", "voicemail"}[kill%3], Queue: []string{"", "sales"}[kill%2]})
		next += len(batch)
		var mu sync.Mutex
		for i := range batch { // more calls than there are places
			working.Go(func() {
				err := c.Send(ctx, batch[i:i+1:i+1], func(_ int, r carrier.Result) {
					mu.Lock()
					defer mu.Unlock()
					if r.Outcome == carrier.Accepted {
						handed++
					}
				})
				if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, carrier.ErrDrained) {
					t.Errorf("send: %v", err)
				}
			})
		}
		time.Sleep(time.Duration(300+random.IntN(900)) * time.Millisecond)
		if n := p.server.Stats().Living; n == most {
			full++
		}
		c.Die()
		cancel()
		working.Wait()
	}
	// The last process follows the calls that the others have left.
	c := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last sync.WaitGroup
	last.Go(func() {
		_ = c.Receipts(ctx, func(list []carrier.Receipt) error {
			told.mu.Lock()
			defer told.mu.Unlock()
			told.list = append(told.list, list...)
			return nil
		})
	})
	eventually(t, "the calls that were left end", func() bool { return p.server.Stats().Living == 0 })
	cancel()
	last.Wait()

	stats := p.server.Stats()
	if stats.Peak > most {
		t.Errorf("%d calls lived at once, want at most %d", stats.Peak, most)
	}
	if stats.Peak < most || full < kills/2 {
		t.Errorf("the peak was %d of %d, and %d of %d kills met it: the test shows little", stats.Peak, most, full, kills)
	}
	seen, err := p.seen()
	if err != nil {
		t.Fatal(err)
	}
	final := 0
	for k, n := range seen {
		if n != 1 {
			t.Errorf("%v was called %d times, want once", k, n)
		}
		for _, r := range told.of(k) {
			if r.Status == schemas.ReceiptStatusDelivered || r.Status == schemas.ReceiptStatusFailed {
				final++
				break
			}
		}
	}
	if 2*final < len(seen) {
		t.Errorf("%d of %d calls have a final receipt, want most", final, len(seen))
	}
	t.Logf("%d kills: %d calls made (%d answered to us), %d with a final receipt, peak %d of %d", kills, len(seen), handed, final, stats.Peak, most)
}

// A process finds a call that another process made, in each of its stages, and follows it to its end.
func TestFound(t *testing.T) {
	for name, tc := range map[string]struct {
		call  carrier.Call
		peer  ari.Config
		rings time.Duration
		sub   schemas.Code
	}{
		"ringing":     {audio, ari.Config{}, 1500 * time.Millisecond, schemas.CodeAnswered},
		"AMD runs":    {carrier.Call{Media: audio.Media, MachineAction: "voicemail"}, ari.Config{Detect: 1500 * time.Millisecond, Machines: 1}, time.Millisecond, schemas.CodeVoicemailLeft},
		"it is heard": {audio, ari.Config{Play: 1500 * time.Millisecond}, time.Millisecond, schemas.CodeAnswered},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			profile := fates(schemas.ReceiptStatusDelivered, schemas.CodeDelivered)
			profile.Receipt = sim.Lognormal{P50: tc.rings}
			p := startPeer(t, profile, tc.peer)
			first, err := voice.New(p.config(), voice.Deps{})
			if err != nil {
				t.Fatal(err)
			}
			o := calls(t, 0, 1, tc.call)[0]
			if r := hand(t, first, o); r.Outcome != carrier.Accepted {
				t.Fatalf("got %+v, want accepted", r)
			}
			time.Sleep(400 * time.Millisecond)
			second := open(t, p.config())
			in := take(t, second)
			eventually(t, "the call is found", func() bool { return len(second.Living()) == 1 })
			first.Die()
			if r := in.last(t, o.Key); r.Sub != tc.sub || r.To != o.To {
				t.Errorf("got %+v, want %v", r, tc.sub)
			}
			eventually(t, "the call ends", func() bool { return p.server.Stats().Living == 0 })
			if n := p.did("POST", "/play/"); n != 1 {
				t.Errorf("the message was played %d times, want 1", n)
			}
		})
	}
}

// The answer to a hand-over is lost, but the call exists. Asterisk's events or its list show it, so a receipt ends the
// doubt.
func TestDoubtEnds(t *testing.T) {
	profile := fates(schemas.ReceiptStatusDelivered, schemas.CodeDelivered)
	profile.Receipt = sim.Lognormal{P50: 500 * time.Millisecond}
	p := startPeer(t, profile, ari.Config{})
	lost := true
	p.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || r.URL.Path != "/ari/channels" {
			return false
		}
		if lost {
			p.server.ServeHTTP(discard{http.Header{}}, r)
		}
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
		return true
	})
	c := open(t, p.config())
	in := take(t, c)
	o := calls(t, 0, 1, audio)[0]
	if r := hand(t, c, o); r.Outcome != carrier.Unknown {
		t.Fatalf("got %+v, want unknown", r)
	}
	if r := in.last(t, o.Key); r.Sub != schemas.CodeAnswered {
		t.Errorf("got %+v, want answered", r)
	}
	if list := in.of(o.Key); list[0].Status != schemas.ReceiptStatusBuffered {
		t.Errorf("the first receipt is %+v, want that it lives", list[0])
	}
	// The last event and the list of Asterisk show the end only after the receipt.
	eventually(t, "the first place is free", func() bool { return len(c.Living()) == 0 })
	// This call was not made, so neither events nor lists show it. Its place becomes free, and it gets no receipt.
	lost = false
	never := calls(t, 1, 1, audio)[0]
	if r := hand(t, c, never); r.Outcome != carrier.Unknown {
		t.Fatalf("got %+v, want unknown", r)
	}
	if n := len(c.Living()); n != 1 {
		t.Errorf("%d calls hold a place, want 1: it may live", n)
	}
	eventually(t, "the place is free", func() bool { return len(c.Living()) == 0 })
	if got := in.of(never.Key); len(got) != 0 {
		t.Errorf("got %+v, want no receipt", got)
	}
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// If receipts do not become durable, the connector keeps the call up for a limited time and then hangs up. The receipt
// still comes later.
func TestHeldUntilDurable(t *testing.T) {
	p := startPeer(t, fates(schemas.ReceiptStatusDelivered, schemas.CodeDelivered), ari.Config{})
	cfg := p.config()
	cfg.Hold = 60_000_000_000
	c := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	offered := make(chan struct{}, 1)
	var may sync.Mutex
	may.Lock()
	var taken []carrier.Receipt
	var receipts sync.WaitGroup
	receipts.Go(func() {
		_ = c.Receipts(ctx, func(list []carrier.Receipt) error {
			select {
			case offered <- struct{}{}:
			default:
			}
			if !may.TryLock() {
				return errors.New("not durable")
			}
			defer may.Unlock()
			taken = append(taken, list...)
			return nil
		})
	})
	o := calls(t, 0, 1, audio)[0]
	if r := hand(t, c, o); r.Outcome != carrier.Accepted {
		t.Fatalf("got %+v, want accepted", r)
	}
	<-offered
	// The test cannot fail because this sleep is too short: it could only miss a call that is hung up too early.
	time.Sleep(300 * time.Millisecond)
	if n := p.server.Stats().Living; n != 1 {
		t.Errorf("%d calls live while the receipt is not durable, want 1", n)
	}
	may.Unlock()
	eventually(t, "the call ends", func() bool { return p.server.Stats().Living == 0 })
	cancel()
	receipts.Wait()
	if len(taken) != 1 || taken[0].Sub != schemas.CodeAnswered {
		t.Errorf("got %+v, want one receipt: answered", taken)
	}
}

// A second process takes the application over. While the second one is connected, the first one makes no calls, and
// both together never have more calls than one process may have.
func TestReplaced(t *testing.T) {
	profile := fates(schemas.ReceiptStatusDelivered, schemas.CodeDelivered)
	profile.Receipt = sim.Lognormal{P50: 400 * time.Millisecond}
	p := startPeer(t, profile, ari.Config{})
	cfg := p.config()
	cfg.MaxConcurrent = 3
	first, second := open(t, cfg), open(t, cfg)
	take(t, first)
	for _, o := range calls(t, 0, 3, audio) {
		if r := hand(t, first, o); r.Outcome != carrier.Accepted {
			t.Fatalf("got %+v, want accepted", r)
		}
	}
	in := take(t, second)
	o := calls(t, 10, 1, audio)[0]
	if r := hand(t, second, o); r.Outcome != carrier.Accepted { // it waits for a place
		t.Fatalf("the second: got %+v, want accepted", r)
	}
	eventually(t, "the first steps back", func() bool { return !first.Health().Ready })
	if r := hand(t, first, calls(t, 20, 1, audio)[0]); r.Outcome != carrier.Retryable {
		t.Errorf("the first, replaced: got %+v, want retryable", r)
	}
	if r := in.last(t, o.Key); r.Sub != schemas.CodeAnswered {
		t.Errorf("got %+v, want answered", r)
	}
	if peak := p.server.Stats().Peak; peak > cfg.MaxConcurrent {
		t.Errorf("%d calls lived at once, want at most %d", peak, cfg.MaxConcurrent)
	}
}
