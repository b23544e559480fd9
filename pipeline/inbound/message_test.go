package inbound

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/inbound/recent"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	theirNumber = "+393401234567"
	ourNumber   = "+393399900011"
)

// written returns a record of a message as a connector writes it.
func written(t *testing.T, names schemas.Names, to, text string, change ...func(*fanfarev1.Inbound)) *kgo.Record {
	t.Helper()
	in := &fanfarev1.Inbound{Route: "sim", Channel: schemas.ChannelSMS, From: theirNumber, To: to, Text: text, ProviderId: "m1", ReceivedMs: 1_780_000_000_123}
	for _, f := range change {
		f(in)
	}
	r, err := schemas.MessageIn(names.Inbound(), "sender", in, time.UnixMilli(in.GetReceivedMs())).Record()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMessage (R90, X10): the stage finds the tenant of a message, finds which message it answers (the last one of that
// tenant and sender to the number), and acts on its keyword.
func TestMessage(t *testing.T) {
	names, err := schemas.NewNames("test.")
	if err != nil {
		t.Fatal(err)
	}
	keys := testKeys(t)
	whatsapp := func(in *fanfarev1.Inbound) { in.Channel = schemas.ChannelWhatsApp }
	last := func(tenant, sender, route string, channel schemas.Channel, campaign uint64) recent.Sent {
		return recent.Sent{Tenant: tenant, Sender: sender, Route: route, Channel: channel, To: theirNumber, Message: keys.Message(campaign, 2), Time: time.UnixMilli(1)}
	}
	const sms, wa = schemas.ChannelSMS, schemas.ChannelWhatsApp
	for name, c := range map[string]struct {
		sent          []recent.Sent
		owners        map[string][]string
		to, text      string
		change        func(*fanfarev1.Inbound)
		tenant        string // "" if the record must become a dead letter
		sender        string
		answers       uint64 // campaign number; 0 if none
		meaning       schemas.ReplyMeaning
		kinds         []schemas.Kind // of delivery events
		optOutOfAllOf []string
	}{
		"an answer to a campaign": {
			sent: []recent.Sent{last(tenant, ourNumber, "sim", sms, number)}, to: ourNumber, text: "Hello?", tenant: tenant, sender: ourNumber, answers: number,
			kinds: []schemas.Kind{schemas.KindReplied},
		},
		"STOP": {
			sent: []recent.Sent{last(tenant, ourNumber, "sim", sms, number)}, to: ourNumber, text: " Stop. ", tenant: tenant, sender: ourNumber, answers: number,
			meaning: schemas.ReplyMeaningOptOut, kinds: []schemas.Kind{schemas.KindReplied, schemas.KindOptedOut},
		},
		"the newest of two tenants": {
			sent: []recent.Sent{last(tenant, "48000", "sim", sms, number), last("tn_b", "48000", "sim", sms, 9)}, to: "+48000", text: "Start", tenant: tenant, sender: "48000",
			answers: number, meaning: schemas.ReplyMeaningOptIn, kinds: []schemas.Kind{schemas.KindReplied},
		},
		"another tenant's message is none of ours (P7)": {sent: []recent.Sent{last("tn_b", ourNumber, "sim", sms, number)}, to: ourNumber, text: "hi", tenant: "tn_b", sender: ourNumber},
		"another tenant sends under an owner's sender (P7)": {
			sent: []recent.Sent{last("tn_b", ourNumber, "sim", sms, 9), last(tenant, ourNumber, "sim", sms, number)}, owners: map[string][]string{"sms " + ourNumber: {tenant}}, to: ourNumber,
			text: "STOP", tenant: tenant, sender: ourNumber, answers: number, meaning: schemas.ReplyMeaningOptOut, kinds: []schemas.Kind{schemas.KindReplied, schemas.KindOptedOut},
		},
		"what was sent after it came": {
			sent: []recent.Sent{{Tenant: "tn_b", Sender: ourNumber, Route: "sim", Channel: sms, To: theirNumber, Message: keys.Message(9, 2), Time: time.UnixMilli(1_780_000_000_123).Add(2 * time.Minute)}, last(tenant, ourNumber, "sim", sms, number)},
			to:   ourNumber, text: "Hello?", tenant: tenant, sender: ourNumber, answers: number, kinds: []schemas.Kind{schemas.KindReplied},
		},
		"another sender":            {sent: []recent.Sent{last("tn_b", "48000", "sim", sms, 9)}, owners: map[string][]string{"sms " + ourNumber: {tenant}}, to: ourNumber, text: "hi", tenant: tenant, sender: ourNumber},
		"a short code with a plus":  {owners: map[string][]string{"sms 48000": {tenant}}, to: "+48000", text: "take me off your list", tenant: tenant, sender: "48000", meaning: schemas.ReplyMeaningReview},
		"nobody's":                  {to: ourNumber, text: "STOP"},
		"two owners":                {owners: map[string][]string{"sms " + ourNumber: {tenant, "tn_b"}}, to: ourNumber, text: "hi"},
		"two owners and a STOP":     {owners: map[string][]string{"sms " + ourNumber: {tenant, "tn_b"}}, to: ourNumber, text: "STOP", optOutOfAllOf: []string{tenant, "tn_b"}},
		"a name receives nothing":   {owners: map[string][]string{"sms ACME": {tenant}}, to: "ACME", text: "STOP"},
		"no number":                 {owners: map[string][]string{"sms " + ourNumber: {tenant}}, to: ourNumber, text: "STOP", change: func(in *fanfarev1.Inbound) { in.From = "ACME" }},
		"WhatsApp, by the owner":    {sent: []recent.Sent{last("tn_b", "77", "sim", wa, 9), last(tenant, "9001", "sim", wa, number)}, owners: map[string][]string{"whatsapp " + ourNumber: {tenant}}, to: ourNumber, text: "ok", change: whatsapp, tenant: tenant, sender: "9001", answers: number, kinds: []schemas.Kind{schemas.KindReplied}},
		"WhatsApp, by the route":    {sent: []recent.Sent{last("tn_b", "77", "other", wa, 9), last(tenant, "9001", "sim", wa, number)}, to: ourNumber, text: "ok", change: whatsapp, tenant: tenant, sender: "9001", answers: number, kinds: []schemas.Kind{schemas.KindReplied}},
		"WhatsApp, two on a route":  {sent: []recent.Sent{last("tn_b", "77", "sim", wa, 9), last(tenant, "9001", "sim", wa, number)}, to: ourNumber, text: "ok", change: whatsapp},
		"its campaign is forgotten": {sent: []recent.Sent{last(tenant, ourNumber, "sim", sms, 77)}, to: ourNumber, text: "hi", tenant: tenant, sender: ourNumber},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(t)
			m.sent, m.owners = c.sent, c.owners
			h := m.handler(names, keys)
			change := c.change
			if change == nil {
				change = func(*fanfarev1.Inbound) {}
			}
			out, err := h.Handle(t.Context(), []*kgo.Record{written(t, names, c.to, c.text, change)})
			if err != nil {
				t.Fatal(err)
			}
			if c.optOutOfAllOf != nil {
				var got []string
				for _, o := range m.recorded {
					got = append(got, o.Tenant)
				}
				if len(out.Dead) != 0 || len(m.messages) != 0 || !slices.Equal(got, c.optOutOfAllOf) {
					t.Errorf("got opt-outs of %v, messages %+v and dead letters %v, want opt-outs of %v", got, m.messages, out.Dead, c.optOutOfAllOf)
				}
				return
			}
			if c.tenant == "" {
				if len(out.Dead) != 1 || !errors.Is(out.Dead[0].Cause, errDead) || len(m.messages)+len(m.recorded) != 0 {
					t.Errorf("got dead letters %v, messages %+v, opt-outs %+v, want a dead letter", out.Dead, m.messages, m.recorded)
				}
				return
			}
			if len(m.messages) != 1 {
				t.Fatalf("got messages %+v and dead letters %v, want one message", m.messages, out.Dead)
			}
			message := keys.Message(c.answers, 2)
			want := fanfarev1.Reply{}
			got := m.messages[0]
			reply := &fanfarev1.Reply{}
			if err := proto.Unmarshal(out.Publish[0].Value, reply); err != nil || out.Publish[0].Topic != names.Replies() {
				t.Fatalf("got %s of %s, %v", reply, out.Publish[0].Topic, err)
			}
			answers := ""
			if c.answers != 0 {
				want.MessageId, answers = message[:], message.String()
			}
			if got.Tenant != c.tenant || got.Sender != c.sender || got.Phone != theirNumber || got.Message != answers || got.Meaning != c.meaning || got.Text != c.text {
				t.Errorf("got %+v, want tenant %s, sender %s, answers %q, meaning %v", got, c.tenant, c.sender, answers, c.meaning)
			}
			if reply.GetTenant() != c.tenant || string(reply.GetMessageId()) != string(want.GetMessageId()) || reply.GetMeaning() != c.meaning ||
				reply.GetConversationId() != schemas.ConversationID(c.tenant, got.Channel, c.sender, theirNumber) {
				t.Errorf("got %v", reply)
			}
			var kinds []schemas.Kind
			for _, r := range out.Publish[1:] {
				d := &fanfarev1.Delivery{}
				if err := proto.Unmarshal(r.Value, d); err != nil || r.Topic != names.Deliveries() || string(d.GetMessageId()) != string(message[:]) || d.GetTenant() != c.tenant || d.GetTo() != theirNumber {
					t.Errorf("got %v of %s, %v", d, r.Topic, err)
				}
				kinds = append(kinds, d.GetKind())
			}
			if diff := cmp.Diff(c.kinds, kinds); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			m.away = true
			if out, err := h.Handle(t.Context(), []*kgo.Record{written(t, names, c.to, c.text, change)}); !errors.Is(err, errAway) || len(out.Publish)+len(out.Dead) != 0 {
				t.Errorf("without a store: got %+v, %v, want an error", out, err)
			}
		})
	}
}

// TestNoter: the noter writes to the index messages of senders that recipients can answer, and no others.
func TestNoter(t *testing.T) {
	names, err := schemas.NewNames("test.")
	if err != nil {
		t.Fatal(err)
	}
	keys, m := testKeys(t), newMemory(t)
	event := func(kind schemas.Kind, channel schemas.Channel, sender string, seq uint32) *kgo.Record {
		id, submission := keys.Message(number, seq), keys.Submission(number, seq, 1)
		r, err := schemas.DeliveryEvent(names.Deliveries(), "sender", &fanfarev1.Delivery{
			Tenant: tenant, CampaignId: "camp_10001", CampaignNumber: number, Seq: seq, Try: 1, Kind: kind, Channel: channel, Sender: sender, To: theirNumber, Route: "sim", TimeMs: 5, MessageId: id[:],
			SubmissionId: submission[:],
		}, "").Record()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	poison := event(schemas.KindSent, schemas.ChannelSMS, ourNumber, 1)
	poison.Value = []byte{0xff}
	batch := []*kgo.Record{
		poison, event(schemas.KindSent, schemas.ChannelSMS, "ACME", 2), event(schemas.KindNotSent, schemas.ChannelSMS, ourNumber, 3), event(schemas.KindDelivered, schemas.ChannelSMS, ourNumber, 4),
		event(schemas.KindSent, schemas.ChannelVoice, ourNumber, 5), event(schemas.KindSent, schemas.ChannelSMS, ourNumber, 6), event(schemas.KindSent, schemas.ChannelRCS, "agent", 7),
	}
	if out, err := (&noter{m}).Handle(t.Context(), batch); err != nil || len(out.Dead)+len(out.Publish) != 0 {
		t.Fatalf("got %+v, %v", out, err)
	}
	want := []recent.Sent{
		{Tenant: tenant, Sender: ourNumber, Route: "sim", Channel: schemas.ChannelSMS, To: theirNumber, Message: keys.Message(number, 6), Time: time.UnixMilli(5)},
		{Tenant: tenant, Sender: "agent", Route: "sim", Channel: schemas.ChannelRCS, To: theirNumber, Message: keys.Message(number, 7), Time: time.UnixMilli(5)},
	}
	if diff := cmp.Diff(want, m.sent); diff != "" {
		t.Errorf("noted (-want +got):\n%s", diff)
	}
}
