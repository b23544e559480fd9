package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2/roaring64"

	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/schemas/hours"
)

// Caps limit how many campaigns send to one person, and to how many people of a country (X9). Each freeze stores the
// set of contacts that its campaign sends to; the next freeze adds up the sets of the period of the cap. A campaign
// counts at the time when it begins. Single sends and tests do not count and are not capped.

// FrequencyCap is the most campaigns that may send to one recipient within so many days.
type FrequencyCap struct{ Max, Days uint32 }

// CountryCap is the most recipients of a country within a day or a month of the tenant's zone.
type CountryCap struct {
	Country string // ISO 3166-1 alpha-2
	Max     uint32
	Monthly bool `json:",omitempty"`
}

// Limits of caps. Audiences are kept for 40 days after their campaigns have ended, so no cap can cover more days.
const (
	MaxCapDays     = 30
	MaxCapMessages = 1000
	MaxCountryCaps = 250
)

// PolicyCaps are the caps of a tenant: the part of its policy that the store enforces.
type PolicyCaps struct {
	Frequency *FrequencyCap `json:",omitempty"`
	Countries []CountryCap  `json:",omitempty"`
}

// PolicyName is the name of a tenant's only policy.
const PolicyName = "policy"

func policyCaps(ctx context.Context, q *db.Queries, tenant string) (caps PolicyCaps, err error) {
	row, err := q.ResourceByName(ctx, tenant, string(KindPolicy), PolicyName)
	if errors.Is(err, sql.ErrNoRows) {
		return caps, nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(row.Doc), &caps)
	}
	if err != nil {
		return caps, fmt.Errorf("policy: %w", err)
	}
	return caps, nil
}

// rules are the caps and channel that decide which members of an audience are sent to. Call them with the members in
// the order of the audience, because the first members of a country use up its quota.
type rules struct {
	channel      schemas.Channel // the first of the chain
	requireOptIn bool
	// capped are the contacts that have reached the frequency cap; nil: there is no such cap.
	capped *roaring64.Bitmap
	// room is how many more recipients each capped country may have. Countries without a cap are not in it.
	room map[string]uint32
	// only is set when countries that are not in room have no room at all.
	only bool
	// seen is the newest audience that capped and room have counted.
	seen int64
}

// rulesOf returns the rules that apply to a campaign now.
func (s *Store) rulesOf(ctx context.Context, q *db.Queries, c *Campaign) (*rules, error) {
	r := &rules{channel: c.Channel(), requireOptIn: c.RequireOptIn}
	if c.Test || c.Hidden {
		return r, nil
	}
	caps, err := policyCaps(ctx, q, c.Tenant)
	if err != nil {
		return nil, err
	}
	frequency := []*FrequencyCap{caps.Frequency, c.FrequencyCap}
	if caps.Frequency == nil && c.FrequencyCap == nil && len(caps.Countries) == 0 {
		return r, nil
	}
	if r.seen, err = q.NewestContacted(ctx, c.Tenant); err != nil {
		return nil, err
	}
	t, err := q.GetTenant(ctx, c.Tenant)
	if err != nil {
		return nil, found(err, "tenant", c.Tenant)
	}
	zone, err := hours.Zone(t.Timezone)
	if err != nil {
		return nil, fmt.Errorf("tenant %s: %w", c.Tenant, err)
	}
	at := c.begins(s.now())
	local := at.In(zone)
	day := time.Date(local.Year(), local.Month(), local.Day(), 0, 0, 0, 0, zone)
	month := time.Date(local.Year(), local.Month(), 1, 0, 0, 0, 0, zone)
	from, to := day, day.AddDate(0, 0, 1)
	for _, f := range frequency {
		if f != nil {
			from, to = earliest(from, at.Add(-f.span())), latest(to, at.Add(f.span()))
		}
	}
	for _, country := range caps.Countries {
		if country.Monthly {
			from, to = earliest(from, month), latest(to, month.AddDate(0, 1, 0))
		}
	}
	rows, err := q.ContactedBetween(ctx, db.ContactedBetweenParams{
		Tenant: c.Tenant, Campaign: int64(c.Number), Aborted: int64(schemas.StateAborted), FromMs: from.UnixMilli(), ToMs: to.UnixMilli(),
	})
	if err != nil {
		return nil, fmt.Errorf("read contacts that campaigns sent to: %w", err)
	}
	for _, f := range frequency {
		if f != nil {
			if err := r.cap(rows, f, at); err != nil {
				return nil, err
			}
		}
	}
	if err := r.limit(rows, caps.Countries, day, month); err != nil {
		return nil, err
	}
	if !c.Confirmed.IsZero() {
		// Confirm reserved money only for the recipients that the caps allowed then, so a country that has got room
		// since then gets no more recipients.
		r.only = true
		room := map[string]uint32{}
		for country, n := range c.Countries {
			room[country] = n
			if left, capped := r.room[country]; capped {
				room[country] = min(n, left)
			}
		}
		r.room = room
	}
	return r, nil
}

func (f *FrequencyCap) span() time.Duration {
	return time.Duration(f.Days)*24*time.Hour - time.Millisecond
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// begins is when a campaign begins, or would begin if it were confirmed now.
func (c *Campaign) begins(now time.Time) time.Time {
	switch {
	case !c.Started.IsZero():
		return c.Started
	case !c.Confirmed.IsZero(): // the time that confirm counted it at
		return latest(c.Scheduled, c.Counted)
	case c.Confirmed.IsZero() && c.Schedule != nil && !c.SendImmediately && c.Schedule.At.After(now):
		return c.Schedule.At
	default:
		return now
	}
}

// cap adds to capped the contacts that are in f.Max or more of the audiences around a time. It counts campaigns that
// begin later like earlier ones: in whatever order campaigns are frozen, at most f.Max of one contact begin within
// f.Days.
func (r *rules) cap(rows []db.ContactedBetweenRow, f *FrequencyCap, at time.Time) error {
	if r.capped == nil {
		r.capped = roaring64.New()
	}
	atLeast := make([]*roaring64.Bitmap, f.Max) // atLeast[i]: in i+1 audiences or more
	for i := range atLeast {
		atLeast[i] = roaring64.New()
	}
	for i := range rows {
		if from := fromMS(rows[i].AtMs).Sub(at).Abs(); from > f.span() {
			continue
		}
		b := roaring64.New()
		if err := b.UnmarshalBinary(rows[i].Contacts); err != nil {
			return fmt.Errorf("decode contacts that a campaign sent to: %w", err)
		}
		for n := len(atLeast) - 1; n > 0; n-- {
			atLeast[n].Or(roaring64.And(atLeast[n-1], b))
		}
		atLeast[0].Or(b)
	}
	r.capped.Or(atLeast[len(atLeast)-1])
	return nil
}

// limit sets how many more recipients each country may have.
func (r *rules) limit(rows []db.ContactedBetweenRow, caps []CountryCap, day, month time.Time) error {
	if len(caps) == 0 {
		return nil
	}
	r.room = map[string]uint32{}
	today, thisMonth := map[string]uint32{}, map[string]uint32{}
	for i := range rows {
		var countries map[string]uint32
		if err := json.Unmarshal([]byte(rows[i].Countries), &countries); err != nil {
			return fmt.Errorf("decode countries that a campaign sent to: %w", err)
		}
		at := fromMS(rows[i].AtMs)
		for country, n := range countries {
			if !at.Before(day) && at.Before(day.AddDate(0, 0, 1)) {
				today[country] += n
			}
			if !at.Before(month) && at.Before(month.AddDate(0, 1, 0)) {
				thisMonth[country] += n
			}
		}
	}
	for _, c := range caps {
		used := today[c.Country]
		if c.Monthly {
			used = thisMonth[c.Country]
		}
		left := c.Max - min(used, c.Max)
		if have, capped := r.room[c.Country]; !capped || left < have {
			r.room[c.Country] = left
		}
	}
	return nil
}

// member has the fields that decide whether a member of an audience is sent to.
type member struct {
	repeated, valid, optedIn bool
	class                    audience.Class
	optedOut                 ChannelSet
	contact                  uint64
}

// flag returns whether a member can be sent to, without regard to the quota of its country. A number that cannot
// receive the channel's messages is invalid (C30).
func (r *rules) flag(m *member) audience.Flag {
	switch {
	case m.repeated:
		return audience.Duplicate
	case !m.valid, r.channel == schemas.ChannelVoice && !m.class.TakesCall(), r.channel != schemas.ChannelVoice && !m.class.TakesText():
		return audience.Invalid
	case m.optedOut.Has(r.channel):
		return audience.OptedOut
	case r.requireOptIn && !m.optedIn:
		return audience.NotOptedIn
	case r.capped != nil && r.capped.Contains(m.contact):
		return audience.Capped
	default:
		return audience.OK
	}
}

// take takes up to n members of a country out of its quota, and returns how many it had room for.
func (r *rules) take(country string, n uint32) uint32 {
	left, capped := r.room[country]
	if !capped && !r.only {
		return n
	}
	n = min(n, left)
	r.room[country] = left - n
	return n
}

// flagOne applies flag and then take to one member.
func (r *rules) flagOne(m *member, country string) audience.Flag {
	flag := r.flag(m)
	if flag == audience.OK && r.take(country, 1) == 0 {
		return audience.OverQuota
	}
	return flag
}

// contacted collects the contacts that an audience sends to.
type contacted struct {
	contacts  roaring64.Bitmap
	countries map[string]uint32
}

func (k *contacted) add(e *audience.Entry) {
	if e.Flag != audience.OK {
		return
	}
	if k.countries == nil {
		k.countries = map[string]uint32{}
	}
	k.contacts.Add(e.ContactID)
	k.countries[e.Country]++
}

// errCapsMoved means that another audience of the tenant was frozen meanwhile. The caps may have to count it.
var errCapsMoved = fmt.Errorf("another audience was frozen meanwhile: %w", schemas.ErrConflict)

// keepContacted stores the contacts that an audience sends to. It returns errCapsMoved when another audience was frozen
// since the caps were read. A lock makes the audiences of a tenant take turns here.
func (t *tx) keepContacted(ctx context.Context, c *Campaign, freezeID string, held *rules, k *contacted) error {
	if c.Test {
		return nil
	}
	if _, err := t.LockBalance(ctx, c.Tenant); err != nil {
		return err
	}
	if held.capped != nil || held.room != nil {
		newest, err := t.NewestContacted(ctx, c.Tenant)
		if err != nil {
			return err
		}
		if newest != held.seen {
			return errCapsMoved
		}
	}
	k.contacts.RunOptimize()
	contacts, err := k.contacts.ToBytes()
	if err != nil {
		return err
	}
	countries, err := json.Marshal(orEmptyCounts(k.countries))
	if err != nil {
		return err
	}
	return t.InsertContacted(ctx, db.InsertContactedParams{
		FreezeID: freezeID, Tenant: c.Tenant, Campaign: int64(c.Number), Contacts: contacts, Countries: string(countries),
	})
}

func orEmptyCounts(m map[string]uint32) map[string]uint32 {
	if m == nil {
		return map[string]uint32{}
	}
	return m
}

// CheckCaps returns what is wrong with the caps of a tenant, "" when nothing is: the field and why.
func (p *PolicyCaps) CheckCaps() (field, fault string) {
	if p.Frequency != nil {
		if fault := p.Frequency.Check(); fault != "" {
			return "frequencyCap", fault
		}
	}
	if len(p.Countries) > MaxCountryCaps {
		return "countryCaps", fmt.Sprintf("%d caps; at most %d", len(p.Countries), MaxCountryCaps)
	}
	seen := map[CountryCap]bool{}
	for i, c := range p.Countries {
		one := CountryCap{Country: c.Country, Monthly: c.Monthly}
		switch {
		case len(c.Country) != 2 || slices.ContainsFunc([]byte(c.Country), func(b byte) bool { return b < 'A' || b > 'Z' }):
			return fmt.Sprintf("countryCaps[%d].country", i), "want an ISO 3166-1 alpha-2 code such as IT"
		case seen[one]:
			return fmt.Sprintf("countryCaps[%d].country", i), "stands twice"
		}
		seen[one] = true
	}
	return "", ""
}

// Check returns what is wrong with a cap, "" when nothing is.
func (f *FrequencyCap) Check() string {
	switch {
	case f.Max < 1 || f.Max > MaxCapMessages:
		return fmt.Sprintf("max is %d: want 1 to %d", f.Max, MaxCapMessages)
	case f.Days < 1 || f.Days > MaxCapDays:
		return fmt.Sprintf("days is %d: want 1 to %d", f.Days, MaxCapDays)
	}
	return ""
}
