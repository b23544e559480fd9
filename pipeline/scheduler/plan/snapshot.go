package plan

import (
	"fmt"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	// setsPart bounds the bytes of sets in one record: a broker accepts 1 MB by default.
	setsPart = 512 << 10
	// setSlice is how many seqs a set may span in one record: at most 256 KB.
	setSlice = 1 << 21
	// maxRecentBytes is how many bytes of deals a cursor may list before its sets are written early.
	maxRecentBytes = 256 << 10
)

// nameInCursor adds a deal to the campaign's cursor, which lists every deal since the sets were last written.
func (c *Campaign) nameInCursor(d *Deal) {
	r := &fanfarev1.Deal{
		Deal: d.Number, Try: uint32(d.Try), Leg: uint32(d.Leg), Blob: d.blob, FirstSeq: d.first, EndSeq: d.end,
		NotAfterMs: d.notAfter, Cancel: d.Cancel, Outcome: d.outcome, Code: d.code, DealtMs: d.DealtMs, Domains: d.domains, Route: d.route,
	}
	if d.seqs != nil {
		r.Seqs = encodeSet(d.seqs)
	}
	c.recent = append(c.recent, r)
	c.recentBytes += len(r.GetSeqs()) + 48
	for _, b := range d.domains {
		c.recentBytes += 16 + 40*(len(b.GetShort())+len(b.GetOptOut()))
	}
}

// decodeSet reads a set that encodeSet has written. Roaring panics on some bytes that are no set, and reads others without
// an error and panics when it writes them again. Either would end each leader in turn.
func decodeSet(raw []byte) (b *roaring.Bitmap, err error) {
	defer func() {
		if p := recover(); p != nil {
			b, err = nil, fmt.Errorf("set of recipients: %v", p)
		}
	}()
	b = roaring.New()
	if err := b.UnmarshalBinary(raw); err != nil {
		return nil, fmt.Errorf("set of recipients: %w", err)
	}
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("set of recipients: %w", err)
	}
	return b, nil
}

// encodeSet encodes a set in the portable format of Roaring. It may compress the set in place.
func encodeSet(b *roaring.Bitmap) []byte {
	b.RunOptimize()
	out, err := b.ToBytes()
	if err != nil { // writing to memory does not fail
		return nil
	}
	return out
}

// Cursor returns the campaign's cursor as it is to be written now.
func (c *Campaign) Cursor() *fanfarev1.Cursor {
	c.orderUnsaved = false
	out := &fanfarev1.Cursor{
		Tenant: c.tenant, CampaignId: c.id, CampaignNumber: c.number, FreezeId: c.record.GetFreezeId(), Deals: c.deals,
		Recent: c.recent, SetsEpoch: c.epoch, SetsParts: c.parts, Hidden: c.record.GetHidden() || c.record == nil && c.hasSingles(),
		Settled: c.closed, SettledMs: c.record.GetSettledMs(), CapturedMicros: c.finalCost, AmbiguousOrder: c.orderDone,
		DealtByWeights: c.encodeWeights(),
	}
	out.ProtoReflect().SetUnknown(c.unknownCursor)
	return out
}

// hasSingles reports whether the campaign has tries on a transactional lane.
func (c *Campaign) hasSingles() bool {
	for _, t := range c.tries {
		if slices.ContainsFunc(t.dealt, func(d *dealtSet) bool { return d.txn }) {
			return true
		}
	}
	return false
}

// Snapshot returns everything known of the campaign's recipients as a new epoch of sets, and how many parts the
// previous epoch had: the caller deletes the parts beyond the new number. From now on the cursor lists only the deals
// that follow.
func (c *Campaign) Snapshot() (parts []*fanfarev1.CursorSets, before uint32) {
	before = c.parts
	c.epoch++
	c.recent, c.recentBytes, c.unsaved = nil, 0, false
	var part *fanfarev1.CursorSets
	size := 0
	add := func(s *fanfarev1.CursorSets_Set) {
		if part == nil || size+len(s.GetSeqs()) > setsPart {
			part = &fanfarev1.CursorSets{Tenant: c.tenant, CampaignId: c.id, Epoch: c.epoch, Part: uint32(len(parts)), LastHandoverMs: c.handover}
			parts = append(parts, part)
			size = 0
		}
		part.Sets = append(part.Sets, s)
		size += len(s.GetSeqs()) + 64
	}
	c.sets(func(s *fanfarev1.CursorSets_Set, b *roaring.Bitmap) {
		write := func(b *roaring.Bitmap, unknown []byte) {
			for _, bytes := range splitSet(b) {
				out := &fanfarev1.CursorSets_Set{
					Role: s.GetRole(), Try: s.GetTry(), Leg: s.GetLeg(), Code: s.GetCode(), PriceMicros: s.GetPriceMicros(),
					DueMs: s.GetDueMs(), Retry: s.GetRetry(), Hours: s.GetHours(), Route: s.GetRoute(), Seqs: bytes,
				}
				out.ProtoReflect().SetUnknown(unknown)
				add(out)
			}
		}
		for i := range c.annotations {
			if a := &c.annotations[i]; a.role == s.GetRole() && a.try == s.GetTry() {
				write(roaring.And(b, a.seqs), a.fields)
				b = roaring.AndNot(b, a.seqs)
			}
		}
		write(b, nil)
	})
	for _, s := range c.unknownSets {
		add(s)
	}
	if len(parts) > 0 {
		parts[0].ProtoReflect().SetUnknown(c.unknownParts)
	}
	for _, p := range parts {
		p.Parts = uint32(len(parts))
	}
	c.parts = uint32(len(parts))
	return parts, before
}

// splitSet encodes a set in slices that fit into a record.
func splitSet(b *roaring.Bitmap) [][]byte {
	if b.IsEmpty() {
		return nil
	}
	if b.GetSerializedSizeInBytes() <= setsPart/2 {
		return [][]byte{encodeSet(b.Clone())}
	}
	var out [][]byte
	for from := uint64(0); from <= uint64(b.Maximum()); from += setSlice {
		piece := roaring.New()
		piece.AddRange(from, from+setSlice)
		if piece.And(b); !piece.IsEmpty() {
			out = append(out, encodeSet(piece))
		}
	}
	return out
}

// sets calls emit for every set, under its name.
func (c *Campaign) sets(emit func(*fanfarev1.CursorSets_Set, *roaring.Bitmap)) {
	for i, t := range c.tries {
		set := func(role schemas.Role) *fanfarev1.CursorSets_Set {
			return &fanfarev1.CursorSets_Set{Role: role, Try: uint32(i + 1)}
		}
		for _, d := range t.dealt {
			s := set(schemas.RoleDealt)
			s.Leg = uint32(d.leg)
			if d.txn || d.route != nil && !c.ownRoute(d) {
				s.Route = d.route.name
			}
			emit(s, &d.seqs)
		}
		emit(set(schemas.RoleAnswered), &t.answered)
		for _, p := range t.sent {
			s := set(schemas.RoleHandedOver)
			s.PriceMicros = p.micros
			emit(s, &p.seqs)
		}
		for _, p := range t.doubtful {
			s := set(schemas.RoleDoubtful)
			s.PriceMicros = p.micros
			emit(s, &p.seqs)
		}
		for _, b := range t.bounced {
			s := set(schemas.RoleBounced)
			s.Code = b.code
			emit(s, b.seqs)
		}
		emit(set(schemas.RoleBuffered), &t.buffered)
		emit(set(schemas.RoleReturned), &t.returned)
		for _, n := range t.negative {
			s := set(schemas.RoleNegative)
			s.Code = n.code
			emit(s, n.seqs)
		}
		emit(set(schemas.RolePositive), &t.positive)
		for key, due := range t.due {
			s := set(schemas.RoleDue)
			s.Leg, s.Retry, s.Hours, s.DueMs = uint32(key.leg), key.retry, key.hours, key.at
			emit(s, due)
		}
		for _, r := range t.ready {
			s := set(schemas.RoleDue)
			s.Leg, s.Retry = uint32(r.leg), r.retry
			emit(s, &r.seqs)
		}
		for at, e := range t.expiring {
			s := set(schemas.RoleExpiring)
			s.DueMs = at
			emit(s, roaring.AndNot(e, &t.answered))
		}
	}
	emit(&fanfarev1.CursorSets_Set{Role: schemas.RoleNeverLeft}, &c.never)
	emit(&fanfarev1.CursorSets_Set{Role: schemas.RoleUnconfirmed}, &c.unconfirmed)
}

// UnsavedCampaigns returns the campaigns that changed since their sets were last written. urgent: the cursor of one
// lists so many deals that its record would grow too large.
func (pl *Planner) UnsavedCampaigns() (out []*Campaign, urgent bool) {
	pl.unsaved = slices.DeleteFunc(pl.unsaved, func(c *Campaign) bool {
		c.listedUnsaved = c.unsaved && pl.tracks(c)
		return !c.listedUnsaved
	})
	for _, c := range pl.unsaved {
		urgent = urgent || c.recentBytes > maxRecentBytes
	}
	return slices.Clone(pl.unsaved), urgent
}

// IsOpen reports whether a campaign is still one of the planner's open ones.
func (pl *Planner) IsOpen(c *Campaign) bool {
	return !c.closed && !c.broken && pl.campaigns[c.number] == c
}
