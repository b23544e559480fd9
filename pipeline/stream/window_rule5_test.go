package stream_test

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream"
)

// Rule 5: a stop waits for what is in flight, and the next owner finds nothing uncertain and does nothing twice.
func TestRule5GracefulStopsLeaveNothingUncertain(t *testing.T) {
	t.Parallel()
	const n, stops = 1500, 6
	o := newOffice(t, 4)
	o.fill(t, o.in, 4, n)
	for range stops {
		before := o.handedOver()
		d, stop := o.sender(t, "a", func(_ *stream.WindowConfig, d *desk) {
			d.answer = jitter(100 * time.Millisecond)
			d.wait = jitter(50 * time.Millisecond) // so that what is not begun lies between what is settled
		})
		eventually(t, 20*time.Second, "work to go on", func() bool { return o.handedOver() > before+n/(stops+2) || o.handedOver() == n })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := d.count(&d.uncertain); got != 0 {
			t.Errorf("uncertain after a graceful stop: got %d, want 0", got)
		}
	}
	o.sender(t, "last", nil)
	o.awaitOutcomes(t, n, 30*time.Second)
	if got := o.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
}

// Rule 5: partitions move under load, to one that joins and back when it leaves, and nothing is uncertain.
func TestRule5RebalancesLeaveNothingUncertain(t *testing.T) {
	t.Parallel()
	const n = 3000
	o := newOffice(t, 6)
	o.fill(t, o.in, 6, n)
	slow := func(_ *stream.WindowConfig, d *desk) { d.answer = jitter(60 * time.Millisecond) }
	desks := []*desk{}
	first, _ := o.sender(t, "a", slow)
	desks = append(desks, first)
	for i := range 3 {
		before := o.handedOver()
		eventually(t, 20*time.Second, "work to go on", func() bool { return o.handedOver() > before+n/8 || o.handedOver() == n })
		d, stop := o.sender(t, "b"+strconv.Itoa(i), slow)
		desks = append(desks, d)
		before = o.handedOver()
		eventually(t, 20*time.Second, "the new one to work", func() bool { return d.count(&d.released) > 0 && o.handedOver() > before+n/8 || o.handedOver() == n })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	o.awaitOutcomes(t, n, 30*time.Second)
	if got := o.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
	for _, d := range desks {
		if got := d.count(&d.uncertain); got != 0 {
			t.Errorf("uncertain for %s: got %d, want 0", d.name, got)
		}
	}
}

// Rule 5: what is not answered when the wait is over is uncertain for the next owner, that and nothing else.
func TestRule5WhatIsNotAnsweredInTimeIsHandedOverInDoubt(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 40)
	_, stop := o.sender(t, "a", func(cfg *stream.WindowConfig, d *desk) {
		cfg.Size, cfg.DrainTimeout = func() int { return 10 }, 200*time.Millisecond
		d.answer = func() time.Duration {
			if o.handedOver() == 4 {
				return time.Hour
			}
			return 0
		}
	})
	eventually(t, 10*time.Second, "the window to fill behind the slow one", func() bool { return o.handedOver() == 13 })
	eventually(t, 10*time.Second, "base 3", func() bool { base, _ := o.intent(t, 0); return base == 3 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	base, metadata := o.intent(t, 0)
	if base != 3 || head(t, metadata) != 3 {
		t.Errorf("handed over: got %d and %q, want base and head 3", base, metadata)
	}
	d, _ := o.sender(t, "b", func(cfg *stream.WindowConfig, _ *desk) { cfg.Size = func() int { return 4 } })
	o.awaitOutcomes(t, 40, 20*time.Second)
	if got := o.check(t, 40); got != 1 || d.count(&d.uncertain) != 1 {
		t.Errorf("in doubt: got %d, uncertain for the next: %d; want the one", got, d.count(&d.uncertain))
	}
}

// Rule 5: what an owner found settled above the base stays so through its own crash, however small its window.
func TestRule5MarksOutliveTheNextOwner(t *testing.T) {
	t.Parallel()
	const n = 30
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, n)
	hold := make(chan struct{})
	waits := func(it *stream.Item) string { // the first record waits for tokens, for ever
		if it.Record.Offset == 0 {
			<-hold
		}
		return ""
	}
	_, stop := o.sender(t, "a", func(cfg *stream.WindowConfig, d *desk) {
		cfg.Size, cfg.DrainTimeout = func() int { return 20 }, 100*time.Millisecond
		d.judge, d.wait = waits, func() time.Duration { return 0 }
	})
	o.awaitOutcomes(t, 19, 10*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if base, metadata := o.intent(t, 0); base != 0 || head(t, metadata) != 0 {
		t.Fatalf("handed over: got %d and %q, want base and head 0", base, metadata)
	}
	k := &killer{}
	second, stopSecond := o.sender(t, "b", func(cfg *stream.WindowConfig, d *desk) {
		cfg.Cluster.Options = []kgo.Opt{k.option()}
		cfg.SessionTimeout, cfg.GuardMargin, cfg.DrainTimeout = time.Second, 300*time.Millisecond, 100*time.Millisecond
		cfg.Size = func() int { return 1 }
		d.judge = waits
	})
	eventually(t, 10*time.Second, "the second to declare the first record", func() bool { return second.count(&second.released) == 1 })
	k.kill()
	_ = stopSecond()
	o.sender(t, "c", nil)
	o.awaitOutcomes(t, n, 20*time.Second)
	close(hold)
	if got := o.check(t, n); got != 1 {
		t.Errorf("in doubt: got %d, want the one that the second had declared", got)
	}
	if got := o.metric(t, "fanfare_window_lost_commits_total"); got != 0 {
		t.Errorf("commits taken for lost: got %g, want 0", got)
	}
}

// Rule 5: partitions that are lost are let go of without a commit: it could take back what the next owner has declared. The
// outcome of what was in flight is written all the same.
func TestRule5LostPartitionsAreNotCommitted(t *testing.T) {
	fakeOnly(t)
	t.Parallel()
	const n = 40
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, n)
	answers := make(chan struct{})
	run(t, o.window(t, o.config(), stream.ReleaserFunc(func(items []*stream.Item) {
		for _, it := range items {
			if it.Uncertain {
				it.Settle(o.outcome(it.Record, "ambiguous"))
			} else if it.Begin() {
				o.handOver("a", it.Record)
				go func() {
					<-answers
					it.Settle(o.outcome(it.Record, "sent"))
				}()
			}
		}
	})).Run)
	eventually(t, 10*time.Second, "all in flight", func() bool { return o.handedOver() == n })
	var (
		mu  sync.Mutex
		log []string
	)
	o.fake.Control(func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		o.fake.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		switch kreq.(type) {
		case *kmsg.JoinGroupRequest:
			log = append(log, "join")
		case *kmsg.OffsetCommitRequest:
			log = append(log, "commit")
		}
		return nil, nil, false
	})
	lost := o.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, TopLevel: true})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := lost.Wait(ctx, 1); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // the client takes it in
	mu.Lock()
	log = nil
	mu.Unlock()
	close(answers)
	o.awaitOutcomes(t, n, 10*time.Second)
	eventually(t, 10*time.Second, "it to join again", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(log, "join") })
	mu.Lock()
	if log[0] != "join" {
		t.Errorf("between the loss and the next assignment: got %v, want no commit", log)
	}
	mu.Unlock()
	// It comes back, finds all of it uncertain, and the outcomes outrank the doubt.
	eventually(t, 20*time.Second, "the doubt to be reported", func() bool {
		base, _ := o.intent(t, 0)
		return base == n
	})
	if got := o.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0: all were answered", got)
	}
}
