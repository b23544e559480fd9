package stream_test

import (
	"fmt"
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

// forgeCommit makes the broker keep a head of want in place of the commit at base that declares all below declared, and refuse
// the commit after it, so that the window reads what is kept.
func (o *office) forgeCommit(t testing.TB, base, declared, want int64) {
	t.Helper()
	var step atomic.Int32
	o.fake.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		o.fake.KeepControl()
		req := kreq.(*kmsg.OffsetCommitRequest)
		p := &req.Topics[0].Partitions[0]
		switch {
		case step.Load() == 0 && p.Offset == base && head(t, *p.Metadata) == declared:
			step.Store(1)
			p.Metadata = new(fmt.Sprintf("fanfare1:%d", want))
		case step.Load() == 1:
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
	o.sender(t, "b", nil)
	eventually(t, 20*time.Second, "a partition to move, and all of it to be handed over", func() bool { return o.handedOver() == n/2 })
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
