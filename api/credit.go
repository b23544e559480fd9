package api

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"fanfare/schemas"
)

// creditStore has the methods of the store that [creditSlices] needs.
type creditStore interface {
	LeaseCredit(ctx context.Context, tenant, campaign string, need, want uint64) (micros uint64, err error)
	ReturnCredit(ctx context.Context, tenant, campaign string, micros uint64) error
}

// creditSlices pays for single sends of tenants with limited credit from slices of money that the store has reserved,
// so that not every send writes the hidden campaign. Slices become larger while each is used up within a second. The
// rest of a slice is returned when no send has used it for a while, and when the process stops. After a crash, at most
// one slice per tenant stays reserved until the hidden campaign settles.
type creditSlices struct {
	store creditStore
	now   func() time.Time
	log   *slog.Logger

	mu     sync.Mutex
	slices map[string]*creditSlice // by campaign key
	closed bool
}

// creditSlice is the money that this process holds for one hidden campaign. Only the holder of turn may use it.
type creditSlice struct {
	tenant, campaign string
	turn             chan struct{}
	left             uint64
	size             uint64 // of the newest slice
	leased, used     time.Time
	gone             bool // returned to the store and removed from slices
}

const (
	// sliceFor is how long a slice should last.
	sliceFor = time.Second
	// firstSlice is the size of the first slice, in sends like the one that needs it.
	firstSlice = 16
	// creditIdle is how long a slice is kept without a send.
	creditIdle = 10 * time.Second
)

func newCreditSlices(st creditStore, now func() time.Time, log *slog.Logger) *creditSlices {
	return &creditSlices{store: st, now: now, log: log, slices: map[string]*creditSlice{}}
}

// take spends micros of the money reserved for a campaign, and reserves more when it is not enough.
func (c *creditSlices) take(ctx context.Context, tenant, campaign string, micros uint64) error {
	ctx, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	s, err := c.hold(ctx, tenant, campaign)
	if err != nil {
		return err
	}
	defer func() { <-s.turn }()
	now := c.now()
	if s.left < micros {
		need := micros - s.left
		switch {
		case s.size == 0:
			s.size = firstSlice * micros
		case now.Sub(s.leased) < sliceFor:
			s.size *= 2
		default:
			s.size /= 2
		}
		s.size = max(s.size, need)
		got, err := c.store.LeaseCredit(ctx, tenant, campaign, need, s.size)
		if err != nil {
			return err
		}
		s.left, s.size, s.leased = s.left+got, got, now
		c.returnWhenIdle(s) //nolint:contextcheck // its timer outlives the request
	}
	s.left, s.used = s.left-micros, now
	return nil
}

// give puts back micros that were taken and not spent.
func (c *creditSlices) give(tenant, campaign string, micros uint64) {
	s, err := c.hold(context.Background(), tenant, campaign) // waits at most as long as one call of the store
	if err != nil {
		return
	}
	s.left += micros
	c.returnWhenIdle(s)
	<-s.turn
}

// hold waits for exclusive use of a slice and returns it.
func (c *creditSlices) hold(ctx context.Context, tenant, campaign string) (*creditSlice, error) {
	for {
		s := c.slice(tenant, campaign)
		select {
		case s.turn <- struct{}{}:
			if !s.gone {
				return s, nil
			}
			<-s.turn
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for reserved credit: %w", ctx.Err())
		}
	}
}

func (c *creditSlices) slice(tenant, campaign string) *creditSlice {
	key := schemas.CampaignKey(tenant, campaign)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.slices[key]
	if s == nil {
		s = &creditSlice{tenant: tenant, campaign: campaign, turn: make(chan struct{}, 1)}
		c.slices[key] = s
	}
	return s
}

// returnWhenIdle checks a slice after [creditIdle] and returns it to the store if it is idle; otherwise it checks again
// later.
func (c *creditSlices) returnWhenIdle(s *creditSlice) {
	time.AfterFunc(creditIdle, func() {
		s.turn <- struct{}{}
		defer func() { <-s.turn }()
		c.mu.Lock()
		closed := c.closed
		c.mu.Unlock()
		switch {
		case closed || s.gone:
		case c.now().Sub(s.used) < creditIdle:
			c.returnWhenIdle(s)
		default:
			ctx, cancel := context.WithTimeout(context.Background(), leasePatience)
			defer cancel()
			if err := c.giveBack(ctx, s); err != nil {
				c.returnWhenIdle(s) // not returned: try again later
				return
			}
			s.gone = true
			c.mu.Lock()
			delete(c.slices, schemas.CampaignKey(s.tenant, s.campaign))
			c.mu.Unlock()
		}
	})
}

// giveBack returns the rest of a slice to the store. The caller holds its turn.
func (c *creditSlices) giveBack(ctx context.Context, s *creditSlice) error {
	if s.left == 0 {
		return nil
	}
	if err := c.store.ReturnCredit(ctx, s.tenant, s.campaign, s.left); err != nil {
		c.log.WarnContext(ctx, "unused credit not returned", "tenant", s.tenant, "campaign", s.campaign, "micros", s.left, "err", err.Error())
		return err
	}
	s.left, s.size = 0, 0
	return nil
}

// close returns every slice. No send may run any more.
func (c *creditSlices) close(ctx context.Context) (err error) {
	c.mu.Lock()
	c.closed = true
	slices := make([]*creditSlice, 0, len(c.slices))
	for _, s := range c.slices {
		slices = append(slices, s)
	}
	c.mu.Unlock()
	for _, s := range slices {
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if e := c.giveBack(ctx, s); e != nil {
			err = e
		}
		<-s.turn
	}
	return err
}
