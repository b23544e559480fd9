package view_test

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/view"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// broker is a Kafka with the topics of the control plane.
type broker struct{ *streamtest.Broker }

func newBroker(t testing.TB) *broker {
	t.Helper()
	b := &broker{streamtest.New(t)}
	n := b.Names
	b.Ensure(t,
		schemas.Topic{Name: n.Campaigns(), Partitions: 1, Compact: true},
		schemas.Topic{Name: n.Control(), Partitions: 1, Compact: true},
		schemas.Topic{Name: n.Suppressions(), Partitions: 3, Compact: true},
	)
	return b
}

func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *broker) campaign(t testing.TB, number, version uint64, state schemas.State) *kgo.Record {
	t.Helper()
	c := &fanfarev1.Campaign{Tenant: "tn_a", Id: schemas.CampaignID(number), Number: number, Version: version, State: state}
	return &kgo.Record{Topic: b.Names.Campaigns(), Key: []byte(schemas.CampaignKey(c.GetTenant(), c.GetId())), Value: encode(t, c)}
}

func (b *broker) control(t testing.TB, key string, c *fanfarev1.Control) *kgo.Record {
	t.Helper()
	r := &kgo.Record{Topic: b.Names.Control(), Key: []byte(key)}
	if c != nil {
		r.Value = encode(t, c)
	}
	return r
}

func (b *broker) optOut(keys *schemas.Keys, tenant, number string, lifted bool, channels ...schemas.Channel) *kgo.Record {
	h := keys.NumberHash(tenant, number)
	r := &kgo.Record{Topic: b.Names.Suppressions(), Partition: int32(h[0]) % 3, Key: []byte(schemas.SuppressionKey(tenant, h))}
	if !lifted {
		r.Value, _ = proto.Marshal(&fanfarev1.Suppression{Tenant: tenant, NumberHash: h[:], Channels: channels})
	}
	return r
}

func (b *broker) view(t testing.TB, cfg view.Config) *view.View {
	t.Helper()
	cfg.Cluster = b.Cluster
	v, err := view.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	streamtest.Run(t, v.Run)
	return v
}

func TestViewFollowsTheControlPlane(t *testing.T) {
	b, keys := newBroker(t), testKeys(t)
	b.Write(t,
		b.campaign(t, 10001, 2, schemas.StateSending),
		b.campaign(t, 10001, 1, schemas.StateReady), // an older version that came late
		b.campaign(t, 10002, 1, schemas.StateSending),
		b.control(t, "route/sim", &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Route{Route: &fanfarev1.Route{Name: "sim", Rate: 10}}}),
		b.control(t, "tenant/tn_a", &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{Id: "tn_a", Rate: 5}}}),
		b.control(t, "sender/tn_a/ACME", &fanfarev1.Control{Version: 4, Row: &fanfarev1.Control_Sender{Sender: &fanfarev1.Sender{Tenant: "tn_a", Id: "ACME", Rate: 5}}}),
		b.control(t, "sender/tn_a/ACME", &fanfarev1.Control{Version: 3, Row: &fanfarev1.Control_Sender{Sender: &fanfarev1.Sender{Tenant: "tn_a", Id: "ACME", Rate: 1}}}),
		b.optOut(keys, "tn_a", "+391", false), b.optOut(keys, "tn_a", "+392", false), b.optOut(keys, "tn_a", "+392", true),
	)
	v := b.view(t, view.Config{Keys: keys, Suppressions: true})
	if got := v.Age(); got != stream.Never {
		t.Errorf("age before it is ready: got %s, want never", got)
	}
	streamtest.Ready(t, v)
	if got := v.Campaign("camp_10001"); got.GetVersion() != 2 || got.GetState() != schemas.StateSending {
		t.Errorf("campaign: got %v, want version 2, sending", got)
	}
	if got := v.CampaignByNumber(10002).GetId(); got != "camp_10002" {
		t.Errorf("by number: got %q, want camp_10002", got)
	}
	for _, id := range []string{"", "camp_", "camp_010001", "camp_9", "10001", "camp_99999999999999999999"} {
		if got := v.Campaign(id); got != nil {
			t.Errorf("campaign %q: got %v, want none", id, got)
		}
	}
	if got := len(v.Campaigns()); got != 2 {
		t.Errorf("campaigns: got %d, want 2", got)
	}
	if got := v.Route("sim").GetRate(); got != 10 || len(v.Routes()) != 1 {
		t.Errorf("route: got rate %d of %d routes, want 10 of 1", got, len(v.Routes()))
	}
	if got := v.Tenant("tn_a").GetRate(); got != 5 {
		t.Errorf("tenant: got rate %d, want 5", got)
	}
	if got := v.Sender("tn_a", "ACME").GetRate(); got != 5 {
		t.Errorf("sender: got rate %d, want 5, of the newer version", got)
	}
	if !v.OptedOut("tn_a", "+391", schemas.ChannelSMS) || v.OptedOut("tn_a", "+392", schemas.ChannelSMS) || v.OptedOut("tn_b", "+391", schemas.ChannelSMS) || v.OptedOut("tn_a", "+393", schemas.ChannelSMS) {
		t.Error("opt-outs: want +391 of tn_a and no other")
	}
	// X10: a number opts out of single channels, and later of others.
	const sms, whatsapp, rcs = schemas.ChannelSMS, schemas.ChannelWhatsApp, schemas.ChannelRCS
	of := func(number string) (out []schemas.Channel) {
		for _, c := range []schemas.Channel{sms, rcs, whatsapp, schemas.ChannelVoice} {
			if v.OptedOut("tn_c", number, c) {
				out = append(out, c)
			}
		}
		return out
	}
	b.Write(t, b.optOut(keys, "tn_c", "+391", false, sms), b.optOut(keys, "tn_c", "+392", false, sms, whatsapp), b.optOut(keys, "tn_c", "+393", false))
	streamtest.Eventually(t, "opt-outs of single channels", func() bool {
		return slices.Equal(of("+391"), []schemas.Channel{sms}) && slices.Equal(of("+392"), []schemas.Channel{sms, whatsapp}) && len(of("+393")) == 4
	})
	b.Write(t, b.optOut(keys, "tn_c", "+391", false), b.optOut(keys, "tn_c", "+392", true), b.optOut(keys, "tn_c", "+393", false, rcs))
	streamtest.Eventually(t, "other opt-outs", func() bool {
		return len(of("+391")) == 4 && of("+392") == nil && slices.Equal(of("+393"), []schemas.Channel{rcs})
	})
	if got := v.Age(); got > 10*time.Second {
		t.Errorf("age: got %s", got)
	}
	if got := v.SuppressionsAge(); got > 10*time.Second {
		t.Errorf("age of suppressions: got %s", got)
	}

	changed := v.Changed()
	b.Write(t,
		b.campaign(t, 10001, 3, schemas.StatePaused),
		&kgo.Record{Topic: b.Names.Campaigns(), Key: []byte("tn_a/camp_10002")},
		b.control(t, "route/sim", nil),
		b.optOut(keys, "tn_b", "+391", false),
	)
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("no change was announced")
	}
	streamtest.Eventually(t, "the changes", func() bool {
		return v.Campaign("camp_10001").GetState() == schemas.StatePaused && v.Campaign("camp_10002") == nil && v.Route("sim") == nil && v.OptedOut("tn_b", "+391", schemas.ChannelSMS)
	})
}

// The view skips a record that does not match its key or cannot be read, and applies the other records.
func TestViewLeavesOutWhatIsBroken(t *testing.T) {
	b := newBroker(t)
	stranger := b.campaign(t, 10003, 9, schemas.StateSending)
	stranger.Key = []byte("tn_b/camp_10003") // another tenant's key
	b.Write(t,
		stranger,
		&kgo.Record{Topic: b.Names.Campaigns(), Key: []byte("tn_a/camp_10004"), Value: []byte("\xff\xff")},
		&kgo.Record{Topic: b.Names.Campaigns(), Key: []byte("nonsense"), Value: []byte("x")},
		b.control(t, "tenant/tn_b", &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{Id: "tn_a"}}}),
		&kgo.Record{Topic: b.Names.Suppressions(), Key: []byte("tn_a/zz"), Value: []byte{1}},
		b.campaign(t, 10005, 1, schemas.StateSending),
	)
	v := b.view(t, view.Config{Keys: testKeys(t), Suppressions: true})
	streamtest.Ready(t, v)
	if v.Campaign("camp_10003") != nil || v.Campaign("camp_10004") != nil || v.Tenant("tn_a") != nil || v.Tenant("tn_b") != nil {
		t.Error("a broken record was taken in")
	}
	if v.Campaign("camp_10005") == nil {
		t.Error("what follows the broken records is missing")
	}
}

// Measures the cost of the view for each message of a sender.
func BenchmarkView(b *testing.B) {
	br, keys := newBroker(b), testKeys(b)
	recs := make([]*kgo.Record, 0, 1000)
	for n := range uint64(1000) {
		recs = append(recs, br.campaign(b, 10001+n, 1, schemas.StateSending))
	}
	br.Write(b, recs...)
	br.Write(b, br.optOut(keys, "tn_a", "+391", false))
	v := br.view(b, view.Config{Keys: keys, Suppressions: true})
	streamtest.Ready(b, v)
	b.Run("campaign by number", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v.CampaignByNumber(10500) == nil {
				b.Fatal("missing")
			}
		}
	})
	b.Run("campaign by id", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v.Campaign("camp_10500") == nil {
				b.Fatal("missing")
			}
		}
	})
	b.Run("opt-out of a tenant that has some", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.OptedOut("tn_a", "+393331234567", schemas.ChannelSMS)
		}
	})
	b.Run("opt-out of a tenant that has none", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.OptedOut("tn_b", "+393331234567", schemas.ChannelSMS)
		}
	})
}
