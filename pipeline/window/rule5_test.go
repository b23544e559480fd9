package window_test

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

	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
)

// Rule 5: a stop waits for records in flight, so the next owner finds no uncertain record and hands no record over
// twice.
func TestRule5GracefulStopsLeaveNothingUncertain(t *testing.T) {
	t.Parallel()
	const n, stops = 1500, 6
	e := newEnv(t, 4)
	fill(t, e.Broker, e.in, 4, n)
	for range stops {
		before := e.handedOver()
		d, stop := e.sender(t, "a", func(_ *window.Config, d *fakeSender) {
			d.answer = jitter(100 * time.Millisecond)
			d.wait = jitter(50 * time.Millisecond) // so that records that are not begun lie between settled ones
		})
		streamtest.Eventually(t, "work to go on", func() bool { return e.handedOver() > before+n/(stops+2) || e.handedOver() == n })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := d.count(&d.uncertain); got != 0 {
			t.Errorf("uncertain after a graceful stop: got %d, want 0", got)
		}
	}
	e.sender(t, "last", nil)
	e.awaitOutcomes(t, n, 30*time.Second)
	if got := e.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
}

// Rule 5: partitions move under load to a member that joins, and back when it leaves; no record becomes uncertain.
func TestRule5RebalancesLeaveNothingUncertain(t *testing.T) {
	t.Parallel()
	const n = 3000
	e := newEnv(t, 6)
	fill(t, e.Broker, e.in, 6, n)
	slow := func(_ *window.Config, d *fakeSender) { d.answer = jitter(60 * time.Millisecond) }
	desks := []*fakeSender{}
	first, _ := e.sender(t, "a", slow)
	desks = append(desks, first)
	for i := range 3 {
		before := e.handedOver()
		streamtest.Eventually(t, "work to go on", func() bool { return e.handedOver() > before+n/8 || e.handedOver() == n })
		d, stop := e.sender(t, "b"+strconv.Itoa(i), slow)
		desks = append(desks, d)
		before = e.handedOver()
		streamtest.Eventually(t, "the new one to work", func() bool { return d.count(&d.released) > 0 && e.handedOver() > before+n/8 || e.handedOver() == n })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	e.awaitOutcomes(t, n, 30*time.Second)
	if got := e.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
	for _, d := range desks {
		if got := d.count(&d.uncertain); got != 0 {
			t.Errorf("uncertain for %s: got %d, want 0", d.name, got)
		}
	}
}

// Rule 5: exactly the records that are not answered when the drain ends are uncertain for the next owner.
func TestRule5WhatIsNotAnsweredInTimeIsHandedOverInDoubt(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, 40)
	_, stop := e.sender(t, "a", func(cfg *window.Config, d *fakeSender) {
		cfg.Size, cfg.DrainTimeout = func() int { return 10 }, 200*time.Millisecond
		d.answer = func() time.Duration {
			if e.handedOver() == 4 {
				return time.Hour
			}
			return 0
		}
	})
	streamtest.Eventually(t, "everything to be handed over behind the slow one", func() bool { return e.handedOver() == 40 })
	streamtest.Eventually(t, "base 3", func() bool { base, _ := e.intent(t, 0); return base == 3 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	base, metadata := e.intent(t, 0)
	if base != 3 || head(t, metadata) != 3 {
		t.Errorf("handed over: got %d and %q, want base and head 3", base, metadata)
	}
	d, _ := e.sender(t, "b", func(cfg *window.Config, _ *fakeSender) { cfg.Size = func() int { return 4 } })
	e.awaitOutcomes(t, 40, 20*time.Second)
	if got := e.check(t, 40); got != 1 || d.count(&d.uncertain) != 1 {
		t.Errorf("in doubt: got %d, uncertain for the next: %d; want the one", got, d.count(&d.uncertain))
	}
}

// Rule 5: records that an owner found settled above the base stay settled through its own crash, however small its
// window is.
func TestRule5MarksOutliveTheNextOwner(t *testing.T) {
	t.Parallel()
	const n = 30
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, n)
	hold := make(chan struct{})
	waits := func(it *window.Item) string { // the first record waits for tokens, for ever
		if it.Record.Offset == 0 {
			<-hold
		}
		return ""
	}
	_, stop := e.sender(t, "a", func(cfg *window.Config, d *fakeSender) {
		cfg.Size, cfg.DrainTimeout = func() int { return 20 }, 100*time.Millisecond
		d.judge, d.wait = waits, func() time.Duration { return 0 }
	})
	e.awaitOutcomes(t, 19, 10*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if base, metadata := e.intent(t, 0); base != 0 || head(t, metadata) != 0 {
		t.Fatalf("handed over: got %d and %q, want base and head 0", base, metadata)
	}
	k := &streamtest.Killer{}
	second, stopSecond := e.sender(t, "b", func(cfg *window.Config, d *fakeSender) {
		cfg.Cluster.Options = []kgo.Opt{k.Option()}
		cfg.SessionTimeout, cfg.GuardMargin, cfg.DrainTimeout = time.Second, 300*time.Millisecond, 100*time.Millisecond
		cfg.Size = func() int { return 1 }
		d.judge = waits
	})
	streamtest.Eventually(t, "the second to declare the first record", func() bool { return second.count(&second.released) == 1 })
	k.Kill()
	_ = stopSecond()
	e.sender(t, "c", nil)
	e.awaitOutcomes(t, n, 20*time.Second)
	close(hold)
	if got := e.check(t, n); got != 1 {
		t.Errorf("in doubt: got %d, want the one that the second had declared", got)
	}
	if got := e.Metric(t, "fanfare_window_lost_commits_total"); got != 0 {
		t.Errorf("commits counted as lost: got %g, want 0", got)
	}
}

// Rule 5: lost partitions are dropped without a commit, because a commit could undo what the next owner has declared.
// The outcomes of records in flight are still written.
func TestRule5LostPartitionsAreNotCommitted(t *testing.T) {
	streamtest.FakeOnly(t)
	t.Parallel()
	const n = 40
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, n)
	answers := make(chan struct{})
	streamtest.Run(t, e.window(t, e.config(), window.ReleaserFunc(func(items []*window.Item) {
		for _, it := range items {
			if it.Uncertain() {
				it.Settle(e.outcome(it.Record, "ambiguous"))
			} else if it.Begin() {
				e.handOver("a", it.Record)
				go func() {
					<-answers
					it.Settle(e.outcome(it.Record, "sent"))
				}()
			}
		}
	})).Run)
	streamtest.Eventually(t, "all in flight", func() bool { return e.handedOver() == n })
	var (
		mu  sync.Mutex
		log []string
	)
	e.Fake.Control(func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		e.Fake.KeepControl()
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
	lost := e.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Err: kerr.UnknownMemberID, TopLevel: true})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := lost.Wait(ctx, 1); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // wait until the client has processed it
	mu.Lock()
	log = nil
	mu.Unlock()
	close(answers)
	e.awaitOutcomes(t, n, 10*time.Second)
	streamtest.Eventually(t, "it to join again", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Contains(log, "join") })
	mu.Lock()
	if log[0] != "join" {
		t.Errorf("between the loss and the next assignment: got %v, want no commit", log)
	}
	mu.Unlock()
	// The member comes back and finds all these records uncertain; their outcomes outrank the doubt.
	streamtest.Eventually(t, "the doubt to be reported", func() bool {
		base, _ := e.intent(t, 0)
		return base == n
	})
	if got := e.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0: all were answered", got)
	}
}
