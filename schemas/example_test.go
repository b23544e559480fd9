package schemas_test

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// A recipient's state is the event of the greatest precedence. The order of the events does not matter, and neither do
// duplicates.
func ExampleJoin() {
	sent := schemas.PrecedenceOf(schemas.KindSent, 1, schemas.CodeAwaitingDLR)
	delivered := schemas.PrecedenceOf(schemas.KindDelivered, 1, schemas.CodeDelivered)
	clicked := schemas.PrecedenceOf(schemas.KindClicked, 1, 0)

	var state schemas.Precedence
	fmt.Println(state.Bucket())
	for _, event := range []schemas.Precedence{delivered, sent, clicked, delivered} {
		state = schemas.Join(state, event)
		fmt.Println(state.Bucket(), schemas.CodeName(state.Code()))
	}
	// Output:
	// pending
	// delivered DELIVERED
	// delivered DELIVERED
	// delivered DELIVERED
	// delivered DELIVERED
}

// A consumer of `deliveries` that counts the recipients of one campaign. A service would keep the states in a database,
// and write them in one transaction with the offsets up to which it has read.
func Example_consumer() {
	brokers, done := installation() // yours is a Kafka somewhere
	defer done()
	names, _ := schemas.NewNames(schemas.DefaultPrefix)

	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(names.Deliveries()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cl.Close()
	states := map[uint32]schemas.Precedence{} // of one campaign, by recipient
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for len(states) < 3 && ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if string(schemas.Header(r, "ce_type")) != string(schemas.TypeDelivery) {
				return // of a later version
			}
			d := &fanfarev1.Delivery{}
			if err := proto.Unmarshal(r.Value, d); err != nil {
				fmt.Println(err)
				return
			}
			if d.GetCampaignId() == "camp_10001" {
				states[d.GetSeq()] = schemas.Join(states[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
			}
		})
	}

	const total = 4 // of the campaign's record, on `campaigns`
	count := map[schemas.Bucket]int{}
	for _, p := range states {
		count[p.Bucket()]++
	}
	count[schemas.BucketPending] += total - len(states) // recipients without any event
	for b := range schemas.BucketFact {
		fmt.Println(b, count[b])
	}
	// Output:
	// pending 1
	// ambiguous 0
	// notSent 0
	// skipped 1
	// awaiting 1
	// undelivered 0
	// delivered 1
}

// installation is a Kafka in which a campaign of four is under way.
func installation() (brokers []string, done func()) {
	names, _ := schemas.NewNames(schemas.DefaultPrefix)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(6, names.Deliveries()))
	if err != nil {
		fmt.Println(err)
		return nil, func() {}
	}
	keys, _ := schemas.NewKeys([]byte("a key for examples"))
	var records []*kgo.Record
	for _, e := range []struct {
		seq  uint32
		kind schemas.Kind
		code schemas.Code
	}{
		{1, schemas.KindDelivered, schemas.CodeDelivered}, // overtook what comes next
		{1, schemas.KindSent, schemas.CodeAwaitingDLR},
		{2, schemas.KindSent, schemas.CodeAwaitingDLR},
		{2, schemas.KindSent, schemas.CodeAwaitingDLR}, // twice
		{3, schemas.KindSkipped, schemas.CodeOptedOut},
	} {
		id := keys.Message(10_001, e.seq)
		r, err := schemas.DeliveryEvent(names.Deliveries(), "sender", &fanfarev1.Delivery{
			Tenant: "tn_a", CampaignId: "camp_10001", CampaignNumber: 10_001, Seq: e.seq, Try: 1, Leg: 1, Kind: e.kind, Code: e.code, MessageId: id[:],
		}, "").Record()
		if err != nil {
			fmt.Println(err)
		}
		records = append(records, r)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ProducerLinger(0))
	if err != nil {
		fmt.Println(err)
		return nil, cluster.Close
	}
	defer cl.Close()
	if err := cl.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		fmt.Println(err)
	}
	return cluster.ListenAddrs(), cluster.Close
}
