package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

// maxDestinations is the most destinations of one request; a block of seqs has as many.
const maxDestinations = 1000

// singleValidity is how long after its time a single message may still be handed over.
const singleValidity = 24 * time.Hour

// maxAhead is how far ahead a single message may be scheduled.
const maxAhead = 30 * 24 * time.Hour

// SendInput is one message to one or up to 1,000 destinations (R103, X4). E's examples say phoneNumber and message, its real
// API destination, body and sender; both are taken (C26).
type SendInput struct {
	PhoneNumber        *StringList       `json:"phoneNumber,omitzero" doc:"The destination, or an array of up to 1,000."`
	Destination        *StringList       `json:"destination,omitzero" doc:"The same under its other name."`
	Destinations       *StringList       `json:"destinations,omitzero" doc:"The same under its third name."`
	Message            *string           `json:"message,omitzero" doc:"The text, with {{field}} merge fields when variables are given."`
	Text               *string           `json:"body,omitzero" doc:"The same under its other name."`
	Sender             *string           `json:"sender,omitzero" doc:"At most 11 letters and digits (blanks and . - _ & between them), or a number; the tenant's default otherwise."`
	SenderName         *string           `json:"senderName,omitzero" doc:"The same under its other name."`
	MessageID          *string           `json:"messageId,omitzero" doc:"The client's own reference, at most 100 characters: customerMessageId of the answer, and what the status is asked by."`
	CampaignID         *string           `json:"campaignId,omitzero" doc:"Taken and not used: single messages are counted apart from campaigns, and the answer warns of it."`
	TemplateID         *string           `json:"templateId,omitzero" doc:"Of RCS and WhatsApp; an SMS has its text in message."`
	Simulation         *bool             `json:"simulation,omitzero" doc:"Reach the simulator only."`
	EnableNotification *bool             `json:"enableNotification,omitzero" doc:"Report delivery to the configured webhook endpoints."`
	ScheduledDate      *When             `json:"scheduledDate,omitzero" doc:"Send then instead of now; at most 30 days ahead."`
	Variables          map[string]string `json:"variables,omitempty" doc:"Values of the text's merge fields."`
	Placeholders       map[string]string `json:"placeholders,omitempty" doc:"The same under its other name."`
}

// SendResult is the answer of a single send: what both documented shapes agree on.
type SendResult struct {
	MessageID         string            `json:"messageId" doc:"Of the first destination that was accepted." example:"msg_…"`
	CustomerMessageID string            `json:"customerMessageId" doc:"The client's reference; the message's own id when it gave none."`
	Simulation        bool              `json:"simulation"`
	Results           []SendDestination `json:"results" nullable:"false" doc:"One for each destination, in their order."`
	Warning           []string          `json:"warning,omitempty"`
}

// SendDestination is what became of one destination.
type SendDestination struct {
	Destination string   `json:"destination" doc:"E.164; as it was given when it is no number."`
	MessageID   *string  `json:"messageId"`
	Accepted    bool     `json:"accepted"`
	Unicode     bool     `json:"unicode" doc:"The text needs UCS-2."`
	Parts       int      `json:"parts"`
	Reasons     []string `json:"reasons" nullable:"false" doc:"Why it was not accepted: INVALID_NUMBER, OPTED_OUT, DUPLICATE_RECIPIENT, NOT_ACKNOWLEDGED."`
	// Status is there in the answer to a repeated request whose first one never ended.
	Status *string `json:"status,omitzero"`
}

// reasonNotAcked: Kafka did not say that it has the message; it may have it.
const reasonNotAcked = "NOT_ACKNOWLEDGED"

type (
	sendIn  struct{ Body Body[SendInput] }
	sendOut struct{ Body *SendResult }
)

func (s *server) registerSend() {
	register(s, operation{
		id: "sendSMS", method: http.MethodPost, path: "/api/message-server/sms/send", summary: "Send one SMS, or up to 1,000",
		scope: store.ScopeSend, errors: []int{400, 402, 409, 413, 422}, reserves: true, tag: "Messages",
		describe: "Goes ahead of campaigns. Answered once the log has it. With an Idempotency-Key a repeated request never sends again: it answers the ids of the first.",
	}, s.sendSMS)
}

// single is a request to send, read and checked.
type single struct {
	who      *principal
	route    *store.Route
	sender   string
	body     string
	size     text.Size
	price    uint64
	ref      string
	test     bool
	due      time.Time // zero: now
	now      time.Time
	field    string // where the destinations stood
	targets  []target
	accepted int
	warning  []string
	// campaigns that hold the messages, and how many of them.
	campaigns map[string]uint64
}

// target is one destination.
type target struct {
	raw, e164, country string
	reason             string // why it is not sent to
	id                 schemas.ID
}

func (s *server) sendSMS(ctx context.Context, in *sendIn) (*sendOut, error) {
	req := requestOf(ctx)
	if c := req.claim; c != nil && c.State == store.ClaimInFlight {
		return s.resumed(ctx, req.who, c)
	}
	m, err := s.readSend(ctx, req.who, &in.Body.Value)
	if err != nil {
		return nil, err
	}
	if err := s.optOuts(ctx, m); err != nil {
		return nil, err
	}
	if m.accepted == 0 {
		return nil, m.refusal()
	}
	if err := s.admit(m); err != nil {
		return nil, err
	}
	records, err := s.records(ctx, m)
	if err != nil {
		return nil, err
	}
	if err := s.pay(ctx, m); err != nil {
		return nil, err
	}
	if req.claim != nil {
		if err := s.reserve(ctx, req.claim, m); err != nil {
			return nil, err
		}
	}
	if err := s.produce(ctx, m, records); err != nil {
		return nil, err
	}
	return &sendOut{m.result()}, nil
}

// readSend reads the fields under all their names and makes the text.
func (s *server) readSend(ctx context.Context, who *principal, in *SendInput) (*single, error) {
	m := &single{who: who, now: s.Now(), test: who.key.Test || in.Simulation != nil && *in.Simulation}
	if !m.test { // a test costs nothing
		m.price = who.prices[fanfarev1.Channel_CHANNEL_SMS]
	}
	var ps problems
	dest := oneOf(&ps, "phoneNumber", []named[StringList]{{"phoneNumber", in.PhoneNumber}, {"destination", in.Destination}, {"destinations", in.Destinations}})
	body := oneOf(&ps, "message", []named[string]{{"message", in.Message}, {"body", in.Text}})
	m.sender = who.tenant.DefaultSender
	if in.Sender != nil || in.SenderName != nil {
		from := oneOf(&ps, "sender", []named[string]{{"sender", in.Sender}, {"senderName", in.SenderName}})
		m.sender = from.value
		if from.value == "" {
			ps.add(CodeInvalid, from.name, "The sender is empty.")
		}
		if fault := badSender(from.value, fanfarev1.Channel_CHANNEL_SMS); fault != "" {
			ps.add(CodeInvalid, from.name, "%s", fault)
		}
	}
	if m.sender == "" && len(ps) == 0 {
		ps.add(CodeRequired, "sender", "The tenant has no default sender.")
	}
	if in.MessageID != nil {
		m.ref = *in.MessageID
		if n := utf8.RuneCountInString(m.ref); n < 1 || n > 100 || strings.ContainsFunc(m.ref, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			ps.add(CodeInvalid, "messageId", "Want 1 to 100 printable characters.")
		}
	}
	if in.ScheduledDate != nil {
		m.schedule(in.ScheduledDate.At, &ps)
	}
	if in.EnableNotification != nil && *in.EnableNotification {
		m.warning = append(m.warning, warningNotification)
	}
	if in.CampaignID != nil {
		m.warning = append(m.warning, warningCampaignID)
	}
	if in.TemplateID != nil {
		ps = append(ps, fieldProblem(CodeInvalid, "templateId", "An SMS has no template.").fixed("Send the text as message, with variables."))
	}
	if body.name != "" {
		m.text(body, in, &ps)
	}
	if err := ps.err(); err != nil {
		return nil, err
	}
	if err := s.wayOfSingle(ctx, m); err != nil {
		return nil, err
	}
	m.field = dest.name
	return m, s.destinations(m, dest.value.Values)
}

// named is a field under one of its names.
type named[T any] struct {
	name string
	ptr  *T
}

type given[T any] struct {
	name  string
	value T
}

// oneOf takes the one of several names under which a field was given.
func oneOf[T any](ps *problems, usual string, names []named[T]) (out given[T]) {
	for _, n := range names {
		if n.ptr == nil {
			continue
		}
		if out.name != "" {
			ps.add(CodeInvalid, n.name, "%s and %s are the same field: send one of them.", out.name, n.name)
			continue
		}
		out = given[T]{n.name, *n.ptr}
	}
	if out.name == "" {
		ps.add(CodeRequired, usual, "%s is required.", usual)
	}
	return out
}

func (m *single) schedule(at time.Time, ps *problems) {
	switch {
	case at.Before(m.now.Add(-inPastBy)):
		*ps = append(*ps, fieldProblem(CodeInPast, "scheduledDate", "%s is in the past: it is %s.", stamp(at), stamp(m.now)).
			fixed("Choose a later time, or leave scheduledDate out to send now."))
	case at.After(m.now.Add(maxAhead)):
		ps.add(CodeInvalid, "scheduledDate", "%s is more than 30 days ahead.", stamp(at))
	case at.After(m.now):
		m.due = at
	}
}

// text makes the text of the message and measures it.
func (m *single) text(body given[string], in *SendInput, ps *problems) {
	m.body = body.value
	if m.body == "" {
		ps.add(CodeInvalid, body.name, "The text is empty: want at least 1 character.")
		return
	}
	if in.Variables != nil && in.Placeholders != nil {
		ps.add(CodeInvalid, "placeholders", "variables and placeholders are the same field: send one of them.")
		return
	}
	values := in.Variables
	if values == nil {
		values = in.Placeholders
	}
	if values != nil {
		tpl, err := text.Parse(m.body)
		if err != nil {
			ps.add(CodeInvalid, body.name, "%s.", err)
			return
		}
		rendered, err := tpl.Append(nil, func(name string) (string, bool) { v, ok := values[name]; return v, ok }, fanfarev1.MissingPolicy_MISSING_POLICY_FAIL, "")
		if err != nil {
			ps.add(CodeRequired, "variables", "%s.", err)
			return
		}
		m.body = string(rendered)
	}
	m.size = text.Measure(m.body)
	if most := int(m.who.tenant.MaxSegments); m.size.Segments > most {
		ps.add(CodeTooLong, body.name, "The text takes %d segments (%s); at most %d are sent.", m.size.Segments, encodingName(m.size.Encoding), most)
	}
}

// wayOfSingle finds the route; a test goes by a simulated one (X14).
func (s *server) wayOfSingle(ctx context.Context, m *single) (err error) {
	const sms = fanfarev1.Channel_CHANNEL_SMS
	if m.test {
		m.route, err = s.routes.simulated(ctx, sms)
		return err
	}
	m.route, err = s.routes.route(ctx, m.who.tenant.DefaultRoute)
	switch {
	case errors.Is(err, schemas.ErrNotFound):
		return unavailable(30*time.Second, err, "The tenant's route does not exist.")
	case err != nil:
		return unavailable(storeRetry, err, "The routes cannot be read at present.")
	case !carries(m.route, sms):
		return unavailable(30*time.Second, nil, "The tenant's route does not take SMS at present.")
	}
	return nil
}

// destinations reads the numbers. One that is wrong does not spoil the others.
func (s *server) destinations(m *single, raw []string) error {
	if n := len(raw); n < 1 || n > maxDestinations {
		return fieldProblem(CodeInvalid, m.field, "%d destinations; 1 to %d are taken.", n, maxDestinations)
	}
	m.targets = make([]target, len(raw))
	var seen map[string]bool
	if len(raw) > 1 {
		seen = make(map[string]bool, len(raw))
	}
	for i, r := range raw {
		t := &m.targets[i]
		t.raw = r
		n, err := s.phones.Parse(r, m.who.tenant.Region)
		switch {
		case err != nil || !n.Valid || n.Class == audience.FixedLine: // as in a campaign (C30)
			t.reason = schemas.CodeName(fanfarev1.Code_CODE_INVALID_NUMBER)
		case seen[n.E164]:
			t.e164, t.reason = n.E164, schemas.CodeName(fanfarev1.Code_CODE_DUPLICATE_RECIPIENT)
		default:
			t.e164, t.country = n.E164, n.Country
			m.accepted++
			if seen != nil {
				seen[n.E164] = true
			}
		}
	}
	return nil
}

// optOuts refuses the numbers that are known to have opted out; the sender looks again before it hands over.
func (s *server) optOuts(ctx context.Context, m *single) error {
	for i := range m.targets {
		t := &m.targets[i]
		if t.reason != "" {
			continue
		}
		out, err := s.optedOut(ctx, m.who.tenant.ID, t.e164)
		if err != nil {
			return s.storeProblem(err)
		}
		if out {
			t.reason = schemas.CodeName(fanfarev1.Code_CODE_OPTED_OUT)
			m.accepted--
		}
	}
	return nil
}

// optOutsFresh is how old the memory of opt-outs may be: senders heed one two seconds after it was answered.
const optOutsFresh = 2 * time.Second

// knowsOptOuts reports whether memory says who has opted out: not before it is read, nor while Kafka is away.
func (s *server) knowsOptOuts() bool {
	return s.OptedOut != nil && (s.OptOutsAge == nil || s.OptOutsAge() <= optOutsFresh)
}

func (s *server) optedOut(ctx context.Context, tenant, e164 string) (bool, error) {
	if s.knowsOptOuts() {
		return s.OptedOut(tenant, e164), nil
	}
	return s.Store.Suppressed(ctx, tenant, e164)
}

// refusal is the answer when nobody can be sent to.
func (m *single) refusal() error {
	var ps problems
	for i := range m.targets {
		if m.targets[i].reason == schemas.CodeName(fanfarev1.Code_CODE_DUPLICATE_RECIPIENT) {
			continue // its first one says why
		}
		field := m.field
		if len(m.targets) > 1 {
			field = fieldIndex(m.field, i)
		}
		t := &m.targets[i]
		if t.reason == schemas.CodeName(fanfarev1.Code_CODE_OPTED_OUT) {
			ps.add(CodeOptedOut, field, "%s has opted out.", field)
			continue
		}
		ps.add(CodeInvalidNumber, field, "%s is not a phone number that can take messages.", field)
	}
	return ps.err()
}

// admit keeps one tenant from filling the lane that all share: what a route sends in ten seconds may wait in it.
func (s *server) admit(m *single) error {
	if wait := s.budgets.take(m.who.tenant.ID+"/"+m.route.Name, m.accepted, int(m.route.Rate), m.now); wait > 0 {
		p := problem(CodeRateLimited, "The route sends %d messages a second, and ten seconds' worth of single messages are waiting.", m.route.Rate)
		p.RetryAfter = int((wait + time.Second - 1) / time.Second)
		s.metrics.sends.WithLabelValues("throttled").Add(float64(m.accepted))
		return p
	}
	return nil
}

// resumed answers a repeated request whose first one never ended: the ids that were reserved, and what is known of each.
func (s *server) resumed(ctx context.Context, who *principal, c *store.Claim) (*sendOut, error) {
	if len(c.Reserved) == 0 {
		return nil, problem(CodeIdempotencyInFlight, "The first request with this Idempotency-Key is still running.")
	}
	out := &SendResult{}
	if err := json.Unmarshal(c.Reserved, out); err != nil {
		return nil, err
	}
	for i := range out.Results {
		d := &out.Results[i]
		if d.MessageID == nil {
			continue
		}
		id, err := schemas.ParseID(*d.MessageID)
		if err != nil {
			return nil, err
		}
		st, err := s.messageStatus(ctx, who, id)
		if err != nil {
			return nil, err
		}
		d.Status = &st.Status
	}
	return &sendOut{out}, nil
}
