package expander

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// R16, R18, R19, R21 to R27: each channel has its own content, rendered for each recipient.
func TestContentOfChannels(t *testing.T) {
	e := person(0)
	e.Attrs = append(e.Attrs, audience.Attr{Name: "order", Value: "A \"quoted\" order\nof two lines"})
	w := newEnv(t, []audience.Entry{e})
	w.change(func(c *fanfarev1.Campaign) {
		c.Legs = []*fanfarev1.Leg{
			{Channel: schemas.ChannelRCS, Route: "rbm", Sender: "acme_agent", Content: &fanfarev1.Content{
				Params: []string{"{{first_name}}", "{{order}}"}, Json: []byte(`{"richCard":{"title":"Ciao {{1}}","description":"{{2}}"}}`),
			}},
			{Channel: schemas.ChannelWhatsApp, Route: "cloud", Sender: "123", Content: &fanfarev1.Content{
				TemplateName: "order_shipped", Language: "it", Params: []string{"{{first_name}}"}, Json: []byte(`[{"type":"body","parameters":[{"type":"text","text":"{{1}}"}]}]`),
			}},
			{Channel: schemas.ChannelVoice, Route: "ari", Sender: "+39021234567", Content: &fanfarev1.Content{
				Voice: &fanfarev1.Voice{Queue: "north", MachineAction: "hangup", Text: "Buongiorno {{first_name}}", Language: "it", RingSeconds: 30},
			}},
			{Channel: schemas.ChannelVoice, Route: "ari", Sender: "+39021234567", Content: &fanfarev1.Content{Voice: &fanfarev1.Voice{Media: "https://example.com/a.wav"}}},
			{Channel: schemas.ChannelRCS, Route: "rbm", Sender: "acme_agent"}, // the campaign's text
			{Channel: schemas.ChannelSMS, Route: "sms", Sender: "ACME", Content: &fanfarev1.Content{Body: "“Ciao” – {{first_name}} ş…", Transliterate: true}},
		}
	})
	h := w.handler(t)
	message := func(leg uint32) *fanfarev1.Message {
		t.Helper()
		got := handle(t, h, record(t, chunk(seqs(0), func(c *fanfarev1.Chunk) { c.Leg = leg })))
		if len(got.messages) != 1 {
			t.Fatalf("leg %d: got %v, want a message", leg, got.states())
		}
		return got.messages[0]
	}
	var card struct {
		RichCard struct{ Title, Description string }
	}
	if raw := message(1).GetRich().GetJson(); json.Unmarshal(raw, &card) != nil || card.RichCard.Title != "Ciao Ada0" || card.RichCard.Description != e.Attrs[1].Value {
		t.Errorf("RCS: got %s", raw)
	}
	want := &fanfarev1.Template{Name: "order_shipped", Language: "it", Params: []string{"Ada0"}, Components: []byte(`[{"type":"body","parameters":[{"type":"text","text":"Ada0"}]}]`)}
	if d := cmp.Diff(want, message(2).GetTemplate(), protocmp.Transform()); d != "" {
		t.Errorf("WhatsApp (-want +got):\n%s", d)
	}
	call := &fanfarev1.Call{Queue: "north", MachineAction: "hangup", Text: "Buongiorno Ada0", Language: "it", RingSeconds: 30}
	if d := cmp.Diff(call, message(3).GetCall(), protocmp.Transform()); d != "" {
		t.Errorf("voice (-want +got):\n%s", d)
	}
	if got := message(4).GetCall(); got.GetMedia() != "https://example.com/a.wav" || got.GetText() != "" {
		t.Errorf("a recorded message: got %v", got)
	}
	if got := message(6).GetText(); got.GetBody() != `"Ciao" - Ada0 s...` || got.GetEncoding() != fanfarev1.Encoding_ENCODING_GSM7 {
		t.Errorf("transliterated: got %v, want GSM-7", got)
	}
	if got := string(message(5).GetRich().GetJson()); got != `{"text":"Ciao Ada0!"}` {
		t.Errorf("RCS without a template: got %s", got)
	}
}

// Content that cannot be rendered for a recipient is not sent, and the outcome gives the reason. Content that cannot be
// sent to anyone makes only its own chunk a poison record.
func TestContentThatCannotBeFilledIn(t *testing.T) {
	long := person(0)
	long.Attrs = []audience.Attr{{Name: "first_name", Value: strings.Repeat("a", 1025)}}
	blank := person(1)
	blank.Attrs = []audience.Attr{{Name: "first_name", Value: " "}}
	w := newEnv(t, []audience.Entry{long, blank})
	use := func(content *fanfarev1.Content) {
		w.change(func(c *fanfarev1.Campaign) {
			c.Legs = []*fanfarev1.Leg{{Channel: schemas.ChannelWhatsApp, Route: "cloud", Sender: "123", Content: content}}
		})
	}
	both := chunk(func(c *fanfarev1.Chunk) { c.FirstSeq, c.EndSeq = 0, 2 })
	use(&fanfarev1.Content{TemplateName: "hello", Params: []string{"{{first_name}}"}})
	got := handle(t, w.handler(t), record(t, both))
	if d := cmp.Diff(map[uint32]string{0: "not_sent/TOO_LONG", 1: "not_sent/RENDER_ERROR"}, got.states()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for name, content := range map[string]*fanfarev1.Content{
		"no template":            {},
		"a parameter too many":   {TemplateName: "hello", Json: []byte(`["{{1}}"]`)},
		"an expression not read": {TemplateName: "hello", Params: []string{"{{"}},
		"not UTF-8":              {TemplateName: "hello", Json: []byte("\"\xff\"")},
	} {
		use(content)
		got := handle(t, w.handler(t), record(t, both))
		if len(got.dead) != 1 || len(got.outcomes) != 2 || got.outcomes[0].GetCode() != schemas.CodeRenderError {
			t.Errorf("%s: got %d dead, %v", name, len(got.dead), got.states())
		}
	}
}

// R38: each recipient gets one of the variants, by the weights that its chunk names. R113: its price is that of its
// country.
func TestVariants(t *testing.T) {
	const n = 200
	entries := people(n)
	entries[7].Country = "FR"
	w := newEnv(t, entries)
	w.change(func(c *fanfarev1.Campaign) {
		c.Content = &fanfarev1.Content{Variants: []*fanfarev1.Variant{{Name: "a", Body: "Ciao"}, {Name: "b", Body: "Salve"}}}
		c.Weights = []*fanfarev1.Weights{{Of: []uint32{1, 1}}, {Of: []uint32{0, 1}}}
		c.Legs[0].Prices = []*fanfarev1.CountryPrice{{Country: "FR", Micros: 70_000}}
	})
	h := w.handler(t)
	count := func(weights uint32) map[string]int {
		out := map[string]int{}
		for _, row := range w.indexes[frozen] {
			got := handle(t, h, record(t, chunk(func(c *fanfarev1.Chunk) {
				c.Blob, c.FirstSeq, c.EndSeq, c.Weights = row.Blob, row.First, row.First+row.Count, weights
			})))
			for _, m := range got.messages {
				if want := schemas.VariantOf(number, m.GetSeq(), w.Campaign(campaign).GetWeights()[weights].GetOf()); int(m.GetVariant()) != want {
					t.Errorf("seq %d: got variant %d, want %d", m.GetSeq(), m.GetVariant(), want)
				}
				if want := map[bool]uint64{true: 70_000, false: 50_000}[m.GetSeq() == 7]; m.GetPriceMicros() != want {
					t.Errorf("seq %d: got price %d, want %d", m.GetSeq(), m.GetPriceMicros(), want)
				}
				out[m.GetText().GetBody()]++
			}
		}
		return out
	}
	if got := count(0); got["Ciao"]+got["Salve"] != n || got["Ciao"] < 60 || got["Salve"] < 60 {
		t.Errorf("got %v, want about half each", got)
	}
	if got := count(1); got["Salve"] != n {
		t.Errorf("got %v, want the second alone", got)
	}
	got := handle(t, h, record(t, chunk(seqs(0), func(c *fanfarev1.Chunk) { c.Weights = 2 })))
	if len(got.dead) != 1 {
		t.Errorf("got %v for weights that the campaign does not have, want a dead letter", got.states())
	}
}
