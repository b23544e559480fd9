package webhook

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// memory is a queue in memory.
type memory struct {
	moves []schemas.CampaignMove
	rows  map[string]*fanfarev1.Campaign
	items []schemas.WebhookItem
	refs  []schemas.WebhookReference
}

func (m *memory) QueueWebhooks(_ context.Context, items []schemas.WebhookItem, refs []schemas.WebhookReference) error {
	m.items, m.refs = append(m.items, items...), append(m.refs, refs...)
	return nil
}

func (m *memory) CampaignMoves(context.Context, string, string) ([]schemas.CampaignMove, error) {
	return m.moves, nil
}

func (m *memory) CampaignRecord(_ context.Context, id string) (*fanfarev1.Campaign, error) {
	if c := m.rows[id]; c != nil {
		return c, nil
	}
	return nil, schemas.ErrNotFound
}

type fixed []schemas.Webhook

func (f fixed) WebhookChanges(context.Context) (int64, error)                { return 1, nil }
func (f fixed) Webhooks(context.Context) ([]schemas.Webhook, error)          { return f, nil }
func (f fixed) DisableWebhook(context.Context, string, uint64, string) error { return nil }

// handled runs a handler over records.
func handled(t *testing.T, e *env, hooks fixed, m *memory, records ...*kgo.Record) (dead []string) {
	t.Helper()
	names, err := schemas.NewNames("fanfare.")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Now: e.now}
	cfg.Cluster.Names = names
	h := newHandler(cfg, m, &e.view, &endpoints{store: hooks}, newMetrics(nil))
	res, err := h.Handle(t.Context(), records)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range res.Dead {
		dead = append(dead, d.Cause.Error())
	}
	return dead
}

func names(t *testing.T) schemas.Names {
	n, err := schemas.NewNames("fanfare.")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const number10001, single = 10001, 10002

func campaigns(e *env) map[string]*fanfarev1.Campaign {
	return map[string]*fanfarev1.Campaign{
		"camp_10001": {Tenant: e.tenant.ID, Id: "camp_10001", Number: number10001, Name: "Spring", Legs: []*fanfarev1.Leg{{Channel: schemas.ChannelSMS}}},
		"camp_10002": {Tenant: e.tenant.ID, Id: "camp_10002", Number: single, Hidden: true},
		"camp_10003": {Tenant: "another", Id: "camp_10003", Number: 10003},
	}
}

// X6: checks which event each outcome becomes, and which events pass the filters.
func TestEventsAndFilters(t *testing.T) {
	e := newEnv(t)
	e.view.campaigns = campaigns(e)
	e.view.routes = map[string]*fanfarev1.Route{"sim": {Channels: []schemas.Channel{schemas.ChannelSMS}}}
	n := names(t)
	code := func(c schemas.Code) func(*fanfarev1.Delivery) { return func(d *fanfarev1.Delivery) { d.Code = c } }
	records := []*kgo.Record{
		e.event(n, number10001, 0, schemas.KindSent),
		e.event(n, number10001, 1, schemas.KindDelivered, code(schemas.CodeDelivered)),
		e.event(n, number10001, 2, schemas.KindRead, code(schemas.CodeRead)),
		e.event(n, number10001, 3, schemas.KindUndelivered, code(schemas.CodeAbsentSubscriber)),
		e.event(n, number10001, 4, schemas.KindUndelivered, code(schemas.CodeExpired)),
		e.event(n, number10001, 5, schemas.KindNotSent, code(schemas.CodeTooLong)),
		e.event(n, number10001, 6, schemas.KindSkipped, code(schemas.CodeOptedOut)),
		e.event(n, number10001, 7, schemas.KindNotSent, code(schemas.CodeValidityExpired)),
		// These events decide nothing, so no webhook gets them.
		e.event(n, number10001, 8, schemas.KindAmbiguous), e.event(n, number10001, 8, schemas.KindReturned), e.event(n, number10001, 8, schemas.KindBuffered),
		e.event(n, number10001, 8, schemas.KindBounced), e.event(n, number10001, 8, schemas.KindUnconfirmed),
		// Of the clicks only those by people count; their channel is the campaign's.
		e.event(n, number10001, 9, schemas.KindClicked, clicked), e.event(n, number10001, 9, schemas.KindClicked, clicked, code(schemas.CodeBot)),
		e.event(n, number10001, 9, schemas.KindOptedOut, optedOutByLink),
		e.event(n, single, 0, schemas.KindSent, func(d *fanfarev1.Delivery) { d.CustomerRef = "order 7" }),
		// As the tracker writes it
		e.event(n, single, 0, schemas.KindDelivered, func(d *fanfarev1.Delivery) { d.Channel, d.Sender, d.Country = 0, "", "" }),
	}
	all := []string{"sent", "delivered", "read", "failed", "expired", "failed", "failed", "expired", "clicked", "opted_out", "sent", "delivered"}
	for _, c := range []struct {
		name   string
		filter schemas.WebhookSettings
		want   []string
	}{
		{"all", schemas.WebhookSettings{}, all},
		{"one event", schemas.WebhookSettings{Events: []schemas.WebhookEvent{schemas.WebhookRead}}, []string{"read"}},
		// Which have none
		{"one status", schemas.WebhookSettings{Statuses: []schemas.WebhookStatus{schemas.WebhookExpired}}, []string{"expired", "expired", "clicked", "opted_out"}},
		{"clicks", schemas.WebhookSettings{Events: []schemas.WebhookEvent{schemas.WebhookClick}}, []string{"clicked"}},
		{"opt-outs", schemas.WebhookSettings{Events: []schemas.WebhookEvent{schemas.WebhookOptOut}, Channels: []string{"sms"}}, []string{"opted_out"}},
		{"event and status", schemas.WebhookSettings{Events: []schemas.WebhookEvent{schemas.WebhookDelivery}, Statuses: []schemas.WebhookStatus{schemas.WebhookDelivered}}, []string{"delivered", "delivered"}},
		{"campaign", schemas.WebhookSettings{Campaigns: []uint64{number10001}}, all[:10]},
		{"another campaign", schemas.WebhookSettings{Campaigns: []uint64{7}}, nil},
		{"channel", schemas.WebhookSettings{Channels: []string{"sms"}}, all},
		{"another channel", schemas.WebhookSettings{Channels: []string{"rcs"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &memory{}
			dead := handled(t, e, fixed{{Tenant: e.tenant.ID, Number: 1, WebhookSettings: c.filter}}, m, records...)
			var got []string
			for _, it := range m.items {
				got = append(got, strings.TrimPrefix(it.Type, "message."))
			}
			if d := cmp.Diff(c.want, got); d != "" || len(dead) > 0 {
				t.Errorf("got %v, dead %v, want %v", got, dead, c.want)
			}
			if want := []schemas.WebhookReference{{Tenant: e.tenant.ID, Message: e.keys.Message(single, 0).String(), Reference: "order 7"}}; !slices.Equal(m.refs, want) {
				t.Errorf("got references %v, want %v", m.refs, want)
			}
		})
	}
}

// P7, and records that cannot be handled. An endpoint gets no events from before it existed.
func TestStrangersEvents(t *testing.T) {
	e := newEnv(t)
	e.view.campaigns = campaigns(e)
	n := names(t)
	hooks := fixed{{Tenant: e.tenant.ID, Number: 1, Created: start}, {Tenant: "another", Number: 2, Created: start}}
	m := &memory{rows: map[string]*fanfarev1.Campaign{"camp_99": {Tenant: e.tenant.ID, Id: "camp_99", Number: 99}}}
	old := e.event(n, number10001, 1, schemas.KindSent)
	old.Timestamp = start.Add(-time.Second)
	broken := e.event(n, number10001, 1, schemas.KindSent)
	broken.Value = []byte{0xff}
	dead := handled(t, e, hooks, m,
		e.event(n, 10003, 0, schemas.KindSent), // the header names our tenant, but the campaign belongs to another
		e.event(n, 555, 0, schemas.KindSent),
		e.event(n, 99, 0, schemas.KindSent), // only the store has this campaign
		old, broken)
	if want := []string{"another tenant than that of its campaign", "campaign does not exist", "not a delivery event"}; !slices.Equal(dead, want) {
		t.Errorf("got dead letters %q, want %q", dead, want)
	}
	if len(m.items) != 1 || m.items[0].Endpoint != 1 || !strings.Contains(string(m.items[0].Data), `"campaignId":"camp_99"`) {
		t.Errorf("got %d items, want the one of camp_99", len(m.items))
	}
}

// The receipt of a single send waits for the outcome of its hand-over, which has the client's reference.
func TestReceiptBeforeOutcome(t *testing.T) {
	e := newEnv(t)
	e.view.campaigns = campaigns(e)
	n := names(t)
	m := &memory{}
	handled(t, e, fixed{{Tenant: e.tenant.ID, Number: 1}}, m,
		e.event(n, single, 0, schemas.KindDelivered), // too early
		e.event(n, single, 0, schemas.KindSent, func(d *fanfarev1.Delivery) { d.CustomerRef = "order 7" }),
		e.event(n, single, 1, schemas.KindSent), // without a reference
		e.event(n, single, 1, schemas.KindDelivered),
		e.event(n, number10001, 1, schemas.KindDelivered)) // campaigns have none
	var due []time.Duration
	for _, it := range m.items {
		if it.Due.IsZero() {
			due = append(due, 0)
		} else {
			due = append(due, it.Due.Sub(start))
		}
	}
	if want := []time.Duration{referencePatience, 0, 0, 0, 0}; !slices.Equal(due, want) {
		t.Errorf("got due after %v, want %v", due, want)
	}
}

// R107: each change of a campaign's state is queued once, unless it is too old.
func TestCampaignEvents(t *testing.T) {
	e := newEnv(t)
	n := names(t)
	c := &fanfarev1.Campaign{
		Tenant: e.tenant.ID, Id: "camp_10001", Number: number10001, Name: "Spring", State: schemas.StateSuspended, Reason: "no_credit",
		Legs: []*fanfarev1.Leg{{Channel: schemas.ChannelRCS}, {Channel: schemas.ChannelSMS}},
	}
	r, err := schemas.Event{Topic: n.Campaigns(), Key: "k", Tenant: e.tenant.ID, Type: schemas.TypeCampaign, Source: "relay", ID: "x", Value: c}.Record()
	if err != nil {
		t.Fatal(err)
	}
	r.Timestamp = start
	hidden, err := schemas.Event{Topic: n.Campaigns(), Key: "k", Tenant: e.tenant.ID, Value: &fanfarev1.Campaign{Tenant: e.tenant.ID, Id: "camp_2", Hidden: true}}.Record()
	if err != nil {
		t.Fatal(err)
	}
	tombstone := &kgo.Record{Topic: n.Campaigns(), Headers: r.Headers}
	m := &memory{moves: []schemas.CampaignMove{
		{ID: "1", To: schemas.StateConfigured, Time: start.Add(-25 * time.Hour)},
		{ID: "2", From: schemas.StateConfigured, To: schemas.StatePreparing, Time: start.Add(-time.Hour)},
		{ID: "3", From: schemas.StateSending, To: schemas.StateSuspended, Reason: "no_credit", Time: start},
	}}
	hooks := fixed{
		{Tenant: e.tenant.ID, Number: 1, Created: start.Add(-time.Minute), WebhookSettings: schemas.WebhookSettings{Channels: []string{"sms"}}},
		{Tenant: e.tenant.ID, Number: 2, Created: start.Add(-30 * 24 * time.Hour)},
		{Tenant: e.tenant.ID, Number: 3, WebhookSettings: schemas.WebhookSettings{Events: []schemas.WebhookEvent{schemas.WebhookDelivery}}},
	}
	if dead := handled(t, e, hooks, m, r, hidden, tombstone); len(dead) > 0 {
		t.Errorf("got dead letters %v", dead)
	}
	var got []string
	for _, it := range m.items {
		got = append(got, number(it.Endpoint)+" "+it.Type)
	}
	if want := []string{"1 campaign.suspended", "2 campaign.preparing", "2 campaign.suspended"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	var data map[string]any
	if err := json.Unmarshal(m.items[0].Data, &data); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"event": "CAMPAIGN", "campaignId": "camp_10001", "name": "Spring", "state": "suspended", "from": "sending", "status": "sending", "reason": "no_credit", "test": false,
	}
	if d := cmp.Diff(want, data); d != "" {
		t.Errorf("data (-want +got):\n%s", d)
	}
}
