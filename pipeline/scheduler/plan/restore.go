package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Restore takes over a campaign from its cursor and the sets of the epoch that the cursor names. The campaign's record
// follows; it may arrive later, because the predecessor's view may have been newer than ours. After an error the
// planner does not have the campaign: the caller sets it aside.
//
// Restore keeps the sets of unknown roles and the unknown fields that a newer version has written. The next snapshot
// writes them again.
func (pl *Planner) Restore(cur *fanfarev1.Cursor, parts []*fanfarev1.CursorSets, now time.Time) error {
	if uint32(len(parts)) != cur.GetSetsParts() {
		return fmt.Errorf("cursor of %s: want %d parts of epoch %d, found %d", cur.GetCampaignId(), cur.GetSetsParts(), cur.GetSetsEpoch(), len(parts))
	}
	if cur.GetCampaignNumber() > schemas.MaxCampaignNumber || cur.GetCampaignId() != schemas.CampaignID(cur.GetCampaignNumber()) {
		return fmt.Errorf("cursor of %s: campaign number %d", cur.GetCampaignId(), cur.GetCampaignNumber())
	}
	// The planner gets the campaign only after everything has been read.
	c := &Campaign{number: cur.GetCampaignNumber(), tenant: cur.GetTenant(), id: cur.GetCampaignId()}
	c.deals, c.epoch, c.parts = cur.GetDeals(), cur.GetSetsEpoch(), cur.GetSetsParts()
	c.orderDone = cur.GetAmbiguousOrder()
	c.unknownCursor = cur.ProtoReflect().GetUnknown()
	for _, p := range parts {
		c.handover = max(c.handover, p.GetLastHandoverMs())
		c.unknownParts = append(c.unknownParts, p.ProtoReflect().GetUnknown()...)
		for _, s := range p.GetSets() {
			if err := pl.restoreSet(c, s, cur.GetHidden()); err != nil {
				return fmt.Errorf("cursor of %s: %s of try %d: %w", c.id, s.GetRole(), s.GetTry(), err)
			}
		}
	}
	if err := c.restoreWeights(cur.GetDealtByWeights()); err != nil {
		return err
	}
	members := make([]*roaring.Bitmap, 0, len(cur.GetRecent()))
	for _, d := range cur.GetRecent() {
		seqs, err := membersOf(d.GetTry(), d.GetLeg(), d.GetFirstSeq(), d.GetEndSeq(), d.GetSeqs())
		if err != nil {
			return fmt.Errorf("cursor of %s: deal %d: %w", c.id, d.GetDeal(), err)
		}
		members = append(members, seqs)
		c.recent = append(c.recent, d)
		c.recentBytes += len(d.GetSeqs()) + 48
	}
	pl.insert(c)
	pl.adjustInFlight(c, +1)
	for i, d := range cur.GetRecent() {
		pl.restoreDeal(c, d.GetDeal(), d.GetTry(), d.GetLeg(), d.GetRoute(), d.GetCancel(), members[i], d.GetNotAfterMs())
	}
	c.changed, c.lastSeen = true, ms(now)
	return nil
}

// RestoreSettled takes over a campaign whose cursor says that it settled. If the control plane says otherwise, its
// store was put back from an older copy: the log outranks the store. The planner deals none of the campaign's
// recipients again, and requests the moves that end it in the store.
func (pl *Planner) RestoreSettled(cur *fanfarev1.Cursor) {
	number := cur.GetCampaignNumber()
	if pl.campaigns[number] != nil || cur.GetCampaignId() != schemas.CampaignID(number) {
		return
	}
	pl.campaigns[number] = &Campaign{
		number: number, tenant: cur.GetTenant(), id: cur.GetCampaignId(), closed: true,
		settledInLog: true, settledMs: cur.GetSettledMs(), finalCost: cur.GetCapturedMicros(),
	}
}

// SetAside excludes a campaign from all decisions: one of its records in `cursors` or `chunks` cannot be read, so the
// scheduler does not know which recipients were dealt. The campaign is suspended, and its cursor is not written again.
func (pl *Planner) SetAside(number uint64, tenant, id string) {
	c := pl.campaigns[number]
	if c == nil {
		c = &Campaign{number: number, tenant: tenant, id: id}
		pl.campaigns[number] = c
	} else {
		if c.broken {
			return
		}
		pl.drop(c)
	}
	c.broken = true
	pl.broken = append(pl.broken, c)
}

// BrokenCampaigns is how many campaigns are set aside.
func (pl *Planner) BrokenCampaigns() int { return len(pl.broken) }

// restoreSet restores a set of the newest epoch; hidden says that the campaign is a hidden one, whose tries were single
// sends.
func (pl *Planner) restoreSet(c *Campaign, s *fanfarev1.CursorSets_Set, hidden bool) error {
	if !knownRole(s.GetRole()) {
		c.unknownSets = append(c.unknownSets, s)
		return nil
	}
	b, err := decodeSet(s.GetSeqs())
	if err != nil {
		return err
	}
	if unknown := s.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		c.annotations = append(c.annotations, annotation{role: s.GetRole(), try: s.GetTry(), fields: unknown, seqs: b.Clone()})
	}
	switch s.GetRole() {
	case schemas.RoleNeverLeft:
		c.never.Or(b)
		return nil
	case schemas.RoleUnconfirmed:
		c.unconfirmed.Or(b)
		return nil
	default: // of a try
	}
	if s.GetTry() == 0 || s.GetTry() > schemas.MaxTry || s.GetLeg() >= maxLegs {
		return fmt.Errorf("try %d, leg %d: out of bounds", s.GetTry(), s.GetLeg())
	}
	t := c.try(int(s.GetTry()))
	switch s.GetRole() {
	case schemas.RoleDealt:
		var r *route
		if s.GetRoute() != "" {
			r = pl.route(s.GetRoute())
		}
		t.dealtTo(uint8(s.GetLeg()), r, hidden && r != nil).seqs.Or(b)
	case schemas.RoleAnswered:
		t.answered.Or(b)
	case schemas.RoleHandedOver:
		t.sent.of(s.GetPriceMicros()).seqs.Or(b)
	case schemas.RoleDoubtful:
		t.doubtful.of(s.GetPriceMicros()).seqs.Or(b)
	case schemas.RoleBounced:
		t.bounced.of(s.GetCode()).Or(b)
		c.bounces = true
	case schemas.RoleBuffered:
		t.buffered.Or(b)
	case schemas.RoleReturned:
		t.returned.Or(b)
	case schemas.RoleNegative:
		t.negative.of(s.GetCode()).Or(b)
	case schemas.RoleUnbilled: // written by an older version; the codes have the same information
	case schemas.RolePositive:
		t.positive.Or(b)
	case schemas.RoleDue:
		key := dueKey{leg: uint8(s.GetLeg()), retry: s.GetRetry(), hours: s.GetHours(), at: s.GetDueMs()}
		if key.at == 0 {
			t.readyFor(key.leg, key.retry).add(b, 0)
			break
		}
		t.dueOf(key).Or(b)
		if c.nextDue == 0 || key.at < c.nextDue {
			c.nextDue = key.at
		}
	case schemas.RoleExpiring:
		t.expiringAt(s.GetDueMs()).Or(b)
		if lost := s.GetDueMs() + lostAfter.Milliseconds(); c.expiry == 0 || lost < c.expiry {
			c.expiry = lost
		}
	default:
		return nil // kept above
	}
	return nil
}

// knownRole reports whether this version knows a role.
func knownRole(r schemas.Role) bool {
	switch r {
	case schemas.RoleDealt, schemas.RoleAnswered, schemas.RoleHandedOver, schemas.RoleDoubtful, schemas.RoleNeverLeft, schemas.RoleNegative,
		schemas.RolePositive, schemas.RoleBounced, schemas.RoleDue, schemas.RoleReturned, schemas.RoleUnconfirmed, schemas.RoleBuffered,
		schemas.RoleUnbilled, schemas.RoleExpiring:
		return true
	default:
		return false
	}
}

// restoreDeal applies a deal that a predecessor made.
func (pl *Planner) restoreDeal(c *Campaign, number uint64, n, leg uint32, by string, cancel bool, seqs *roaring.Bitmap, notAfter int64) {
	c.deals = max(c.deals, number)
	to, r := uint8(leg), (*route)(nil)
	if cancel {
		to = 0
	} else if by != "" {
		r = pl.route(by)
	} else if leg > 0 && int(leg) <= len(c.flows) {
		r = c.flows[leg-1].route
	}
	pl.markDealt(c, int(n), to, r, false, seqs, notAfter)
}

// AdoptChunk applies a chunk found in topic `chunks`: its recipients were dealt, whether or not a cursor lists the
// deal. unlisted reports that no cursor did.
func (pl *Planner) AdoptChunk(ch *fanfarev1.Chunk) (unlisted bool, err error) {
	c := pl.campaigns[ch.GetCampaignNumber()]
	if c == nil || c.closed || c.broken {
		return false, nil
	}
	seqs, err := membersOf(ch.GetTry(), ch.GetLeg(), ch.GetFirstSeq(), ch.GetEndSeq(), ch.GetSeqs())
	if err != nil {
		return false, fmt.Errorf("chunk %d of %s: %w", ch.GetDeal(), ch.GetCampaignId(), err)
	}
	if t := c.have(int(ch.GetTry())); t != nil {
		left := seqs.Clone()
		for _, d := range t.dealt {
			left.AndNot(&d.seqs)
		}
		if left.IsEmpty() {
			return false, nil
		}
	}
	if ch.GetTry() == 1 {
		c.dealtByWeights(ch.GetWeights(), seqs)
	}
	pl.restoreDeal(c, ch.GetDeal(), ch.GetTry(), ch.GetLeg(), ch.GetRoute(), ch.GetPurpose() == schemas.PurposeCancel, seqs, ch.GetNotAfterMs())
	return true, nil
}

// RepeatDeals makes deals that cursors list and topic `chunks` lacks again, identical, in the order of their numbers.
func (pl *Planner) RepeatDeals(missing map[DealID]*fanfarev1.Deal) ([]Deal, error) {
	var out []Deal
	for id, d := range missing {
		c := pl.campaigns[id.Campaign]
		if c == nil || c.record == nil || c.broken {
			continue
		}
		again, err := c.repeatDeal(d)
		if err != nil {
			return nil, err
		}
		out = append(out, again)
	}
	slices.SortFunc(out, func(a, b Deal) int {
		return cmp.Or(byNumber(a.Campaign, b.Campaign), cmp.Compare(a.Number, b.Number))
	})
	return out, nil
}

// DealID names a deal.
type DealID struct{ Campaign, Number uint64 }

// ChunksSince returns how far back topic `chunks` must be read to compare it with the cursors, in milliseconds; 0: not
// at all. listed are the deals that cursors list; written is when the newest cursor was written.
func (pl *Planner) ChunksSince(listed map[DealID]*fanfarev1.Deal, written int64) int64 {
	var since int64
	earlier := func(at int64) {
		if at > 0 && (since == 0 || at < since) {
			since = at
		}
	}
	for _, d := range listed {
		earlier(d.GetDealtMs())
	}
	for _, c := range pl.open {
		// The campaign has no cursor although it may have been dealt: either nothing was dealt yet, or its cursor is
		// lost.
		if r := c.record; r != nil && !r.GetHidden() && r.GetFreezeId() != "" && c.deals == 0 && r.GetState() != schemas.StateReady &&
			r.GetState() != schemas.StateScheduled && r.GetState() != schemas.StatePreparing {
			earlier(max(r.GetConfirmedMs(), 1))
		}
		if c.deals > 0 { // a chunk whose cursor was torn off is no older than the newest cursor
			earlier(written)
		}
	}
	return since
}

func (c *Campaign) repeatDeal(d *fanfarev1.Deal) (Deal, error) {
	out := Deal{
		Campaign: c, record: c.record, Number: d.GetDeal(), Try: uint8(d.GetTry()), Leg: uint8(d.GetLeg()), blob: d.GetBlob(),
		first: d.GetFirstSeq(), end: d.GetEndSeq(), notAfter: d.GetNotAfterMs(), DealtMs: d.GetDealtMs(),
		Cancel: d.GetCancel(), outcome: d.GetOutcome(), code: d.GetCode(), weights: c.weightsOf(d.GetFirstSeq()), domains: d.GetDomains(), route: d.GetRoute(),
	}
	if len(d.GetSeqs()) > 0 {
		seqs, err := seqsOf(0, 0, d.GetSeqs())
		if err != nil {
			return Deal{}, fmt.Errorf("deal %d of %s: %w", d.GetDeal(), c.id, err)
		}
		out.seqs = seqs
	}
	return out, nil
}

// membersOf returns the recipients of a deal or a chunk whose try and leg are valid.
func membersOf(n, leg, first, end uint32, bitmap []byte) (*roaring.Bitmap, error) {
	if n == 0 || n > schemas.MaxTry || leg >= maxLegs {
		return nil, fmt.Errorf("try %d, leg %d: out of bounds", n, leg)
	}
	return seqsOf(first, end, bitmap)
}

// seqsOf returns the recipients of a deal or a chunk: those of the bitmap, else [first, end). They are in one blob.
func seqsOf(first, end uint32, bitmap []byte) (*roaring.Bitmap, error) {
	b := roaring.New()
	if len(bitmap) > 0 {
		var err error
		if b, err = decodeSet(bitmap); err != nil {
			return nil, err
		}
	} else if first < end {
		b.AddRange(uint64(first), uint64(end))
	}
	if b.IsEmpty() || b.Maximum() > schemas.MaxSeq || b.GetCardinality() > audience.BlobSize {
		return nil, fmt.Errorf("want 1 to %d recipients below %d", audience.BlobSize, schemas.MaxSeq+1)
	}
	return b, nil
}
