package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// head reads the head out of a commit's metadata.
func head(t testing.TB, metadata string) int64 {
	t.Helper()
	if metadata == "" {
		return 0
	}
	rest, ours := strings.CutPrefix(metadata, "fanfare1:")
	digits, _, _ := strings.Cut(rest, ":")
	h, err := strconv.ParseInt(digits, 10, 64)
	if !ours || err != nil {
		t.Errorf("metadata %q is not ours", metadata)
	}
	return h
}

// commitBy hand what a window would find; the group has no members.
func (o *office) commitByHand(t testing.TB, partition int32, at int64, metadata string) {
	t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: o.in, Partition: partition, At: at, LeaderEpoch: -1, Metadata: metadata})
	eventually(t, 20*time.Second, "the group to be empty", func() bool { return o.adm.CommitAllOffsets(t.Context(), o.group, offsets) == nil })
}

// message makes one message of a submission.
func (o *office) message(t testing.TB, partition int32, seq uint32) *kgo.Record {
	t.Helper()
	return &kgo.Record{Topic: o.in, Partition: partition, Value: []byte("m"), Headers: []kgo.RecordHeader{
		{Key: schemas.HeaderSubmission, Value: testKeys(t).Submission(1, seq, 1).AppendTo(nil)},
	}}
}

// Rule 1: nothing is done to a record before an acknowledged commit covers it, and no more than the window's size lies
// between base and head, over all partitions, also when there are more of them than that.
func TestRule1NothingBeforeACommitCoversIt(t *testing.T) {
	for _, size := range []int{2, 10, 60} {
		t.Run(fmt.Sprintf("size %d", size), func(t *testing.T) {
			t.Parallel()
			const n = 300
			o := newOffice(t, 6)
			o.fill(t, o.in, 6, n)
			d := &desk{o: o, name: "a"}
			var most atomic.Int64
			cfg := o.config()
			cfg.Size = func() int { return size }
			run(t, o.window(t, cfg, stream.ReleaserFunc(func(items []*stream.Item) {
				// The releaser is allowed to be slow here: what is committed must be seen at the time of the release.
				have := committed(t, o.broker, o.group, o.in)
				open := int64(0)
				for _, c := range have {
					open += max(0, head(t, c.Metadata)-c.At)
				}
				most.Store(max(most.Load(), open))
				for _, it := range items {
					c := have[it.Record.Partition]
					if h := head(t, c.Metadata); it.Record.Offset >= h {
						t.Errorf("released %s; committed is only [%d, %d)", source(it.Record), c.At, h)
					}
				}
				d.Release(items)
			})).Run)
			o.awaitOutcomes(t, n, 30*time.Second)
			o.check(t, n)
			if got := most.Load(); got > int64(size) || got == 0 {
				t.Errorf("declared at once: got %d, want 1 to %d", got, size)
			}
		})
	}
}

// Rule 1: what is polled below a head that is acknowledged already waits for no other commit; it would wait for ever.
func TestRule1AnInheritedHeadNeedsNoCommit(t *testing.T) {
	fakeOnly(t)
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 10)
	o.commitByHand(t, 0, 0, "fanfare1:5")
	refuse := o.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RebalanceInProgress, Count: -1})
	d, _ := o.sender(t, "a", nil)
	o.awaitOutcomes(t, 5, 10*time.Second)
	time.Sleep(200 * time.Millisecond)
	if got, want := d.count(&d.released), 5; got != want {
		t.Errorf("released without a commit: got %d, want %d", got, want)
	}
	refuse.Remove()
	o.awaitOutcomes(t, 10, 20*time.Second)
	if got := o.check(t, 10); got != 5 {
		t.Errorf("in doubt: got %d, want the 5 that were declared", got)
	}
}

// Rule 1: the head never falls. A commit made before everything below it is polled says it again, or a crash then would have
// the rest handed over.
func TestRule1TheHeadNeverFalls(t *testing.T) {
	fakeOnly(t)
	t.Parallel()
	const n = 3000 // more than one fetch
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, n)
	o.commitByHand(t, 0, 0, fmt.Sprintf("fanfare1:%d", n-10))
	var between atomic.Int32
	o.fake.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		o.fake.KeepControl()
		p := kreq.(*kmsg.OffsetCommitRequest).Topics[0].Partitions[0]
		if got := head(t, *p.Metadata); got < n-10 {
			t.Errorf("commit of %d: got head %d, want at least %d", p.Offset, got, n-10)
		}
		if p.Offset < n-10 {
			between.Add(1)
		}
		return nil, nil, false
	})
	// Fetches are slow, so that commits lie between them.
	o.fake.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		o.fake.KeepControl()
		o.fake.SleepControl(func() { time.Sleep(100 * time.Millisecond) })
		return nil, nil, false
	})
	o.sender(t, "a", nil)
	eventually(t, 20*time.Second, "the end", func() bool { base, _ := o.intent(t, 0); return base == n })
	if between.Load() == 0 {
		t.Error("no commit was made between: the test tests nothing")
	}
}

// Rule 1: an empty intent and a client's own member id mean that nothing is declared.
func TestRule1OtherMetadataThatMeansNothing(t *testing.T) {
	t.Parallel()
	for _, metadata := range []string{"", "rdkafka-0c1d6f4e-9f1b-4f6e-8a2b-0123456789ab", "x-0123456789abcdef0123456789abcdef"} {
		t.Run(metadata, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, 1)
			o.fill(t, o.in, 1, 10)
			o.commitByHand(t, 0, 4, metadata)
			o.sender(t, "a", nil)
			o.awaitOutcomes(t, 6, 20*time.Second)
			if got := o.check(t, 6); got != 0 || o.handedOver() != 6 {
				t.Errorf("got %d in doubt and %d handed over, want 0 and 6", got, o.handedOver())
			}
		})
	}
}

// Rule 2 and 3.4: what is uncertain is reported before any other check and never handed over, seen before or not.
func TestRule2UncertainIsReportedOnly(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	for _, seq := range []uint32{0, 1, 1, 2, 3, 4, 5} { // the third is a twin of the second
		o.write(t, o.message(t, 0, seq))
	}
	o.commitByHand(t, 0, 0, "fanfare1:4")
	d, _ := o.sender(t, "a", nil)
	o.awaitOutcomes(t, 7, 20*time.Second)
	if got := o.check(t, 6); got != 3 {
		t.Errorf("in doubt: got %d, want 3", got)
	}
	if got := o.handedOver(); got != 3 || d.count(&d.uncertain) != 4 {
		t.Errorf("got %d handed over and %d uncertain, want 3 and 4", got, d.count(&d.uncertain))
	}
}

// Rule 2: Begin is false for what is uncertain, whoever asks, while others may be begun.
func TestRule2UncertainCannotBegin(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 5)
	o.commitByHand(t, 0, 0, "fanfare1:3")
	var uncertain []*stream.Item
	begun, asked := 0, false
	run(t, o.window(t, o.config(), stream.ReleaserFunc(func(items []*stream.Item) {
		for _, it := range items {
			switch {
			case it.Uncertain && !asked:
				uncertain = append(uncertain, it)
			case it.Uncertain:
				it.Settle(o.outcome(it.Record, "ambiguous")) // forgotten, and released again
			case it.Begin():
				it.Settle(o.outcome(it.Record, "sent"))
			}
		}
		if len(uncertain) == 3 && !items[len(items)-1].Uncertain && !asked {
			asked = true
			for _, it := range uncertain {
				if it.Begin() {
					begun++
				}
			}
		}
	})).Run)
	o.awaitOutcomes(t, 5, 20*time.Second)
	if begun != 0 {
		t.Errorf("uncertain ones begun: got %d, want 0", begun)
	}
}

// Rule 3: the base does not pass an outcome that Kafka has not acknowledged.
func TestRule3TheBaseWaitsForTheAcknowledgement(t *testing.T) {
	fakeOnly(t)
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 20)
	refuse := o.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: o.out, Err: kerr.NotLeaderForPartition, Count: -1})
	o.sender(t, "a", nil)
	eventually(t, 20*time.Second, "all handed over", func() bool { return o.handedOver() == 20 })
	time.Sleep(300 * time.Millisecond)
	if base, metadata := o.intent(t, 0); base != 0 || head(t, metadata) != 20 {
		t.Errorf("while outcomes are not acknowledged: got base %d and %q, want 0 and a head of 20", base, metadata)
	}
	refuse.Remove()
	eventually(t, 20*time.Second, "the base to follow", func() bool { base, _ := o.intent(t, 0); return base == 20 })
	o.check(t, 20)
}

// Rule 3: one slow answer holds the base, not the others; outcomes say what they are about; a late one is written too.
func TestRule3TheBaseIsTheOldestWithoutAnOutcome(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 20)
	var slow *stream.Item
	given := make(chan struct{})
	run(t, o.window(t, o.config(), stream.ReleaserFunc(func(items []*stream.Item) {
		for _, it := range items {
			if !it.Begin() {
				continue
			}
			o.handOver("a", it.Record)
			if it.Record.Offset == 7 {
				slow = it
				close(given)
				continue
			}
			it.Settle(o.outcome(it.Record, "sent"))
		}
	})).Run)
	<-given
	o.awaitOutcomes(t, 19, 20*time.Second)
	eventually(t, 10*time.Second, "base 7", func() bool { base, _ := o.intent(t, 0); return base == 7 })
	slow.Settle(o.outcome(slow.Record, "ambiguous"))
	slow.Late(o.outcome(slow.Record, "sent"))
	eventually(t, 10*time.Second, "base 20", func() bool { base, _ := o.intent(t, 0); return base == 20 })
	o.awaitOutcomes(t, 20, 10*time.Second)
	if got := o.outcomes(t)[o.in+"/0/7"]; len(got) != 2 {
		t.Errorf("outcomes of the slow one: got %v, want ambiguous and sent", got)
	}
}

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
	var step atomic.Int32
	o.fake.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		o.fake.KeepControl()
		req := kreq.(*kmsg.OffsetCommitRequest)
		p := &req.Topics[0].Partitions[0]
		switch {
		case step.Load() == 0 && p.Offset == slow && head(t, *p.Metadata) == slow+size: // somebody else's commit takes the place of ours
			step.Store(1)
			p.Metadata = new(fmt.Sprintf("fanfare1:%d", slow+2*size))
		case step.Load() == 1: // and the next is refused
			step.Store(2)
			resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
			rt := kmsg.NewOffsetCommitResponseTopic()
			rt.Topic, rt.TopicID = req.Topics[0].Topic, req.Topics[0].TopicID
			rt.Partitions = append(rt.Partitions, kmsg.OffsetCommitResponseTopicPartition{ErrorCode: kerr.RebalanceInProgress.Code})
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		}
		return nil, nil, false
	})
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
	var step atomic.Int32
	o.fake.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		o.fake.KeepControl()
		req := kreq.(*kmsg.OffsetCommitRequest)
		p := &req.Topics[0].Partitions[0]
		switch {
		case step.Load() == 0 && p.Offset == slow && head(t, *p.Metadata) == slow+size: // what it declares is lost
			step.Store(1)
			p.Metadata = new(fmt.Sprintf("fanfare1:%d", slow))
		case step.Load() == 1: // and the next is refused
			step.Store(2)
			resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
			rt := kmsg.NewOffsetCommitResponseTopic()
			rt.Topic, rt.TopicID = req.Topics[0].Topic, req.Topics[0].TopicID
			rt.Partitions = append(rt.Partitions, kmsg.OffsetCommitResponseTopicPartition{ErrorCode: kerr.RebalanceInProgress.Code})
			resp.Topics = append(resp.Topics, rt)
			return resp, nil, true
		}
		return nil, nil, false
	})
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

// Rule 7: a submission that comes again is dropped, in the same window, after a take-over, and after it was uncertain.
func TestRule7WhatWasSeenIsDropped(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	again := func(from, to uint32) {
		for seq := from; seq < to; seq++ {
			o.write(t, o.message(t, 0, seq))
		}
	}
	again(0, 20)
	o.commitByHand(t, 0, 5, "fanfare1:10")
	again(10, 20) // twins of what is in the log above the committed offset
	_, stop := o.sender(t, "a", nil)
	o.awaitOutcomes(t, 15, 20*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	again(0, 20) // twins of what lies below the committed offset, of what was uncertain, of what was handed over
	again(20, 30)
	d, _ := o.sender(t, "b", nil)
	o.awaitOutcomes(t, 25, 20*time.Second)
	time.Sleep(200 * time.Millisecond)
	if got := o.check(t, 25); got != 5 {
		t.Errorf("in doubt: got %d, want 5", got)
	}
	if got := o.handedOver(); got != 20 {
		t.Errorf("handed over: got %d, want 10 at first and 10 later", got)
	}
	if got := o.metric(t, "fanfare_window_seen_drops_total"); got != 30 {
		t.Errorf("dropped: got %g, want 30", got)
	}
	if got := d.count(&d.released); got != 10 {
		t.Errorf("released to the second: got %d, want 10", got)
	}
}

// Rule 7: a submission of a transaction that was aborted was not seen: the one that follows is it.
func TestRule7AbortedRecordsWereNotSeen(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	cl, err := o.Named("writer").Client(kgo.TransactionalID(o.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, tx := range []struct {
		from, to uint32
		how      kgo.TransactionEndTry
	}{{0, 10, kgo.TryAbort}, {0, 5, kgo.TryCommit}, {10, 15, kgo.TryAbort}} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for seq := tx.from; seq < tx.to; seq++ {
			if err := cl.ProduceSync(t.Context(), o.message(t, 0, seq)).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := cl.EndTransaction(t.Context(), tx.how); err != nil {
			t.Fatal(err)
		}
	}
	_, stop := o.sender(t, "a", nil)
	o.awaitOutcomes(t, 5, 20*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint32{3, 5, 6, 7, 8, 9, 11} { // the first is a twin
		o.write(t, o.message(t, 0, seq))
	}
	o.sender(t, "b", nil)
	o.awaitOutcomes(t, 11, 20*time.Second)
	time.Sleep(100 * time.Millisecond)
	o.check(t, 11)
	if got := o.handedOver(); got != 11 {
		t.Errorf("handed over: got %d, want 11", got)
	}
}

// suspensions collects what a window is told.
type suspensions struct {
	mu  sync.Mutex
	all []*stream.SuspendedError
}

func (s *suspensions) add(e *stream.SuspendedError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, e)
}

func (s *suspensions) first() *stream.SuspendedError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return nil
	}
	return s.all[0]
}

// Rule 8: a place to begin that is missing, not in the log, or written by somebody else suspends the partition with a named
// reason, and the others go on. Nothing is sent from a beginning that was guessed.
func TestRule8NoGuessing(t *testing.T) {
	tests := []struct {
		name   string
		reason stream.Reason
		spoil  func(t *testing.T, o *office)
	}{
		{"above the log", stream.ReasonOutOfRange, func(t *testing.T, o *office) { o.commitByHand(t, 0, 500, "") }},
		{"below the log", stream.ReasonOutOfRange, func(t *testing.T, o *office) {
			cut := kadm.Offsets{}
			cut.AddOffset(o.in, 0, 5, -1)
			if _, err := o.adm.DeleteRecords(t.Context(), cut); err != nil {
				t.Fatal(err)
			}
		}},
		{"no offset", stream.ReasonNoOffset, func(t *testing.T, o *office) {
			var set kadm.TopicsSet
			set.Add(o.in, 0)
			if _, err := o.adm.DeleteOffsets(t.Context(), o.group, set); err != nil {
				t.Fatal(err)
			}
		}},
		{"somebody else's metadata", stream.ReasonMetadata, func(t *testing.T, o *office) { o.commitByHand(t, 0, 3, "not ours") }},
		{"a later version's metadata", stream.ReasonMetadata, func(t *testing.T, o *office) { o.commitByHand(t, 0, 3, "fanfare2:9") }},
		{"broken metadata", stream.ReasonMetadata, func(t *testing.T, o *office) { o.commitByHand(t, 0, 3, "fanfare1:2") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, 2)
			o.fill(t, o.in, 2, 40)
			tt.spoil(t, o)
			var told suspensions
			o.sender(t, "a", func(cfg *stream.WindowConfig, _ *desk) { cfg.Suspended = told.add })
			o.awaitOutcomes(t, 20, 20*time.Second)
			eventually(t, 10*time.Second, "a suspension", func() bool { return told.first() != nil })
			time.Sleep(100 * time.Millisecond)
			if got := told.first(); got.Reason != tt.reason || got.Partition != 0 || got.Fix == "" {
				t.Errorf("got %v, want partition 0 for %s with a fix", got, tt.reason)
			}
			for s := range o.outcomes(t) {
				if strings.HasPrefix(s, o.in+"/0/") {
					t.Errorf("%s was touched", s)
				}
			}
			if got := o.metric(t, "fanfare_window_suspended_partitions"); got != 1 {
				t.Errorf("suspended partitions: got %g, want 1", got)
			}
		})
	}
}

// Rule 8: without anybody to tell, the window ends with the reason.
func TestRule8SuspensionEndsTheRun(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 10)
	o.commitByHand(t, 0, 3, "not ours")
	err := o.window(t, o.config(), &desk{o: o, name: "a"}).Run(t.Context())
	var s *stream.SuspendedError
	if !errors.As(err, &s) || s.Reason != stream.ReasonMetadata {
		t.Errorf("got %v, want a suspension for foreign metadata", err)
	}
}

// Rule 8: a log that is cut under the reader suspends the partition too.
func TestRule8ALogThatIsCutUnderTheReader(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 10)
	var told suspensions
	o.sender(t, "a", func(cfg *stream.WindowConfig, _ *desk) { cfg.Suspended = told.add })
	o.awaitOutcomes(t, 10, 20*time.Second)
	// A record of another producer keeps the reader below the cut: it is open until after.
	cl, err := o.Named("writer").Client(kgo.TransactionalID(o.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), o.message(t, 0, 100)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for seq := uint32(101); seq < 110; seq++ {
		o.write(t, o.message(t, 0, seq))
	}
	cut := kadm.Offsets{}
	cut.AddOffset(o.in, 0, 15, -1)
	if _, err := o.adm.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "a suspension", func() bool { return told.first() != nil })
	if got := told.first(); got.Reason != stream.ReasonOutOfRange {
		t.Errorf("got %v, want out of range", got)
	}
	if got := o.handedOver(); got != 10 {
		t.Errorf("handed over: got %d, want the 10 from before", got)
	}
}

// Rule 8: a log that was settled to its end and has expired since is no log that was cut. It ends in the control record of a
// transaction, and a base that stays below that is out of range once retention has taken it.
func TestRule8AnIdleLogMayExpire(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	cl, err := o.Named("writer").Client(kgo.TransactionalID(o.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for seq := range uint32(5) {
		if err := cl.ProduceSync(t.Context(), o.message(t, 0, seq)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	_, stop := o.sender(t, "a", nil)
	o.awaitOutcomes(t, 5, 20*time.Second)
	ends, err := o.adm.ListEndOffsets(t.Context(), o.in)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(o.in, 0)
	eventually(t, 10*time.Second, "the base at the end of the log", func() bool { base, _ := o.intent(t, 0); return base == end.Offset })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	cut := kadm.Offsets{}
	cut.AddOffset(o.in, 0, end.Offset, -1)
	if _, err := o.adm.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	var told suspensions
	o.sender(t, "b", func(cfg *stream.WindowConfig, _ *desk) { cfg.Suspended = told.add })
	o.write(t, o.message(t, 0, 5))
	o.awaitOutcomes(t, 6, 20*time.Second)
	o.check(t, 6)
	if got := told.first(); got != nil {
		t.Errorf("got %v, want no suspension", got)
	}
}

// Rule 8: the outcomes are a second witness: one above the committed head means that the broker has lost commits.
func TestRule8TheSecondWitness(t *testing.T) {
	t.Parallel()
	const n = 100
	o := newOffice(t, 2)
	o.fill(t, o.in, 2, n)
	_, stop := o.sender(t, "a", nil)
	o.awaitOutcomes(t, n, 20*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	o.commitByHand(t, 1, 20, "fanfare1:25") // as it stood some commits before
	for seq := uint32(1000); seq < 1200; seq++ {
		o.write(t, o.message(t, 1, seq))
	}
	d, _ := o.sender(t, "b", func(cfg *stream.WindowConfig, _ *desk) { cfg.Size = func() int { return 30 } })
	o.awaitOutcomes(t, n+200, 30*time.Second)
	o.check(t, n+200)
	// 20 to 49 have outcomes; the window above the last of them may have been handed over, with the outcome lost as well.
	if got := d.count(&d.uncertain); got != 30+30 {
		t.Errorf("uncertain: got %d, want 30 up to the last outcome and a window of 30 above it", got)
	}
	if got := o.metric(t, "fanfare_window_lost_commits_total"); got != 1 {
		t.Errorf("lost commits: got %g, want 1", got)
	}
}

// What is returned unsent is settled without a hand-over.
func TestReturnedWithoutBegin(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 20)
	o.sender(t, "a", func(_ *stream.WindowConfig, d *desk) {
		d.judge = func(it *stream.Item) string {
			if it.Record.Offset%2 == 0 {
				return "returned"
			}
			return ""
		}
	})
	o.awaitOutcomes(t, 20, 20*time.Second)
	if got := o.check(t, 20); got != 0 || o.handedOver() != 10 {
		t.Errorf("got %d in doubt and %d handed over, want 0 and 10", got, o.handedOver())
	}
}

// An item that was given out and not begun when its partition went to somebody else is the other's: whatever is said of it is
// dropped, for "returned" would have it dealt again while the other hands it over.
func TestAnItemThatMovedOnCannotBeSettled(t *testing.T) {
	t.Parallel()
	const n = 20
	o := newOffice(t, 2)
	o.fill(t, o.in, 2, n)
	var (
		mu   sync.Mutex
		kept []*stream.Item
	)
	stop := run(t, o.window(t, o.config(), stream.ReleaserFunc(func(items []*stream.Item) {
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, items...)
	})).Run)
	eventually(t, 10*time.Second, "all released", func() bool { mu.Lock(); defer mu.Unlock(); return len(kept) == n })
	d, _ := o.sender(t, "b", nil)
	eventually(t, 20*time.Second, "a partition to move", func() bool { return d.count(&d.released) == n/2 })
	mu.Lock()
	moved := 0
	for _, it := range kept {
		o.mu.Lock()
		_, there := o.handed[submission(it.Record)]
		o.mu.Unlock()
		if !there {
			continue
		}
		moved++
		if it.Record.Offset%2 == 0 && it.Begin() {
			t.Errorf("%s was begun after it had moved on", source(it.Record))
		}
		it.Settle(o.outcome(it.Record, "returned"))
	}
	mu.Unlock()
	if moved != n/2 {
		t.Errorf("moved: got %d, want %d", moved, n/2)
	}
	time.Sleep(100 * time.Millisecond)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	o.awaitOutcomes(t, n, 20*time.Second)
	o.check(t, n)
}

func TestProduceIsAcknowledged(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	w := o.window(t, o.config(), &desk{o: o, name: "a"})
	run(t, w.Run)
	held := o.topic(t, "held", 1)
	if err := w.Produce(t.Context(), &kgo.Record{Topic: held, Value: []byte("x")}, &kgo.Record{Topic: held, Value: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	if got := len(o.read(t, held)); got != 2 {
		t.Errorf("got %d records, want 2", got)
	}
}
