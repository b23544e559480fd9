package window_test

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

	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
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
		t.Errorf("metadata %q is no intent", metadata)
	}
	return h
}

// commitByHand commits an offset and metadata that a window will find later; the group must have no members.
func (e *env) commitByHand(t testing.TB, partition int32, at int64, metadata string) {
	t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: e.in, Partition: partition, At: at, LeaderEpoch: -1, Metadata: metadata})
	streamtest.Eventually(t, "the group to be empty", func() bool { return e.Admin.CommitAllOffsets(t.Context(), e.group, offsets) == nil })
}

// message returns the record of one submission.
func (e *env) message(t testing.TB, partition int32, seq uint32) *kgo.Record {
	t.Helper()
	return &kgo.Record{Topic: e.in, Partition: partition, Value: []byte("m"), Headers: []kgo.RecordHeader{
		{Key: schemas.HeaderSubmission, Value: testKeys(t).Submission(1, seq, 1).AppendTo(nil)},
	}}
}

// forgeCommit makes the broker store a head of want in place of the commit of base that declares all below declared,
// and refuse the commit after it, so that the window reads what is stored. The channel is closed when the commit is
// forged.
func (e *env) forgeCommit(t testing.TB, base, declared, want int64) (forged <-chan struct{}) {
	t.Helper()
	var step atomic.Int32
	done := make(chan struct{})
	e.Fake.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		e.Fake.KeepControl()
		req := kreq.(*kmsg.OffsetCommitRequest)
		p := &req.Topics[0].Partitions[0]
		switch {
		case step.Load() == 0 && p.Offset == base && head(t, *p.Metadata) == declared:
			step.Store(1)
			close(done)
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
	return done
}

// Rule 1: no record is released before an acknowledged commit covers it, and at most the window's size is released
// without an acknowledged outcome over all partitions, even when there are more partitions than places.
func TestRule1NothingBeforeACommitCoversIt(t *testing.T) {
	for _, size := range []int{2, 10, 60} {
		t.Run(fmt.Sprintf("size %d", size), func(t *testing.T) {
			inBubble(t, 6, func(t *testing.T, e *env) {
				const n = 300
				fill(t, e.Broker, e.in, 6, n)
				d := &fakeSender{env: e, name: "a"}
				var (
					mu   sync.Mutex
					held []*window.Item // released while nothing is settled
					flow bool
				)
				cfg := e.config()
				cfg.Size = func() int { return size }
				streamtest.Run(t, e.window(t, cfg, window.ReleaserFunc(func(items []*window.Item) {
					// Here the releaser may be slow: the commit must be visible at the time of the release.
					have := committed(t, e.Broker, e.group, e.in)
					for _, it := range items {
						c := have[it.Record.Partition]
						if h := head(t, c.Metadata); it.Record.Offset >= h {
							t.Errorf("released %s; committed is only [%d, %d)", source(it.Record), c.At, h)
						}
					}
					mu.Lock()
					defer mu.Unlock()
					if flow {
						d.Release(items)
					} else {
						held = append(held, items...)
					}
				})).Run)
				count := func() int { mu.Lock(); defer mu.Unlock(); return len(held) }
				streamtest.Eventually(t, "a full window", func() bool { return count() >= size })
				time.Sleep(100 * time.Millisecond)
				if got := count(); got != size {
					t.Errorf("released while nothing was settled: got %d, want %d", got, size)
				}
				mu.Lock()
				flow = true
				d.Release(held)
				mu.Unlock()
				e.awaitOutcomes(t, n, 30*time.Second)
				e.check(t, n)
			})
		})
	}
}

// Rule 1: a record polled below an acknowledged head does not wait for another commit; otherwise it would wait for
// ever.
func TestRule1AnInheritedHeadNeedsNoCommit(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, e *env) {
		fill(t, e.Broker, e.in, 1, 10)
		e.commitByHand(t, 0, 0, "fanfare1:5")
		refuse := e.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RebalanceInProgress, Count: -1})
		d, _ := e.sender(t, "a", nil)
		e.awaitOutcomes(t, 5, 10*time.Second)
		time.Sleep(200 * time.Millisecond)
		if got, want := d.count(&d.released), 5; got != want {
			t.Errorf("released without a commit: got %d, want %d", got, want)
		}
		refuse.Remove()
		e.awaitOutcomes(t, 10, 20*time.Second)
		if got := e.check(t, 10); got != 5 {
			t.Errorf("in doubt: got %d, want the 5 that were declared", got)
		}
	})
}

// Rule 1: the head never falls. A commit that is made before everything below the head is polled repeats the head;
// otherwise a crash would make the next owner hand the rest over.
func TestRule1TheHeadNeverFalls(t *testing.T) {
	streamtest.FakeOnly(t)
	t.Parallel()
	const n = 3000 // more than one fetch
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, n)
	e.commitByHand(t, 0, 0, fmt.Sprintf("fanfare1:%d", n-10))
	var between atomic.Int32
	e.Fake.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		e.Fake.KeepControl()
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
	e.Fake.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.Fake.KeepControl()
		e.Fake.SleepControl(func() { time.Sleep(100 * time.Millisecond) })
		return nil, nil, false
	})
	e.sender(t, "a", nil)
	streamtest.Eventually(t, "the end", func() bool { base, _ := e.intent(t, 0); return base == n })
	if between.Load() == 0 {
		t.Error("no commit was made in between, so the test shows nothing")
	}
}

// Rule 1: an empty intent and a client's own member id mean that nothing is declared.
func TestRule1OtherMetadataThatMeansNothing(t *testing.T) {
	t.Parallel()
	for _, metadata := range []string{"", "rdkafka-0c1d6f4e-9f1b-4f6e-8a2b-0123456789ab", "x-0123456789abcdef0123456789abcdef"} {
		t.Run(metadata, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t, 1)
			fill(t, e.Broker, e.in, 1, 10)
			e.commitByHand(t, 0, 4, metadata)
			e.sender(t, "a", nil)
			e.awaitOutcomes(t, 6, 20*time.Second)
			if got := e.check(t, 6); got != 0 || e.handedOver() != 6 {
				t.Errorf("got %d in doubt and %d handed over, want 0 and 6", got, e.handedOver())
			}
		})
	}
}

// Rule 2: uncertain records are reported before any other check and never handed over, duplicates or not.
func TestRule2UncertainIsReportedOnly(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	for _, seq := range []uint32{0, 1, 1, 2, 3, 4, 5} { // the third is a duplicate of the second
		e.Write(t, e.message(t, 0, seq))
	}
	e.commitByHand(t, 0, 0, "fanfare1:4")
	d, _ := e.sender(t, "a", nil)
	e.awaitOutcomes(t, 7, 20*time.Second)
	if got := e.check(t, 6); got != 3 {
		t.Errorf("in doubt: got %d, want 3", got)
	}
	if got := e.handedOver(); got != 3 || d.count(&d.uncertain) != 4 {
		t.Errorf("got %d handed over and %d uncertain, want 3 and 4", got, d.count(&d.uncertain))
	}
}

// Rule 2: Begin refuses uncertain items under concurrent calls, while others may begin.
func TestRule2UncertainCannotBegin(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, 5)
	e.commitByHand(t, 0, 0, "fanfare1:3")
	var uncertain []*window.Item
	begun, asked := 0, false
	streamtest.Run(t, e.window(t, e.config(), window.ReleaserFunc(func(items []*window.Item) {
		for _, it := range items {
			switch {
			case it.Uncertain() && !asked:
				uncertain = append(uncertain, it)
			case it.Uncertain():
				it.Settle(e.outcome(it.Record, "ambiguous")) // forgotten, and released again
			case it.Begin():
				it.Settle(e.outcome(it.Record, "sent"))
			}
		}
		if len(uncertain) == 3 && !items[len(items)-1].Uncertain() && !asked {
			asked = true
			for _, it := range uncertain {
				if it.Begin() {
					begun++
				}
			}
		}
	})).Run)
	e.awaitOutcomes(t, 5, 20*time.Second)
	if begun != 0 {
		t.Errorf("uncertain ones begun: got %d, want 0", begun)
	}
}

// Rule 3: the base does not pass an outcome that Kafka has not acknowledged.
func TestRule3TheBaseWaitsForTheAcknowledgement(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, e *env) {
		fill(t, e.Broker, e.in, 1, 20)
		refuse := e.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: e.out, Err: kerr.NotLeaderForPartition, Count: -1})
		e.sender(t, "a", nil)
		streamtest.Eventually(t, "all handed over", func() bool { return e.handedOver() == 20 })
		time.Sleep(300 * time.Millisecond)
		if base, metadata := e.intent(t, 0); base != 0 || head(t, metadata) != 20 {
			t.Errorf("while outcomes are not acknowledged: got base %d and %q, want 0 and a head of 20", base, metadata)
		}
		refuse.Remove()
		streamtest.Eventually(t, "the base to follow", func() bool { base, _ := e.intent(t, 0); return base == 20 })
		e.check(t, 20)
	})
}

// Rule 3: one slow answer holds back the base but not the other records; outcomes name their source; a late one is
// written too.
func TestRule3TheBaseIsTheOldestWithoutAnOutcome(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, 20)
	var slow *window.Item
	given := make(chan struct{})
	streamtest.Run(t, e.window(t, e.config(), window.ReleaserFunc(func(items []*window.Item) {
		for _, it := range items {
			if !it.Begin() {
				continue
			}
			e.handOver("a", it.Record)
			if it.Record.Offset == 7 {
				slow = it
				close(given)
				continue
			}
			it.Settle(e.outcome(it.Record, "sent"))
		}
	})).Run)
	<-given
	e.awaitOutcomes(t, 19, 20*time.Second)
	streamtest.Eventually(t, "base 7", func() bool { base, _ := e.intent(t, 0); return base == 7 })
	slow.Settle(e.outcome(slow.Record, "ambiguous"))
	slow.Late(e.outcome(slow.Record, "sent"))
	streamtest.Eventually(t, "base 20", func() bool { base, _ := e.intent(t, 0); return base == 20 })
	e.awaitOutcomes(t, 20, 10*time.Second)
	if got := e.outcomes(t)[e.in+"/0/7"]; len(got) != 2 {
		t.Errorf("outcomes of the slow one: got %v, want ambiguous and sent", got)
	}
}

// A record that is returned is settled without a hand-over.
func TestReturnedWithoutBegin(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, 20)
	e.sender(t, "a", func(_ *window.Config, d *fakeSender) {
		d.judge = func(it *window.Item) string {
			if it.Record.Offset%2 == 0 {
				return "returned"
			}
			return ""
		}
	})
	e.awaitOutcomes(t, 20, 20*time.Second)
	if got := e.check(t, 20); got != 0 || e.handedOver() != 10 {
		t.Errorf("got %d in doubt and %d handed over, want 0 and 10", got, e.handedOver())
	}
}

// An item that was released and not begun when its partition moved belongs to the new owner. Settle drops its outcome:
// after "returned" the scheduler would deal it again while the new owner hands it over.
func TestAnItemThatMovedOnCannotBeSettled(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, e *env) {
		const n = 20
		fill(t, e.Broker, e.in, 2, n)
		var (
			mu   sync.Mutex
			kept []*window.Item
		)
		stop := streamtest.Run(t, e.window(t, e.config(), window.ReleaserFunc(func(items []*window.Item) {
			mu.Lock()
			defer mu.Unlock()
			kept = append(kept, items...)
		})).Run)
		streamtest.Eventually(t, "all released", func() bool { mu.Lock(); defer mu.Unlock(); return len(kept) == n })
		e.sender(t, "b", nil)
		streamtest.Eventually(t, "a partition to move, and all of it to be handed over", func() bool { return e.handedOver() == n/2 })
		mu.Lock()
		moved := 0
		for _, it := range kept {
			e.mu.Lock()
			_, there := e.handed[submission(it.Record)]
			e.mu.Unlock()
			if !there {
				continue
			}
			moved++
			if it.Record.Offset%2 == 0 && it.Begin() {
				t.Errorf("%s was begun after it had moved on", source(it.Record))
			}
			it.Settle(e.outcome(it.Record, "returned"))
		}
		mu.Unlock()
		if moved != n/2 {
			t.Errorf("moved: got %d, want %d", moved, n/2)
		}
		time.Sleep(100 * time.Millisecond)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		e.awaitOutcomes(t, n, 20*time.Second)
		e.check(t, n)
	})
}

func TestProduceIsAcknowledged(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	w := e.window(t, e.config(), &fakeSender{env: e, name: "a"})
	streamtest.Run(t, w.Run)
	held := e.Topic(t, "held", 1)
	if err := w.Produce(t.Context(), &kgo.Record{Topic: held, Value: []byte("x")}, &kgo.Record{Topic: held, Value: []byte("y")}); err != nil {
		t.Fatal(err)
	}
	if got := len(e.Read(t, held)); got != 2 {
		t.Errorf("got %d records, want 2", got)
	}
}

// A record that the carrier certainly did not take begins again after Return, and is handed over once.
func TestReturnedItemsBeginAgain(t *testing.T) {
	t.Parallel()
	const n = 20
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, n)
	stop := streamtest.Run(t, e.window(t, e.config(), window.ReleaserFunc(func(items []*window.Item) {
		for _, it := range items {
			if !it.Begin() || it.Begin() {
				t.Errorf("%s: Begin: got false at first or true when begun, want true and false", source(it.Record))
			}
			if !it.Return() || it.Return() {
				t.Errorf("%s: Return: got false when begun or true when not, want true and false", source(it.Record))
			}
			if !it.Begin() {
				t.Errorf("%s: Begin after Return: got false, want true", source(it.Record))
			}
			e.handOver("a", it.Record)
			it.Settle(e.outcome(it.Record, "sent"))
		}
	})).Run)
	e.awaitOutcomes(t, n, 20*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := e.check(t, n); got != 0 || e.handedOver() != n {
		t.Errorf("got %d in doubt and %d handed over, want 0 and %d", got, e.handedOver(), n)
	}
}

// A record that is returned while its partition is given up is untouched for the next owner, neither uncertain nor
// settled.
func TestAReturnDuringTheDrainLeavesNothingUncertain(t *testing.T) {
	t.Parallel()
	const n = 20
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, n)
	var (
		mu    sync.Mutex
		begun []*window.Item
	)
	stop := streamtest.Run(t, e.window(t, e.config(), window.ReleaserFunc(func(items []*window.Item) {
		mu.Lock()
		defer mu.Unlock()
		for _, it := range items {
			if it.Begin() {
				begun = append(begun, it)
			}
		}
	})).Run)
	streamtest.Eventually(t, "all begun", func() bool { mu.Lock(); defer mu.Unlock(); return len(begun) == n })
	timer := time.AfterFunc(300*time.Millisecond, func() { // the drain lasts two seconds
		mu.Lock()
		defer mu.Unlock()
		for _, it := range begun {
			if it.Return() {
				t.Errorf("%s may begin again while its partition is given up", source(it.Record))
			}
		}
	})
	defer timer.Stop()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	d, _ := e.sender(t, "b", nil)
	e.awaitOutcomes(t, n, 20*time.Second)
	if got := e.check(t, n); got != 0 || d.count(&d.uncertain) != 0 || e.handedOver() != n {
		t.Errorf("got %d in doubt, %d uncertain for the next owner and %d handed over, want 0, 0 and %d", got, d.count(&d.uncertain), e.handedOver(), n)
	}
}
