package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// fakeControlPlane is the control plane: view, store and audiences in memory.
type fakeControlPlane struct {
	mu        sync.Mutex
	campaigns map[uint64]*fanfarev1.Campaign
	routes    []*fanfarev1.Route
	changed   chan struct{}
	ready     chan struct{}
	size      map[uint64]uint32
	captured  map[uint64]uint64
	away      bool
	stale     bool
	applied   []schemas.Change
}

func newFakeControlPlane() *fakeControlPlane {
	pl := &fakeControlPlane{
		campaigns: map[uint64]*fanfarev1.Campaign{}, changed: make(chan struct{}), ready: make(chan struct{}), size: map[uint64]uint32{}, captured: map[uint64]uint64{},
		routes: []*fanfarev1.Route{{Name: "sim", Rate: carrierRate, P99Ms: 100, Enabled: true}},
	}
	close(pl.ready)
	return pl
}

func (pl *fakeControlPlane) Ready() <-chan struct{} { return pl.ready }

func (pl *fakeControlPlane) Age() time.Duration {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.stale {
		return 6 * time.Second
	}
	return 0
}

func (pl *fakeControlPlane) Changed() <-chan struct{} {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return pl.changed
}

func (pl *fakeControlPlane) Campaigns() (out []*fanfarev1.Campaign) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for _, c := range pl.campaigns {
		out = append(out, c)
	}
	return out
}

func (pl *fakeControlPlane) Routes() []*fanfarev1.Route {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return pl.routes
}

func (pl *fakeControlPlane) Tenant(id string) *fanfarev1.Tenant {
	return &fanfarev1.Tenant{Id: id, Enabled: true}
}

func (pl *fakeControlPlane) Sender(string, string) *fanfarev1.Sender { return nil }

func (pl *fakeControlPlane) campaign(number uint64) *fanfarev1.Campaign {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return pl.campaigns[number]
}

// put publishes a campaign; the caller holds the lock.
func (pl *fakeControlPlane) put(r *fanfarev1.Campaign) {
	pl.campaigns[r.GetNumber()] = r
	close(pl.changed)
	pl.changed = make(chan struct{})
}

// confirm makes a campaign that is sent at once, and settles a second after its last hand-over.
func (pl *fakeControlPlane) confirm(number uint64, total uint32, change func(*fanfarev1.Campaign)) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	r := &fanfarev1.Campaign{
		Tenant: testTenant, Id: schemas.CampaignID(number), Number: number, Version: 1, State: schemas.StatePreparing,
		Legs:       []*fanfarev1.Leg{{Channel: schemas.ChannelSMS, Route: "sim", Sender: "S", PriceMicros: 50_000, MaxHandovers: 3, BackoffMs: []int64{100}}},
		ValidityMs: time.Hour.Milliseconds(), ReceiptWindowMs: 1000, ConfirmedMs: ms(time.Now()), CreatedMs: ms(time.Now()),
	}
	if change != nil {
		change(r)
	}
	pl.size[number] = total
	pl.put(r)
}

// act moves campaign 10001 as a user does.
func (pl *fakeControlPlane) act(change func(*fanfarev1.Campaign)) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	r := cloneRecord(pl.campaigns[10001])
	r.Version++
	change(r)
	pl.put(r)
}

var errAway = errors.New("the store is away")

func (pl *fakeControlPlane) AudienceSize(_ context.Context, _, campaign string) (uint64, error) {
	number, _ := schemas.CampaignNumber(campaign)
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.away {
		return 0, errAway
	}
	return uint64(pl.size[number]), nil
}

func (pl *fakeControlPlane) Freeze(_ context.Context, _, campaign string, version uint64) error {
	number, _ := schemas.CampaignNumber(campaign)
	pl.mu.Lock()
	defer pl.mu.Unlock()
	r := pl.campaigns[number]
	switch {
	case pl.away:
		return errAway
	case r.GetFreezeId() != "":
		return nil
	case r.GetVersion() != version:
		return schemas.ErrConflict
	}
	r = cloneRecord(r)
	r.Version++
	r.FreezeId, r.Total = fmt.Sprint("freeze", number), pl.size[number]
	pl.put(r)
	return nil
}

const blobSize = 500

func (pl *fakeControlPlane) Blobs(_ context.Context, freezeID string) (out []audience.Index, err error) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.away {
		return nil, errAway
	}
	for number, total := range pl.size {
		if freezeID == fmt.Sprint("freeze", number) {
			for at := uint32(0); at < total; at += blobSize {
				out = append(out, audience.Index{Blob: uint32(len(out)), First: at, Count: min(blobSize, total-at), Zone: "UTC"})
			}
		}
	}
	return out, nil
}

func (pl *fakeControlPlane) Apply(_ context.Context, ch schemas.Change) (uint64, error) {
	number, _ := schemas.CampaignNumber(ch.Campaign)
	pl.mu.Lock()
	defer pl.mu.Unlock()
	r := pl.campaigns[number]
	switch {
	case pl.away:
		return 0, errAway
	case r.GetVersion() != ch.Version:
		return 0, schemas.ErrConflict
	case !ch.Settled && !schemas.CanTransition(r.GetState(), ch.To, ch.Trigger):
		return 0, schemas.ErrTransition
	}
	r = cloneRecord(r)
	r.Version++
	r.State, r.Reason = ch.To, ch.Reason
	if ch.Settled {
		r.Settled, r.SettledMs = true, ms(ch.At)
		pl.captured[number] = ch.Captured
	} else if ch.To == schemas.StateCompleted {
		r.CompletedMs = ms(ch.At)
	}
	pl.applied = append(pl.applied, ch)
	pl.put(r)
	return r.GetVersion(), nil
}

func (pl *fakeControlPlane) setAway(away bool) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.away = away
}

// AllotDomains has no domains: the campaigns of these tests have no links.
func (pl *fakeControlPlane) AllotDomains(context.Context, schemas.DomainRequest) ([]*fanfarev1.DomainBlock, error) {
	return nil, errors.New("no campaign of these tests has links")
}
