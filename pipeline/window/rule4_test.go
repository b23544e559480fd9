package window_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
)

// Rule 4: a commit that is refused for one partition, or whose answer is lost, stops that partition; then it continues
// with the same records. No record is lost, doubled or in doubt.
func TestRule4RefusedCommits(t *testing.T) {
	streamtest.FakeOnly(t)
	for _, err := range []*kerr.Error{kerr.RebalanceInProgress, kerr.RequestTimedOut, kerr.UnknownServerError} {
		t.Run(err.Message, func(t *testing.T) {
			t.Parallel()
			const n = 600
			e := newEnv(t, 2)
			fill(t, e.Broker, e.in, 2, n)
			e.sender(t, "a", func(_ *window.Config, d *fakeSender) { d.answer = jitter(20 * time.Millisecond) })
			for range 5 {
				at := e.handedOver()
				streamtest.Eventually(t, "work to go on", func() bool { return e.handedOver() > at+20 || e.handedOver() == n })
				e.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: e.in, Partitions: []int32{0}, Err: err, Count: 2})
			}
			e.awaitOutcomes(t, n, 30*time.Second)
			if got := e.check(t, n); got != 0 {
				t.Errorf("in doubt: got %d, want 0: no other member owned the partition", got)
			}
			if got := e.Metric(t, "fanfare_window_refused_commits_total"); got == 0 {
				t.Error("no commit was refused, so the test shows nothing")
			}
		})
	}
}

// Rule 4: while a partition is stopped none of its items begins; afterwards the items that were held back are released
// again.
func TestRule4AStoppedPartitionBeginsNothing(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, e *env) {
		fill(t, e.Broker, e.in, 1, 40)
		held, hold := make(chan struct{}), make(chan struct{})
		var once sync.Once
		d, _ := e.sender(t, "a", func(cfg *window.Config, d *fakeSender) {
			cfg.Size = func() int { return 10 }
			d.judge = func(it *window.Item) string {
				if it.Record.Offset >= 10 { // the test holds back the second batch
					once.Do(func() { close(held) })
					<-hold
				}
				return ""
			}
		})
		<-held
		before, refused := e.handedOver(), e.Metric(t, "fanfare_window_refused_commits_total")
		refuse := e.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RebalanceInProgress, Count: -1})
		streamtest.Eventually(t, "a refused commit", func() bool { return e.Metric(t, "fanfare_window_refused_commits_total") > refused })
		close(hold)
		streamtest.Eventually(t, "Begin to refuse", func() bool { return d.count(&d.refused) > 0 })
		time.Sleep(100 * time.Millisecond)
		if got := e.handedOver(); got != before {
			t.Errorf("handed over while stopped: got %d, want %d as before", got, before)
		}
		refuse.Remove()
		e.awaitOutcomes(t, 40, 20*time.Second)
		if got := e.check(t, 40); got != 0 || e.handedOver() != 40 {
			t.Errorf("got %d in doubt and %d handed over, want 0 and 40", got, e.handedOver())
		}
	})
}

// Rule 4: when this process did not write the committed offset, another member may have handed over the records that
// the commit declares. All of that is uncertain, except for what this process has settled itself.
func TestRule4WhatIsNotOursIsUncertain(t *testing.T) {
	streamtest.FakeOnly(t)
	t.Parallel()
	const n, slow, size = 100, 35, 10
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, n)
	forged := e.forgeCommit(t, slow, slow+size, slow+2*size) // the commit of another member replaces ours
	answer := make(chan struct{})
	streamtest.Run(t, e.window(t, func() window.Config { c := e.config(); c.Size = func() int { return size }; return c }(), window.ReleaserFunc(func(items []*window.Item) {
		for _, it := range items {
			switch {
			case it.Uncertain():
				it.Settle(e.outcome(it.Record, "ambiguous"))
			case !it.Begin():
			case it.Record.Offset == slow:
				e.handOver("a", it.Record)
				go func() { <-answer; it.Settle(e.outcome(it.Record, "sent")) }()
			case it.Record.Offset > slow && it.Record.Offset < slow+size: // declared together with it
				e.handOver("a", it.Record)
				go func() { <-forged; it.Settle(e.outcome(it.Record, "sent")) }()
			default:
				e.handOver("a", it.Record)
				it.Settle(e.outcome(it.Record, "sent"))
			}
		}
	})).Run)
	inFlight := fmt.Sprintf("%s/0/%d", e.in, slow)
	streamtest.Eventually(t, "the partition to be reset", func() bool { return len(e.outcomes(t)[inFlight]) > 0 })
	close(answer)
	e.awaitOutcomes(t, n, 30*time.Second)
	streamtest.Eventually(t, "the end", func() bool { base, _ := e.intent(t, 0); return base == n })
	e.check(t, n)
	for s, kinds := range e.outcomes(t) {
		offset, _ := strconv.Atoi(s[strings.LastIndexByte(s, '/')+1:])
		want := "[sent]"
		switch {
		case offset == slow:
			want = "[ambiguous sent]" // it was in flight
		case offset >= slow+size && offset < slow+2*size:
			want = "[ambiguous]" // declared by another member
		}
		slices.Sort(kinds)
		if got := fmt.Sprint(kinds); got != want {
			t.Errorf("%s: got %s, want %s", s, got, want)
		}
	}
}

// Rule 4: records that this process has in flight are uncertain, even if the broker has lost the commit that declared
// them and no outcome names them.
func TestRule4WhatWasBegunHereIsUncertain(t *testing.T) {
	streamtest.FakeOnly(t)
	t.Parallel()
	const n, slow, size = 60, 35, 10
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, n)
	e.forgeCommit(t, slow, slow+size, slow) // the broker loses the head of this commit
	answer := make(chan struct{})
	cfg := e.config()
	cfg.Size = func() int { return size }
	streamtest.Run(t, e.window(t, cfg, window.ReleaserFunc(func(items []*window.Item) {
		for _, it := range items {
			switch {
			case it.Uncertain():
				it.Settle(e.outcome(it.Record, "ambiguous"))
			case !it.Begin():
			case it.Record.Offset >= slow && it.Record.Offset < slow+size:
				e.handOver("a", it.Record)
				go func() { <-answer; it.Settle(e.outcome(it.Record, "sent")) }()
			default:
				e.handOver("a", it.Record)
				it.Settle(e.outcome(it.Record, "sent"))
			}
		}
	})).Run)
	streamtest.Eventually(t, "the partition to be reset", func() bool { return e.Metric(t, "fanfare_window_resets_total") > 0 })
	e.awaitOutcomes(t, n, 30*time.Second)
	close(answer)
	streamtest.Eventually(t, "the end", func() bool { base, _ := e.intent(t, 0); return base == n })
	e.check(t, n)
	if got := e.handedOver(); got != n {
		t.Errorf("handed over: got %d, want %d, each once", got, n)
	}
}

// Rule 4: a member whose session ended and that joined again under a new id owns nothing that it had before. It reads
// the committed offsets before it commits anything, because another member may have moved them.
func TestRule4AnotherMemberBeginsAnew(t *testing.T) {
	streamtest.FakeOnly(t)
	t.Parallel()
	const n = 400
	e := newEnv(t, 2)
	fill(t, e.Broker, e.in, 2, n)
	var (
		mu  sync.Mutex
		log []string
	)
	e.Fake.Control(func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		e.Fake.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		switch req := kreq.(type) {
		case *kmsg.SyncGroupRequest:
			log = append(log, "sync "+req.MemberID)
		case *kmsg.OffsetFetchRequest:
			log = append(log, "read")
		case *kmsg.OffsetCommitRequest:
			log = append(log, "commit "+req.MemberID)
		}
		return nil, nil, false
	})
	e.sender(t, "a", func(cfg *window.Config, d *fakeSender) {
		cfg.SessionTimeout, cfg.GuardMargin = time.Second, 300*time.Millisecond
		d.answer = jitter(10 * time.Millisecond)
	})
	streamtest.Eventually(t, "work to begin", func() bool { return e.handedOver() > 50 })
	e.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, TopLevel: true, Err: kerr.UnknownMemberID})
	e.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.UnknownMemberID})
	e.awaitOutcomes(t, n, 30*time.Second)
	if doubtful := e.check(t, n); doubtful > 60 {
		t.Errorf("in doubt: got %d, want at most the window", doubtful)
	}
	mu.Lock()
	defer mu.Unlock()
	members := map[string]bool{} // members that have read the committed offsets since they joined
	for _, entry := range log {
		what, member, _ := strings.Cut(entry, " ")
		switch what {
		case "sync":
			if _, known := members[member]; !known {
				members[member] = false
			}
		case "read":
			for m := range members {
				members[m] = true
			}
		case "commit":
			if read, known := members[member]; known && !read {
				t.Fatalf("member %s committed before it had read what is committed: %v", member, log)
			}
		}
	}
	if len(members) < 2 {
		t.Fatalf("members: got %d, want the one that was given up and another", len(members))
	}
}
