package expander

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
	"fanfare/schemas/trace"
)

// defaultSegments bounds a text whose campaign has no bound of its own: a tenant's default (C14).
const defaultSegments = 3

// maxCharacters of a text on a channel that has no segments (R156).
const maxCharacters = 1000

// expansion makes the records of one chunk.
type expansion struct {
	h        *handler
	chunk    *fanfarev1.Chunk
	campaign *fanfarev1.Campaign
	leg      *fanfarev1.Leg // nil when the campaign has no leg of that number
	route    string         // of the messages
	entries  *audience.Reader
	first    uint32
	seqs     []uint32
	time     time.Time
	// trace is the traceparent of every record: the chunk's, if this process does not trace.
	trace string
	// traced is the traceparent of the records of traced recipients; "": none is traced.
	traced string

	// Of messages only.
	content   *fanfarev1.Content
	templates []*text.Template // for SMS: one template, or one for each variant
	weights   []uint32         // of the variants
	body      *body            // of the other channels
	prices    map[string]uint64
	price     uint64 // to the country of the current recipient
	value     func(name string) (string, bool)
	links     map[linkKey]uint8
	domains   domains
	seq       uint32 // of the current recipient
	// Bounds of a rendered text: segments of an SMS, and bytes.
	maxSegments, limit int
	entry              audience.Entry
	zones              string // the last zone and country that were valid UTF-8
	country            string
	parts              messageParts

	arena    *arena // nil without messages
	out      []*kgo.Record
	messages int
	outcomes map[schemas.Code]int
}

// scratch is memory that one expansion leaves to the next.
type scratch struct{ body []byte }

// newExpansion returns an expansion that knows its leg.
func (h *handler) newExpansion(j *job) (*expansion, error) {
	x := h.newOutcomes(j)
	if x.leg == nil && j.chunk.GetPurpose() != schemas.PurposeCancel {
		return nil, poison(fmt.Errorf("leg %d: the campaign has %d", j.chunk.GetLeg(), len(j.campaign.GetLegs())))
	}
	return x, nil
}

// newOutcomes returns an expansion that can make outcomes, even if the campaign is broken.
func (h *handler) newOutcomes(j *job) *expansion {
	x := &expansion{
		h: h, chunk: j.chunk, campaign: j.campaign, entries: j.entries, first: j.first, seqs: j.seqs, time: j.record.Timestamp,
		out: make([]*kgo.Record, 0, len(j.seqs)), outcomes: map[schemas.Code]int{},
	}
	if n := int(j.chunk.GetLeg()); n >= 1 && n <= len(j.campaign.GetLegs()) {
		x.leg = j.campaign.GetLegs()[n-1]
	}
	x.route = cmp.Or(j.chunk.GetRoute(), x.leg.GetRoute())
	if x.h.cfg.Traces == nil {
		x.trace = string(schemas.Header(j.record, schemas.HeaderTraceparent))
	} else if slices.ContainsFunc(x.seqs, x.samples) {
		x.traced = h.cfg.Traces.OfCampaign(j.chunk.GetCampaignNumber()).Expand(j.chunk.GetDeal()).Traceparent()
	}
	return x
}

// samples reports whether a recipient is traced.
func (x *expansion) samples(seq uint32) bool {
	return x.h.cfg.Traces.Samples(x.chunk.GetCampaignNumber(), seq)
}

// traceOf returns the traceparent of a recipient's record.
func (x *expansion) traceOf(seq uint32) string {
	if x.traced != "" && x.samples(seq) {
		return x.traced
	}
	return x.trace
}

// each calls do for each recipient in order of seq. Without a blob, the entries are empty.
func (x *expansion) each(do func(seq uint32, e *audience.Entry) error) error {
	for _, seq := range x.seqs {
		if x.entries != nil {
			if seq < x.first || !x.entries.Seek(int(seq-x.first)) || !x.entries.Next(&x.entry) {
				if err := x.entries.Err(); err != nil {
					return poison(err)
				}
				return poison(fmt.Errorf("blob %d has %d recipients from %d, not %d", x.chunk.GetBlob(), x.entries.Len(), x.first, seq))
			}
		}
		if err := do(seq, &x.entry); err != nil {
			return err
		}
	}
	return nil
}

// reset starts again without the blob.
func (x *expansion) reset() {
	x.entries, x.entry, x.out = nil, audience.Entry{}, x.out[:0]
	clear(x.outcomes)
}

// outcome adds the delivery event of a recipient who gets no message.
func (x *expansion) outcome(seq uint32, e *audience.Entry, kind schemas.Kind, code schemas.Code, segments int) error {
	c := x.chunk
	message := x.h.keys.Message(c.GetCampaignNumber(), seq)
	d := &fanfarev1.Delivery{
		Tenant: c.GetTenant(), CampaignId: c.GetCampaignId(), CampaignNumber: c.GetCampaignNumber(), Seq: seq, Try: c.GetTry(), Leg: c.GetLeg(),
		Kind: kind, Code: code, TimeMs: x.time.UnixMilli(), Channel: x.leg.GetChannel(), Route: x.route, Sender: x.leg.GetSender(),
		// The store keeps an invalid number unchanged, so it may be invalid UTF-8.
		To: strings.ToValidUTF8(e.To, ""), Country: strings.ToValidUTF8(e.Country, ""), ContactId: e.ContactID,
		Segments: uint32(min(segments, schemas.MaxSegments)), MessageId: message[:], Test: x.campaign.GetTest(),
	}
	if c.GetTry() > 0 {
		submission := x.h.keys.Submission(c.GetCampaignNumber(), seq, uint8(c.GetTry()))
		d.SubmissionId = submission[:]
	}
	event := schemas.DeliveryEvent(x.h.names.Deliveries(), source, d, "")
	event.Traceparent = x.traceOf(seq)
	r, err := event.Record()
	if err != nil {
		return poison(err)
	}
	x.out = append(x.out, r)
	x.outcomes[code]++
	return nil
}

// prepare encodes what the messages of the chunk have in common.
func (x *expansion) prepare() error {
	if err := x.prepareContent(); err != nil {
		return poison(err)
	}
	topic := x.h.names.Messages(x.route, schemas.LaneBulk)
	if err := schemas.ValidRoute(x.route); err != nil {
		return poison(err)
	}
	for _, s := range []string{x.chunk.GetTenant(), x.leg.GetSender(), x.content.GetTemplateName(), x.campaign.GetCurrency()} {
		if !utf8.ValidString(s) {
			return poison(errors.New("a text of the campaign is not valid UTF-8"))
		}
	}
	x.prices = make(map[string]uint64, len(x.leg.GetPrices()))
	for _, p := range x.leg.GetPrices() {
		x.prices[p.GetCountry()] = p.GetMicros()
	}
	x.price = x.priceOf("")
	x.parts.encode(x.chunk, x.campaign, x.leg, x.route)
	shared := schemas.Event{Tenant: x.chunk.GetTenant(), Type: schemas.TypeMessage, Source: source, Time: x.time, Traceparent: x.trace}.Shared()
	x.arena = x.h.arenas.lend(len(x.seqs), look{topic, x.chunk.GetTenant(), x.trace}, shared, x.h.cfg.Now())
	return nil
}

// prepareContent reads what the leg sends: one text, variants of a text, a template, or a call.
func (x *expansion) prepareContent() error {
	x.content = contentOf(x.campaign, x.leg)
	x.value = x.lookUp
	x.links = make(map[linkKey]uint8, len(x.campaign.GetLinks().GetLinks()))
	for _, l := range x.campaign.GetLinks().GetLinks() {
		if l.GetNumber() < 1 || l.GetNumber() > schemas.MaxLink {
			return fmt.Errorf("link number %d: want 1 to %d", l.GetNumber(), schemas.MaxLink)
		}
		x.links[linkKey{l.GetVariant(), l.GetUrl()}] = uint8(l.GetNumber())
	}
	if err := x.domains.read(x); err != nil {
		return err
	}
	if x.leg.GetChannel() != schemas.ChannelSMS {
		var err error
		if x.body, err = newBody(x.leg.GetChannel(), x.content); err != nil {
			return err
		}
		for _, t := range x.body.params {
			if err := x.knowsLinks(t, 0); err != nil {
				return err
			}
		}
		return nil
	}
	x.maxSegments = min(cmp.Or(int(x.campaign.GetMaxSegments()), defaultSegments), schemas.MaxSegments)
	x.limit = text.MaxBytes(x.maxSegments)
	bodies := []string{x.content.GetBody()}
	if variants := x.content.GetVariants(); len(variants) > 0 {
		all := x.campaign.GetWeights()
		n := int(x.chunk.GetWeights())
		if n >= len(all) || len(all[n].GetOf()) != len(variants) {
			return fmt.Errorf("weights %d: the campaign has %d, for %d variants", n, len(all), len(variants))
		}
		x.weights = all[n].GetOf()
		bodies = bodies[:0]
		for _, v := range variants {
			bodies = append(bodies, v.GetBody())
		}
	}
	for i, body := range bodies {
		t, err := text.Parse(body)
		if err != nil {
			return err
		}
		variant := uint32(0)
		if x.weights != nil {
			variant = uint32(i) + 1 //nolint:gosec // as many as the content has
		}
		if err := x.knowsLinks(t, variant); err != nil {
			return err
		}
		x.templates = append(x.templates, t)
	}
	return nil
}

// priceOf is the price of a segment, message or minute to a country.
func (x *expansion) priceOf(country string) uint64 {
	if micros, ok := x.prices[country]; ok {
		return micros
	}
	return x.leg.GetPriceMicros()
}

// linkKey identifies a link of a text: the same address in two variants counts as two links.
type linkKey struct {
	variant uint32
	url     string
}

// knowsLinks returns an error if a text has a link that the table of the campaign lacks.
func (x *expansion) knowsLinks(t *text.Template, variant uint32) error {
	for _, address := range t.Links() {
		if _, ok := x.links[linkKey{variant, address}]; !ok {
			return fmt.Errorf("variant %d has a link that is not in the campaign's table of %d", variant, len(x.links))
		}
	}
	if x.campaign.GetLinks() == nil && t.OptOut() {
		return errors.New("the text has an opt-out link and the campaign has no table of links")
	}
	return nil
}

// link is the short address of a link for the current recipient.
func (x *expansion) link(number uint8) string {
	base := x.domains.base(x.seq, number)
	b := make([]byte, 0, len(base)+schemas.LinkLen(x.chunk.GetCampaignNumber()))
	return string(x.h.keys.AppendLink(append(b, base...), schemas.Link{Campaign: x.chunk.GetCampaignNumber(), Seq: x.seq, Number: number}))
}

// lookUp is the value of a merge field: an attribute of the contact, or its number; or the short address of a link.
func (x *expansion) lookUp(name string) (string, bool) {
	if name == text.FieldOptOut {
		return x.link(schemas.LinkOptOut), true
	}
	if address, ok := text.LinkOf(name); ok {
		number, known := x.links[linkKey{uint32(x.parts.variant), address}] //nolint:gosec // a variant's number
		if !known {
			return "", false
		}
		return x.link(number), true
	}
	if v, ok := x.entry.Value(name); ok || name != "phone" {
		return v, ok
	}
	return x.entry.To, true
}

// recipient adds the message of a recipient, or its outcome if it gets no message.
func (x *expansion) recipient(seq uint32, e *audience.Entry) error {
	x.seq = seq
	if e.Flag != audience.OK {
		kind, code := flagged(e.Flag)
		return x.outcome(seq, e, kind, code, 0)
	}
	if !isE164(e.To) {
		return x.outcome(seq, e, schemas.KindNotSent, schemas.CodeInvalidNumber, 0)
	}
	if e.Zone != x.zones || e.Country != x.country {
		if !utf8.ValidString(e.Zone) || !utf8.ValidString(e.Country) {
			return poison(fmt.Errorf("%w: zone or country", audience.ErrBlob))
		}
		x.zones, x.country = e.Zone, e.Country
		x.price = x.priceOf(e.Country)
	}
	if x.body != nil {
		field, err := x.body.render(x.value, x.content)
		if errors.Is(err, text.ErrTooLong) {
			return x.outcome(seq, e, schemas.KindNotSent, schemas.CodeTooLong, 0)
		}
		if err != nil {
			return x.outcome(seq, e, schemas.KindNotSent, schemas.CodeRenderError, 0)
		}
		x.parts.oneof = field
		x.message(seq, e, text.Size{Segments: 1})
		return nil
	}
	return x.sms(seq, e)
}

// sms adds the SMS of a recipient and measures its text.
func (x *expansion) sms(seq uint32, e *audience.Entry) error {
	t := x.templates[0]
	if x.weights != nil {
		x.parts.variant = schemas.VariantOf(x.chunk.GetCampaignNumber(), seq, x.weights)
		t = x.templates[max(0, x.parts.variant-1)]
	}
	body, err := t.Append(x.h.scratch.body[:0], x.limit, x.value, x.content.GetMissing(), x.content.GetMissingDefault())
	x.h.scratch.body = body[:0]
	if errors.Is(err, text.ErrTooLong) { // the segments of the whole text are not known: at least one more than allowed
		return x.outcome(seq, e, schemas.KindNotSent, schemas.CodeTooLong, x.maxSegments+1)
	}
	if err != nil || text.BlankBytes(body) || !utf8.Valid(body) {
		return x.outcome(seq, e, schemas.KindNotSent, schemas.CodeRenderError, 0)
	}
	if x.content.GetTransliterate() {
		body = []byte(text.Transliterate(string(body)))
	}
	size := text.MeasureBytes(body)
	if size.Segments > x.maxSegments {
		return x.outcome(seq, e, schemas.KindNotSent, schemas.CodeTooLong, size.Segments)
	}
	x.parts.body = body
	x.message(seq, e, size)
	return nil
}

// isE164 reports whether s is + and 2 to 15 digits.
func isE164(s string) bool {
	if len(s) < 3 || len(s) > 16 || s[0] != '+' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// message adds a message.
func (x *expansion) message(seq uint32, e *audience.Entry, size text.Size) {
	c := x.chunk
	id := x.h.keys.Submission(c.GetCampaignNumber(), seq, uint8(c.GetTry()))
	mem := &x.arena.bytes
	key := mem.take(len(c.GetTenant()) + 1 + len(e.To))
	key = append(append(append(key, c.GetTenant()...), '/'), e.To...)
	mem.keep(key)
	value := x.parts.append(mem.take(x.parts.room(e)), seq, e, size, x.price)
	mem.keep(value)
	r := x.arena.add(key, value, id)
	if traceparent := x.traceOf(seq); traceparent != x.trace {
		r = withTrace(r, traceparent)
	}
	x.out = append(x.out, r)
	x.messages++
}

// withTrace returns a copy of a record of the arena that has a traceparent: the headers in the arena are shared by the
// chunks to come.
func withTrace(r *kgo.Record, traceparent string) *kgo.Record {
	traced := *r
	traced.Headers = append(slices.Clone(r.Headers), kgo.RecordHeader{Key: schemas.HeaderTraceparent, Value: []byte(traceparent)})
	return &traced
}

// span makes the span of an expansion that began at a time, if one of its recipients is traced.
func (x *expansion) span(j *job, began time.Time) {
	if x.traced == "" {
		return
	}
	c := x.chunk
	way := x.h.cfg.Traces.OfCampaign(c.GetCampaignNumber())
	x.h.cfg.Traces.Record(trace.Span{
		Name: trace.NameExpand, At: way.Expand(c.GetDeal()), Kind: trace.Consumer, Start: began, End: x.h.cfg.Now(),
		Parent: way.Parent(schemas.Header(j.record, schemas.HeaderTraceparent), way.Deal(c.GetDeal())),
		Attributes: []attribute.KeyValue{
			trace.Tenant(c.GetTenant()), trace.Campaign(c.GetCampaignId()), trace.Deal(c.GetDeal()), trace.Route(x.route), trace.Recipients(len(x.seqs)),
		},
	})
}

// count adds the messages and outcomes of the chunk to the metrics.
func (x *expansion) count() {
	m := x.h.metrics
	if x.messages > 0 {
		m.chunks.WithLabelValues("messages").Inc()
		m.recipients.WithLabelValues("message").Add(float64(x.messages))
	} else {
		m.chunks.WithLabelValues("outcomes").Inc()
	}
	for code, n := range x.outcomes {
		m.recipients.WithLabelValues(schemas.CodeName(code)).Add(float64(n))
	}
}
