package scheduler

import (
	"fmt"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	// setsPart is the most bytes of sets in one record: a broker takes 1 MB by default.
	setsPart = 512 << 10
	// setSlice is how many seqs a set may span in one record: at worst 256 KB.
	setSlice = 1 << 21
	// heavyRecent is how many bytes of deals a cursor may name before its sets are written early.
	heavyRecent = 256 << 10
)

// remember names a deal in the campaign's cursor until the next sets have it.
func (c *campaign) remember(d *deal) {
	r := &fanfarev1.Deal{
		Deal: d.number, Try: uint32(d.try), Leg: uint32(d.leg), Blob: d.blob, FirstSeq: d.first, EndSeq: d.end,
		NotAfterMs: d.notAfter, Cancel: d.cancel, Outcome: d.outcome, Code: d.code, DealtMs: d.dealt,
	}
	if d.seqs != nil {
		r.Seqs = portable(d.seqs)
	}
	c.recent = append(c.recent, r)
	c.heavy += len(r.GetSeqs()) + 48
}

// portable encodes a set; it may turn runs of it into run containers.
func portable(b *roaring.Bitmap) []byte {
	b.RunOptimize()
	out, err := b.ToBytes()
	if err != nil { // a buffer in memory takes everything
		return nil
	}
	return out
}

// cursor is the campaign's cursor as it is to be written now.
func (c *campaign) cursor() *fanfarev1.Cursor {
	return &fanfarev1.Cursor{
		Tenant: c.tenant, CampaignId: c.id, CampaignNumber: c.number, FreezeId: c.record.GetFreezeId(), Deals: c.deals,
		Recent: c.recent, SetsEpoch: c.epoch, SetsParts: c.parts, Hidden: c.record.GetHidden(),
		Settled: c.closed, SettledMs: c.record.GetSettledMs(),
	}
}

// snapshot returns all that is known of the campaign's recipients, as a new epoch, and how many parts the epoch before had:
// those beyond the new number are to be deleted. From here on the cursor names only the deals that follow.
func (c *campaign) snapshot() (parts []*fanfarev1.CursorSets, before uint32) {
	before = c.parts
	c.epoch++
	c.recent, c.heavy, c.touched = nil, 0, false
	var part *fanfarev1.CursorSets
	size := 0
	c.sets(func(s *fanfarev1.CursorSets_Set, b *roaring.Bitmap) {
		for _, bytes := range pieces(b) {
			if part == nil || size+len(bytes) > setsPart {
				part = &fanfarev1.CursorSets{Tenant: c.tenant, CampaignId: c.id, Epoch: c.epoch, Part: uint32(len(parts)), LastHandoverMs: c.handover}
				parts = append(parts, part)
				size = 0
			}
			part.Sets = append(part.Sets, &fanfarev1.CursorSets_Set{
				Role: s.GetRole(), Try: s.GetTry(), Leg: s.GetLeg(), Code: s.GetCode(), PriceMicros: s.GetPriceMicros(),
				DueMs: s.GetDueMs(), Retry: s.GetRetry(), Hours: s.GetHours(), Route: s.GetRoute(), Seqs: bytes,
			})
			size += len(bytes) + 64
		}
	})
	for _, p := range parts {
		p.Parts = uint32(len(parts))
	}
	c.parts = uint32(len(parts))
	return parts, before
}

// pieces encodes a set in pieces that fit into a record.
func pieces(b *roaring.Bitmap) [][]byte {
	if b.IsEmpty() {
		return nil
	}
	if b.GetSerializedSizeInBytes() <= setsPart/2 {
		return [][]byte{portable(b.Clone())}
	}
	var out [][]byte
	for from := uint64(0); from <= uint64(b.Maximum()); from += setSlice {
		piece := roaring.New()
		piece.AddRange(from, from+setSlice)
		if piece.And(b); !piece.IsEmpty() {
			out = append(out, portable(piece))
		}
	}
	return out
}

// sets gives every set under its name.
func (c *campaign) sets(emit func(*fanfarev1.CursorSets_Set, *roaring.Bitmap)) {
	for i, t := range c.tries {
		set := func(role fanfarev1.CursorSets_Role) *fanfarev1.CursorSets_Set {
			return &fanfarev1.CursorSets_Set{Role: role, Try: uint32(i + 1)}
		}
		for _, d := range t.dealt {
			s := set(fanfarev1.CursorSets_ROLE_DEALT)
			s.Leg = uint32(d.leg)
			if d.txn {
				s.Route = d.route.name
			}
			emit(s, &d.seqs)
		}
		emit(set(fanfarev1.CursorSets_ROLE_ANSWERED), &t.answered)
		for _, p := range t.sent {
			s := set(fanfarev1.CursorSets_ROLE_HANDED_OVER)
			s.PriceMicros = p.micros
			emit(s, &p.seqs)
		}
		for _, p := range t.doubtful {
			s := set(fanfarev1.CursorSets_ROLE_DOUBTFUL)
			s.PriceMicros = p.micros
			emit(s, &p.seqs)
		}
		for _, b := range t.bounced {
			s := set(fanfarev1.CursorSets_ROLE_BOUNCED)
			s.Code = b.code
			emit(s, b.seqs)
		}
		emit(set(fanfarev1.CursorSets_ROLE_BUFFERED), &t.buffered)
		emit(set(fanfarev1.CursorSets_ROLE_RETURNED), &t.returned)
		emit(set(fanfarev1.CursorSets_ROLE_UNBILLED), &t.unbilled)
		emit(set(fanfarev1.CursorSets_ROLE_NEGATIVE), &t.negative)
		emit(set(fanfarev1.CursorSets_ROLE_POSITIVE), &t.positive)
		for key, due := range t.due {
			s := set(fanfarev1.CursorSets_ROLE_DUE)
			s.Leg, s.Retry, s.Hours, s.DueMs = uint32(key.leg), key.retry, key.hours, key.at
			emit(s, due)
		}
		for _, r := range t.ripe {
			s := set(fanfarev1.CursorSets_ROLE_DUE)
			s.Leg, s.Retry = uint32(r.leg), r.retry
			emit(s, &r.seqs)
		}
		for at, e := range t.expiring {
			s := set(fanfarev1.CursorSets_ROLE_EXPIRING)
			s.DueMs = at
			emit(s, roaring.AndNot(e, &t.answered))
		}
	}
	emit(&fanfarev1.CursorSets_Set{Role: fanfarev1.CursorSets_ROLE_NEVER_LEFT}, &c.never)
	emit(&fanfarev1.CursorSets_Set{Role: fanfarev1.CursorSets_ROLE_UNCONFIRMED}, &c.unconfirmed)
}

// restore takes over a campaign from its cursor and the sets that go with it. Its record comes later.
func (k *core) restore(cur *fanfarev1.Cursor, parts []*fanfarev1.CursorSets) error {
	if uint32(len(parts)) != cur.GetSetsParts() {
		return fmt.Errorf("cursor of %s: want %d parts of epoch %d, found %d", cur.GetCampaignId(), cur.GetSetsParts(), cur.GetSetsEpoch(), len(parts))
	}
	c := k.add(cur.GetCampaignNumber(), cur.GetTenant(), cur.GetCampaignId())
	c.deals, c.epoch, c.parts = cur.GetDeals(), cur.GetSetsEpoch(), cur.GetSetsParts()
	for _, p := range parts {
		c.handover = max(c.handover, p.GetLastHandoverMs())
		for _, s := range p.GetSets() {
			if err := k.restoreSet(c, s); err != nil {
				return fmt.Errorf("cursor of %s: %s of try %d: %w", c.id, s.GetRole(), s.GetTry(), err)
			}
		}
	}
	k.fly(c, +1)
	for _, d := range cur.GetRecent() {
		seqs, err := seqsOf(d.GetFirstSeq(), d.GetEndSeq(), d.GetSeqs())
		if err != nil {
			return fmt.Errorf("cursor of %s: deal %d: %w", c.id, d.GetDeal(), err)
		}
		k.dealtBefore(c, d.GetDeal(), d.GetTry(), d.GetLeg(), d.GetCancel(), seqs, d.GetNotAfterMs())
		c.recent = append(c.recent, d)
		c.heavy += len(d.GetSeqs()) + 48
	}
	c.changed = true
	return nil
}

func (k *core) restoreSet(c *campaign, s *fanfarev1.CursorSets_Set) error {
	b := roaring.New()
	if err := b.UnmarshalBinary(s.GetSeqs()); err != nil {
		return err
	}
	switch s.GetRole() {
	case fanfarev1.CursorSets_ROLE_NEVER_LEFT:
		c.never.Or(b)
		return nil
	case fanfarev1.CursorSets_ROLE_UNCONFIRMED:
		c.unconfirmed.Or(b)
		return nil
	default: // of a try
	}
	if s.GetTry() == 0 || s.GetTry() > schemas.MaxTry || s.GetLeg() >= maxLegs {
		return fmt.Errorf("try %d, leg %d: out of bounds", s.GetTry(), s.GetLeg())
	}
	t := c.try(int(s.GetTry()))
	switch s.GetRole() {
	case fanfarev1.CursorSets_ROLE_DEALT:
		var r *route
		if s.GetRoute() != "" {
			r = k.route(s.GetRoute())
		}
		t.dealtTo(uint8(s.GetLeg()), r, r != nil).seqs.Or(b)
	case fanfarev1.CursorSets_ROLE_ANSWERED:
		t.answered.Or(b)
	case fanfarev1.CursorSets_ROLE_HANDED_OVER:
		t.sent.of(s.GetPriceMicros()).seqs.Or(b)
	case fanfarev1.CursorSets_ROLE_DOUBTFUL:
		t.doubtful.of(s.GetPriceMicros()).seqs.Or(b)
	case fanfarev1.CursorSets_ROLE_BOUNCED:
		t.bouncedOf(s.GetCode()).Or(b)
		c.bounces = true
	case fanfarev1.CursorSets_ROLE_BUFFERED:
		t.buffered.Or(b)
	case fanfarev1.CursorSets_ROLE_RETURNED:
		t.returned.Or(b)
	case fanfarev1.CursorSets_ROLE_UNBILLED:
		t.unbilled.Or(b)
	case fanfarev1.CursorSets_ROLE_NEGATIVE:
		t.negative.Or(b)
	case fanfarev1.CursorSets_ROLE_POSITIVE:
		t.positive.Or(b)
	case fanfarev1.CursorSets_ROLE_DUE:
		key := dueKey{leg: uint8(s.GetLeg()), retry: s.GetRetry(), hours: s.GetHours(), at: s.GetDueMs()}
		if key.at == 0 {
			t.ripeOf(key.leg, key.retry).add(b, 0)
			break
		}
		t.dueOf(key).Or(b)
		if c.nextDue == 0 || key.at < c.nextDue {
			c.nextDue = key.at
		}
	case fanfarev1.CursorSets_ROLE_EXPIRING:
		t.expiringAt(s.GetDueMs()).Or(b)
		if lost := s.GetDueMs() + lostAfter.Milliseconds(); c.expiry == 0 || lost < c.expiry {
			c.expiry = lost
		}
	default:
		return fmt.Errorf("role %d is not known", s.GetRole())
	}
	return nil
}

// dealtBefore takes in a deal that was made by a predecessor.
func (k *core) dealtBefore(c *campaign, number uint64, n, leg uint32, cancel bool, seqs *roaring.Bitmap, notAfter int64) {
	if n == 0 || n > schemas.MaxTry || leg >= maxLegs {
		return
	}
	c.deals = max(c.deals, number)
	to, r := uint8(leg), (*route)(nil)
	if cancel {
		to = 0
	} else if leg > 0 && int(leg) <= len(c.flows) {
		r = c.flows[leg-1].route
	}
	k.mark(c, int(n), to, r, false, seqs, notAfter)
}

// adopt takes in a chunk that is in the topic: it was dealt, whether or not we remember. It reports whether that was news.
func (k *core) adopt(ch *fanfarev1.Chunk) (news bool, err error) {
	seqs, err := seqsOf(ch.GetFirstSeq(), ch.GetEndSeq(), ch.GetSeqs())
	if err != nil {
		return false, fmt.Errorf("chunk %d of %s: %w", ch.GetDeal(), ch.GetCampaignId(), err)
	}
	c := k.campaigns[ch.GetCampaignNumber()]
	if c == nil || c.closed || ch.GetTry() == 0 || ch.GetTry() > schemas.MaxTry {
		return false, nil
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
	k.dealtBefore(c, ch.GetDeal(), ch.GetTry(), ch.GetLeg(), ch.GetPurpose() == fanfarev1.Chunk_PURPOSE_CANCEL, seqs, ch.GetNotAfterMs())
	return true, nil
}

// redeal makes a deal again, to the letter, that the cursor names and the topic has not.
func (c *campaign) redeal(d *fanfarev1.Deal) (deal, error) {
	out := deal{
		campaign: c, record: c.record, number: d.GetDeal(), try: uint8(d.GetTry()), leg: uint8(d.GetLeg()), blob: d.GetBlob(),
		first: d.GetFirstSeq(), end: d.GetEndSeq(), notAfter: d.GetNotAfterMs(), dealt: d.GetDealtMs(),
		cancel: d.GetCancel(), outcome: d.GetOutcome(), code: d.GetCode(),
	}
	if len(d.GetSeqs()) > 0 {
		seqs, err := seqsOf(0, 0, d.GetSeqs())
		if err != nil {
			return deal{}, fmt.Errorf("deal %d of %s: %w", d.GetDeal(), c.id, err)
		}
		out.seqs = seqs
	}
	return out, nil
}

// seqsOf reads the recipients of a deal or a chunk, which are of one blob.
func seqsOf(first, end uint32, bitmap []byte) (*roaring.Bitmap, error) {
	b := roaring.New()
	if len(bitmap) > 0 {
		if err := b.UnmarshalBinary(bitmap); err != nil {
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
