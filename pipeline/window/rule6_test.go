package window_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
)

// Rule 6: nothing begins when no commit was accepted for the session timeout less the margin; items that were held back
// are released again. This test uses the monotonic clock: commits hang, as they do while a broker is unreachable.
func TestRule6TheGuardByTheMonotonicClock(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, e *env) {
		fill(t, e.Broker, e.in, 1, 20)
		f := &streamtest.Freezer{}
		held, hold := make(chan struct{}), make(chan struct{})
		var once sync.Once
		var deadline time.Time
		d, _ := e.sender(t, "a", func(cfg *window.Config, d *fakeSender) {
			cfg.Cluster.Options = []kgo.Opt{f.Around(e.Dial)}
			// The guard lasts half a second, the session longer
			cfg.SessionTimeout, cfg.GuardMargin = 3*time.Second, 2500*time.Millisecond
			stands := time.Now()
			cfg.Now = func() time.Time { return stands } // a wall clock that stands still
			d.judge = func(it *window.Item) string {
				once.Do(func() { deadline = it.Deadline(); close(held) })
				<-hold
				return ""
			}
		})
		<-held
		if left := time.Until(deadline); left > 500*time.Millisecond || left < 0 {
			t.Errorf("deadline in %s, want within half a second", left)
		}
		f.Freeze()
		time.Sleep(700 * time.Millisecond)
		close(hold)
		streamtest.Eventually(t, "Begin to refuse", func() bool { return d.count(&d.refused) > 0 })
		if got := e.handedOver(); got != 0 {
			t.Errorf("handed over after the guard's end: got %d, want 0", got)
		}
		f.Thaw()
		e.awaitOutcomes(t, 20, 20*time.Second)
		if got := e.check(t, 20); got != 0 || e.handedOver() != 20 {
			t.Errorf("got %d in doubt and %d handed over, want 0 and 20: no other member owned them", got, e.handedOver())
		}
		if got := e.Metric(t, "fanfare_window_guard_trips_total"); got == 0 {
			t.Error("guard trips: got 0")
		}
	})
}

// Rule 6: the guard counts from the start of a commit and not from its answer.
func TestRule6TheGuardCountsFromTheStartOfTheCommit(t *testing.T) {
	streamtest.FakeOnly(t)
	t.Parallel()
	const delay, lasts = 300 * time.Millisecond, 1500 * time.Millisecond
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, 1)
	e.Fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.Fake.SleepControl(func() { time.Sleep(delay) })
		return nil, nil, false
	})
	left := make(chan time.Duration, 1)
	e.sender(t, "a", func(_ *window.Config, d *fakeSender) {
		d.judge = func(it *window.Item) string {
			select {
			case left <- time.Until(it.Deadline()):
			default:
			}
			return ""
		}
	})
	if got := <-left; got > lasts-delay {
		t.Errorf("guard after a commit of %s: %s left, want at most %s", delay, got, lasts-delay)
	}
	e.awaitOutcomes(t, 1, 10*time.Second)
}

// Rule 6: the wall clock counts too, because the monotonic clock stands still while a machine is suspended.
func TestRule6TheGuardByTheWallClock(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, 20)
	var ahead atomic.Int64
	held, hold := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d, _ := e.sender(t, "a", func(cfg *window.Config, d *fakeSender) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		d.judge = func(*window.Item) string {
			once.Do(func() { close(held) })
			<-hold
			return ""
		}
	})
	<-held
	ahead.Store(int64(time.Hour))
	close(hold)
	streamtest.Eventually(t, "Begin to refuse", func() bool { return d.count(&d.refused) > 0 })
	e.awaitOutcomes(t, 20, 20*time.Second) // commits are accepted, so the guard holds again
	if got := e.check(t, 20); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
}

// Rule 6: a process that slept between the commit that declares and the release goes on, although nothing is in flight
// and the window is full, so that there is no other reason for a commit.
func TestRule6APauseBeforeTheRelease(t *testing.T) {
	t.Parallel()
	const n, size = 20, 5
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, n)
	var ahead atomic.Int64
	cfg, d, hold := e.config(), &fakeSender{env: e, name: "a"}, make(chan struct{})
	cfg.Size = func() int { return size }
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	streamtest.Run(t, e.window(t, cfg, window.ReleaserFunc(func(items []*window.Item) {
		d.Release(items)
		<-hold
	})).Run)
	streamtest.Eventually(t, "the next to be declared", func() bool {
		base, metadata := e.intent(t, 0)
		return base == size && metadata == fmt.Sprintf("fanfare1:%d", 2*size)
	})
	ahead.Store(int64(time.Hour))
	close(hold)
	e.awaitOutcomes(t, n, 20*time.Second)
	if got := e.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
}

// Rule 6: a process that was paused for longer than its session hands no record over when it wakes: other members own
// its partitions.
func TestRule6AZombieHandsNothingOver(t *testing.T) {
	t.Parallel()
	const n = 400
	e := newEnv(t, 2)
	fill(t, e.Broker, e.in, 2, n)
	f := &streamtest.Freezer{}
	asleep := make(chan struct{})
	var once sync.Once
	zombie, stop := e.sender(t, "zombie", func(cfg *window.Config, d *fakeSender) {
		cfg.Cluster.Options = []kgo.Opt{f.Option()}
		cfg.SessionTimeout, cfg.GuardMargin, cfg.DrainTimeout = time.Second, 300*time.Millisecond, time.Second
		d.judge = func(*window.Item) string {
			if e.handedOver() > 100 {
				once.Do(func() { f.Freeze(); close(asleep) })
			}
			f.Wait() // the process sleeps while it holds this item
			return ""
		}
	})
	<-asleep
	other, _ := e.sender(t, "other", nil)
	streamtest.Eventually(t, "the other to finish", func() bool { return e.handedOver() >= n-60 })
	before := other.count(&other.released)
	f.Thaw()
	e.awaitOutcomes(t, n, 30*time.Second)
	if doubtful := e.check(t, n); doubtful > 60 {
		t.Errorf("in doubt: got %d, want at most the window", doubtful)
	}
	if before == 0 || zombie.count(&zombie.refused) == 0 {
		t.Error("nothing was refused to the paused process, so the test shows nothing")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
