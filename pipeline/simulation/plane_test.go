package simulation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// plane is the store of the API: campaigns that change by compare-and-set, frozen audiences, and the outbox that the
// relay reads.
type plane struct {
	keys *schemas.Keys

	mu        sync.Mutex
	away      bool
	leading   bool
	rows      map[string]schemas.OutboxRow
	published map[string]uint64
	order     []string // keys of rows, in the order in which they changed
	changed   chan struct{}
	campaigns map[uint64]*fanfarev1.Campaign
	people    map[uint64][]audience.Entry
	blobs     map[string][][]byte
	indexes   map[string][]audience.Index
	captured  map[uint64]uint64
	history   map[uint64][]version
	optedOut  map[string]time.Time // by number
}

// version is a version of a campaign, and the time at which it was published; zero while it is not.
type version struct {
	record    *fanfarev1.Campaign
	at        time.Time
	published time.Time
}

var errAway = errors.New("simulation: the store is away")

func newPlane(keys *schemas.Keys) *plane {
	return &plane{
		keys: keys, rows: map[string]schemas.OutboxRow{}, published: map[string]uint64{}, changed: make(chan struct{}),
		campaigns: map[uint64]*fanfarev1.Campaign{}, people: map[uint64][]audience.Entry{}, blobs: map[string][][]byte{},
		indexes: map[string][]audience.Index{}, captured: map[uint64]uint64{}, history: map[uint64][]version{}, optedOut: map[string]time.Time{},
	}
}

func (p *plane) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

// put changes a row of the outbox. The caller holds the lock.
func (p *plane) put(typ schemas.EventType, key, owner string, rowVersion uint64, value proto.Message) {
	b, err := proto.Marshal(value)
	if err != nil {
		panic(err)
	}
	p.rows[key] = schemas.OutboxRow{Type: typ, Key: key, Tenant: owner, Version: rowVersion, Value: b, Time: time.Now()}
	p.order = append(p.order, key)
	p.announce()
}

func (p *plane) announce() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// putCampaign changes a campaign. The caller holds the lock.
func (p *plane) putCampaign(r *fanfarev1.Campaign) {
	p.campaigns[r.GetNumber()] = r
	p.history[r.GetNumber()] = append(p.history[r.GetNumber()], version{record: r, at: time.Now()})
	p.put(schemas.TypeCampaign, schemas.CampaignKey(r.GetTenant(), r.GetId()), r.GetTenant(), r.GetVersion(), r)
}

// control changes a row of the control plane.
func (p *plane) control(key, owner string, change func(*fanfarev1.Control)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	row := &fanfarev1.Control{}
	if old, ok := p.rows[key]; ok {
		if err := proto.Unmarshal(old.Value, row); err != nil {
			panic(err)
		}
	}
	row.Version++
	change(row)
	p.put(schemas.TypeControl, key, owner, row.GetVersion(), row)
}

// confirm stores a campaign that starts at once, with its audience.
func (p *plane) confirm(r *fanfarev1.Campaign, people []audience.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.people[r.GetNumber()] = people
	p.putCampaign(r)
}

// addSingles gives single sends their seqs in the hidden campaign, and returns its version.
func (p *plane) addSingles(to []audience.Entry) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.people[hiddenCampaign] = append(p.people[hiddenCampaign], to...)
	r := clone(p.campaigns[hiddenCampaign])
	if r == nil {
		now := time.Now().UnixMilli()
		r = &fanfarev1.Campaign{
			Tenant: tenant, Id: schemas.CampaignID(hiddenCampaign), Number: hiddenCampaign, State: schemas.StateSending, Hidden: true, Currency: "EUR",
			ReceiptWindowMs: receiptWindow.Milliseconds(), ConfirmedMs: now, CreatedMs: now,
		}
	}
	r.Version++
	r.Total = uint32(len(p.people[hiddenCampaign]))
	p.putCampaign(r)
	return r.GetVersion()
}

// act changes a campaign as a user does, and returns whether it was changed.
func (p *plane) act(number uint64, change func(*fanfarev1.Campaign) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := clone(p.campaigns[number])
	if r.GetSettled() || !change(r) {
		return false
	}
	r.Version++
	p.putCampaign(r)
	return true
}

// optOut stores an opt-out. It must take effect from the time at which it is published, because the person is answered
// then.
func (p *plane) optOut(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	hash := p.keys.NumberHash(tenant, to)
	key := schemas.SuppressionKey(tenant, hash)
	p.optedOut[to] = time.Time{}
	p.put(schemas.TypeSuppression, key, tenant, 1, &fanfarev1.Suppression{Tenant: tenant, NumberHash: hash[:], TimeMs: time.Now().UnixMilli(), Source: "inbound"})
}

func (p *plane) campaign(number uint64) *fanfarev1.Campaign {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.campaigns[number]
}

// AudienceSize implements the scheduler's Audience. Every second campaign is frozen as a large one.
func (p *plane) AudienceSize(_ context.Context, _, campaign string) (uint64, error) {
	number, err := schemas.CampaignNumber(campaign)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return 0, errAway
	}
	return number % 2 * 1_000_000, nil
}

// Freeze implements the scheduler's Audience.
func (p *plane) Freeze(_ context.Context, _, campaign string, rowVersion uint64) error {
	number, err := schemas.CampaignNumber(campaign)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.campaigns[number]
	switch {
	case p.away:
		return errAway
	case r.GetFreezeId() != "":
		return nil
	case r.GetVersion() != rowVersion:
		return schemas.ErrConflict
	}
	r = clone(r)
	r.Version++
	r.FreezeId, r.Total = fmt.Sprintf("fz_%d_%d", number, rowVersion), uint32(len(p.people[number]))
	var writer audience.Writer
	people := p.people[number]
	for i := 0; i < len(people); {
		n := 1
		for i+n < len(people) && n < blobSize && people[i+n].Zone == people[i].Zone {
			n++
		}
		for k := range people[i : i+n] {
			writer.Add(&people[i+k])
		}
		p.blobs[r.GetFreezeId()] = append(p.blobs[r.GetFreezeId()], writer.Flush())
		p.indexes[r.GetFreezeId()] = append(p.indexes[r.GetFreezeId()], audience.Index{
			Blob: uint32(len(p.blobs[r.GetFreezeId()])), First: uint32(i), Count: uint32(n), Zone: people[i].Zone,
		})
		i += n
	}
	p.putCampaign(r)
	return nil
}

// blobSize is small, so that a campaign has several blobs.
const blobSize = 40

// Blobs implements the Audience of scheduler and expander.
func (p *plane) Blobs(_ context.Context, freezeID string) ([]audience.Index, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, errAway
	}
	if rows, ok := p.indexes[freezeID]; ok {
		return rows, nil
	}
	return nil, schemas.ErrNotFound
}

// Blob implements the expander's Audience.
func (p *plane) Blob(_ context.Context, freezeID string, blob uint32) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, errAway
	}
	if blobs := p.blobs[freezeID]; int(blob) <= len(blobs) && blob > 0 {
		return blobs[blob-1], nil
	}
	return nil, schemas.ErrNotFound
}

// Apply implements the scheduler's Store.
func (p *plane) Apply(_ context.Context, ch schemas.Change) (uint64, error) {
	number, err := schemas.CampaignNumber(ch.Campaign)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.campaigns[number]
	switch {
	case p.away:
		return 0, errAway
	case r.GetVersion() != ch.Version:
		return 0, schemas.ErrConflict
	case !ch.Settled && !schemas.CanTransition(r.GetState(), ch.To, ch.Trigger):
		return 0, schemas.ErrTransition
	}
	r = clone(r)
	r.Version++
	r.Reason = ch.Reason
	if ch.Settled {
		r.Settled, r.SettledMs = true, ch.At.UnixMilli()
		p.captured[number] = ch.Captured
	} else if r.State = ch.To; ch.To == schemas.StateCompleted {
		r.CompletedMs = ch.At.UnixMilli()
	}
	p.putCampaign(r)
	return r.GetVersion(), nil
}

// CampaignRecord implements the Lookup of the analytics feed.
func (p *plane) CampaignRecord(_ context.Context, id string) (*fanfarev1.Campaign, error) {
	number, err := schemas.CampaignNumber(id)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r := p.campaigns[number]; {
	case p.away:
		return nil, errAway
	case r == nil:
		return nil, schemas.ErrNotFound
	default:
		return r, nil
	}
}

// Lead implements the relay's Outbox.
func (p *plane) Lead(context.Context) (release func(), ok bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away || p.leading {
		if p.away {
			err = errAway
		}
		return nil, false, err
	}
	p.leading = true
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.leading = false
	}), true, nil
}

// Unpublished implements the relay's Outbox.
func (p *plane) Unpublished(_ context.Context, limit int) (out []schemas.OutboxRow, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, errAway
	}
	taken := map[string]bool{}
	for _, first := range []bool{true, false} { // a control row goes before the campaigns that name it
		for _, key := range p.order {
			row := p.rows[key]
			if (row.Type == schemas.TypeControl) == first && row.Version > p.published[key] && !taken[key] && len(out) < limit {
				out, taken[key] = append(out, row), true
			}
		}
	}
	p.order = slices.DeleteFunc(p.order, func(key string) bool { return p.rows[key].Version <= p.published[key] })
	return out, nil
}

// MarkPublished implements the relay's Outbox.
func (p *plane) MarkPublished(_ context.Context, rows []schemas.OutboxRow) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return errAway
	}
	for _, r := range rows {
		p.published[r.Key] = max(p.published[r.Key], r.Version)
	}
	return nil
}

// Republish implements the relay's Outbox.
func (p *plane) Republish(_ context.Context, _ schemas.EventType, keys ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return errAway
	}
	for _, key := range keys {
		p.published[key] = 0
		p.order = append(p.order, key)
	}
	p.announce()
	return nil
}

// Published implements the relay's Outbox.
func (p *plane) Published(_ context.Context, after string, limit int) (out []schemas.PublishedRow, next string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away {
		return nil, "", errAway
	}
	for _, key := range slices.Sorted(maps.Keys(p.rows)) {
		if row := p.rows[key]; key > after && p.published[key] == row.Version {
			if out, next = append(out, schemas.PublishedRow{Type: row.Type, Key: key, Version: row.Version}), key; len(out) == limit {
				return out, next, nil
			}
		}
	}
	return out, "", nil
}

// Changed implements the relay's Outbox.
func (p *plane) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// sawCampaign notes when a version of a campaign was first seen in its topic.
func (p *plane) sawCampaign(r *fanfarev1.Campaign, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.history[r.GetNumber()] {
		if v := &p.history[r.GetNumber()][i]; v.record.GetVersion() <= r.GetVersion() && v.published.IsZero() {
			v.published = at
		}
	}
}

// sawOptOut notes when an opt-out was first seen in its topic.
func (p *plane) sawOptOut(key string, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for to, seen := range p.optedOut {
		if seen.IsZero() && schemas.SuppressionKey(tenant, p.keys.NumberHash(tenant, to)) == key {
			p.optedOut[to] = at
		}
	}
}

// audienceOf returns the recipients of a campaign, in order of seq.
func (p *plane) audienceOf(number uint64) []audience.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.people[number]
}

func clone(c *fanfarev1.Campaign) *fanfarev1.Campaign {
	out, _ := proto.Clone(c).(*fanfarev1.Campaign)
	return out
}
