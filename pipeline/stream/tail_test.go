package stream_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
)

func ready(t testing.TB, v interface{ Ready() <-chan struct{} }) {
	t.Helper()
	select {
	case <-v.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("not ready within 20 s")
	}
}

// The age of a tail that cannot look up the ends of its topics grows, even if no records are written. The tail is up to
// date again when the lookup works.
func TestTailGrowsOldWhenItCannotAsk(t *testing.T) {
	streamtest.FakeOnly(t)
	b := streamtest.New(t)
	topic := b.Topic(t, "x", 2)
	b.Produce(t, topic, 1, 3) // the other partition stays empty
	tail, err := stream.NewTail(stream.TailConfig{Cluster: b.Cluster, Topics: []string{topic}, Every: 10 * time.Millisecond}, func([]*kgo.Record) {})
	if err != nil {
		t.Fatal(err)
	}
	streamtest.Run(t, tail.Run)
	ready(t, tail)
	h := b.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.UnknownServerError, Count: -1})
	streamtest.Eventually(t, "an age of 300 ms", func() bool { return tail.Age() > 300*time.Millisecond })
	h.Remove()
	streamtest.Eventually(t, "fresh again", func() bool { return tail.Age() < 100*time.Millisecond })
}

// The end of a topic written by transactions is a control record, and may be one that aborted: the tail still reaches
// it.
func TestTailReachesTheEndOfTransactions(t *testing.T) {
	b := streamtest.New(t)
	topic := b.Topic(t, "x", 1)
	cl, err := b.Named("writer").Client(kgo.TransactionalID(b.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), how); err != nil {
			t.Fatal(err)
		}
	}
	got := b.Read(t, topic)
	if len(got) != 1 || string(got[0].Value) != "0" {
		t.Errorf("got %d records, want the committed one", len(got))
	}
}

func TestTailBeginsWhereItIsTold(t *testing.T) {
	b := streamtest.New(t)
	topic := b.Topic(t, "x", 2)
	b.Produce(t, topic, 2, 10)
	var got []int64
	tail, err := stream.NewTail(stream.TailConfig{
		Cluster: b.Cluster, Topics: []string{topic}, From: map[string]map[int32]int64{topic: {0: 8, 1: 10}}, Every: 10 * time.Millisecond,
	}, func(batch []*kgo.Record) {
		for _, r := range batch {
			got = append(got, r.Offset)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := streamtest.Run(t, tail.Run)
	ready(t, tail)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0] != 8 || got[1] != 9 {
		t.Errorf("got %v, want [8 9]", got)
	}
	if got := tail.Positions()[topic]; got[0] != 10 || got[1] != 10 {
		t.Errorf("positions: got %v, want 10 and 10", got)
	}
}

// All records have expired, so the log begins above the offset at which the tail should begin. The tail still counts
// the log as read to its end.
func TestTailOfALogThatHasExpired(t *testing.T) {
	t.Parallel()
	b := streamtest.New(t)
	topic := b.Topic(t, "x", 1)
	b.Produce(t, topic, 1, 10)
	cut := kadm.Offsets{}
	cut.AddOffset(topic, 0, 10, -1)
	if _, err := b.Admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	var got atomic.Int64
	tail, err := stream.NewTail(stream.TailConfig{
		Cluster: b.Cluster, Topics: []string{topic}, Every: 20 * time.Millisecond, From: map[string]map[int32]int64{topic: {0: 5}},
	}, func(batch []*kgo.Record) { got.Add(int64(len(batch))) })
	if err != nil {
		t.Fatal(err)
	}
	streamtest.Run(t, tail.Run)
	ready(t, tail)
	b.Produce(t, topic, 1, 3)
	streamtest.Eventually(t, "what came after", func() bool { return got.Load() == 3 })
}
