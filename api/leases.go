package api

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

// seqBlock is the number of seqs leased at once.
const seqBlock = 1000

// leasedSeq is one seq of a hidden campaign.
type leasedSeq struct {
	campaign   uint64
	campaignID string
	version    uint64
	seq        uint32
}

// seqLeases hands out seqs of the tenants' hidden campaigns from blocks leased from the store, so that a thousand
// messages cost one write. When the day or the process ends, the rest of a block stays unused.
type seqLeases struct {
	lease func(ctx context.Context, tenant string, day time.Time, n uint32) (store.Lease, error)

	mu      sync.Mutex
	tenants map[string]*tenantSeqs
}

type tenantSeqs struct {
	turn chan struct{} // held by the request that takes seqs
	day  int64
	left store.Lease
	id   string
}

func newSeqLeases(lease func(ctx context.Context, tenant string, day time.Time, n uint32) (store.Lease, error)) *seqLeases {
	return &seqLeases{lease: lease, tenants: map[string]*tenantSeqs{}}
}

// leasePatience is how long a request waits for seqs, including the wait for other requests of its tenant and for the
// store.
const leasePatience = 3 * time.Second

// take returns n seqs of the tenant's hidden campaign of the UTC day of now.
func (l *seqLeases) take(ctx context.Context, tenant string, now time.Time, n int) ([]leasedSeq, error) {
	l.mu.Lock()
	t := l.tenants[tenant]
	if t == nil {
		t = &tenantSeqs{turn: make(chan struct{}, 1)}
		l.tenants[tenant] = t
	}
	l.mu.Unlock()
	day := now.UTC().Unix() / 86400
	ctx, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for a block of message numbers: %w", ctx.Err())
	}
	if t.day != day {
		t.day, t.left = day, store.Lease{}
	}
	out := make([]leasedSeq, 0, n)
	for len(out) < n {
		if t.left.Count == 0 {
			got, err := l.lease(ctx, tenant, now.UTC(), seqBlock)
			if err != nil {
				return nil, err
			}
			t.left, t.id = got, got.CampaignID()
		}
		take := min(uint32(n-len(out)), t.left.Count)
		for i := range take {
			out = append(out, leasedSeq{t.left.Campaign, t.id, t.left.Version, t.left.First + i})
		}
		t.left.First += take
		t.left.Count -= take
	}
	return out, nil
}

// recentRefs caches the client references of messages that this process has just sent, until the statistics have the
// first event of each. It holds the last minutes, at most twice maxRecent references.
type recentRefs struct {
	now func() time.Time

	mu       sync.Mutex
	turned   time.Time
	new, old map[string][]schemas.ID // by tenant/reference
}

const (
	maxRecent = 50_000
	recentFor = 10 * time.Minute
)

func newRecentRefs(now func() time.Time) *recentRefs {
	return &recentRefs{now: now, new: map[string][]schemas.ID{}, old: map[string][]schemas.ID{}}
}

func (r *recentRefs) add(tenant, ref string, id schemas.ID) {
	if ref == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); len(r.new) >= maxRecent || now.Sub(r.turned) > recentFor {
		r.old, r.new, r.turned = r.new, map[string][]schemas.ID{}, now
	}
	key := tenant + "/" + ref
	if ids := r.new[key]; len(ids) < maxDestinations {
		r.new[key] = append(ids, id)
	}
}

func (r *recentRefs) find(tenant, ref string) []schemas.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := tenant + "/" + ref
	return append(append([]schemas.ID{}, r.old[key]...), r.new[key]...)
}

// fieldIndex names an element of an array field.
func fieldIndex(field string, i int) string { return field + "[" + strconv.Itoa(i) + "]" }
