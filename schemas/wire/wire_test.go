package wire

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// fill sets each field of m that is outside a oneof, so that a test finds a field that was added to the schema and
// forgotten here.
func fill(t *rapid.T, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		name := string(f.Name())
		if f.ContainingOneof() != nil {
			continue
		}
		if f.IsList() && f.Kind() == protoreflect.StringKind {
			list := m.Mutable(f).List()
			for range rapid.IntRange(0, 3).Draw(t, name+" length") {
				list.Append(protoreflect.ValueOfString(rapid.StringN(0, 20, 40).Draw(t, name)))
			}
			continue
		}
		switch f.Kind() {
		case protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(rapid.StringN(0, 20, 40).Draw(t, name)))
		case protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, name)))
		case protoreflect.BoolKind:
			m.Set(f, protoreflect.ValueOfBool(rapid.Bool().Draw(t, name)))
		case protoreflect.Uint32Kind:
			m.Set(f, protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, name)))
		case protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, name)))
		case protoreflect.Int64Kind:
			m.Set(f, protoreflect.ValueOfInt64(rapid.Int64().Draw(t, name)))
		case protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32Range(-1, 600).Draw(t, name))))
		default:
			t.Fatalf("field %s: the test knows no %s", f.FullName(), f.Kind())
		}
	}
}

func drawMessage(t *rapid.T) *fanfarev1.Message {
	m := &fanfarev1.Message{}
	fill(t, m.ProtoReflect())
	m.Body = &fanfarev1.Message_Text{Text: &fanfarev1.Text{
		Body: rapid.String().Draw(t, "body"), Encoding: fanfarev1.Encoding(rapid.IntRange(0, 3).Draw(t, "encoding")),
	}}
	return m
}

func drawDelivery(t *rapid.T) *fanfarev1.Delivery {
	d := &fanfarev1.Delivery{}
	fill(t, d.ProtoReflect())
	return d
}

func marshal(t interface{ Fatal(...any) }, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMessageAgrees: MessageBuf reads a message with a text itself, with the same result as the generated code.
func TestMessageAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawMessage(t)
		var m MessageBuf
		if !m.read(marshal(t, want)) {
			t.Fatalf("left to the generated code: %v", want)
		}
		if d := cmp.Diff(want, &m.message, protocmp.Transform()); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

// FuzzMessage: for any bytes, MessageBuf and the generated code agree, also on whether there is an error.
func FuzzMessage(f *testing.F) {
	for _, m := range []*fanfarev1.Message{
		{Tenant: "tn_a", CampaignId: "camp_10001", CampaignNumber: 10001, Seq: 1, Try: 1, Route: "sim", To: "+391", Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "ciao"}}},
		{},
		{Tenant: "t", Body: &fanfarev1.Message_Template{Template: &fanfarev1.Template{Name: "n", Params: []string{"a"}}}},
		{Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{}}},
	} {
		b := marshal(f, m)
		f.Add(b)
		f.Add(append(b, b...))                  // every field twice
		f.Add(append(b, 0xfa, 0x7f, 0x01, 'x')) // a field of a newer version
	}
	f.Add([]byte{0x62, 0x02, 0x0a, 0x00, 0x6a, 0x00})        // two bodies
	f.Add([]byte{0x62, 0x02, 0x0a, 0x00, 0x62, 0x02, 16, 1}) // a text in two parts
	f.Add([]byte{0x0a, 0x01, 0xff})                          // not UTF-8
	f.Fuzz(func(t *testing.T, record []byte) {
		want := &fanfarev1.Message{}
		wantErr := proto.Unmarshal(record, want)
		got, err := (&MessageBuf{}).Read(record)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("got error %v, want %v", err, wantErr)
		}
		if err == nil && !proto.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// TestDeliveryAgrees: AppendDelivery writes the same bytes as the generated code, and no more than DeliverySize says.
func TestDeliveryAgrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDelivery(t)
		got, want := AppendDelivery(nil, d), marshal(t, d)
		if !bytes.Equal(got, want) {
			t.Fatalf("got  %x\nwant %x", got, want)
		}
		if size := DeliverySize(d); size < len(got) {
			t.Fatalf("got %d bytes, announced %d", len(got), size)
		}
	})
}

// TestFieldsAgree: every field of a record, numbers and bytes alike, is found by its number, and unknown ones are
// skipped.
func TestFieldsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, c := range []struct {
			m      proto.Message
			layout Layout
		}{{drawDelivery(t), DeliveryLayout}, {drawMessage(t), MessageLayout}} {
			// Fields 100 (varint), 101 (fixed64), 102 (bytes) and 103 (fixed32) of a newer version.
			record := append(marshal(t, c.m), 0xa0, 0x06, 0x96, 0x01, 0xa9, 0x06, 1, 2, 3, 4, 5, 6, 7, 8, 0xb2, 0x06, 2, 'h', 'i', 0xbd, 0x06, 1, 2, 3, 4)
			var f Fields
			if err := f.Read(record, c.layout); err != nil {
				t.Fatal(err)
			}
			check(t, &f, c.m.ProtoReflect())
		}
	})
}

func check(t *rapid.T, f *Fields, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		d := fields.Get(i)
		n := int(d.Number())
		v := m.Get(d)
		if d.IsList() { // if there are several values, Fields finds the last one
			list := v.List()
			if v = protoreflect.ValueOfString(""); list.Len() > 0 {
				v = list.Get(list.Len() - 1)
			}
		}
		switch d.Kind() {
		case protoreflect.StringKind:
			if got := string(f.Bytes(n)); got != v.String() {
				t.Fatalf("%s: got %q, want %q", d.Name(), got, v.String())
			}
		case protoreflect.BytesKind:
			if got := f.Bytes(n); !bytes.Equal(got, v.Bytes()) {
				t.Fatalf("%s: got %x, want %x", d.Name(), got, v.Bytes())
			}
		case protoreflect.BoolKind:
			if got := f.Number(n) != 0; got != v.Bool() {
				t.Fatalf("%s: got %t, want %t", d.Name(), got, v.Bool())
			}
		case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
			if got := f.Number(n); got != v.Uint() {
				t.Fatalf("%s: got %d, want %d", d.Name(), got, v.Uint())
			}
		case protoreflect.Int64Kind:
			if got := int64(f.Number(n)); got != v.Int() {
				t.Fatalf("%s: got %d, want %d", d.Name(), got, v.Int())
			}
		case protoreflect.EnumKind:
			if got := protoreflect.EnumNumber(f.Number(n)); got != v.Enum() {
				t.Fatalf("%s: got %d, want %d", d.Name(), got, v.Enum())
			}
		case protoreflect.MessageKind: // bodies, which TestMessageAgrees compares
		default:
			t.Fatalf("%s: fields of kind %s are not compared", d.Name(), d.Kind())
		}
	}
}

// FuzzFields: if Fields reads a record, the generated code reads the same values. If Fields refuses it, the generated
// code refuses it too, or the record has a group, which only old protobuf versions write.
func FuzzFields(f *testing.F) {
	f.Add(marshal(f, &fanfarev1.Delivery{Tenant: "tn_a", CampaignNumber: 10001, Seq: 7, MessageId: make([]byte, 16)}))
	f.Add([]byte{0x1b, 0x1c}) // a group
	f.Add([]byte{0xff})
	f.Add([]byte{0x08, 0x80})
	f.Add([]byte{0x08, 0x01}) // a string field encoded as a number: protobuf and Fields both treat it as unknown
	f.Fuzz(func(t *testing.T, record []byte) {
		var got Fields
		err := got.Read(record, DeliveryLayout)
		var want fanfarev1.Delivery
		if proto.Unmarshal(record, &want) != nil {
			return // the generated code also refuses text that is not UTF-8; readers of single fields accept it
		}
		if err != nil {
			for _, b := range record {
				if b&7 == 3 {
					return
				}
			}
			t.Fatalf("got %v, protobuf reads %v", err, &want)
		}
		if got.Number(DeliverySeq)&0xffffffff != uint64(want.GetSeq()) || got.Number(DeliveryCampaignNumber) != want.GetCampaignNumber() ||
			string(got.Bytes(DeliveryTenant)) != want.GetTenant() || !bytes.Equal(got.Bytes(DeliverySubmissionID), want.GetSubmissionId()) {
			t.Fatalf("got %+v, want %v", got, &want)
		}
	})
}

// TestLayouts: each layout has the wire type of each field of its record.
func TestLayouts(t *testing.T) {
	for _, c := range []struct {
		m      proto.Message
		layout Layout
	}{{&fanfarev1.Message{}, MessageLayout}, {&fanfarev1.Text{}, TextLayout}, {&fanfarev1.Template{}, TemplateLayout}, {&fanfarev1.Delivery{}, DeliveryLayout}} {
		var want Layout
		fields := c.m.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			switch f.Kind() {
			case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
				want |= 1 << (bytesHalf + f.Number())
			default:
				want |= 1 << f.Number()
			}
		}
		if c.layout != want {
			t.Errorf("%s: got %#x, want %#x: run make gen", c.m.ProtoReflect().Descriptor().Name(), c.layout, want)
		}
	}
}

func BenchmarkFields(b *testing.B) {
	record := marshal(b, benchDelivery())
	b.ReportAllocs()
	for b.Loop() {
		var f Fields
		if err := f.Read(record, DeliveryLayout); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMessage(b *testing.B) {
	record := marshal(b, &fanfarev1.Message{
		Tenant: "tn_abcdefghijklmnop", CampaignId: "camp_10001", CampaignNumber: 10001, CampaignVersion: 7, Seq: 123456, Try: 1, Leg: 1, Channel: 1, Route: "sim",
		Sender: "FANFARE", To: "+393331234567", Segments: 1, PriceMicros: 50_000, Currency: "EUR", NotAfterMs: 1_790_000_000_000, Country: "IT", Zone: "Europe/Rome",
		ContactId: 7_000_000, Body: &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: "Ciao Maria, la tua consegna per Torino arriva domani tra le 9 e le 12.", Encoding: 1}},
	})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := new(MessageBuf).Read(record); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendDelivery(b *testing.B) {
	d := benchDelivery()
	buf := make([]byte, 0, DeliverySize(d))
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendDelivery(buf[:0], d)
	}
}

func benchDelivery() *fanfarev1.Delivery {
	return &fanfarev1.Delivery{
		Tenant: "tn_abcdefghijklmnop", CampaignId: "camp_10001", CampaignNumber: 10001, Seq: 123456, Try: 1, Leg: 1, Kind: 33, Code: 20, TimeMs: 1_790_000_000_000, Channel: 1,
		Route: "sim", Sender: "FANFARE", To: "+393331234567", Country: "IT", Segments: 2, PriceMicros: 50_000, Currency: "EUR", ProviderId: "sim-0123456789abcdef",
		ContactId: 7_000_000, MessageId: make([]byte, 16), SubmissionId: make([]byte, 16),
	}
}
