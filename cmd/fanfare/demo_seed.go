package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"fanfare/api/store"
)

// This file makes what the demo shows beside its live campaign: lists of 40,000 people, templates, and ten campaigns of
// all channels in all states that a marketer meets. It uses the API, as a client does.

// object is a JSON object.
type object = map[string]any

const (
	demoCustomers = "demo_customers"
	demoLoyalty   = "demo_loyalty"
	// demoSender is a number, so that the simulated phones can answer.
	demoSender = "+393399900011"
)

// demoLists are the lists of the campaigns of demoPlans and how many people each has.
var demoLists = []struct {
	name   string
	people int
}{
	{demoCustomers, 39_000},
	{demoLoyalty, 1_000},
}

// demoTemplates are the approved templates of the demo.
var demoTemplates = []object{
	{"name": "order_shipped", "channel": "whatsapp", "language": "en", "body": "Hello {{1}}, your order for {{2}} is on its way."},
	{"name": "Loyalty card", "channel": "rcs", "type": "rich_card", "body": "{{first_name}}, your card is worth 20 € in {{city}} this week.", "header": object{"type": "image", "url": "https://example.com/card.png"}},
}

// demoPlan is a campaign and what is done with it.
type demoPlan struct {
	body object
	then []string // the actions after its creation, in order
}

// someSent is the action that waits until some of a campaign is sent.
const someSent = "some sent"

// demoPlans returns the campaigns beside the live one. now is the clock of this machine.
func demoPlans(now time.Time) []demoPlan {
	in := func(days int) string { return now.AddDate(0, 0, days).UTC().Format(time.RFC3339) }
	whatsapp := object{"1": "{{first_name}}", "2": "{{city}}"}
	return []demoPlan{
		{object{
			"name": "Spring sale, two texts compared", "channel": "sms", "sender": demoSender, "trafficType": "inbound_outbound", "contactList": demoLoyalty, "sendImmediately": true, "tags": []string{"spring", "retail"},
			"variants": []object{
				{"name": "Discount", "message": "{{first_name}}, 30% off everything in {{city}} until Sunday.", "weight": 1},
				{"name": "Gift", "message": "{{first_name}}, a gift waits for you in {{city}} until Sunday.", "weight": 1},
			},
		}, []string{"confirm"}},
		{object{
			"name": "Order shipped", "channel": "whatsapp", "message": "order_shipped", "parameters": whatsapp, "contactList": demoLoyalty,
			"sendImmediately": true, "tags": []string{"orders"},
		}, []string{"confirm"}},
		{object{
			"name": "Loyalty card, by SMS where RCS does not reach", "sendingMode": "RCS_SMS", "message": "Loyalty card", "contactList": demoLoyalty, "sendImmediately": true,
			"fallbackLegs": []object{{"channel": "sms", "message": "{{first_name}}, your loyalty card is worth 20 euro in {{city}} this week."}},
			"tags":         []string{"loyalty"},
		}, []string{"confirm"}},
		{object{
			"name": "Appointment reminder", "channel": "voice", "message": "Good morning {{first_name}}. We expect you tomorrow at ten.", "contactList": demoLoyalty,
			"sendImmediately": true, "amdEnabled": true, "amdAction": "voicemail", "tags": []string{"service"},
		}, []string{"confirm"}},
		{object{
			"name": "Newsletter, held back", "channel": "sms", "message": "News from {{city}}: we open on Sundays, too.", "contactList": demoCustomers, "sendImmediately": true,
			"rate": 500, "tags": []string{"newsletter"}, "notes": "Paused until the opening hours are certain.",
		}, []string{"confirm", someSent, "pause"}},
		{object{
			"name": "Wrong price, stopped", "channel": "sms", "message": "Only today in {{city}}: shoes for 9 euro.", "contactList": demoCustomers, "sendImmediately": true,
			"rate": 500, "tags": []string{"retail"}, "notes": "The price was wrong.",
		}, []string{"confirm", someSent, "abort"}},
		{object{
			"name": "Winter sale opens", "channel": "sms", "message": "{{first_name}}, the winter sale opens in {{city}} tomorrow at nine.", "contactList": demoCustomers,
			"scheduledTime": in(2), "tags": []string{"winter", "retail"},
		}, []string{"confirm"}},
		{object{
			"name": "Feedback after delivery", "channel": "whatsapp", "message": "order_shipped", "parameters": whatsapp, "contactList": demoCustomers,
			"scheduledTime": in(5), "tags": []string{"orders"},
		}, []string{"confirm", "unschedule"}},
		{object{
			"name": "New collection card", "channel": "rcs", "message": "Loyalty card", "contactList": demoCustomers, "tags": []string{"loyalty"},
		}, nil},
		{object{"name": "Summer, no text yet", "channel": "sms", "draft": true, "tags": []string{"summer"}}, nil},
	}
}

// seed makes the lists, templates and campaigns.
func (d *demo) seed(ctx context.Context, tenant string) error {
	began := time.Now()
	for i, l := range demoLists {
		var list struct{ ID string }
		if err := d.call(ctx, http.MethodPost, "/api/contacts/list", "", object{"name": l.name}, &list); err != nil {
			return err
		}
		if err := d.call(ctx, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", "text/csv", madeUpPeople(l.people, uint64(i)+1), nil); err != nil {
			return err
		}
	}
	if err := d.seedContent(ctx, tenant); err != nil {
		return err
	}
	plans := demoPlans(time.Now())
	for _, p := range plans {
		var made struct{ ID string }
		if err := d.call(ctx, http.MethodPost, "/api/campaigns", "", p.body, &made); err != nil {
			return err
		}
		for _, action := range p.then {
			if err := d.act(ctx, made.ID, action); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(d.out, "Made %d more campaigns of all channels and states for the console in %s. RCS, WhatsApp and voice are simulated, too.\n",
		len(plans), time.Since(began).Round(10*time.Millisecond))
	return nil
}

// act takes an action of a plan.
func (d *demo) act(ctx context.Context, campaign, action string) error {
	if action != someSent {
		return d.call(ctx, http.MethodPut, "/api/campaigns/"+campaign+"/"+action, "", nil, nil)
	}
	// On a slow machine the demo continues without it
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); {
		var s demoStats
		if err := d.call(ctx, http.MethodGet, "/api/campaigns/"+campaign+"/stats", "", nil, &s); err != nil || s.Sent >= 100 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// seedContent makes the sender identities and approved templates, with a key of an operator that it revokes.
func (d *demo) seedContent(ctx context.Context, tenant string) error {
	s := d.w.store
	key, secret, err := s.CreateKey(ctx, tenant, "demo set-up", []store.Scope{store.ScopeRead, store.ScopeCampaigns, store.ScopeAdmin}, false)
	if err != nil {
		return fmt.Errorf("demo set-up: %w", err)
	}
	operator := *d
	operator.key = secret
	err = operator.seedTemplates(ctx)
	if revoked := s.RevokeKey(ctx, tenant, key.ID, 0); err == nil && revoked != nil {
		err = fmt.Errorf("demo set-up: %w", revoked)
	}
	return err
}

func (d *demo) seedTemplates(ctx context.Context) error {
	for _, made := range []struct {
		path string
		body object
	}{
		{"/api/agents", object{"name": "Demo agent", "providerId": "demo_agent"}},
		{"/api/senders", object{"name": demoSender, "twoWay": true}},
		{"/api/channels", object{"name": "Demo on WhatsApp", "channel": "whatsapp", "address": "+393331234567"}},
		{"/api/channels", object{"name": "Demo phone", "channel": "voice", "address": "+390612345678"}},
	} {
		if err := d.call(ctx, http.MethodPost, made.path, "", made.body, nil); err != nil {
			return err
		}
	}
	if err := d.call(ctx, http.MethodPost, "/api/senders/"+demoSender+"/approve", "", nil, nil); err != nil {
		return err
	}
	for _, t := range demoTemplates {
		var made struct{ ID string }
		if err := d.call(ctx, http.MethodPost, "/api/templates", "", t, &made); err != nil {
			return err
		}
		if err := d.call(ctx, http.MethodPost, "/api/templates/"+made.ID+"/approve", "", nil, nil); err != nil {
			return err
		}
	}
	return nil
}
