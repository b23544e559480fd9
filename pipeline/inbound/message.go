package inbound

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/inbound/recent"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// match is which tenant a message belongs to, and which message it answers.
type match struct {
	tenants []string // several: the message may be for any of them, so only an opt-out, from all of them, is safe
	sender  string
	last    *recent.Sent // nil if unknown
}

// message records a message of a recipient and its effects, and returns the events that report it.
func (h *handler) message(ctx context.Context, in *fanfarev1.Inbound) (events []*kgo.Record, result string, err error) {
	if !schemas.MayReceive(in.GetChannel(), in.GetTo()) {
		return nil, "", fmt.Errorf("%w: it came to no sender that receives", errDead)
	}
	if digits, ok := strings.CutPrefix(in.GetFrom(), "+"); !ok || len(digits) < 5 || len(digits) > 15 || strings.Trim(digits, "0123456789") != "" {
		return nil, "", fmt.Errorf("%w: it has no number that it came from", errDead)
	}
	m, err := h.match(ctx, in)
	if err != nil {
		return nil, "", err
	}
	meaning, confirmation := h.words.Read(in.GetText(), m.sender)
	if len(m.tenants) > 1 {
		if meaning != schemas.ReplyMeaningOptOut {
			return nil, "", fmt.Errorf("%w: several tenants have its sender, and none has sent a message from it to that number", errDead)
		}
		for _, tenant := range m.tenants {
			err := h.deps.Store.RecordOptOut(ctx, &schemas.OptOutFact{
				ID: in.GetId(), Tenant: tenant, Phone: in.GetFrom(), Channel: in.GetChannel(), Source: "keyword", Text: in.GetText(), Time: time.UnixMilli(in.GetReceivedMs()),
			})
			if err != nil {
				return nil, "", err
			}
		}
		return nil, "stop", nil
	}
	fact := &schemas.MessageFact{
		ID: in.GetId(), Tenant: m.tenants[0], Phone: in.GetFrom(), Sender: m.sender, Channel: in.GetChannel(), Route: in.GetRoute(), Text: in.GetText(),
		Time: time.UnixMilli(in.GetReceivedMs()), Meaning: meaning, Confirmation: confirmation,
	}
	var c *fanfarev1.Campaign
	if m.last != nil {
		c, err = h.campaign(ctx, m.last.Message.CampaignNumber())
		if err != nil && !errors.Is(err, schemas.ErrNotFound) {
			return nil, "", err
		}
		if err != nil || c.GetTenant() != fact.Tenant { // the campaign is another tenant's (P7)
			c = nil
		}
	}
	if c != nil {
		fact.Message, fact.Test = m.last.Message.String(), c.GetTest()
		if !c.GetHidden() {
			fact.Campaign = c.GetId()
		}
	}
	conversation, err := h.deps.Store.RecordMessage(ctx, fact)
	if err != nil {
		return nil, "", err
	}
	reply := &fanfarev1.Reply{
		Tenant: fact.Tenant, Id: fact.ID, ConversationId: conversation, Channel: fact.Channel, Route: fact.Route, Sender: fact.Sender, From: fact.Phone, Text: fact.Text,
		ReceivedMs: in.GetReceivedMs(), CampaignId: fact.Campaign, Meaning: meaning, Test: fact.Test,
	}
	told := []schemas.Event{schemas.ReplyEvent(h.names.Replies(), source, reply)}
	if c != nil {
		reply.MessageId = m.last.Message[:]
		d := func(kind schemas.Kind, raw string, scope schemas.Channel) schemas.Event {
			return schemas.DeliveryEvent(h.names.Deliveries(), source, &fanfarev1.Delivery{
				Tenant: fact.Tenant, CampaignId: c.GetId(), CampaignNumber: c.GetNumber(), Seq: m.last.Message.Seq(), Kind: kind, RawCode: raw,
				TimeMs: in.GetReceivedMs(), Channel: scope, To: fact.Phone, MessageId: m.last.Message[:], Test: fact.Test,
			}, fact.ID)
		}
		told = append(told, d(schemas.KindReplied, "", fact.Channel))
		if meaning == schemas.ReplyMeaningOptOut {
			told = append(told, d(schemas.KindOptedOut, "keyword", fact.Channel))
		}
	}
	for _, e := range told {
		r, err := e.Record()
		if err != nil {
			return nil, "", fmt.Errorf("%w: %w", errDead, err)
		}
		events = append(events, r)
	}
	return events, results[meaning], nil
}

// results are the values of the metrics' label result.
var results = map[schemas.ReplyMeaning]string{
	schemas.ReplyMeaningUnspecified: "message", schemas.ReplyMeaningOptOut: "stop", schemas.ReplyMeaningOptIn: "start", schemas.ReplyMeaningReview: "review",
}

// clockSkew is how much the clocks of two processes may differ.
const clockSkew = time.Minute

// match finds the tenant of a message. It is the tenant that sent the last message before the recipient wrote, from the
// sender that the recipient wrote to; otherwise it is the owner of that sender. If a sender has owners, only they are
// considered, so that another tenant that sends under the same name does not get their answers (P7). On RCS and
// WhatsApp, a message may go out under another name than the address that recipients answer to. Then the answer belongs
// to the owner's last message on that route. If the owner is not known, it belongs to the tenant that has sent to the
// number on that route, if there is only one.
func (h *handler) match(ctx context.Context, in *fanfarev1.Inbound) (match, error) {
	sent, err := h.deps.Recent.Find(ctx, in.GetChannel(), in.GetFrom())
	if err != nil {
		return match{}, err
	}
	owners, address, err := h.owners(ctx, in)
	if err != nil {
		return match{}, err
	}
	came := time.UnixMilli(in.GetReceivedMs()).Add(clockSkew)
	sent = slices.DeleteFunc(sent, func(s recent.Sent) bool {
		return s.Time.After(came) || len(owners) > 0 && !slices.Contains(owners, s.Tenant)
	})
	for i := range sent { // newest first
		if sameSender(in.GetChannel(), sent[i].Sender, in.GetTo()) {
			return match{[]string{sent[i].Tenant}, sent[i].Sender, &sent[i]}, nil
		}
	}
	if in.GetChannel() != schemas.ChannelSMS {
		sent = slices.DeleteFunc(sent, func(s recent.Sent) bool { return s.Route != in.GetRoute() })
		if len(sent) > 0 && !slices.ContainsFunc(sent, func(s recent.Sent) bool { return s.Tenant != sent[0].Tenant }) {
			return match{[]string{sent[0].Tenant}, sent[0].Sender, &sent[0]}, nil
		}
	}
	if len(owners) == 0 {
		return match{}, fmt.Errorf("%w: no tenant has its sender, and none has sent a message from it to that number", errDead)
	}
	return match{owners, address, nil}, nil
}

// owners returns the tenants that have the sender of a message, and the sender as they spell it: carriers write a short
// code with or without a +.
func (h *handler) owners(ctx context.Context, in *fanfarev1.Inbound) ([]string, string, error) {
	address := in.GetTo()
	names := []string{address}
	if in.GetChannel() == schemas.ChannelSMS {
		digits := strings.TrimPrefix(address, "+")
		names = []string{"+" + digits, digits}
	}
	for _, name := range names {
		owners, err := h.deps.Store.OwnersOf(ctx, in.GetChannel(), name)
		if err != nil || len(owners) > 0 {
			return owners, name, err
		}
	}
	return nil, address, nil
}

// sameSender reports whether a carrier's spelling of a sender means the same as ours.
func sameSender(channel schemas.Channel, ours, theirs string) bool {
	if channel != schemas.ChannelSMS {
		return ours == theirs
	}
	return strings.TrimPrefix(ours, "+") == strings.TrimPrefix(theirs, "+")
}
