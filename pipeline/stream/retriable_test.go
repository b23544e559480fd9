package stream_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream/streamtest"
)

// A running stage waits while Kafka has a temporary condition, and loses no record: leaders that move, coordinators
// that do not exist yet or are loading, too few replicas, time-outs. The test causes each condition, most of them
// several times in a row.
func TestStageWaitsOutConditionsOfKafka(t *testing.T) {
	streamtest.FakeOnly(t)
	const times = 3
	for _, c := range []struct {
		key   kmsg.Key
		err   *kerr.Error
		exact []bool
	}{
		{kmsg.Produce, kerr.LeaderNotAvailable, []bool{false, true}},
		{kmsg.Produce, kerr.NotLeaderForPartition, []bool{false, true}},
		{kmsg.Produce, kerr.NotEnoughReplicas, []bool{false, true}},
		{kmsg.Produce, kerr.RequestTimedOut, []bool{false, true}},
		{kmsg.Fetch, kerr.LeaderNotAvailable, []bool{false, true}},
		{kmsg.Fetch, kerr.NotLeaderForPartition, []bool{false, true}},
		{kmsg.Fetch, kerr.UnknownTopicOrPartition, []bool{false, true}},
		{kmsg.OffsetCommit, kerr.CoordinatorLoadInProgress, []bool{false}},
		{kmsg.OffsetCommit, kerr.NotCoordinator, []bool{false}},
		{kmsg.OffsetCommit, kerr.CoordinatorNotAvailable, []bool{false}},
		{kmsg.TxnOffsetCommit, kerr.CoordinatorLoadInProgress, []bool{true}},
		{kmsg.TxnOffsetCommit, kerr.NotCoordinator, []bool{true}},
		{kmsg.InitProducerID, kerr.CoordinatorLoadInProgress, []bool{true}},
		{kmsg.EndTxn, kerr.CoordinatorLoadInProgress, []bool{true}},
		{kmsg.EndTxn, kerr.ConcurrentTransactions, []bool{true}},
		{kmsg.JoinGroup, kerr.CoordinatorNotAvailable, []bool{false, true}},
		{kmsg.FindCoordinator, kerr.CoordinatorNotAvailable, []bool{false, true}},
	} {
		for _, exact := range c.exact {
			t.Run(fmt.Sprintf("%s %s exact=%v", c.key.Name(), c.err.Message, exact), func(t *testing.T) {
				t.Parallel()
				p := newPipe(t, 2)
				p.Produce(t, p.in, 2, 10)
				fault := p.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{c.key}, Err: c.err, Count: times})
				streamtest.Run(t, p.stage(t, p.config(exact), copyTo(p.out)).Run)
				awaitValues(t, p.Broker, p.out, 20)
				streamtest.Eventually(t, "the condition is met", func() bool { return fault.Hits() > 0 })
				if exact {
					for v, n := range counts(t, p.Broker, p.out) {
						if n != 1 {
							t.Errorf("%s: got %d times, want once", v, n)
						}
					}
				}
			})
		}
	}
}
