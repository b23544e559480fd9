package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"google.golang.org/protobuf/proto"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/text"
)

// maxTestSend is the most numbers of a test send (R157).
const maxTestSend = 10

// TestSendInput has the numbers to which a campaign's message is sent for a test.
type TestSendInput struct {
	To      []string `json:"to" doc:"1 to 10 numbers. If a contact has the number, its fields fill the merge fields; otherwise missingField decides what replaces them."`
	Variant string   `json:"variant,omitempty" doc:"Name of the variant to send; default: the first."`
}

// TestSendResult is the answer of a test send.
type TestSendResult struct {
	Results  []SendDestination `json:"results" nullable:"false" doc:"One for each number, in the same order."`
	Cost     Money             `json:"cost" doc:"Cost of the accepted messages."`
	Currency string            `json:"currency" doc:"ISO 4217 code."`
}

type (
	testSendIn struct {
		ID   string `path:"id" example:"camp_12345" doc:"Id of the campaign."`
		Body problem.Body[TestSendInput]
	}
	testSendOut struct{ Body *TestSendResult }
)

func (s *server) registerTestSend() {
	register(s, operation{
		id: "testSendCampaign", method: http.MethodPost, path: "/api/campaigns/{id}/test", summary: "Send the first channel's message to up to 10 numbers",
		scope: store.ScopeSend, errors: []int{400, 402, 404, 409, 422}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "The messages are real and cost money. They do not count in the campaign's statistics or limits, and the campaign does not change. With a test key, or for a test campaign, they go only to the simulator.",
	}, s.testSend)
}

func (s *server) testSend(ctx context.Context, in *testSendIn) (*testSendOut, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	to := in.Body.Value.To
	if len(to) < 1 || len(to) > maxTestSend {
		return nil, problem.Field(problem.CodeInvalid, "to", "%d numbers; want 1 to %d.", len(to), maxTestSend)
	}
	tried := *c
	tried.Test = c.Test || who.key.Test
	legs, _, err := s.resolveLegs(ctx, who, &tried)
	if err != nil {
		return nil, err
	}
	if len(legs) == 0 {
		return nil, problem.Field(problem.CodeRequired, "message", "The campaign has no content yet.")
	}
	if reason, err := s.policyReason(ctx, who, legs); err != nil || reason != "" {
		if err == nil {
			err = problem.New(problem.CodeContentRejected, "%s", reason)
		}
		return nil, err
	}
	content := &fanfarev1.Content{}
	if err := proto.Unmarshal(legs[0].Content, content); err != nil {
		return nil, err
	}
	body, p := variantBody(content, in.Body.Value.Variant)
	if p != nil {
		return nil, p
	}
	out := &TestSendResult{Results: []SendDestination{}, Currency: who.tenant.Currency}
	for i, number := range to {
		one, err := s.testOne(ctx, who, &tried, &legs[0], content, body, number)
		if err != nil {
			if p := problem.From(err); p.Field == "to" {
				p.Field = fieldIndex("to", i)
			}
			if len(out.Results) == 0 {
				return nil, err
			}
			out.Results = append(out.Results, SendDestination{Destination: number, Reasons: []string{string(problem.From(err).Code)}, Detail: problem.From(err).Detail})
			continue
		}
		out.Results = append(out.Results, one.result().Results...)
		for j := range one.targets {
			if t := &one.targets[j]; t.reason == "" {
				out.Cost += Money(t.price * uint64(one.size.Segments))
			}
		}
	}
	return &testSendOut{out}, nil
}

// variantBody returns the text of an SMS: the campaign's text, or the text of a variant.
func variantBody(c *fanfarev1.Content, name string) (string, *problem.Problem) {
	for _, v := range c.GetVariants() {
		if name == "" || v.GetName() == name {
			return v.GetBody(), nil
		}
	}
	if name != "" {
		return "", problem.Field(problem.CodeInvalid, "variant", "There is no variant %q.", problem.Truncate(name, maxTag))
	}
	return c.GetBody(), nil
}

// testOne sends the message to one number.
func (s *server) testOne(ctx context.Context, who *principal, c *store.Campaign, leg *store.Leg, content *fanfarev1.Content, body, number string) (*single, error) {
	m := &single{who: who, now: s.Now(), test: c.Test, sender: leg.Sender, field: "to", channel: leg.Channel}
	if !m.test {
		m.prices = who.prices
	}
	var err error
	if m.route, err = s.routes.route(ctx, leg.Route); err != nil {
		return nil, s.storeProblem(err)
	}
	if err := s.destinations(m, []string{number}); err != nil {
		return nil, err
	}
	t := &m.targets[0]
	if t.reason == "" {
		contact, err := s.Store.ContactByPhone(ctx, who.tenant.ID, t.e164)
		if err != nil && !errors.Is(err, schemas.ErrNotFound) {
			return nil, s.storeProblem(err)
		}
		contact.Phone = t.e164
		if p := m.render(content, body, &contact, maxSegments(c, &who.tenant), c.Transliterate); p != nil {
			return nil, p
		}
	}
	records, err := s.prepare(ctx, m)
	if err != nil {
		return nil, err
	}
	return m, s.produce(ctx, m, records)
}

// render renders the content for one contact, as the pipeline does for each recipient.
func (m *single) render(content *fanfarev1.Content, body string, contact *store.Contact, segments uint32, transliterate bool) *problem.Problem {
	fill := func(s string) (string, *problem.Problem) {
		tpl, err := text.Parse(s)
		if err != nil {
			return "", problem.Field(problem.CodeInvalid, "message", "%s.", err)
		}
		out, err := tpl.Append(nil, text.MaxBytes(int(segments)), func(name string) (string, bool) { return contactField(contact, name) }, content.GetMissing(), content.GetMissingDefault())
		if err != nil {
			return "", problem.Field(problem.CodeInvalid, "to", "The message cannot be rendered for this number: %s.", err)
		}
		if text.BlankBytes(out) {
			return "", problem.Field(problem.CodeInvalid, "to", "The message, or a part of it, would be blank for this number.").WithFix("Test with a contact that has the merge fields, or set missingDefault.")
		}
		return string(out), nil
	}
	m.size = text.Size{Segments: 1}
	values := make([]string, len(content.GetParams()))
	for i, expression := range content.GetParams() {
		var p *problem.Problem
		if values[i], p = fill(expression); p != nil {
			return p
		}
	}
	switch m.channel {
	case schemas.ChannelSMS:
		var p *problem.Problem
		if m.body, p = fill(body); p != nil {
			return p
		}
		if transliterate {
			m.body = text.Transliterate(m.body)
		}
		if m.size = text.Measure(m.body); m.size.Segments > int(segments) {
			return problem.Field(problem.CodeTooLong, "to", "The text needs %d segments for this number; the maximum is %d.", m.size.Segments, segments)
		}
	case schemas.ChannelWhatsApp:
		m.dress = func(msg *fanfarev1.Message) {
			msg.Body = &fanfarev1.Message_Template{Template: &fanfarev1.Template{
				Name: content.GetTemplateName(), Language: content.GetLanguage(), Params: values, Components: fillJSON(content.GetJson(), values),
			}}
		}
	case schemas.ChannelRCS:
		m.dress = func(msg *fanfarev1.Message) {
			msg.Body = &fanfarev1.Message_Rich{Rich: &fanfarev1.Rich{Json: fillJSON(content.GetJson(), values)}}
		}
	case schemas.ChannelVoice:
		v := content.GetVoice()
		call := &fanfarev1.Call{Queue: v.GetQueue(), MachineAction: v.GetMachineAction(), Media: v.GetMedia(), Language: v.GetLanguage(), RingSeconds: v.GetRingSeconds()}
		if v.GetMedia() == "" {
			var p *problem.Problem
			if call.Text, p = fill(v.GetText()); p != nil {
				return p
			}
		}
		m.dress = func(msg *fanfarev1.Message) { msg.Body = &fanfarev1.Message_Call{Call: call} }
	default:
	}
	return nil
}

// fillJSON replaces {{1}}, {{2}} … within strings of JSON by the values.
func fillJSON(doc []byte, values []string) []byte {
	return parameter.ReplaceAllFunc(doc, func(m []byte) []byte {
		n, err := strconv.Atoi(string(parameter.FindSubmatch(m)[1]))
		if err != nil || n < 1 || n > len(values) {
			return m
		}
		quoted, err := json.Marshal(values[n-1])
		if err != nil {
			return m
		}
		return bytes.TrimSuffix(bytes.TrimPrefix(quoted, []byte{'"'}), []byte{'"'})
	})
}
