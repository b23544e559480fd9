package stream_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream"
)

// Rule 6: nothing is begun when no commit was accepted for the session's time less the margin; what was held back is
// released again. By the monotonic clock here: commits hang, as with a broker that is away.
func TestRule6TheGuardByTheMonotonicClock(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 20)
	f := &freezer{}
	held, hold := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var deadline time.Time
	d, _ := o.sender(t, "a", func(cfg *stream.WindowConfig, d *desk) {
		cfg.Cluster.Options = []kgo.Opt{f.option()}
		cfg.SessionTimeout, cfg.GuardMargin = 3*time.Second, 2500*time.Millisecond // the guard lasts half a second, the session longer
		stands := time.Now()
		cfg.Now = func() time.Time { return stands } // a wall clock that says nothing
		d.judge = func(it *stream.Item) string {
			once.Do(func() { deadline = it.Deadline(); close(held) })
			<-hold
			return ""
		}
	})
	<-held
	if left := time.Until(deadline); left > 500*time.Millisecond || left < 0 {
		t.Errorf("deadline in %s, want within half a second", left)
	}
	f.freeze()
	time.Sleep(700 * time.Millisecond)
	close(hold)
	eventually(t, 5*time.Second, "Begin to say no", func() bool { return d.count(&d.refused) > 0 })
	if got := o.handedOver(); got != 0 {
		t.Errorf("handed over after the guard's end: got %d, want 0", got)
	}
	f.thaw()
	o.awaitOutcomes(t, 20, 20*time.Second)
	if got := o.check(t, 20); got != 0 || o.handedOver() != 20 {
		t.Errorf("got %d in doubt and %d handed over, want 0 and 20: nobody else had them", got, o.handedOver())
	}
	if got := o.metric(t, "fanfare_window_guard_trips_total"); got == 0 {
		t.Error("guard trips: got 0")
	}
}

// Rule 6: the guard counts from the start of a commit and not from its answer.
func TestRule6TheGuardCountsFromTheStartOfTheCommit(t *testing.T) {
	fakeOnly(t)
	t.Parallel()
	const delay, lasts = 300 * time.Millisecond, 1500 * time.Millisecond
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 1)
	o.fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		o.fake.SleepControl(func() { time.Sleep(delay) })
		return nil, nil, false
	})
	left := make(chan time.Duration, 1)
	o.sender(t, "a", func(_ *stream.WindowConfig, d *desk) {
		d.judge = func(it *stream.Item) string {
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
	o.awaitOutcomes(t, 1, 10*time.Second)
}

// Rule 6: the wall clock counts too: the monotonic one stands still while a machine is suspended.
func TestRule6TheGuardByTheWallClock(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 20)
	var ahead atomic.Int64
	held, hold := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d, _ := o.sender(t, "a", func(cfg *stream.WindowConfig, d *desk) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		d.judge = func(*stream.Item) string {
			once.Do(func() { close(held) })
			<-hold
			return ""
		}
	})
	<-held
	ahead.Store(int64(time.Hour))
	close(hold)
	eventually(t, 5*time.Second, "Begin to say no", func() bool { return d.count(&d.refused) > 0 })
	o.awaitOutcomes(t, 20, 20*time.Second) // commits are accepted, so the guard holds again
	if got := o.check(t, 20); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
}

// Rule 6: a process that slept between the commit that declares and the release goes on. Nothing is in flight then and the
// window is full, so that there is no other reason for a commit.
func TestRule6APauseBeforeTheRelease(t *testing.T) {
	t.Parallel()
	const n, size = 20, 5
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, n)
	var ahead atomic.Int64
	cfg, d, hold := o.config(), &desk{o: o, name: "a"}, make(chan struct{})
	cfg.Size = func() int { return size }
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	run(t, o.window(t, cfg, stream.ReleaserFunc(func(items []*stream.Item) {
		d.Release(items)
		<-hold
	})).Run)
	eventually(t, 10*time.Second, "the next to be declared", func() bool {
		base, metadata := o.intent(t, 0)
		return base == size && metadata == fmt.Sprintf("fanfare1:%d", 2*size)
	})
	ahead.Store(int64(time.Hour))
	close(hold)
	o.awaitOutcomes(t, n, 20*time.Second)
	if got := o.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
}

// Rule 6: a sender that was paused past its session hands nothing over when it wakes; others have its partitions.
func TestRule6AZombieHandsNothingOver(t *testing.T) {
	t.Parallel()
	const n = 400
	o := newOffice(t, 2)
	o.fill(t, o.in, 2, n)
	f := &freezer{}
	asleep := make(chan struct{})
	var once sync.Once
	zombie, stop := o.sender(t, "zombie", func(cfg *stream.WindowConfig, d *desk) {
		cfg.Cluster.Options = []kgo.Opt{f.option()}
		cfg.SessionTimeout, cfg.GuardMargin, cfg.DrainTimeout = time.Second, 300*time.Millisecond, time.Second
		d.judge = func(*stream.Item) string {
			if o.handedOver() > 100 {
				once.Do(func() { f.freeze(); close(asleep) })
			}
			f.wait() // the process sleeps with what it has in hand
			return ""
		}
	})
	<-asleep
	other, _ := o.sender(t, "other", nil)
	eventually(t, 20*time.Second, "the other to finish", func() bool { return o.handedOver() >= n-60 })
	before := other.count(&other.released)
	f.thaw()
	o.awaitOutcomes(t, n, 30*time.Second)
	if doubtful := o.check(t, n); doubtful > 60 {
		t.Errorf("in doubt: got %d, want at most the window", doubtful)
	}
	if before == 0 || zombie.count(&zombie.refused) == 0 {
		t.Error("the zombie was not refused anything: the test tests nothing")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}
