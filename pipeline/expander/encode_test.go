package expander

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

// TestEncoding: the generated code reads what the hand-written encoder writes, for every value of every field, and a
// message takes no more bytes than room reserves for it.
func TestEncoding(t *testing.T) {
	word := rapid.StringN(0, 20, 200)
	rapid.Check(t, func(t *rapid.T) {
		u32 := func(name string) uint32 { return rapid.Uint32().Draw(t, name) }
		u64 := func(name string) uint64 { return rapid.Uint64().Draw(t, name) }
		c := &fanfarev1.Chunk{
			Tenant: word.Draw(t, "tenant"), CampaignId: word.Draw(t, "campaign"), CampaignNumber: u64("number"), CampaignVersion: u64("version"),
			Try: u32("try"), Leg: u32("leg"), NotAfterMs: rapid.Int64().Draw(t, "not after"),
		}
		campaign := &fanfarev1.Campaign{Currency: word.Draw(t, "currency"), Test: rapid.Bool().Draw(t, "test")}
		leg := &fanfarev1.Leg{
			Channel: schemas.Channel(rapid.IntRange(0, 4).Draw(t, "channel")), Route: word.Draw(t, "route"), Sender: word.Draw(t, "sender"), PriceMicros: u64("price"),
		}
		e := &audience.Entry{To: word.Draw(t, "to"), Country: word.Draw(t, "country"), Zone: word.Draw(t, "zone"), ContactID: u64("contact")}
		size := text.Size{Encoding: schemas.Encoding(rapid.IntRange(0, 2).Draw(t, "encoding")), Segments: int(rapid.Int32Min(0).Draw(t, "segments"))}
		seq := u32("seq")
		p := &messageParts{}
		want := &fanfarev1.Message{
			Tenant: c.Tenant, CampaignId: c.CampaignId, CampaignNumber: c.CampaignNumber, CampaignVersion: c.CampaignVersion, Seq: seq, Try: c.Try, Leg: c.Leg,
			Channel: leg.Channel, Route: leg.Route, Sender: leg.Sender, To: e.To, Segments: uint32(size.Segments), PriceMicros: leg.PriceMicros,
			Currency: campaign.Currency, NotAfterMs: c.NotAfterMs, Test: campaign.Test, Country: e.Country, Zone: e.Zone, ContactId: e.ContactID,
		}
		if rapid.Bool().Draw(t, "of a template") {
			content := &fanfarev1.Content{
				TemplateName: rapid.StringN(1, 20, 200).Draw(t, "template"), Language: word.Draw(t, "language"),
				Params: []string{"{{first_name}}", "to {{city}}"}, Json: []byte(`[{"type":"body","parameters":[{"type":"text","text":"{{1}}"},{"type":"text","text":"{{2}}"}]}]`),
			}
			awkward := rapid.StringOfN(rapid.RuneFrom([]rune("aé\"\\\n\t\x01😀 {}1")), 0, 20, -1)
			values := map[string]string{"first_name": "x" + awkward.Draw(t, "name"), "city": awkward.Draw(t, "city")}
			made, err := newBody(schemas.ChannelWhatsApp, content)
			if err != nil {
				t.Fatal(err)
			}
			if p.oneof, err = made.render(func(name string) (string, bool) { v, ok := values[name]; return v, ok }, content); err != nil {
				t.Fatal(err)
			}
			params := []string{values["first_name"], "to " + values["city"]}
			var parsed []struct{ Parameters []struct{ Text string } }
			raw := componentsOf(t, p.oneof)
			if err := json.Unmarshal(raw, &parsed); err != nil || parsed[0].Parameters[0].Text != params[0] || parsed[0].Parameters[1].Text != params[1] {
				t.Fatalf("got components %s (%v), want %q", raw, err, params)
			}
			want.Body = &fanfarev1.Message_Template{Template: &fanfarev1.Template{Name: content.TemplateName, Language: content.Language, Params: params, Components: raw}}
		} else {
			p.body = []byte(rapid.StringN(1, 300, 1000).Draw(t, "body"))
			want.Body = &fanfarev1.Message_Text{Text: &fanfarev1.Text{Body: string(p.body), Encoding: size.Encoding}}
		}
		p.encode(c, campaign, leg, leg.GetRoute())
		var s slab
		b := p.append(s.take(p.room(e)), seq, e, size, leg.PriceMicros)
		if len(b) > p.room(e) {
			t.Fatalf("got %d bytes, want at most %d", len(b), p.room(e))
		}
		got := &fanfarev1.Message{}
		if err := proto.Unmarshal(b, got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
		if generated, err := proto.Marshal(want); err != nil || len(generated) != len(b) {
			t.Fatalf("got %d bytes, want %d as the generated code has (%v)", len(b), len(generated), err)
		}
	})
}

// componentsOf are the components in the field of a template.
func componentsOf(t *rapid.T, field []byte) []byte {
	m := &fanfarev1.Message{}
	if err := proto.Unmarshal(field, m); err != nil {
		t.Fatal(err)
	}
	return m.GetTemplate().GetComponents()
}

// TestNoFieldIsForgotten: the expander sets every field of Message, or the list below names the field as one that it
// does not set.
func TestNoFieldIsForgotten(t *testing.T) {
	notOurs := map[string]bool{
		"rich": true, "call": true, // of other channels: TestContentOfChannels
		"variant":          true, // set for texts with variants: see TestVariants
		"not_before_ms":    true, // no chunk has it
		"customer_ref":     true, // of single sends
		"confirms_opt_out": true, // of the API's confirmations
	}
	w := newEnv(t, people(1))
	w.change(func(c *fanfarev1.Campaign) { c.Test = true })
	m := handle(t, w.handler(t), record(t, chunk(seqs(0), func(c *fanfarev1.Chunk) { c.FirstSeq = 0 }))).messages[0].ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if name := string(f.Name()); !m.Has(f) && !notOurs[name] && name != "seq" && name != "template" {
			t.Errorf("field %s is not made", name)
		}
	}
}

// TestEveryRecipientOnce: for any chunks, each recipient of each chunk becomes exactly one message or one outcome (P2).
func TestEveryRecipientOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(rt, "recipients")
		entries := people(n)
		for i := range entries {
			entries[i].Flag = audience.Flag(rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 4}).Draw(rt, "flag"))
			if rapid.IntRange(0, 5).Draw(rt, "nameless") == 0 {
				entries[i].Attrs = nil
			}
		}
		w := newEnv(t, entries)
		state := schemas.State(rapid.IntRange(7, 14).Draw(rt, "state"))
		w.change(func(c *fanfarev1.Campaign) { c.State = state })
		if rapid.IntRange(0, 5).Draw(rt, "damage") == 0 {
			w.blobs[blobKey{frozen, 1}][3] ^= 0x55
		}
		h := w.handler(t)
		for blob, row := range w.indexes[frozen] {
			set := roaring.New()
			for seq := row.First; seq < row.First+row.Count; seq++ {
				if rapid.Bool().Draw(rt, "in") {
					set.Add(seq)
				}
			}
			if set.IsEmpty() {
				continue
			}
			got := handle(t, h, record(t, chunk(seqs(set.ToArray()...), func(c *fanfarev1.Chunk) {
				c.Blob = uint32(blob + 1)
				if rapid.IntRange(0, 5).Draw(rt, "bad leg") == 0 {
					c.Leg = 7
				}
			})))
			want := set.ToArray()
			if len(got.records) != len(want) {
				rt.Fatalf("got %d records, want %d", len(got.records), len(want))
			}
			for i, seq := range want {
				if _, ok := got.states()[seq]; !ok {
					rt.Fatalf("recipient %d is nowhere", seq)
				}
				message := w.keys.Message(number, seq)
				if r := got.records[i]; r.Topic == h.names.Deliveries() && string(r.Key) != schemas.DeliveryKey(tenant, message) {
					rt.Fatalf("outcome of %d: got key %s", seq, r.Key)
				}
			}
		}
	})
}

// FuzzChunk: no input makes the handler fail or wait for ever. A record that it cannot read becomes a dead letter.
func FuzzChunk(f *testing.F) {
	for _, c := range []*fanfarev1.Chunk{chunk(), chunk(seqs(1, 3)), chunk(func(c *fanfarev1.Chunk) { c.Seqs = []byte{0x3a, 0x30, 0, 0} })} {
		b, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	w := newEnv(f, people(6))
	f.Fuzz(func(t *testing.T, value []byte) {
		h := w.handler(t)
		h.cfg.Patience = 1
		r := record(t, chunk())
		r.Value = value
		res, err := h.Handle(t.Context(), []*kgo.Record{r})
		if err != nil {
			return // the chunk names a campaign version that has not arrived
		}
		if len(res.Publish) > audience.BlobSize || len(res.Publish) == 0 && len(res.Dead) == 0 {
			t.Fatalf("got %d records and %d dead letters", len(res.Publish), len(res.Dead))
		}
		decode(t, res)
	})
}

// realisticBody and realisticEntry are like those of real campaigns: four attributes, two of them in a text of 85
// characters.
const realisticBody = "Ciao {{first_name}}, la tua consegna per {{city}} arriva domani tra le 9 e le 12. Info: f.co/aB3d"

func realisticEntry(i int) audience.Entry {
	return audience.Entry{
		ContactID: uint64(1_000_000 + i), To: fmt.Sprintf("+39340%07d", i), Zone: "Europe/Rome", Country: "IT", Class: audience.Mobile,
		Attrs: []audience.Attr{
			{Name: "first_name", Value: [...]string{"Maria", "Giuseppe", "Anna", "Zoe"}[i%4]},
			{Name: "last_name", Value: fmt.Sprintf("Rossi%d", i)},
			{Name: "email", Value: fmt.Sprintf("maria.rossi%d@example.com", i)},
			{Name: "city", Value: "Torino"},
		},
	}
}

// BenchmarkHandle measures the work of the stage without Kafka; each chunk is a whole blob.
func BenchmarkHandle(b *testing.B) {
	w := newEnv(b, nil)
	w.indexes[frozen] = nil
	entries := make([]audience.Entry, audience.BlobSize)
	for i := range entries {
		entries[i] = realisticEntry(i)
	}
	w.freeze(frozen, entries, audience.BlobSize)
	w.change(func(c *fanfarev1.Campaign) { c.Total, c.Content.Body = audience.BlobSize, realisticBody })
	h := w.handler(b)
	r := record(b, chunk(func(c *fanfarev1.Chunk) { c.EndSeq = audience.BlobSize }))
	b.ReportAllocs()
	n, began := 0, cpuTime()
	for b.Loop() {
		h.blobs.forget(blobKey{frozen, 1}) // each chunk reads another blob
		res, err := h.Handle(b.Context(), []*kgo.Record{r})
		if err != nil || len(res.Publish) != audience.BlobSize {
			b.Fatalf("got %d records, %v", len(res.Publish), err)
		}
		n += len(res.Publish)
		for _, r := range res.Publish { // as the client does
			home{}.OnProduceRecordUnbuffered(r, nil)
		}
	}
	b.ReportMetric(float64((cpuTime()-began).Nanoseconds())/float64(n), "cpu-ns/msg")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msgs/s")
}
