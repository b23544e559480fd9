package scheduler

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestBrokenRecords: a record of `cursors` or `chunks` that cannot be read sets only its own campaign aside: the
// scheduler deals every other campaign to its end.
func TestBrokenRecords(t *testing.T) {
	p := newKafkaEnv(t)
	p.sender.badChunks.Store(true)
	pr := p.run()
	const first, last = 10001, 10004
	for n := uint64(first); n <= last; n++ {
		p.control.confirm(n, 4000, nil)
	}
	names := p.cluster.Names
	reader := &Scheduler{cfg: Config{Cluster: p.cluster}, names: names}
	p.eventually("sets of every campaign", func() bool {
		sc, err := reader.readCursors(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for n := uint64(first); n <= last; n++ {
			if sc.cursors[schemas.CampaignKey(testTenant, schemas.CampaignID(n))].GetSetsParts() == 0 {
				return false
			}
		}
		return true
	})
	if err := pr.stop(); err != nil {
		t.Fatal(err)
	}
	key := func(n uint64) []byte { return []byte(schemas.CampaignKey(testTenant, schemas.CampaignID(n))) }
	notSets, err := proto.Marshal(&fanfarev1.CursorSets{Tenant: testTenant, CampaignId: schemas.CampaignID(10002), Epoch: 1 << 40, Parts: 1})
	if err != nil {
		t.Fatal(err)
	}
	badChunk := &fanfarev1.Chunk{
		Tenant: testTenant, CampaignId: schemas.CampaignID(10003), CampaignNumber: 10003, Deal: 999, Try: 1, Leg: 1, FreezeId: "freeze10003", Seqs: []byte("no bitmap"),
	}
	chunk, err := proto.Marshal(badChunk)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.client().ProduceSync(t.Context(),
		&kgo.Record{Topic: names.Cursors(), Key: key(10001), Value: []byte("no record")},
		&kgo.Record{Topic: names.Cursors(), Key: append(key(10002), "/sets/0"...), Value: notSets},
		&kgo.Record{Topic: names.Chunks(), Key: append(key(10003), "#0"...), Value: chunk},
	).FirstErr(); err != nil {
		t.Fatal(err)
	}
	pr = p.run()
	p.eventually("the other campaign settled", p.settled(last))
	for n := uint64(first); n < last; n++ {
		p.eventually("suspended", func() bool { return p.control.campaign(n).GetState() == schemas.StateSuspended })
		if got := p.control.campaign(n).GetReason(); got != "broken_record" {
			t.Errorf("campaign %d: reason %q, want broken_record", n, got)
		}
	}
	if got := value(t, pr.metrics.broken); got != 3 {
		t.Errorf("%v campaigns are set aside, want 3", got)
	}
	letters := map[string]int{}
	for _, topic := range []string{names.Cursors(), names.Chunks()} {
		p.readAll(names.DeadLetters(topic), func(r *kgo.Record) {
			if strings.HasPrefix(string(r.Key), testTenant+"/") {
				letters[topic]++
			}
		})
	}
	// A part of another epoch is well-formed: its campaign is set aside because the part that its cursor names is gone.
	if letters[names.Cursors()] < 1 || letters[names.Chunks()] < 1 {
		t.Errorf("dead letters %v, want one of cursors and one of chunks", letters)
	}
	// The scheduler does not overwrite the records of the campaigns that are set aside.
	sc, err := reader.readCursors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, still := sc.unreadable[string(key(10001))]; !still {
		t.Error("the record that cannot be read was written over")
	}
	p.check(last, map[schemas.Bucket]int{schemas.BucketDelivered: 4000})
}
