package tracker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/rendezvous"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const source = "tracker"

// freshness is how new the view must be for its not knowing a campaign to mean that there is none: whoever sent the message had
// read the campaign, so a view that was read to its end after the receipt came has it. Clocks differ less than that.
const freshness = 5 * time.Second

// ahead is how far a carrier's clock may be ahead of ours.
const ahead = time.Minute

// errLost says that the rendezvous must be filled first.
var errLost = errors.New("the rendezvous was lost and is being filled again")

// handler turns receipts into delivery events. One batch at a time.
type handler struct {
	cfg     Config
	names   schemas.Names
	keys    *schemas.Keys
	view    Campaigns
	table   *rendezvous.Table
	codes   codes
	metrics *metrics
	lost    chan struct{} // wakes the keeper
	meets   func(*fanfarev1.Route) bool
	done    doneEntries
}

func newHandler(cfg Config, deps Deps) (*handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Keys == nil || deps.Campaigns == nil || deps.Rendezvous == nil {
		return nil, errors.New("tracker: keys, campaigns and a rendezvous are needed")
	}
	table, err := parseCodes(codesFile)
	if err != nil {
		return nil, fmt.Errorf("tracker: %w", err)
	}
	m, err := newMetrics(cfg.Cluster.Registry)
	if err != nil {
		return nil, err
	}
	return &handler{
		cfg: cfg, names: cfg.Cluster.Names, keys: deps.Keys, view: deps.Campaigns, table: deps.Rendezvous, codes: table, metrics: m,
		lost: make(chan struct{}, 1), meets: deps.Meets,
	}, nil
}

// item is one receipt on its way.
type item struct {
	record   *kgo.Record
	receipt  *fanfarev1.Receipt
	id       schemas.ID // zero: not known yet
	looked   bool       // the id came from the rendezvous
	campaign *fanfarev1.Campaign
	parts    rendezvous.Parts
	dead     error
	ignored  bool
	said     string // what became of it, for the metrics
}

// inParts reports whether the receipt is of one of several parts.
func (it *item) inParts() bool { return it.receipt.GetPart() > 0 && it.receipt.GetParts() > 1 }

// Handle implements [stream.Handler]. An error means that Redis or the view must catch up first.
func (h *handler) Handle(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
	items := make([]item, len(batch))
	for i, r := range batch {
		items[i] = h.decode(r)
	}
	if err := h.findSubmissions(ctx, items); err != nil {
		return stream.Result{}, err
	}
	if err := h.findCampaigns(items); err != nil {
		h.metrics.waits.WithLabelValues("campaign").Inc()
		return stream.Result{}, err
	}
	if err := h.joinParts(ctx, items); err != nil {
		return stream.Result{}, err
	}
	result := stream.Result{Publish: make([]*kgo.Record, 0, len(items))}
	said := map[string]int{}
	for i := range items {
		it := &items[i]
		if it.dead == nil && !it.ignored {
			r, err := h.event(it)
			if r != nil {
				result.Publish = append(result.Publish, r)
			}
			it.dead = err
		}
		if it.dead != nil {
			result.Dead = append(result.Dead, stream.Dead{Record: it.record, Cause: it.dead})
			said["dead"]++
		}
		said[it.said]++
	}
	delete(said, "")
	for what, n := range said {
		h.metrics.receipts.WithLabelValues(what).Add(float64(n))
	}
	h.forget(ctx, items)
	return result, nil
}

// decode reads a receipt and what of it needs no one else.
func (h *handler) decode(record *kgo.Record) item {
	r := &fanfarev1.Receipt{}
	it := item{record: record, receipt: r}
	if err := proto.Unmarshal(record.Value, r); err != nil {
		it.dead = fmt.Errorf("decode receipt: %w", err)
		return it
	}
	switch {
	case r.GetStatus() <= fanfarev1.ReceiptStatus_RECEIPT_STATUS_UNSPECIFIED || r.GetStatus() > fanfarev1.ReceiptStatus_RECEIPT_STATUS_UNKNOWN:
		it.dead = fmt.Errorf("status %d is not known", r.GetStatus())
	case schemas.ValidRoute(r.GetRoute()) != nil:
		it.dead = errors.New("the receipt has no valid route")
	case r.GetPart() > r.GetParts() || r.GetParts() > 255:
		it.dead = fmt.Errorf("part %d of %d", r.GetPart(), r.GetParts())
	case r.GetStatus() == fanfarev1.ReceiptStatus_RECEIPT_STATUS_UNKNOWN:
		it.ignored, it.said = true, "unknown"
	case len(r.GetSubmissionId()) > 0:
		if it.id, it.dead = h.verified(r.GetSubmissionId()); it.dead != nil {
			it.said = "forged"
		}
	case r.GetProviderId() == "" && len(r.GetAltProviderIds()) == 0:
		it.dead = errors.New("the receipt names no submission")
	}
	return it
}

// verified returns a submission id that bears our signature.
func (h *handler) verified(b []byte) (schemas.ID, error) {
	id, err := schemas.IDFromBytes(b)
	if err != nil {
		return schemas.ID{}, fmt.Errorf("submission id: %w", err)
	}
	if err := h.keys.Verify(id); err != nil {
		return schemas.ID{}, fmt.Errorf("submission id is forged: %w", err)
	}
	if id.Try() == 0 {
		return schemas.ID{}, errors.New("submission id is that of a message")
	}
	return id, nil
}

// findSubmissions asks the rendezvous whose the receipts are that do not say; what is not known is parked there.
func (h *handler) findSubmissions(ctx context.Context, items []item) error {
	var asked []*item
	var sightings []rendezvous.Sighting
	meets := false
	for i := range items {
		it := &items[i]
		if it.dead != nil || it.ignored {
			continue
		}
		meets = meets || it.inParts()
		if it.id.IsZero() {
			asked = append(asked, it)
			sightings = append(sightings, h.sighting(it.receipt, it.record.Value))
		}
	}
	if len(asked) == 0 && !meets {
		return nil
	}
	ready, err := h.table.Ready(ctx)
	if err != nil {
		h.metrics.waits.WithLabelValues("redis").Inc()
		return err
	}
	if !ready {
		h.metrics.waits.WithLabelValues("rendezvous").Inc()
		select {
		case h.lost <- struct{}{}:
		default: // it knows
		}
		return errLost
	}
	ids, err := h.table.Find(ctx, sightings)
	if err != nil {
		h.metrics.waits.WithLabelValues("redis").Inc()
		return err
	}
	for i, it := range asked {
		if ids[i].IsZero() {
			it.ignored, it.said = true, "unmatched"
			continue
		}
		it.looked = true
		if it.id, it.dead = h.verified(ids[i][:]); it.dead != nil {
			it.said = "forged"
		}
	}
	return nil
}

// sighting is a receipt as the rendezvous looks for it.
func (h *handler) sighting(r *fanfarev1.Receipt, encoded []byte) rendezvous.Sighting {
	return rendezvous.Sighting{
		Route: r.GetRoute(), IDs: rendezvous.Spellings(r.GetProviderId(), r.GetAltProviderIds(), r.GetTo() != ""), To: r.GetTo(),
		Receipt: encoded, Life: h.life(),
	}
}

// life of what is kept in Redis.
func (h *handler) life() time.Duration { return h.cfg.Validity + schemas.RendezvousTTL }

// findCampaigns fills in the campaigns. An error means that one may still come.
func (h *handler) findCampaigns(items []item) error {
	for i := range items {
		it := &items[i]
		if it.dead != nil || it.ignored {
			continue
		}
		if it.campaign = h.view.CampaignByNumber(it.id.CampaignNumber()); it.campaign != nil {
			continue
		}
		if h.cfg.Now().Add(-h.view.Age()).Sub(it.record.Timestamp) <= freshness {
			return fmt.Errorf("campaign %d has not arrived", it.id.CampaignNumber())
		}
		it.dead = fmt.Errorf("campaign %d is not known", it.id.CampaignNumber())
	}
	return nil
}

// joinParts notes the receipts of parts and fills in what is then known of the whole.
func (h *handler) joinParts(ctx context.Context, items []item) error {
	var joined []*item
	var parts []rendezvous.Part
	for i := range items {
		it := &items[i]
		if it.dead != nil || it.ignored || !it.inParts() {
			continue
		}
		if p, ok := h.part(it); ok {
			joined = append(joined, it)
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		return nil
	}
	known, err := h.table.Join(ctx, parts)
	if err != nil {
		h.metrics.waits.WithLabelValues("redis").Inc()
		return err
	}
	for i, it := range joined {
		it.parts = known[i]
	}
	return nil
}

// part is what a receipt says of a part; false when that is not that it arrived.
func (h *handler) part(it *item) (rendezvous.Part, bool) {
	p := rendezvous.Part{Tenant: it.campaign.GetTenant(), Submission: it.id, Part: it.receipt.GetPart(), Life: h.life()}
	switch it.receipt.GetStatus() {
	case fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED:
		p.State = schemas.PartDelivered
	case fanfarev1.ReceiptStatus_RECEIPT_STATUS_READ:
		p.State = schemas.PartRead
	default:
		return p, false
	}
	return p, true
}

// event returns the record of what a receipt says; nil when other parts are awaited.
func (h *handler) event(it *item) (*kgo.Record, error) {
	r, c := it.receipt, it.campaign
	kind, code := h.outcome(it)
	if kind == fanfarev1.Kind_KIND_UNSPECIFIED {
		it.said = "part"
		return nil, nil
	}
	message := h.keys.MessageOf(it.id)
	number, leg := legOf(c, r.GetRoute())
	d := &fanfarev1.Delivery{
		Tenant: c.GetTenant(), CampaignId: c.GetId(), CampaignNumber: c.GetNumber(), Seq: it.id.Seq(), Try: uint32(it.id.Try()), Leg: number,
		Kind: kind, Code: code, RawCode: strings.ToValidUTF8(r.GetRawCode(), ""), TimeMs: h.time(it), Channel: leg.GetChannel(), Route: r.GetRoute(),
		Sender: leg.GetSender(), To: r.GetTo(), ProviderId: r.GetProviderId(), MessageId: message[:], SubmissionId: it.id[:], Test: c.GetTest(),
	}
	e := schemas.DeliveryEvent(h.names.Deliveries(), source, d, "")
	e.Traceparent = string(schemas.Header(it.record, schemas.HeaderTraceparent))
	out, err := e.Record()
	if err != nil {
		return nil, err
	}
	info, _ := schemas.LookupKind(kind)
	it.said = info.Name
	if at := r.GetReceivedMs(); at > 0 {
		h.metrics.delay.Observe(h.cfg.Now().Sub(time.UnixMilli(at)).Seconds())
	}
	return out, nil
}

// outcome says what became of a message; no kind when other parts are awaited.
func (h *handler) outcome(it *item) (fanfarev1.Kind, fanfarev1.Code) {
	r := it.receipt
	if r.GetStatus() == fanfarev1.ReceiptStatus_RECEIPT_STATUS_BUFFERED {
		return fanfarev1.Kind_KIND_BUFFERED, fanfarev1.Code_CODE_ENROUTE
	}
	if it.inParts() {
		switch {
		case r.GetStatus() == fanfarev1.ReceiptStatus_RECEIPT_STATUS_FAILED:
			return h.negative(it, fanfarev1.Code_CODE_PARTIAL), fanfarev1.Code_CODE_PARTIAL
		case it.parts.Delivered < int(r.GetParts()):
			return fanfarev1.Kind_KIND_UNSPECIFIED, 0
		case it.parts.Read > 0:
			return fanfarev1.Kind_KIND_READ, fanfarev1.Code_CODE_READ
		default:
			return fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED
		}
	}
	switch r.GetStatus() {
	case fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED:
		switch r.GetCode() {
		case fanfarev1.Code_CODE_ANSWERED, fanfarev1.Code_CODE_VOICEMAIL_LEFT:
			return fanfarev1.Kind_KIND_DELIVERED, r.GetCode()
		default:
			return fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED
		}
	case fanfarev1.ReceiptStatus_RECEIPT_STATUS_READ:
		return fanfarev1.Kind_KIND_READ, fanfarev1.Code_CODE_READ
	default:
		code := h.codes.failure(h.view.Route(r.GetRoute()).GetConnector(), r.GetCode(), r.GetRawCode())
		return h.negative(it, code), code
	}
}

// negative is bounced when the campaign can retry or fall back from code at all. It looks at nothing that changes while the
// campaign runs, so that the same receipt is the same event; the scheduler ends what nothing follows.
func (h *handler) negative(it *item, code fanfarev1.Code) fanfarev1.Kind {
	c := it.campaign
	if c.GetHidden() || c.GetSettled() {
		return fanfarev1.Kind_KIND_UNDELIVERED
	}
	info, _ := schemas.LookupCode(code)
	all := !slices.ContainsFunc(c.GetLegs(), func(l *fanfarev1.Leg) bool { return l.GetRoute() == it.receipt.GetRoute() })
	for i, leg := range c.GetLegs() {
		if !all && leg.GetRoute() != it.receipt.GetRoute() {
			continue
		}
		if info.Retry != schemas.RetryNo && leg.GetMaxHandovers() > 1 || info.Fallback && i+1 < len(c.GetLegs()) {
			return fanfarev1.Kind_KIND_BOUNCED
		}
	}
	return fanfarev1.Kind_KIND_UNDELIVERED
}

// legOf returns the leg whose route it is, and its number: the only one of that route, else none, for which of them it was the
// receipt does not say. A single send has one leg, whichever its route.
func legOf(c *fanfarev1.Campaign, route string) (uint32, *fanfarev1.Leg) {
	number, leg := uint32(0), (*fanfarev1.Leg)(nil)
	for i, l := range c.GetLegs() {
		if l.GetRoute() != route {
			continue
		}
		if leg != nil {
			number, leg = 0, nil
			break
		}
		number, leg = uint32(i+1), l
	}
	if c.GetHidden() {
		number = 1
	}
	return number, leg
}

// time is when the carrier says it happened, between the campaign's confirmation and a minute after the receipt came in.
func (h *handler) time(it *item) int64 {
	came := it.receipt.GetReceivedMs()
	if came <= 0 {
		came = it.record.Timestamp.UnixMilli()
	}
	at := it.receipt.GetTimeMs()
	if at <= 0 {
		at = came
	}
	first := it.campaign.GetConfirmedMs()
	if first <= 0 {
		first = it.campaign.GetCreatedMs()
	}
	return min(max(at, first), came+ahead.Milliseconds())
}

// doneEntries are entries of the rendezvous whose last receipt has come. They are let go only when the events are known to be
// published, or the receipt, handled again after a crash, would find nothing: that is when a later record of the partition is
// handled, in a batch without the receipt itself. What is never let go so expires later.
type doneEntries struct{ waiting []doneEntry }

type doneEntry struct {
	entry     rendezvous.Entry
	partition int32
	offset    int64
}

// afterLast is how long an entry outlives the receipt that says delivered: for the same one again, and for read.
const afterLast = time.Hour

// mostDone bounds the entries that wait for a later record.
const mostDone = 50_000

// forget lets the entries go of what is done and published, and notes those of this batch.
func (h *handler) forget(ctx context.Context, items []item) {
	first := map[int32]int64{}
	for i := range items {
		r := items[i].record
		if have, ok := first[r.Partition]; !ok || r.Offset < have {
			first[r.Partition] = r.Offset
		}
	}
	var published []rendezvous.Entry
	h.done.waiting = slices.DeleteFunc(h.done.waiting, func(d doneEntry) bool {
		from, ok := first[d.partition]
		if !ok || d.offset >= from {
			return false
		}
		published = append(published, d.entry)
		return true
	})
	// Redis may be away: then they expire.
	_ = h.table.Forget(ctx, published)

	for i := range items {
		it := &items[i]
		if it.dead != nil || it.ignored || !h.last(it) {
			continue
		}
		r := it.receipt
		for _, id := range rendezvous.Spellings(r.GetProviderId(), r.GetAltProviderIds(), r.GetTo() != "") {
			h.done.waiting = append(h.done.waiting, doneEntry{
				rendezvous.Entry{Route: r.GetRoute(), ProviderID: id, To: r.GetTo(), Submission: it.id, Life: afterLast}, it.record.Partition, it.record.Offset,
			})
		}
	}
	if n := len(h.done.waiting) - mostDone; n > 0 {
		h.done.waiting = slices.Delete(h.done.waiting, 0, n)
	}
}

// last reports whether no receipt of the submission is awaited that would have to be looked up: a negative one may still be
// followed by a positive one.
func (h *handler) last(it *item) bool {
	switch it.receipt.GetStatus() {
	case fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED, fanfarev1.ReceiptStatus_RECEIPT_STATUS_READ:
	default:
		return false
	}
	if it.inParts() && it.parts.Delivered < int(it.receipt.GetParts()) {
		return false // some carriers give all parts one id
	}
	if it.looked {
		return true
	}
	// Published again by the sender, which had parked it: on a route that meets here.
	return h.meets != nil && it.receipt.GetProviderId() != "" && h.meets(h.view.Route(it.receipt.GetRoute()))
}
