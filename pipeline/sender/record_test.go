package sender

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// fill sets each field of m, so that the test finds a field that is added to the schema and forgotten in the encoder.
func fill(t *rapid.T, m protoreflect.Message, skip map[protoreflect.Name]bool) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if skip[f.Name()] || f.ContainingOneof() != nil {
			continue
		}
		switch f.Kind() {
		case protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(rapid.StringN(0, 20, 40).Draw(t, string(f.Name()))))
		case protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, string(f.Name()))))
		case protoreflect.BoolKind:
			m.Set(f, protoreflect.ValueOfBool(rapid.Bool().Draw(t, string(f.Name()))))
		case protoreflect.Uint32Kind:
			m.Set(f, protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, string(f.Name()))))
		case protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, string(f.Name()))))
		case protoreflect.Int64Kind:
			m.Set(f, protoreflect.ValueOfInt64(rapid.Int64().Draw(t, string(f.Name()))))
		case protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.IntRange(0, 600).Draw(t, string(f.Name())))))
		default:
			t.Fatalf("field %s is of kind %s, which the test cannot fill", f.Name(), f.Kind())
		}
	}
}

// TestOutcomeAgrees: the encoder writes any outcome exactly as the generated code does.
func TestOutcomeAgrees(t *testing.T) {
	keys := testKeys(t)
	writer := newOutcomeEncoder(testNames(t), keys)
	rapid.Check(t, func(t *rapid.T) {
		m := &fanfarev1.Message{}
		fill(t, m.ProtoReflect(), nil)
		m.Try = rapid.Uint32Range(1, 255).Draw(t, "try")
		id := keys.Submission(m.CampaignNumber, m.Seq, uint8(m.Try))
		v := verdict{kind: rapid.SampledFrom(schemas.Kinds).Draw(t, "kind").Kind, code: rapid.SampledFrom(schemas.Codes).Draw(t, "code").Code}
		v.raw, v.ref = rapid.StringN(0, 20, 40).Draw(t, "raw"), rapid.StringN(0, 20, 40).Draw(t, "ref")
		v.parts = rapid.SliceOfN(rapid.StringN(0, 20, 40), 0, 3).Draw(t, "parts")
		if rapid.Bool().Draw(t, "again") {
			v.again = noon
		}
		message := keys.MessageOf(id)
		want := &fanfarev1.Delivery{
			Tenant: m.Tenant, CampaignId: m.CampaignId, CampaignNumber: m.CampaignNumber, Seq: m.Seq, Try: m.Try, Leg: m.Leg, Kind: v.kind, Code: v.code,
			RawCode: v.raw, TimeMs: noon.UnixMilli(), Channel: m.Channel, Route: m.Route, Sender: m.Sender, To: m.To, Country: m.Country, Variant: m.Variant,
			Segments: m.Segments, PriceMicros: m.PriceMicros, Currency: m.Currency, ProviderId: v.ref, CustomerRef: m.CustomerRef, ContactId: m.ContactId,
			MessageId: message[:], SubmissionId: id[:], Test: m.Test, PartProviderIds: v.parts,
		}
		if !v.again.IsZero() {
			want.AgainAtMs = noon.UnixMilli()
		}
		out := &kgo.Record{}
		writer.outcome(out, nil, &kgo.Record{}, m, id, &v, noon)
		got := &fanfarev1.Delivery{}
		if err := proto.Unmarshal(out.Value, got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
		reference, err := schemas.DeliveryEvent("t.deliveries", "sender", want, "").Record()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(reference.Headers, out.Headers); d != "" {
			t.Fatalf("headers (-want +got):\n%s", d)
		}
		if about, err := outcomeOf(out); v.kind != schemas.KindAmbiguous && (err != nil || about != id) || v.kind == schemas.KindAmbiguous && err == nil {
			t.Fatalf("%s is final about %s, %v; want %s, and an error when it is ambiguous", v.kind, about, err, id)
		}
		if string(out.Key) != string(reference.Key) || out.Topic != reference.Topic {
			t.Fatalf("got topic %s, key %q, want %s, %q", out.Topic, out.Key, reference.Topic, reference.Key)
		}
	})
}

// Two supervisors of one process may share a registry, as in the end-to-end tests.
func TestMetricsTwice(t *testing.T) {
	reg := prometheus.NewRegistry()
	a, b := newMetrics(reg), newMetrics(reg)
	a.lane("sim", schemas.LaneBulk).outcome(sent, awaiting)
	b.lane("sim", schemas.LaneBulk).outcome(sent, awaiting)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "fanfare_sender_outcomes_total" {
			if got := f.GetMetric()[0].GetCounter().GetValue(); got != 2 {
				t.Errorf("got %g outcomes, want 2", got)
			}
			return
		}
	}
	t.Error("got no metric fanfare_sender_outcomes_total")
}
