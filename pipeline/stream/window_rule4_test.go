package stream_test

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

	"fanfare/pipeline/stream"
)

// Rule 4: a commit that is refused for one partition, or about which nobody knows, stops that partition; then the same
// records go on. Nothing is lost, doubled or in doubt.
func TestRule4RefusedCommits(t *testing.T) {
	fakeOnly(t)
	for _, err := range []*kerr.Error{kerr.RebalanceInProgress, kerr.RequestTimedOut, kerr.UnknownServerError} {
		t.Run(err.Message, func(t *testing.T) {
			t.Parallel()
			const n = 600
			o := newOffice(t, 2)
			o.fill(t, o.in, 2, n)
			o.sender(t, "a", func(_ *stream.WindowConfig, d *desk) { d.answer = jitter(20 * time.Millisecond) })
			for range 5 {
				at := o.handedOver()
				eventually(t, 10*time.Second, "work to go on", func() bool { return o.handedOver() > at+20 || o.handedOver() == n })
				o.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: o.in, Partitions: []int32{0}, Err: err, Count: 2})
			}
			o.awaitOutcomes(t, n, 30*time.Second)
			if got := o.check(t, n); got != 0 {
				t.Errorf("in doubt: got %d, want 0: they were ours all the time", got)
			}
			if got := o.metric(t, "fanfare_window_refused_commits_total"); got == 0 {
				t.Error("no commit was refused: the test tests nothing")
			}
		})
	}
}

// Rule 4: while a partition is stopped nothing of it is begun, and afterwards what was held back is released again.
func TestRule4AStoppedPartitionBeginsNothing(t *testing.T) {
	fakeOnly(t)
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 40)
	held, hold := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d, _ := o.sender(t, "a", func(cfg *stream.WindowConfig, d *desk) {
		cfg.Size = func() int { return 10 }
		d.judge = func(it *stream.Item) string {
			if it.Record.Offset >= 10 { // the second helping is held back
				once.Do(func() { close(held) })
				<-hold
			}
			return ""
		}
	})
	<-held
	before, refused := o.handedOver(), o.metric(t, "fanfare_window_refused_commits_total")
	refuse := o.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RebalanceInProgress, Count: -1})
	eventually(t, 10*time.Second, "a refused commit", func() bool { return o.metric(t, "fanfare_window_refused_commits_total") > refused })
	close(hold)
	eventually(t, 10*time.Second, "Begin to say no", func() bool { return d.count(&d.refused) > 0 })
	time.Sleep(100 * time.Millisecond)
	if got := o.handedOver(); got != before {
		t.Errorf("handed over while stopped: got %d, want %d as before", got, before)
	}
	refuse.Remove()
	o.awaitOutcomes(t, 40, 20*time.Second)
	if got := o.check(t, 40); got != 0 || o.handedOver() != 40 {
		t.Errorf("got %d in doubt and %d handed over, want 0 and 40", got, o.handedOver())
	}
}

// Rule 4: when what is committed is not ours, somebody else may have handed over what it declares: that is uncertain, but
// for what we have settled ourselves.
func TestRule4WhatIsNotOursIsUncertain(t *testing.T) {
	fakeOnly(t)
	t.Parallel()
	const n, slow, size = 100, 35, 10
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, n)
	o.forgeCommit(t, slow, slow+size, slow+2*size) // somebody else's takes the place of ours
	answer := make(chan struct{})
	run(t, o.window(t, func() stream.WindowConfig { c := o.config(); c.Size = func() int { return size }; return c }(), stream.ReleaserFunc(func(items []*stream.Item) {
		for _, it := range items {
			switch {
			case it.Uncertain:
				it.Settle(o.outcome(it.Record, "ambiguous"))
			case !it.Begin():
			case it.Record.Offset == slow:
				o.handOver("a", it.Record)
				go func() { <-answer; it.Settle(o.outcome(it.Record, "sent")) }()
			default:
				o.handOver("a", it.Record)
				it.Settle(o.outcome(it.Record, "sent"))
			}
		}
	})).Run)
	inFlight := fmt.Sprintf("%s/0/%d", o.in, slow)
	eventually(t, 20*time.Second, "the partition to begin anew", func() bool { return len(o.outcomes(t)[inFlight]) > 0 })
	close(answer)
	o.awaitOutcomes(t, n, 30*time.Second)
	eventually(t, 10*time.Second, "the end", func() bool { base, _ := o.intent(t, 0); return base == n })
	o.check(t, n)
	for s, kinds := range o.outcomes(t) {
		offset, _ := strconv.Atoi(s[strings.LastIndexByte(s, '/')+1:])
		want := "[sent]"
		switch {
		case offset == slow:
			want = "[ambiguous sent]" // it was in flight
		case offset >= slow+size && offset < slow+2*size:
			want = "[ambiguous]" // declared by somebody else
		}
		slices.Sort(kinds)
		if got := fmt.Sprint(kinds); got != want {
			t.Errorf("%s: got %s, want %s", s, got, want)
		}
	}
}

// Rule 4: what is in flight here is uncertain, also when the broker has lost the commit that declared it and no outcome tells.
func TestRule4WhatWasBegunHereIsUncertain(t *testing.T) {
	fakeOnly(t)
	t.Parallel()
	const n, slow, size = 60, 35, 10
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, n)
	o.forgeCommit(t, slow, slow+size, slow) // what it declares is lost
	answer := make(chan struct{})
	cfg := o.config()
	cfg.Size = func() int { return size }
	run(t, o.window(t, cfg, stream.ReleaserFunc(func(items []*stream.Item) {
		for _, it := range items {
			switch {
			case it.Uncertain:
				it.Settle(o.outcome(it.Record, "ambiguous"))
			case !it.Begin():
			case it.Record.Offset >= slow && it.Record.Offset < slow+size:
				o.handOver("a", it.Record)
				go func() { <-answer; it.Settle(o.outcome(it.Record, "sent")) }()
			default:
				o.handOver("a", it.Record)
				it.Settle(o.outcome(it.Record, "sent"))
			}
		}
	})).Run)
	eventually(t, 20*time.Second, "the partition to begin anew", func() bool { return o.metric(t, "fanfare_window_resets_total") > 0 })
	o.awaitOutcomes(t, n, 30*time.Second)
	close(answer)
	eventually(t, 10*time.Second, "the end", func() bool { base, _ := o.intent(t, 0); return base == n })
	o.check(t, n)
	if got := o.handedOver(); got != n {
		t.Errorf("handed over: got %d, want %d, each once", got, n)
	}
}

// Rule 4: a member that the group gave up and took in again under another name owns nothing of what it had before. It reads
// what is committed before it commits anything: in between somebody else may have come further.
func TestRule4AnotherMemberBeginsAnew(t *testing.T) {
	fakeOnly(t)
	t.Parallel()
	const n = 400
	o := newOffice(t, 2)
	o.fill(t, o.in, 2, n)
	var (
		mu  sync.Mutex
		log []string
	)
	o.fake.Control(func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		o.fake.KeepControl()
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
	o.sender(t, "a", func(cfg *stream.WindowConfig, d *desk) {
		cfg.SessionTimeout, cfg.GuardMargin = time.Second, 300*time.Millisecond
		d.answer = jitter(10 * time.Millisecond)
	})
	eventually(t, 10*time.Second, "work to begin", func() bool { return o.handedOver() > 50 })
	o.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.JoinGroup}, TopLevel: true, Err: kerr.UnknownMemberID})
	o.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.UnknownMemberID})
	o.awaitOutcomes(t, n, 30*time.Second)
	if doubtful := o.check(t, n); doubtful > 60 {
		t.Errorf("in doubt: got %d, want at most the window", doubtful)
	}
	mu.Lock()
	defer mu.Unlock()
	members := map[string]bool{} // that have read what is committed since they were taken in
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
