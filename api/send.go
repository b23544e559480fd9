package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

// maxDestinations is the maximum number of destinations of one request, and the size of a block of seqs.
const maxDestinations = 1000

// singleValidity is how long after its time a single send may still be handed over.
const singleValidity = 24 * time.Hour

// maxAhead is how far ahead a single send can be scheduled.
const maxAhead = 30 * 24 * time.Hour

// SendInput is one message to up to 1,000 destinations (R103, X4). E's examples use the names phoneNumber and message;
// E's API uses destination, body and sender. Both are accepted (C26).
type SendInput struct {
	PhoneNumber        *StringList       `json:"phoneNumber,omitzero" doc:"The destination, or an array of up to 1,000."`
	Destination        *StringList       `json:"destination,omitzero" doc:"Another name of phoneNumber."`
	Destinations       *StringList       `json:"destinations,omitzero" doc:"Another name of phoneNumber."`
	Message            *string           `json:"message,omitzero" doc:"The text, with {{field}} merge fields when variables are given."`
	Text               *string           `json:"body,omitzero" doc:"Another name of message."`
	Sender             *string           `json:"sender,omitzero" doc:"At most 11 letters and digits (blanks and . - _ & between them), or a number; default: the tenant's."`
	SenderName         *string           `json:"senderName,omitzero" doc:"Another name of sender."`
	MessageID          *string           `json:"messageId,omitzero" doc:"The client's own reference, at most 100 characters. The answer returns it as customerMessageId, and status queries accept it."`
	CampaignID         *string           `json:"campaignId,omitzero" doc:"Accepted without effect, because single sends are counted separately from campaigns. The answer has a warning."`
	TemplateID         *string           `json:"templateId,omitzero" doc:"Only for RCS and WhatsApp; an SMS has its text in message."`
	Simulation         *bool             `json:"simulation,omitzero" doc:"Send only to the simulator."`
	EnableNotification *bool             `json:"enableNotification,omitzero" doc:"Report delivery to the configured webhook endpoints."`
	ScheduledDate      *When             `json:"scheduledDate,omitzero" doc:"Send at this time instead of now; at most 30 days ahead."`
	Variables          map[string]string `json:"variables,omitempty" doc:"Values of the text's merge fields."`
	Placeholders       map[string]string `json:"placeholders,omitempty" doc:"Another name of variables."`
}

// SendResult is the answer of a single send: the fields that both documented shapes have in common.
type SendResult struct {
	MessageID         string            `json:"messageId" doc:"Id of the message to the first accepted destination." example:"msg_…"`
	CustomerMessageID string            `json:"customerMessageId" doc:"The client's reference, or messageId when the client gave none."`
	Simulation        bool              `json:"simulation" doc:"True: the messages go only to the simulator."`
	Results           []SendDestination `json:"results" nullable:"false" doc:"One for each destination, in the same order."`
	Warning           []string          `json:"warning,omitempty" doc:"What was accepted but may not have the intended effect; left out: nothing."`
}

// SendDestination is the result for one destination.
type SendDestination struct {
	Destination string   `json:"destination" doc:"E.164, or as given when it is not a phone number."`
	MessageID   *string  `json:"messageId" doc:"Id for status queries; null: no message was made."`
	Accepted    bool     `json:"accepted" doc:"True: the message will be sent."`
	Unicode     bool     `json:"unicode" doc:"Whether the text needs UCS-2."`
	Parts       int      `json:"parts" doc:"SMS segments of the text."`
	Reasons     []string `json:"reasons" nullable:"false" doc:"Why it was not accepted: INVALID_NUMBER, OPTED_OUT, DUPLICATE_RECIPIENT, NOT_ACKNOWLEDGED."`
	// Status is set only in the answer to a repeated request whose first request did not finish.
	Status *string `json:"status,omitzero" doc:"pending, sent, delivered or failed; only in the answer to a repeated request whose first request did not finish."`
	Detail string  `json:"detail,omitzero" doc:"What is wrong with the number, and what to send instead if that is known."`
}

// reasonNotAcked means that Kafka did not acknowledge the message. Kafka may or may not have it.
const reasonNotAcked = "NOT_ACKNOWLEDGED"

type (
	sendIn  struct{ Body problem.Body[SendInput] }
	sendOut struct{ Body *SendResult }
)

func (s *server) registerSend() {
	register(s, operation{
		id: "sendSMS", method: http.MethodPost, path: "/api/message-server/sms/send", summary: "Send one SMS, or up to 1,000",
		scope: store.ScopeSend, errors: []int{400, 402, 409, 413, 422}, reserves: true, testKeys: testKeysConfined, tag: "Messages",
		describe: "Single sends have priority over campaigns. The answer comes when Kafka has acknowledged the messages. With an Idempotency-Key a repeated request never sends again: it returns the ids of the first.",
	}, s.sendSMS)
}

// single is a validated request to send single messages.
type single struct {
	who      *principal
	route    *store.Route
	sender   string
	body     string
	size     text.Size
	prices   store.Prices // nil for a test
	ref      string
	test     bool
	due      time.Time // zero: send now
	now      time.Time
	field    string // the name of the field that holds the destinations
	channel  schemas.Channel
	dress    func(*fanfarev1.Message) // sets a body other than text; nil: the body is text
	targets  []target
	accepted int
	warning  []string
	// campaigns has the cost of the messages in each hidden campaign, if the tenant's credit is limited.
	campaigns map[string]uint64
	paid      []string // the campaigns for whose messages pay has taken the money
}

// target is one destination.
type target struct {
	raw, e164, country string
	price              uint64           // of one segment, in micro-units
	reason             string           // why it is not accepted; "" when it is
	wrong              *problem.Problem // the problem of an invalid number
	id                 schemas.ID
}

// prepare checks the request, makes the records and pays for them.
func (s *server) prepare(ctx context.Context, m *single) (records []*kgo.Record, err error) {
	if err := s.optOuts(ctx, m); err != nil {
		return nil, err
	}
	if m.accepted == 0 {
		return nil, m.refusal()
	}
	if err := s.admit(m); err != nil {
		return nil, err
	}
	if records, err = s.records(ctx, m); err != nil {
		return nil, err
	}
	return records, s.pay(ctx, m)
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
	records, err := s.prepare(ctx, m)
	if err != nil {
		return nil, err
	}
	if req.claim != nil {
		if err := s.reserve(ctx, req.claim, m); err != nil {
			s.unpay(m) //nolint:contextcheck // the money is returned although the request has ended
			return nil, err
		}
	}
	if err := s.produce(ctx, m, records); err != nil {
		return nil, err
	}
	return &sendOut{m.result()}, nil
}

// readSend reads the fields under all their names and renders the text.
func (s *server) readSend(ctx context.Context, who *principal, in *SendInput) (*single, error) {
	m := &single{who: who, channel: schemas.ChannelSMS, now: s.Now(), test: who.key.Test || in.Simulation != nil && *in.Simulation}
	if !m.test { // a test costs nothing
		m.prices = who.prices
	}
	var ps problem.List
	dest := oneOf(&ps, "phoneNumber", []named[StringList]{{"phoneNumber", in.PhoneNumber}, {"destination", in.Destination}, {"destinations", in.Destinations}})
	body := oneOf(&ps, "message", []named[string]{{"message", in.Message}, {"body", in.Text}})
	m.sender = who.tenant.DefaultSender
	if in.Sender != nil || in.SenderName != nil {
		from := oneOf(&ps, "sender", []named[string]{{"sender", in.Sender}, {"senderName", in.SenderName}})
		m.sender = from.value
		if from.value == "" {
			ps.Add(problem.CodeInvalid, from.name, "The sender is empty.")
		}
		if fault := badSender(from.value, schemas.ChannelSMS); fault != "" {
			ps.Add(problem.CodeInvalid, from.name, "%s", fault)
		}
	}
	if m.sender == "" && len(ps) == 0 {
		ps.Add(problem.CodeRequired, "sender", "The tenant has no default sender.")
	}
	if in.MessageID != nil {
		m.ref = *in.MessageID
		if n := utf8.RuneCountInString(m.ref); n < 1 || n > 100 || strings.ContainsFunc(m.ref, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			ps.Add(problem.CodeInvalid, "messageId", "Want 1 to 100 printable characters.")
		}
	}
	if in.ScheduledDate != nil {
		m.schedule(in.ScheduledDate.in(who.tenant.Timezone).At, &ps)
	}
	if in.EnableNotification != nil && *in.EnableNotification {
		m.warning = append(m.warning, warningNotification)
	}
	if in.CampaignID != nil {
		m.warning = append(m.warning, warningCampaignID)
	}
	if in.TemplateID != nil {
		ps = append(ps, problem.Field(problem.CodeInvalid, "templateId", "An SMS has no template.").WithFix("Send the text as message, with variables."))
	}
	if body.name != "" {
		m.text(body, in, &ps)
	}
	if err := ps.Err(); err != nil {
		return nil, err
	}
	if err := s.routeOfSingle(ctx, m); err != nil {
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

// oneOf returns the value of a field that has several names. More than one of them is a problem.
func oneOf[T any](ps *problem.List, usual string, names []named[T]) (out given[T]) {
	for _, n := range names {
		if n.ptr == nil {
			continue
		}
		if out.name != "" {
			ps.Add(problem.CodeInvalid, n.name, "%s and %s are the same field: send one of them.", out.name, n.name)
			continue
		}
		out = given[T]{n.name, *n.ptr}
	}
	if out.name == "" {
		ps.Add(problem.CodeRequired, usual, "%s is required.", usual)
	}
	return out
}

func (m *single) schedule(at time.Time, ps *problem.List) {
	switch {
	case at.Before(m.now.Add(-inPastBy)):
		*ps = append(*ps, problem.Field(problem.CodeInPast, "scheduledDate", "%s is in the past: it is %s.", stamp(at), stamp(m.now)).
			WithFix("Choose a later time, or leave scheduledDate out to send now."))
	case at.After(m.now.Add(maxAhead)):
		ps.Add(problem.CodeInvalid, "scheduledDate", "%s is more than 30 days ahead.", stamp(at))
	case at.After(m.now):
		m.due = at
	}
}

// text renders the text and measures it.
func (m *single) text(body given[string], in *SendInput, ps *problem.List) {
	m.body = text.Compose(body.value)
	if m.body == "" {
		ps.Add(problem.CodeInvalid, body.name, "The text is empty: want at least 1 character.")
		return
	}
	if in.Variables != nil && in.Placeholders != nil {
		ps.Add(problem.CodeInvalid, "placeholders", "variables and placeholders are the same field: send one of them.")
		return
	}
	values := in.Variables
	if values == nil {
		values = in.Placeholders
	}
	if values != nil {
		tpl, err := text.Parse(m.body)
		if err != nil {
			ps.Add(problem.CodeInvalid, body.name, "%s.", err)
			return
		}
		if len(tpl.Links()) > 0 || tpl.OptOut() {
			ps.Add(problem.CodeInvalid, body.name, "A single message has no {{link:…}} and no {{opt_out}}: only campaigns do.")
			return
		}
		limit := text.MaxBytes(int(m.who.tenant.MaxSegments))
		byName := make(map[string]string, len(values)) // names of variables follow the rule of merge fields
		for key, value := range values {
			byName[text.FieldName(key)] = value
		}
		rendered, err := tpl.Append(nil, limit, func(name string) (string, bool) { v, ok := byName[name]; return v, ok }, schemas.MissingPolicyFail, "")
		if errors.Is(err, text.ErrTooLong) {
			ps.Add(problem.CodeTooLong, body.name, "The text needs more than %d segments, which is the maximum.", m.who.tenant.MaxSegments)
			return
		}
		if err != nil {
			ps.Add(problem.CodeRequired, "variables", "%s.", err)
			return
		}
		m.body = string(rendered)
	}
	if text.Blank(m.body) {
		ps.Add(problem.CodeInvalid, body.name, "The text is blank: a phone would show nothing.")
		return
	}
	m.size = text.Measure(m.body)
	if costly, ok := text.Explain(m.body); ok {
		m.warning = append(m.warning, costly.String())
	}
	if most := int(m.who.tenant.MaxSegments); m.size.Segments > most {
		ps.Add(problem.CodeTooLong, body.name, "The text needs %d segments (%s); the maximum is %d.", m.size.Segments, encodingName(m.size.Encoding), most)
	}
}

// routeOfSingle finds the route. A test uses a simulated route (X14).
func (s *server) routeOfSingle(ctx context.Context, m *single) (err error) {
	const sms = schemas.ChannelSMS
	if m.test {
		m.route, err = s.routes.simulated(ctx, sms)
		return err
	}
	m.route, err = s.routes.route(ctx, m.who.tenant.DefaultRoute)
	switch {
	case errors.Is(err, schemas.ErrNotFound):
		return problem.Unavailable(30*time.Second, err, "The tenant's route does not exist.")
	case err != nil:
		return problem.Unavailable(storeRetry, err, "The routes cannot be read now.")
	}
	if m.route, err = s.routes.carrying(ctx, m.route, sms); err != nil {
		return problem.Unavailable(storeRetry, err, "The routes cannot be read now.")
	}
	if !carries(m.route, sms) {
		return problem.Unavailable(30*time.Second, nil, "The tenant's route does not take SMS now.")
	}
	return nil
}

// destinations parses the numbers. Invalid ones are marked and do not affect the others.
func (s *server) destinations(m *single, raw []string) error {
	if n := len(raw); n < 1 || n > maxDestinations {
		return problem.Field(problem.CodeInvalid, m.field, "%d destinations; want 1 to %d.", n, maxDestinations)
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
		case err != nil:
			t.reason, t.wrong = schemas.CodeName(schemas.CodeInvalidNumber), wrongNumber(m.field, err)
		case noMessages(n) != "": // as in a campaign (C30)
			t.reason = schemas.CodeName(schemas.CodeInvalidNumber)
			t.wrong = problem.Field(problem.CodeInvalidNumber, m.field, "%s %s and cannot receive messages.", m.field, noMessages(n))
		case seen[n.Key]:
			t.e164, t.reason = n.E164, schemas.CodeName(schemas.CodeDuplicateRecipient)
		default:
			t.e164, t.country = n.E164, n.Country
			t.price, _ = m.prices.Price(m.channel, n.Country, 1, m.now) // R113
			m.accepted++
			if seen != nil {
				seen[n.Key] = true
			}
		}
	}
	return nil
}

// optOuts marks the numbers that have opted out. The sender stage checks again before the hand-over.
func (s *server) optOuts(ctx context.Context, m *single) error {
	for i := range m.targets {
		t := &m.targets[i]
		if t.reason != "" {
			continue
		}
		out, err := s.optedOut(ctx, m.who.tenant.ID, t.e164, m.channel)
		if err != nil {
			return s.storeProblem(err)
		}
		if out {
			t.reason = schemas.CodeName(schemas.CodeOptedOut)
			m.accepted--
		}
	}
	return nil
}

// optOutsFresh is the maximum age of the opt-outs in memory. It is the limit of P4 for senders.
const optOutsFresh = 2 * time.Second

// knowsOptOuts reports whether the opt-outs in memory are complete and fresh. They are not while the process starts and
// while Kafka is down.
func (s *server) knowsOptOuts() bool {
	return s.OptedOut != nil && (s.OptOutsAge == nil || s.OptOutsAge() <= optOutsFresh)
}

func (s *server) optedOut(ctx context.Context, tenant, e164 string, channel schemas.Channel) (bool, error) {
	if s.knowsOptOuts() {
		return s.OptedOut(tenant, e164, channel), nil
	}
	return s.Store.Suppressed(ctx, tenant, e164, channel)
}

// refusal returns the problem to answer with when no destination is accepted.
func (m *single) refusal() error {
	var ps problem.List
	for i := range m.targets {
		if m.targets[i].reason == schemas.CodeName(schemas.CodeDuplicateRecipient) {
			continue // the first occurrence has the reason
		}
		field := m.field
		if len(m.targets) > 1 {
			field = fieldIndex(m.field, i)
		}
		t := &m.targets[i]
		if t.reason == schemas.CodeName(schemas.CodeOptedOut) {
			ps.Add(problem.CodeOptedOut, field, "%s has opted out.", field)
			continue
		}
		wrong := *t.wrong
		wrong.Field = field
		ps = append(ps, &wrong)
	}
	return ps.Err()
}

// admit limits the single sends of one tenant that wait in the lane that all tenants share. Scheduled sends are not
// limited, because they wait in topic held.
func (s *server) admit(m *single) error {
	if !m.due.IsZero() {
		return nil
	}
	if wait := s.budgets.take(m.route.Name, m.who.tenant.ID, m.accepted, int(m.route.Rate), int(m.who.tenant.Rate), m.now); wait > 0 {
		p := problem.New(problem.CodeRateLimited, "The route sends %d messages a second for all tenants, and the waiting single sends already fill this tenant's share.", m.route.Rate)
		p.RetryAfter = int((wait + time.Second - 1) / time.Second)
		s.metrics.sends.WithLabelValues("throttled").Add(float64(m.accepted))
		return p
	}
	return nil
}

// resumed answers a repeated request whose first request did not finish, with the ids that the first had reserved and
// their status.
func (s *server) resumed(ctx context.Context, who *principal, c *store.Claim) (*sendOut, error) {
	if len(c.Reserved) == 0 {
		return nil, problem.New(problem.CodeIdempotencyInFlight, "The first request with this Idempotency-Key is still running.")
	}
	reserved, err := unpack(c.Reserved)
	if err != nil {
		return nil, err
	}
	out := &SendResult{}
	if err := json.Unmarshal(reserved, out); err != nil {
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
