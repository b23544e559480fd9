package store

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/schemas/text"
)

// ReasonAudienceGone is the reason of a replay that failed because the audience of its origin was removed.
const ReasonAudienceGone = "audience_gone"

// Replay says to which recipients of its origin a replay sends.
type Replay struct {
	Campaign  uint64 // number of the replay
	Origin    uint64 // number of the campaign that it replays
	Selection string // the expression, as JSON
	Selected  uint32 // how many recipients it selected
	Created   time.Time
}

// CreateReplay makes a configured campaign, as [Store.CreateCampaign] does, that sends to recipients of the frozen
// audience of origin. members are their seqs in that audience; later changes of the origin do not change them. It sets
// c.ReplayOf.
func (s *Store) CreateReplay(ctx context.Context, c Campaign, origin *Campaign, selection string, members *roaring.Bitmap, cause Cause) (Campaign, error) {
	if origin.Tenant != c.Tenant {
		return Campaign{}, notFound("campaign", origin.ID())
	}
	if origin.FreezeID == "" || members.IsEmpty() || members.Maximum() >= origin.Total {
		return Campaign{}, &FieldError{"Members", origin.ID(), "want recipients of its frozen audience"}
	}
	if n, err := s.q.FreezePublished(ctx, origin.FreezeID); err != nil {
		return Campaign{}, fmt.Errorf("replay %s: %w", origin.ID(), err)
	} else if n == 0 {
		return Campaign{}, notFound("audience", origin.FreezeID)
	}
	members.RunOptimize()
	data, err := members.ToBytes()
	if err != nil {
		return Campaign{}, fmt.Errorf("replay %s: %w", origin.ID(), err)
	}
	c.ReplayOf, c.Lists, c.ListRefs, c.ListEnds, c.Counted = origin.Number, nil, nil, nil, time.Time{}
	return s.createCampaign(ctx, c, cause, func(tx *tx, made *Campaign) error {
		return tx.InsertReplay(ctx, db.InsertReplayParams{
			Tenant: c.Tenant, Campaign: int64(made.Number), Origin: int64(origin.Number), FreezeID: origin.FreezeID, Selection: selection,
			Selected: int64(members.GetCardinality()), Members: data, CreatedMs: tx.now,
		})
	})
}

// takesReplayed reports whether a campaign sends to recipients of its origin's audience, and not to lists.
func (c *Campaign) takesReplayed() bool { return c.ReplayOf != 0 && len(c.Lists) == 0 }

// ReplayOf returns what a campaign replays. The error is [schemas.ErrNotFound] when it replays none.
func (s *Store) ReplayOf(ctx context.Context, tenant string, campaign uint64) (Replay, error) {
	r, err := s.q.ReplayOrigin(ctx, tenant, int64(campaign))
	if err != nil {
		return Replay{}, found(err, "replay", schemas.CampaignID(campaign))
	}
	return replayOf(db.ListReplaysRow(r)), nil
}

// Replays returns the replays of a campaign, oldest first, at most 1,000.
func (s *Store) Replays(ctx context.Context, tenant string, origin uint64) ([]Replay, error) {
	rows, err := s.q.ListReplays(ctx, tenant, int64(origin))
	out, err := all(rows, err, replayOf)
	if err != nil {
		return nil, fmt.Errorf("replays of %s: %w", schemas.CampaignID(origin), err)
	}
	return out, nil
}

func replayOf(r db.ListReplaysRow) Replay {
	return Replay{uint64(r.Campaign), uint64(r.Origin), r.Selection, uint32(r.Selected), fromMS(r.CreatedMs)}
}

// replayed reads the recipients of a replay and checks them again: recipients that have opted out since, or cannot be
// sent to, are flagged. Recipients whose contact was deleted since are left out.
type replayed struct {
	row     db.Replay
	members *roaring.Bitmap
	seed    maphash.Seed
	// optedOut holds 64-bit hashes of the keys of the tenant's opt-outs. By chance, a number that has not opted out
	// matches one of them less than once in 10^13 look-ups.
	optedOut      map[uint64]struct{}
	invalid, gone *roaring64.Bitmap // contacts
	// optedIn are the contacts that have opted in; nil when the campaign does not require it.
	optedIn *roaring64.Bitmap
	held    *rules
}

// openReplay reads everything that each needs except the audience itself. An opt-out that was lifted after since still
// counts.
func (s *Store) openReplay(ctx context.Context, q *db.Queries, c *Campaign, since int64) (*replayed, error) {
	r := &replayed{seed: maphash.MakeSeed(), optedOut: map[uint64]struct{}{}, invalid: roaring64.New(), gone: roaring64.New(), optedIn: roaring64.New(), members: roaring.New()}
	var err error
	if r.held, err = s.rulesOf(ctx, q, c); err != nil {
		return nil, err
	}
	if r.row, err = q.GetReplay(ctx, c.Tenant, int64(c.Number)); err != nil {
		return nil, found(err, "replay", c.ID())
	}
	if err := r.members.UnmarshalBinary(r.row.Members); err != nil {
		return nil, fmt.Errorf("members of replay %s: %w", c.ID(), err)
	}
	if since == 0 {
		since = math.MaxInt64
	}
	keys, err := q.OptOutKeys(ctx, c.Tenant, int64(EveryChannel|1<<c.Channel()), since)
	if err != nil {
		return nil, fmt.Errorf("opt-outs: %w", err)
	}
	for _, key := range keys {
		r.optedOut[maphash.String(r.seed, key)] = struct{}{}
	}
	unfit, err := q.UnfitContacts(ctx, c.Tenant)
	if err != nil {
		return nil, fmt.Errorf("contacts that cannot be sent to: %w", err)
	}
	for _, u := range unfit {
		if u.Gone {
			r.gone.Add(uint64(u.Number))
		} else {
			r.invalid.Add(uint64(u.Number))
		}
	}
	if r.held.requireOptIn {
		agreed, err := q.OptedInContacts(ctx, c.Tenant)
		if err != nil {
			return nil, fmt.Errorf("contacts that have opted in: %w", err)
		}
		for _, number := range agreed {
			r.optedIn.Add(uint64(number))
		}
	}
	return r, nil
}

// each calls f for each recipient, in the order of the origin's seqs. The entry has its new flag, and is valid during
// the call.
func (r *replayed) each(ctx context.Context, q *db.Queries, f func(*audience.Entry) error) error {
	index, err := q.ListIndex(ctx, r.row.FreezeID)
	if err != nil {
		return err
	}
	// Checked after the index is read: dropFreeze takes the published mark away before it removes blobs.
	if n, err := q.FreezePublished(ctx, r.row.FreezeID); err != nil {
		return err
	} else if n == 0 {
		return &schemas.FreezeError{Reason: ReasonAudienceGone, Err: fmt.Errorf("audience of %s: %w", schemas.CampaignID(uint64(r.row.Origin)), schemas.ErrNotFound)}
	}
	var e audience.Entry
	it := r.members.Iterator()
	for _, x := range index {
		first, end := uint32(x.FirstSeq), uint32(x.FirstSeq+x.Count)
		if it.AdvanceIfNeeded(first); !it.HasNext() {
			return nil
		}
		if it.PeekNext() >= end {
			continue
		}
		blob, err := q.GetBlob(ctx, r.row.FreezeID, x.Blob)
		if err != nil {
			return err
		}
		reader, err := audience.NewReader(blob)
		if err != nil {
			return err
		}
		for it.HasNext() && it.PeekNext() < end {
			if !reader.Seek(int(it.Next()-first)) || !reader.Next(&e) {
				return errors.Join(audience.ErrBlob, reader.Err())
			}
			if r.gone.Contains(e.ContactID) || e.To == "" { // the person was erased
				continue
			}
			_, optedOut := r.optedOut[maphash.String(r.seed, schemas.NumberKey(e.To))]
			m := member{
				repeated: e.Flag == audience.Duplicate, valid: e.Flag != audience.Invalid && !r.invalid.Contains(e.ContactID), class: e.Class,
				optedIn: r.optedIn.Contains(e.ContactID), contact: e.ContactID,
			}
			if optedOut {
				m.optedOut = EveryChannel
			}
			e.Flag = r.held.flagOne(&m, e.Country)
			if err := f(&e); err != nil {
				return err
			}
		}
	}
	return nil
}

// uncapped are empty rules, for recipients to whom the caps were already applied.
var uncapped = &rules{}

// CountCampaign counts what a freeze of a campaign would find now, in its lists or among the recipients that it
// replays.
func (s *Store) CountCampaign(ctx context.Context, c *Campaign) (AudienceCount, error) {
	if !c.takesReplayed() {
		return s.countAudience(ctx, c)
	}
	out := AudienceCount{Countries: map[string]uint32{}}
	err := s.d.snapshot(ctx, func(raw db.DBTX) error {
		q := db.New(raw)
		r, err := s.openReplay(ctx, q, c, 0)
		if err != nil {
			return err
		}
		return r.each(ctx, q, func(e *audience.Entry) error {
			out.count(uncapped, e.Flag, e.Country, 1)
			return nil
		})
	})
	if err != nil {
		return AudienceCount{}, fmt.Errorf("count recipients of replay %s: %w", c.ID(), err)
	}
	return out, nil
}

// errEnough ends reading a sample.
var errEnough = errors.New("enough")

// ReplaySample returns the first n recipients that a replay sends to, as contacts with the frozen numbers, names and
// attributes.
func (s *Store) ReplaySample(ctx context.Context, c *Campaign, n int) ([]Contact, error) {
	var out []Contact
	err := s.d.snapshot(ctx, func(raw db.DBTX) error {
		q := db.New(raw)
		r, err := s.openReplay(ctx, q, c, 0)
		if err != nil {
			return err
		}
		return r.each(ctx, q, func(e *audience.Entry) error {
			if e.Flag == audience.OK {
				out = append(out, personOf(c.Tenant, e))
			}
			if len(out) == n {
				return errEnough
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("recipients of replay %s: %w", c.ID(), err)
	}
	return out, nil
}

// personOf returns an entry of an audience as a contact.
func personOf(tenant string, e *audience.Entry) Contact {
	c := Contact{Tenant: tenant, Number: e.ContactID, Phone: e.To, Country: e.Country, Zone: e.Zone, Class: e.Class, Attributes: map[string]string{}}
	for _, a := range e.Attrs {
		switch a.Name {
		case text.FieldFirstName:
			c.FirstName = a.Value
		case text.FieldLastName:
			c.LastName = a.Value
		case text.FieldEmail:
			c.Email = a.Value
		default:
			c.Attributes[a.Name] = a.Value
		}
	}
	return c
}

// readReplay adds the recipients of a replay to the audience.
func (f *freezer) readReplay(ctx context.Context, q *db.Queries) error {
	r, err := f.s.openReplay(ctx, q, f.c, ms(f.c.Counted))
	if err != nil {
		return err
	}
	f.rules = r.held
	return r.each(ctx, q, func(e *audience.Entry) error {
		f.entry = *e
		return f.add(ctx)
	})
}
