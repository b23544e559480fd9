package sender

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func testKeys(tb testing.TB) *schemas.Keys {
	tb.Helper()
	k, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func testNames(tb testing.TB) schemas.Names {
	tb.Helper()
	n, err := schemas.NewNames("t.")
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func header(key, value string) kgo.RecordHeader {
	return kgo.RecordHeader{Key: key, Value: []byte(value)}
}

func testMessage(campaign uint64, seq, try uint32) *fanfarev1.Message {
	return &fanfarev1.Message{
		Tenant: "tn_a", CampaignId: schemas.CampaignID(campaign), CampaignNumber: campaign, CampaignVersion: 1, Seq: seq, Try: try, Leg: 1,
		Channel: schemas.ChannelSMS, Route: "sim", Sender: "ACME", To: "+393331234567", Segments: 2, PriceMicros: 50_000, Currency: "EUR",
		Variant: 1, Country: "IT", Zone: "Europe/Rome", ContactId: 77, CustomerRef: "ref",
		Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "Hello Anna, your parcel is here.", Encoding: schemas.EncodingGSM7}},
	}
}

func messageRecord(tb testing.TB, keys *schemas.Keys, m *fanfarev1.Message) *kgo.Record {
	tb.Helper()
	id := keys.Submission(m.GetCampaignNumber(), m.GetSeq(), uint8(m.GetTry())).String()
	r, err := schemas.Event{
		Topic: "t.messages.sim.bulk", Key: schemas.MessageKey(m.GetTenant(), m.GetTo()), Tenant: m.GetTenant(), Type: schemas.TypeMessage, Source: "test",
		ID: id, Time: noon, Value: m,
	}.Record()
	if err != nil {
		tb.Fatal(err)
	}
	r.Headers = append(r.Headers, header(schemas.HeaderSubmission, id))
	return r
}
