package tracker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"fanfare/pipeline/dlrindex"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// viewLead: if the view was refreshed at least this long after the receipt and still lacks the campaign, the campaign
// does not exist. The sender had read the campaign before it sent the message, so a view that was refreshed after the
// receipt came has it. Clocks differ by less than this.
const viewLead = 5 * time.Second

// errIndexLost means that the rebuilder must restore the index before receipts can be matched.
var errIndexLost = errors.New("redis has lost the index of provider ids; it is being rebuilt")

// findSubmissions looks up the submissions of receipts without our id. A receipt whose submission is not known yet is
// parked.
func (h *handler) findSubmissions(ctx context.Context, items []item) error {
	var asked []*item
	var sightings []dlrindex.Sighting
	needsIndex := false
	for i := range items {
		it := &items[i]
		if !it.open() {
			continue
		}
		needsIndex = needsIndex || it.inParts()
		if it.submission.IsZero() {
			asked = append(asked, it)
			sightings = append(sightings, h.sighting(it.receipt, it.record.Value))
		}
	}
	if len(asked) == 0 && !needsIndex {
		return nil
	}
	ready, err := h.index.Ready(ctx)
	if err != nil {
		h.metrics.waits.WithLabelValues("redis").Inc()
		return err
	}
	if !ready {
		h.metrics.waits.WithLabelValues("rendezvous").Inc()
		select {
		case h.lost <- struct{}{}:
		default: // the rebuilder is woken already
		}
		return errIndexLost
	}
	found, err := h.index.Find(ctx, sightings)
	if err != nil {
		h.metrics.waits.WithLabelValues("redis").Inc()
		return err
	}
	for i, it := range asked {
		if found[i].IsZero() {
			it.ignored, it.result = true, "unmatched"
			continue
		}
		it.matched(found[i])
		if it.submission, it.dead = h.verified(it.submission[:]); it.dead != nil {
			it.result = "forged"
		}
	}
	return nil
}

// sighting describes a receipt for the index.
func (h *handler) sighting(r *fanfarev1.Receipt, encoded []byte) dlrindex.Sighting {
	return dlrindex.Sighting{
		Route: r.GetRoute(), IDs: dlrindex.Spellings(r.GetProviderId(), r.GetAltProviderIds(), r.GetTo() != ""), To: r.GetTo(),
		Receipt: encoded, Life: h.life(),
	}
}

// findCampaigns fills in the campaigns. An error means that a campaign is missing and may still arrive in the view.
func (h *handler) findCampaigns(items []item) error {
	for i := range items {
		it := &items[i]
		if !it.open() {
			continue
		}
		if it.campaign = h.view.CampaignByNumber(it.submission.CampaignNumber()); it.campaign != nil {
			continue
		}
		refreshed := h.cfg.Now().Add(-h.view.Age())
		if refreshed.Sub(it.record.Timestamp) <= viewLead {
			return fmt.Errorf("campaign %d has not arrived", it.submission.CampaignNumber())
		}
		it.dead = fmt.Errorf("campaign %d is not known", it.submission.CampaignNumber())
	}
	return nil
}

// joinParts stores the states of parts and fills in the combined state of each message.
func (h *handler) joinParts(ctx context.Context, items []item) error {
	var joined []*item
	var parts []dlrindex.Part
	for i := range items {
		it := &items[i]
		if !it.open() || !it.inParts() {
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
	known, err := h.index.Join(ctx, parts)
	if err != nil {
		h.metrics.waits.WithLabelValues("redis").Inc()
		return err
	}
	for i, it := range joined {
		it.parts = known[i]
	}
	return nil
}

// part returns the state of a part; false when the receipt does not say that the part arrived.
func (h *handler) part(it *item) (dlrindex.Part, bool) {
	p := dlrindex.Part{Tenant: it.campaign.GetTenant(), Submission: it.submission, Part: it.receipt.GetPart(), Life: h.life()}
	switch it.receipt.GetStatus() {
	case schemas.ReceiptStatusDelivered:
		p.State = schemas.PartDelivered
	case schemas.ReceiptStatusRead:
		p.State = schemas.PartRead
	default:
		return p, false
	}
	return p, true
}

// finishedEntries are entries of the index whose last receipt has come. An entry is forgotten only once the event of
// that receipt is known to be published, because the receipt may be handled again after a crash and must find its
// entry. That is certain when a later batch has a record of the same partition but not the receipt. An entry that is
// never forgotten in this way expires later.
type finishedEntries []finishedEntry

type finishedEntry struct {
	entry     dlrindex.Entry
	partition int32
	offset    int64
}

// afterLast is how long an entry is kept after a DELIVERED receipt: that receipt may come twice, and a READ receipt may
// follow.
const afterLast = time.Hour

// maxFinished bounds the entries that wait for a later record.
const maxFinished = 50_000

// forget forgets finished entries whose events are published, and notes those of this batch.
func (h *handler) forget(ctx context.Context, items []item) {
	first := map[int32]int64{} // offset by partition
	for i := range items {
		r := items[i].record
		if have, ok := first[r.Partition]; !ok || r.Offset < have {
			first[r.Partition] = r.Offset
		}
	}
	var published []dlrindex.Entry
	h.finished = slices.DeleteFunc(h.finished, func(f finishedEntry) bool {
		from, ok := first[f.partition]
		if !ok || f.offset >= from {
			return false
		}
		published = append(published, f.entry)
		return true
	})
	_ = h.index.Forget(ctx, published) // if Redis is away they expire

	for i := range items {
		it := &items[i]
		if !it.open() || !h.last(it) {
			continue
		}
		r := it.receipt
		for _, id := range dlrindex.Spellings(r.GetProviderId(), r.GetAltProviderIds(), r.GetTo() != "") {
			e := dlrindex.Entry{
				Route: r.GetRoute(), ProviderID: id, To: r.GetTo(), Submission: it.submission, Part: it.match.Part, Parts: it.match.Parts, Life: afterLast,
			}
			h.finished = append(h.finished, finishedEntry{e, it.record.Partition, it.record.Offset})
		}
	}
	if n := len(h.finished) - maxFinished; n > 0 {
		h.finished = slices.Delete(h.finished, 0, n)
	}
}

// last reports whether this receipt is the last one that needs the submission's index entry. A positive receipt may
// still follow a negative one.
func (h *handler) last(it *item) bool {
	switch it.receipt.GetStatus() {
	case schemas.ReceiptStatusDelivered, schemas.ReceiptStatusRead:
	default:
		return false
	}
	if it.inParts() && it.match.Parts == 0 && it.parts.Delivered < int(it.receipt.GetParts()) {
		return false // the parts may share one provider id
	}
	// A receipt with our id on an indexed route was parked, and the sender published it again.
	return !it.match.IsZero() || it.receipt.GetProviderId() != "" && h.indexed(h.view.Route(it.receipt.GetRoute()))
}
