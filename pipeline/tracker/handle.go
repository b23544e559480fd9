package tracker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/dlrindex"
	"fanfare/pipeline/health"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const source = "tracker"

// handler turns receipts into delivery events, one batch at a time. This file has the sequence of steps, lookup.go the
// queries of Redis and the view, mapping.go the pure functions.
type handler struct {
	cfg     Config
	names   schemas.Names
	keys    *schemas.Keys
	view    Campaigns
	index   *dlrindex.Index
	codes   codes
	metrics *metrics
	// indexed reports whether the receipts of a route are matched through the index; see [Deps.Indexed].
	indexed func(*fanfarev1.Route) bool
	// lost wakes the rebuilder: Redis has lost the index.
	lost     chan struct{}
	finished finishedEntries
	rates    health.Rates
}

func newHandler(cfg Config, deps Deps) (*handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Keys == nil || deps.Campaigns == nil || deps.Index == nil {
		return nil, errors.New("tracker: keys, campaigns and an index are needed")
	}
	table, err := parseCodes(codesFile)
	if err != nil {
		return nil, fmt.Errorf("tracker: %w", err)
	}
	indexed := deps.Indexed
	if indexed == nil {
		indexed = func(*fanfarev1.Route) bool { return true }
	}
	return &handler{
		cfg: cfg, names: cfg.Cluster.Names, keys: deps.Keys, view: deps.Campaigns, index: deps.Index, codes: table,
		metrics: newMetrics(cfg.Cluster.Registry), indexed: indexed, lost: make(chan struct{}, 1),
	}, nil
}

// item is one receipt on its way through the handler.
type item struct {
	record     *kgo.Record
	receipt    *fanfarev1.Receipt
	submission schemas.ID // zero until it is known
	// match is the index entry of the receipt's provider id, zero when the index was not needed or has none.
	match    dlrindex.Found
	campaign *fanfarev1.Campaign
	parts    dlrindex.Parts
	dead     error // non-nil: the receipt becomes a dead letter
	ignored  bool  // the receipt becomes no event
	kind     schemas.Kind
	result   string
}

// matched applies an index entry: the submission, and the part if each part of a message has its own provider id.
func (it *item) matched(f dlrindex.Found) {
	it.match, it.submission = f, f.Submission
	if f.Parts > 0 && it.receipt.GetParts() == 0 {
		it.receipt.Part, it.receipt.Parts = uint32(f.Part), uint32(f.Parts)
	}
}

// inParts reports whether the receipt is about one of several parts of a message.
func (it *item) inParts() bool { return it.receipt.GetPart() > 0 && it.receipt.GetParts() > 1 }

// open reports whether the receipt can still become an event.
func (it *item) open() bool { return it.dead == nil && !it.ignored }

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
	counts := map[string]int{}
	routes := map[string]health.Counts{}
	for i := range items {
		it := &items[i]
		if it.open() {
			r, err := h.event(it)
			if r != nil {
				result.Publish = append(result.Publish, r)
			}
			it.dead = err
			if n, ok := counted[it.kind]; ok && err == nil {
				of := routes[it.receipt.GetRoute()]
				of[n]++
				routes[it.receipt.GetRoute()] = of
			}
		}
		if it.dead != nil {
			result.Dead = append(result.Dead, stream.Dead{Record: it.record, Cause: it.dead})
			counts["dead"]++
		}
		if it.result != "" {
			counts[it.result]++
		}
	}
	for name, n := range counts {
		h.metrics.receipts.WithLabelValues(name).Add(float64(n))
	}
	for route, n := range routes {
		h.rates.Add(route, n, h.cfg.Now())
	}
	h.forget(ctx, items)
	return result, nil
}

// counted are the kinds of events by which the health of a route is judged.
var counted = map[schemas.Kind]int{
	schemas.KindDelivered: health.Delivered, schemas.KindUndelivered: health.Undelivered, schemas.KindBounced: health.Undelivered,
}

// life is how long an entry of the index and a parked receipt are kept.
func (h *handler) life() time.Duration { return h.cfg.Validity + schemas.DLRIndexTTL }
