package feed

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func drawDelivery(t *rapid.T, keys *schemas.Keys) *fanfarev1.Delivery {
	number := rapid.Uint64Range(1, schemas.MaxCampaignNumber).Draw(t, "number")
	seq := rapid.Uint32Range(0, schemas.MaxSeq).Draw(t, "seq")
	id := keys.Message(number, seq)
	return &fanfarev1.Delivery{
		Tenant: rapid.String().Draw(t, "tenant"), CampaignId: schemas.CampaignID(number), CampaignNumber: number, Seq: seq,
		Try: rapid.Uint32Range(0, 255).Draw(t, "try"), Leg: rapid.Uint32Range(0, 255).Draw(t, "leg"),
		Kind: rapid.SampledFrom(schemas.Kinds).Draw(t, "kind").Kind, Code: schemas.Code(rapid.Int32Range(0, 65535).Draw(t, "code")),
		RawCode: rapid.String().Draw(t, "raw code"), TimeMs: rapid.Int64Range(0, analytics.MaxTimeMS).Draw(t, "time"), Channel: schemas.Channel(rapid.Int32Range(0, 9).Draw(t, "channel")),
		Route: rapid.String().Draw(t, "route"), Sender: rapid.String().Draw(t, "sender"), To: rapid.String().Draw(t, "to"),
		Country: rapid.String().Draw(t, "country"), Variant: rapid.Uint32Range(0, 255).Draw(t, "variant"),
		Segments: rapid.Uint32Range(0, 255).Draw(t, "segments"), PriceMicros: rapid.Uint64Range(0, 1<<32-1).Draw(t, "price"),
		Currency: rapid.String().Draw(t, "currency"), ProviderId: rapid.String().Draw(t, "provider id"), LinkId: rapid.String().Draw(t, "link"),
		CustomerRef: rapid.String().Draw(t, "reference"), ContactId: rapid.Uint64().Draw(t, "contact"),
		AgainAtMs: rapid.Int64().Draw(t, "again"), MessageId: id[:], SubmissionId: []byte{1, 2}, Test: rapid.Bool().Draw(t, "test"),
	}
}

func wantEvent(d *fanfarev1.Delivery) analytics.Event {
	e := analytics.Event{
		TimeMS: d.TimeMs, Seq: d.Seq, Kind: d.Kind, Code: d.Code, Channel: d.Channel, Try: uint8(d.Try), Leg: uint8(d.Leg), Variant: uint8(d.Variant),
		Segments: uint8(d.Segments), PriceMicros: uint32(d.PriceMicros), ContactID: d.ContactId, Route: d.Route, Sender: d.Sender, Country: d.Country,
		Currency: d.Currency, RawCode: d.RawCode, LinkID: d.LinkId, To: d.To, ProviderID: d.ProviderId, CustomerRef: d.CustomerRef,
	}
	copy(e.MessageID[:], d.MessageId)
	return e
}

// The decoder agrees with the protobuf library, for every field and with fields of later versions.
func TestDecodeAgreesWithProtobuf(t *testing.T) {
	keys := testKeys(t)
	dec := newDecoder()
	rapid.Check(t, func(t *rapid.T) {
		want := drawDelivery(t, keys)
		value, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		// Fields of a later version: 100 (varint), 101 (fixed64), 102 (bytes), 103 (fixed32).
		value = append(value, 0xa0, 0x06, 0x96, 0x01, 0xa9, 0x06, 1, 2, 3, 4, 5, 6, 7, 8, 0xb2, 0x06, 2, 'h', 'i', 0xbd, 0x06, 1, 2, 3, 4)
		var got analytics.Event
		env, err := dec.decode(value, &got)
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		if diff := cmp.Diff(wantEvent(want), got); diff != "" {
			t.Fatalf("event (-want +got):\n%s", diff)
		}
		if env != (envelope{want.Tenant, want.CampaignId, want.CampaignNumber}) {
			t.Fatalf("got %+v, want %s, %s and %d", env, want.Tenant, want.CampaignId, want.CampaignNumber)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	keys := testKeys(t)
	valid := func() *fanfarev1.Delivery {
		id := keys.Message(10_001, 7)
		return &fanfarev1.Delivery{
			Tenant: "tn_a", CampaignId: "camp_10001", CampaignNumber: 10_001, Seq: 7, Try: 1, Leg: 1, Kind: schemas.KindSent, MessageId: id[:],
		}
	}
	cases := map[string]func(*fanfarev1.Delivery){
		"no campaign":              func(d *fanfarev1.Delivery) { d.CampaignId = "" },
		"unknown kind":             func(d *fanfarev1.Delivery) { d.Kind = 99 },
		"no kind":                  func(d *fanfarev1.Delivery) { d.Kind = 0 },
		"no message id":            func(d *fanfarev1.Delivery) { d.MessageId = nil },
		"long message id":          func(d *fanfarev1.Delivery) { d.MessageId = append(d.MessageId, 1) },
		"another's message id":     func(d *fanfarev1.Delivery) { id := keys.Message(10_002, 7); d.MessageId = id[:] },
		"another message's id":     func(d *fanfarev1.Delivery) { id := keys.Message(10_001, 8); d.MessageId = id[:] },
		"submission id as message": func(d *fanfarev1.Delivery) { id := keys.Submission(10_001, 7, 1); d.MessageId = id[:] },
		"seq":                      func(d *fanfarev1.Delivery) { d.Seq = schemas.MaxSeq + 1 },
		"try":                      func(d *fanfarev1.Delivery) { d.Try = 256 },
		"leg":                      func(d *fanfarev1.Delivery) { d.Leg = 256 },
		"variant":                  func(d *fanfarev1.Delivery) { d.Variant = 256 },
		"segments":                 func(d *fanfarev1.Delivery) { d.Segments = 256 },
		"price":                    func(d *fanfarev1.Delivery) { d.PriceMicros = 1 << 32 },
		"past":                     func(d *fanfarev1.Delivery) { d.TimeMs = -1 },
		"far future":               func(d *fanfarev1.Delivery) { d.TimeMs = analytics.MaxTimeMS + 1 },
		"code":                     func(d *fanfarev1.Delivery) { d.Code = 1 << 16 },
		"negative code":            func(d *fanfarev1.Delivery) { d.Code = -1 },
	}
	dec := newDecoder()
	decode := func(d *fanfarev1.Delivery) error {
		value, err := proto.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		_, err = dec.decode(value, new(analytics.Event))
		return err
	}
	if err := decode(valid()); err != nil {
		t.Fatalf("a valid record: %v", err)
	}
	for name, spoil := range cases {
		d := valid()
		spoil(d)
		if err := decode(d); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// Decoding terminates for any bytes, and rejects what the protobuf library rejects.
func FuzzDecode(f *testing.F) {
	id := testKeys(f).Message(10_001, 7)
	value, err := proto.Marshal(&fanfarev1.Delivery{Tenant: "tn_a", CampaignId: "camp_10001", CampaignNumber: 10_001, Seq: 7, Kind: schemas.KindSent, MessageId: id[:]})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(value)
	f.Add(value[:len(value)-3])
	f.Add([]byte{0x1b, 0x1c})
	dec := newDecoder()
	f.Fuzz(func(t *testing.T, b []byte) {
		var got analytics.Event
		if _, err := dec.decode(b, &got); err != nil {
			return
		}
		var d fanfarev1.Delivery
		if err := proto.Unmarshal(b, &d); err != nil {
			return // only the protobuf library rejects text that is not UTF-8
		}
		if diff := cmp.Diff(wantEvent(&d), got); diff != "" {
			t.Fatalf("event (-protobuf +ours):\n%s", diff)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	keys := testKeys(b)
	var values [][]byte
	for i := range 1000 {
		id := keys.Message(10_001, uint32(i))
		d := &fanfarev1.Delivery{
			Tenant: "tn_abcdefghijklmnop", CampaignId: "camp_10001", CampaignNumber: 10_001, Seq: uint32(i), Try: 1, Leg: 1, Kind: schemas.KindSent,
			TimeMs: 1_790_000_000_000 + int64(i), Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE", To: "+393331234567", Country: "IT",
			Segments: 1, PriceMicros: 50_000, Currency: "EUR", ProviderId: "sim-0123456789abcdef", ContactId: 7_000_000, MessageId: id[:], SubmissionId: id[:],
		}
		value, err := proto.Marshal(d)
		if err != nil {
			b.Fatal(err)
		}
		values = append(values, value)
	}
	b.Run("ours", func(b *testing.B) {
		dec := newDecoder()
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			var e analytics.Event
			if _, err := dec.decode(values[i%len(values)], &e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("protobuf", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			var d fanfarev1.Delivery
			if err := proto.Unmarshal(values[i%len(values)], &d); err != nil {
				b.Fatal(err)
			}
		}
	})
}
