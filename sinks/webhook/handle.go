package webhook

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// handler turns records into items of the queue.
type handler struct {
	cfg     Config
	names   schemas.Names
	store   Queue
	view    View
	known   *endpoints
	metrics *metrics
	seen    seen
	// wake wakes the deliverer of this process.
	wake chan struct{}
}

func newHandler(cfg Config, store Queue, view View, known *endpoints, m *metrics) *handler {
	return &handler{cfg: cfg, names: cfg.Cluster.Names, store: store, view: view, known: known, metrics: m, wake: make(chan struct{}, 1)}
}

// referencePatience is how long the event of a receipt waits for the outcome of its hand-over, which has the client's
// reference. Both are written within milliseconds, by two processes.
const referencePatience = 2 * time.Second

// moveMaxAge is how old a change of state may be when its campaign's record is written. Older changes were queued with
// an earlier record.
const moveMaxAge = 24 * time.Hour

// batch is the result of a batch of records.
type batch struct {
	items []schemas.WebhookItem
	refs  []schemas.WebhookReference
	dead  []stream.Dead
	// campaigns that were looked up.
	campaigns map[string]*fanfarev1.Campaign
}

// Handle implements [stream.Handler]. An error means that the store did not answer.
func (h *handler) Handle(ctx context.Context, records []*kgo.Record) (stream.Result, error) {
	hooks, err := h.known.current(ctx)
	if err != nil {
		return stream.Result{}, err
	}
	b, err := h.convert(ctx, hooks, records)
	if err != nil {
		return stream.Result{}, err
	}
	if len(b.items)+len(b.refs) > 0 {
		if err := h.store.QueueWebhooks(ctx, b.items, b.refs); err != nil {
			return stream.Result{}, err
		}
		h.metrics.queued.Add(float64(len(b.items)))
		h.wakeUp()
	}
	return stream.Result{Dead: b.dead}, nil
}

func (h *handler) wakeUp() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// convert returns the items of records for those endpoints that want them.
func (h *handler) convert(ctx context.Context, to *hooks, records []*kgo.Record) (*batch, error) {
	b := &batch{campaigns: map[string]*fanfarev1.Campaign{}}
	if len(to.byNumber) == 0 {
		return b, nil
	}
	for _, r := range records {
		// The tenant in the header only saves the decoding of events that no endpoint wants. The tenant of the campaign
		// decides.
		if tenant := schemas.Header(r, schemas.HeaderTenant); tenant != nil && to.byTenant[string(tenant)] == nil || r.Value == nil {
			continue
		}
		var err error
		switch r.Topic {
		case h.names.Campaigns():
			err = h.campaign(ctx, to, r, b)
		case h.names.Replies():
			err = h.reply(to, r, b)
		default:
			err = h.delivery(ctx, to, r, b)
		}
		if dead := (*deadError)(nil); errors.As(err, &dead) {
			b.dead = append(b.dead, stream.Dead{Record: r, Cause: dead})
		} else if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// deadError makes its record a dead letter.
type deadError struct{ cause string }

// Error returns the cause, without any content of the record.
func (e *deadError) Error() string { return e.cause }

func (h *handler) delivery(ctx context.Context, to *hooks, r *kgo.Record, b *batch) error {
	d := &fanfarev1.Delivery{}
	if proto.Unmarshal(r.Value, d) != nil {
		return &deadError{"not a delivery event"}
	}
	id, err := schemas.IDFromBytes(d.GetMessageId())
	if err != nil {
		return &deadError{"no message id"}
	}
	c, err := h.find(ctx, schemas.CampaignID(d.GetCampaignNumber()), b)
	if err != nil {
		return err
	}
	if c.GetTenant() != d.GetTenant() {
		return &deadError{"another tenant than that of its campaign"} // P7
	}
	hooks := to.byTenant[c.GetTenant()]
	if len(hooks) == 0 {
		return nil
	}
	message := id.String()
	due := time.Time{}
	if c.GetHidden() {
		switch {
		case d.GetCustomerRef() != "":
			b.refs = append(b.refs, schemas.WebhookReference{Tenant: c.GetTenant(), Message: message, Reference: d.GetCustomerRef()})
			h.seen.add(id)
		case ofSender(d.GetKind()):
			h.seen.add(id)
		case !h.seen.has(id):
			due = h.cfg.Now().Add(referencePatience)
		}
	}
	event, status, ok := schemas.WebhookStatusOf(d.GetKind(), d.GetCode())
	if !ok {
		return nil
	}
	facts := schemas.WebhookFacts{Event: event, Status: status, Channels: h.channels(d, c)}
	if !c.GetHidden() {
		facts.Campaign = c.GetNumber()
	}
	var item *schemas.WebhookItem
	for _, w := range hooks {
		if r.Timestamp.Before(w.Created) || !w.Wants(facts) {
			continue
		}
		if item == nil {
			if item, err = messageItem(r, d, c, facts, message); err != nil {
				return err
			}
			item.Due = due
		}
		it := *item
		it.Endpoint = w.Number
		b.items = append(b.items, it)
	}
	return nil
}

// ofSender reports whether an event is the outcome of a hand-over, which has the client's reference if there is one.
func ofSender(k schemas.Kind) bool {
	switch k {
	case schemas.KindSent, schemas.KindNotSent, schemas.KindSkipped, schemas.KindReturned, schemas.KindAmbiguous:
		return true
	default:
		return false
	}
}

// channels returns the channels that an event may belong to. The receipt of a single send names no channel: it is one
// of its route's channels. A click and an opt-out name neither channel nor route: they belong to one of the campaign's
// channels.
func (h *handler) channels(d *fanfarev1.Delivery, c *fanfarev1.Campaign) (out []schemas.Channel) {
	if d.GetChannel() != schemas.ChannelUnspecified {
		return []schemas.Channel{d.GetChannel()}
	}
	if d.GetRoute() == "" {
		for _, l := range c.GetLegs() {
			out = append(out, l.GetChannel())
		}
		return out
	}
	return h.view.Route(d.GetRoute()).GetChannels()
}

// find returns a campaign.
func (h *handler) find(ctx context.Context, id string, b *batch) (*fanfarev1.Campaign, error) {
	if c := h.view.Campaign(id); c != nil {
		return c, nil
	}
	if c := b.campaigns[id]; c != nil {
		return c, nil
	}
	c, err := h.store.CampaignRecord(ctx, id) // the view may lag, and drops campaigns a week after they settled
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, &deadError{"campaign does not exist"}
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", id, err)
	}
	b.campaigns[id] = c
	return c, nil
}

func (h *handler) campaign(ctx context.Context, to *hooks, r *kgo.Record, b *batch) error {
	c := &fanfarev1.Campaign{}
	if proto.Unmarshal(r.Value, c) != nil {
		return &deadError{"not a campaign"}
	}
	if c.GetHidden() {
		return nil
	}
	facts := schemas.WebhookFacts{Event: schemas.WebhookCampaign, Campaign: c.GetNumber()}
	for _, l := range c.GetLegs() {
		facts.Channels = append(facts.Channels, l.GetChannel())
	}
	var moves []schemas.CampaignMove
	for _, w := range to.byTenant[c.GetTenant()] {
		if !w.Wants(facts) {
			continue
		}
		if moves == nil {
			var err error
			if moves, err = h.store.CampaignMoves(ctx, c.GetTenant(), c.GetId()); err != nil {
				return err
			}
		}
		for _, m := range moves {
			if m.Time.Before(w.Created) || m.Time.Before(r.Timestamp.Add(-moveMaxAge)) {
				continue
			}
			it, err := campaignItem(c, &m)
			if err != nil {
				return err
			}
			it.Endpoint = w.Number
			b.items = append(b.items, *it)
		}
	}
	return nil
}

// reply queues a message that a recipient wrote.
func (h *handler) reply(to *hooks, r *kgo.Record, b *batch) error {
	in := &fanfarev1.Reply{}
	if proto.Unmarshal(r.Value, in) != nil || in.GetId() == "" || in.GetConversationId() == "" {
		return &deadError{"not a reply"}
	}
	facts := schemas.WebhookFacts{Event: schemas.WebhookInbound, Channels: []schemas.Channel{in.GetChannel()}}
	if in.GetCampaignId() != "" {
		n, err := schemas.CampaignNumber(in.GetCampaignId())
		if err != nil {
			return &deadError{"no such campaign"}
		}
		facts.Campaign = n
	}
	for _, w := range to.byTenant[in.GetTenant()] {
		if r.Timestamp.Before(w.Created) || !w.Wants(facts) {
			continue
		}
		it, err := replyItem(in)
		if err != nil {
			return err
		}
		it.Endpoint = w.Number
		b.items = append(b.items, *it)
	}
	return nil
}

// endpointItems returns the items that tell the tenant's other endpoints that one was disabled.
func endpointItems(to *hooks, gone *schemas.Webhook, failing, now time.Time, reason string) ([]schemas.WebhookItem, error) {
	var out []schemas.WebhookItem
	for _, w := range to.byTenant[gone.Tenant] {
		if w.Number == gone.Number || !w.Wants(schemas.WebhookFacts{Event: schemas.WebhookEndpoint}) {
			continue
		}
		it, err := endpointItem(gone, failing, now, reason)
		if err != nil {
			return nil, err
		}
		it.Endpoint = w.Number
		out = append(out, *it)
	}
	return out, nil
}

// seen remembers single sends whose outcome was read, so that their receipts need not wait for it: those of the last
// minutes, in two generations of bounded size.
type seen struct{ young, old map[schemas.ID]struct{} }

// seenMost is the size of a generation; 100,000 ids take about 6 MB.
const seenMost = 100_000

func (s *seen) add(id schemas.ID) {
	if len(s.young) >= seenMost {
		s.old, s.young = s.young, nil
	}
	if s.young == nil {
		s.young = map[schemas.ID]struct{}{}
	}
	s.young[id] = struct{}{}
}

func (s *seen) has(id schemas.ID) bool {
	_, young := s.young[id]
	_, old := s.old[id]
	return young || old
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }
