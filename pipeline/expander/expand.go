package expander

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

// defaultSegments bounds a text whose campaign has no bound of its own: a tenant's default (C14).
const defaultSegments = 3

// expansion makes the records of one chunk.
type expansion struct {
	h        *handler
	chunk    *fanfarev1.Chunk
	campaign *fanfarev1.Campaign
	leg      *fanfarev1.Leg // nil when the campaign has none of that number
	entries  *audience.Reader
	first    uint32
	seqs     []uint32
	time     time.Time
	trace    string // its traceparent

	// Of messages only.
	template *text.Template
	value    func(name string) (string, bool)
	entry    audience.Entry
	zones    string // the zone and the country that were found to be text
	country  string
	parts    messageParts

	arena    *arena // nil without messages
	out      []*kgo.Record
	messages int
	outcomes map[fanfarev1.Code]int
}

// scratch is memory that one expansion leaves to the next.
type scratch struct{ body []byte }

// newExpansion returns an expansion that knows its leg.
func (h *handler) newExpansion(j *job) (*expansion, error) {
	x := h.newOutcomes(j)
	if x.leg == nil && j.chunk.GetPurpose() != fanfarev1.Chunk_PURPOSE_CANCEL {
		return nil, poison(fmt.Errorf("leg %d: the campaign has %d", j.chunk.GetLeg(), len(j.campaign.GetLegs())))
	}
	return x, nil
}

// newOutcomes returns an expansion that can make outcomes, whatever is wrong with the campaign.
func (h *handler) newOutcomes(j *job) *expansion {
	x := &expansion{
		h: h, chunk: j.chunk, campaign: j.campaign, entries: j.entries, first: j.first, seqs: j.seqs, time: j.record.Timestamp,
		trace: string(schemas.Header(j.record, schemas.HeaderTraceparent)),
		out:   make([]*kgo.Record, 0, len(j.seqs)), outcomes: map[fanfarev1.Code]int{},
	}
	if n := int(j.chunk.GetLeg()); n >= 1 && n <= len(j.campaign.GetLegs()) {
		x.leg = j.campaign.GetLegs()[n-1]
	}
	return x
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

// reset begins again, without the blob.
func (x *expansion) reset() {
	x.entries, x.entry, x.out = nil, audience.Entry{}, x.out[:0]
	clear(x.outcomes)
}

// outcome adds what is said of a recipient instead of a message.
func (x *expansion) outcome(seq uint32, e *audience.Entry, kind fanfarev1.Kind, code fanfarev1.Code, segments int) error {
	c := x.chunk
	message := x.h.keys.Message(c.GetCampaignNumber(), seq)
	d := &fanfarev1.Delivery{
		Tenant: c.GetTenant(), CampaignId: c.GetCampaignId(), CampaignNumber: c.GetCampaignNumber(), Seq: seq, Try: c.GetTry(), Leg: c.GetLeg(),
		Kind: kind, Code: code, TimeMs: x.time.UnixMilli(), Channel: x.leg.GetChannel(), Route: x.leg.GetRoute(), Sender: x.leg.GetSender(),
		// Of an invalid number the audience holds whatever was stored.
		To: strings.ToValidUTF8(e.To, ""), Country: strings.ToValidUTF8(e.Country, ""), ContactId: e.ContactID,
		Segments: uint32(min(segments, schemas.MaxSegments)), MessageId: message[:], Test: x.campaign.GetTest(),
	}
	if c.GetTry() > 0 {
		submission := x.h.keys.Submission(c.GetCampaignNumber(), seq, uint8(c.GetTry()))
		d.SubmissionId = submission[:]
	}
	event := schemas.DeliveryEvent(x.h.names.Deliveries(), source, d, "")
	event.Traceparent = x.trace
	r, err := event.Record()
	if err != nil {
		return poison(err)
	}
	x.out = append(x.out, r)
	x.outcomes[code]++
	return nil
}

// prepare makes what the messages of the chunk have in common.
func (x *expansion) prepare() error {
	content := x.campaign.GetContent()
	switch ch := x.leg.GetChannel(); ch {
	case fanfarev1.Channel_CHANNEL_SMS:
	case fanfarev1.Channel_CHANNEL_RCS, fanfarev1.Channel_CHANNEL_WHATSAPP:
		if content.GetTemplateId() != "" {
			x.parts.template = content.GetTemplateId() // the text is for another leg
		}
	default:
		return poison(fmt.Errorf("channel %s: a campaign has no content for it", schemas.ChannelName(ch)))
	}
	if x.parts.template == "" {
		var err error
		if x.template, err = text.Parse(content.GetBody()); err != nil {
			return poison(err)
		}
		x.value = x.lookUp
	}
	topic := x.h.names.Messages(x.leg.GetRoute(), schemas.LaneBulk)
	if err := schemas.ValidRoute(x.leg.GetRoute()); err != nil {
		return poison(err)
	}
	for _, s := range []string{x.chunk.GetTenant(), x.leg.GetSender(), x.parts.template, x.campaign.GetCurrency()} {
		if !utf8.ValidString(s) {
			return poison(errors.New("the campaign holds what is no text"))
		}
	}
	x.parts.encode(x.chunk, x.campaign, x.leg)
	shared := schemas.Event{Tenant: x.chunk.GetTenant(), Type: schemas.TypeMessage, Source: source, Time: x.time, Traceparent: x.trace}.Shared()
	x.arena = x.h.arenas.lend(len(x.seqs), look{topic, x.chunk.GetTenant(), x.trace}, shared, x.h.cfg.Now())
	return nil
}

// lookUp is the value of a merge field: an attribute of the contact, or its number.
func (x *expansion) lookUp(name string) (string, bool) {
	if v, ok := x.entry.Value(name); ok || name != "phone" {
		return v, ok
	}
	return x.entry.To, true
}

// recipient adds the message of a recipient, or the outcome that stands for it.
func (x *expansion) recipient(seq uint32, e *audience.Entry) error {
	if e.Flag != audience.OK {
		kind, code := flagged(e.Flag)
		return x.outcome(seq, e, kind, code, 0)
	}
	if !isE164(e.To) {
		return x.outcome(seq, e, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_INVALID_NUMBER, 0)
	}
	if e.Zone != x.zones || e.Country != x.country {
		if !utf8.ValidString(e.Zone) || !utf8.ValidString(e.Country) {
			return poison(fmt.Errorf("%w: zone or country", audience.ErrBlob))
		}
		x.zones, x.country = e.Zone, e.Country
	}
	size := text.Size{Segments: 1}
	if x.template != nil {
		content := x.campaign.GetContent()
		body, err := x.template.Append(x.h.scratch.body[:0], x.value, content.GetMissing(), content.GetMissingDefault())
		x.h.scratch.body = body[:0]
		if err != nil || len(body) == 0 || !utf8.Valid(body) {
			return x.outcome(seq, e, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_RENDER_ERROR, 0)
		}
		x.parts.body = body
		if x.leg.GetChannel() == fanfarev1.Channel_CHANNEL_SMS {
			size = text.MeasureBytes(body)
			if size.Segments > min(cmp.Or(int(x.campaign.GetMaxSegments()), defaultSegments), schemas.MaxSegments) {
				return x.outcome(seq, e, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_TOO_LONG, size.Segments)
			}
		}
	}
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
	value := x.parts.append(mem.take(x.parts.room(e)), seq, e, size)
	mem.keep(value)
	x.out = append(x.out, x.arena.add(key, value, id))
	x.messages++
}

// count tells the metrics what the chunk became.
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
