package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// compareEvents orders the events of one recipient by time, then precedence. Events that compare equal are duplicates.
func compareEvents(a, b *analytics.Event) int {
	return cmp.Or(
		cmp.Compare(a.TimeMS, b.TimeMS),
		cmp.Compare(a.Precedence(), b.Precedence()),
		cmp.Compare(a.Try, b.Try),
		cmp.Compare(a.Leg, b.Leg),
		cmp.Compare(a.LinkID, b.LinkID),
	)
}

// events calls yield for every event of the given recipients, in no order and including duplicates.
func (s *Store) events(ctx context.Context, q querier, c *campaignSets, seqs *roaring.Bitmap, yield func(*analytics.Event)) error {
	public := c.public()
	blocks := roaring.New()
	for it := seqs.Iterator(); it.HasNext(); {
		block := it.Next() / blockSize
		blocks.Add(block)
		it.AdvanceIfNeeded((block + 1) * blockSize)
	}
	for it := blocks.Iterator(); it.HasNext(); {
		if err := readBlock(ctx, q, c, public, it.Next(), seqs, yield); err != nil {
			return err
		}
	}
	return nil
}

func readBlock(ctx context.Context, q querier, c *campaignSets, public *analytics.Campaign, block uint32, seqs *roaring.Bitmap, yield func(*analytics.Event)) error {
	rows, err := q.QueryContext(ctx, "SELECT who, rest FROM runs WHERE campaign = ? AND block = ?", c.id, block)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var who, rest sql.RawBytes
		if err := rows.Scan(&who, &rest); err != nil {
			return err
		}
		if err := readRun(who, rest, public, c.number, seqs.Contains, yield); err != nil {
			return fmt.Errorf("block %d: %w", block, err)
		}
	}
	return rows.Err()
}

// inView calls f with a campaign as of the last commit. It does not call f if the store does not have the campaign.
func (s *Store) inView(ctx context.Context, tenant, id string, f func(*sql.Tx, *campaignSets) error) error {
	v, err := s.view(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = v.Rollback() }() // it only read
	c, err := find(ctx, v, campaignKey{tenant, id})
	if c == nil || err != nil {
		return err
	}
	if err := f(v, c); err != nil {
		return fmt.Errorf("read %s: %w", id, err)
	}
	return nil
}

// Members returns what is known about the given recipients.
func (s *Store) Members(ctx context.Context, tenant, campaign string, seqs []uint32) (out []analytics.Member, err error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	err = s.inView(ctx, tenant, campaign, func(v *sql.Tx, c *campaignSets) error {
		out, err = s.members(ctx, v, c, roaring.BitmapOf(seqs...))
		return err
	})
	return out, err
}

func (s *Store) members(ctx context.Context, q querier, c *campaignSets, seqs *roaring.Bitmap) ([]analytics.Member, error) {
	folds := map[uint32]*fold{}
	err := s.events(ctx, q, c, seqs, func(e *analytics.Event) {
		f := folds[e.Seq]
		if f == nil {
			f = &fold{Member: analytics.Member{Seq: e.Seq}}
			folds[e.Seq] = f
		}
		f.add(e)
	})
	if err != nil {
		return nil, err
	}
	out := make([]analytics.Member, 0, len(folds))
	for _, seq := range slices.Sorted(maps.Keys(folds)) {
		out = append(out, folds[seq].member())
	}
	return out, nil
}

// rank orders events by precedence, then by time. The event of the higher rank supplies a field's value.
type rank struct {
	p  schemas.Precedence
	at int64
}

func (r rank) below(o rank) bool { return r.p < o.p || r.p == o.p && r.at < o.at }

// fold combines the events of one recipient into a member. The order of the events and duplicates do not matter.
type fold struct {
	analytics.Member
	state, channel, route, sender, provider rank
	sentAt, deliveredAt                     int64
	tries                                   [4]uint64
}

// pick sets a field to value if the event ranks above the event that set the field before.
func pick[T comparable](r rank, at *rank, to *T, value T) {
	var none T
	if value != none && (at.p == 0 || at.below(r)) {
		*to, *at = value, r
	}
}

func earlier(to *int64, at int64) {
	if *to == 0 || at < *to {
		*to = at
	}
}

func (f *fold) add(e *analytics.Event) {
	f.MessageID = e.MessageID
	f.To, f.Country, f.CustomerRef = max(f.To, e.To), max(f.Country, e.Country), max(f.CustomerRef, e.CustomerRef)
	f.Variant, f.ContactID = max(f.Variant, e.Variant), max(f.ContactID, e.ContactID)
	p := e.Precedence()
	switch {
	case p == analytics.FactClicked:
		f.Clicked = true
	case e.Kind == schemas.KindReplied:
		f.Replied = true
	case e.Kind == schemas.KindOptedOut:
		f.OptedOut = true
	}
	if p >= schemas.PrecedenceFacts {
		return
	}
	r := rank{p, e.TimeMS}
	if f.state.p == 0 || f.state.below(r) {
		f.state = r
		f.RawCode, f.Try, f.Leg = e.RawCode, e.Try, e.Leg
	}
	pick(r, &f.channel, &f.Channel, e.Channel)
	pick(r, &f.route, &f.Route, e.Route)
	pick(r, &f.sender, &f.Sender, e.Sender)
	pick(r, &f.provider, &f.ProviderID, e.ProviderID)
	if p.Class() >= schemas.ClassLeft {
		f.tries[e.Try/64] |= 1 << (e.Try % 64)
	}
	if e.Kind == schemas.KindSent {
		earlier(&f.sentAt, e.TimeMS)
	}
	if p.Class() == schemas.ClassPositive {
		earlier(&f.deliveredAt, e.TimeMS)
	}
}

func (f *fold) member() analytics.Member {
	m := f.Member
	m.State = f.state.p
	m.Time, m.SentAt, m.DeliveredAt = instant(f.state.at), instant(f.sentAt), instant(f.deliveredAt)
	for _, word := range f.tries {
		for ; word != 0; word &= word - 1 {
			m.Attempts++
		}
	}
	m.OrderTimes()
	return m
}

func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// History returns all events of one recipient.
func (s *Store) History(ctx context.Context, tenant, campaign string, seq uint32) (out []analytics.Event, err error) {
	err = s.inView(ctx, tenant, campaign, func(v *sql.Tx, c *campaignSets) error {
		return s.events(ctx, v, c, roaring.BitmapOf(seq), func(e *analytics.Event) { out = append(out, *e) })
	})
	slices.SortFunc(out, func(a, b analytics.Event) int { return compareEvents(&a, &b) })
	return slices.CompactFunc(out, func(a, b analytics.Event) bool { return compareEvents(&a, &b) == 0 }), err
}

// maxFound is the most seqs or messages that a search returns.
const maxFound = 100

// FindRecipient returns the first seqs with a number. It scans the numbers of the whole campaign.
func (s *Store) FindRecipient(ctx context.Context, tenant, campaign, to string) (out []uint32, err error) {
	if to == "" {
		return nil, nil
	}
	var seqs *roaring.Bitmap
	err = s.inView(ctx, tenant, campaign, func(v *sql.Tx, c *campaignSets) error {
		seqs, err = numbered(ctx, v, c, []string{to})
		return err
	})
	if err != nil || seqs == nil {
		return nil, err
	}
	for it := seqs.Iterator(); it.HasNext() && len(out) < maxFound; {
		out = append(out, it.Next())
	}
	return out, nil
}

// ByCustomerRef returns the messages that carry a client's reference.
func (s *Store) ByCustomerRef(ctx context.Context, tenant, ref string, since time.Time) ([]analytics.Referred, error) {
	if ref == "" {
		return nil, nil
	}
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Rollback() }() // it only read
	seqs, order, err := referred(ctx, v, tenant, ref, since)
	if err != nil {
		return nil, fmt.Errorf("find messages by reference: %w", err)
	}
	out, err := s.found(ctx, v, seqs, order)
	if err != nil {
		return nil, fmt.Errorf("find messages by reference: %w", err)
	}
	return out, nil
}

// ByNumber returns the messages to any of the numbers.
func (s *Store) ByNumber(ctx context.Context, tenant string, numbers []string, since time.Time) ([]analytics.Referred, error) {
	v, err := s.view(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = v.Rollback() }() // it only read
	seqs := map[campaignKey]*roaring.Bitmap{}
	var order []campaignKey
	campaigns, err := campaignsOf(ctx, v, tenant, since)
	if err != nil {
		return nil, fmt.Errorf("find messages by number: %w", err)
	}
	for _, id := range campaigns {
		key := campaignKey{tenant, id}
		c, err := find(ctx, v, key)
		if err != nil {
			return nil, err
		}
		if seqs[key], err = numbered(ctx, v, c, numbers); err != nil {
			return nil, fmt.Errorf("find messages by number in %s: %w", id, err)
		}
		if !seqs[key].IsEmpty() {
			order = append(order, key)
		}
	}
	out, err := s.found(ctx, v, seqs, order)
	if err != nil {
		return nil, fmt.Errorf("find messages by number: %w", err)
	}
	return out, nil
}

// found returns what is known about the recipients, newest first, at most 100.
func (s *Store) found(ctx context.Context, v *sql.Tx, seqs map[campaignKey]*roaring.Bitmap, order []campaignKey) ([]analytics.Referred, error) {
	var out []analytics.Referred
	for _, key := range order {
		c, err := find(ctx, v, key)
		if err != nil {
			return nil, err
		}
		if c == nil {
			return nil, errors.New("the file names a campaign that is not in campaigns")
		}
		members, err := s.members(ctx, v, c, seqs[key])
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", key.id, err)
		}
		for _, m := range members {
			out = append(out, analytics.Referred{Campaign: key.id, Member: m})
		}
	}
	slices.SortFunc(out, func(a, b analytics.Referred) int {
		return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.Campaign, b.Campaign), cmp.Compare(a.Seq, b.Seq))
	})
	return out[:min(len(out), maxFound)], nil
}

// referred returns the recipients with a reference, grouped by campaign.
func referred(ctx context.Context, q querier, tenant, ref string, since time.Time) (map[campaignKey]*roaring.Bitmap, []campaignKey, error) {
	rows, err := q.QueryContext(ctx, `SELECT c.campaign, r.seq FROM customer_refs r JOIN campaigns c ON c.id = r.campaign
		WHERE r.ref = ? AND c.tenant = ? AND c.month >= ? ORDER BY c.id, r.seq`, ref, tenant, analytics.MonthOf(since).Format(dateLayout))
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	seqs := map[campaignKey]*roaring.Bitmap{}
	var order []campaignKey
	for rows.Next() {
		var id string
		var seq uint32
		if err := rows.Scan(&id, &seq); err != nil {
			return nil, nil, err
		}
		key := campaignKey{tenant, id}
		if seqs[key] == nil {
			seqs[key] = roaring.New()
			order = append(order, key)
		}
		seqs[key].Add(seq)
	}
	return seqs, order, rows.Err()
}
