package api

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// storeRetry is the Retry-After when the store does not answer.
const storeRetry = 2 * time.Second

// routeCache caches routes and senders for [freshFor], because every single send needs them.
type routeCache struct {
	store      *store.Store
	connectors *Connectors
	now        func() time.Time
	health     func(route string) schemas.RouteHealth

	mu      sync.Mutex
	until   time.Time
	routes  []store.Route
	isDown  map[string]bool // by route
	senders map[string]cachedSender
}

type cachedSender struct {
	rate  uint32
	until time.Time
}

func newRouteCache(st *store.Store, connectors *Connectors, now func() time.Time, health func(route string) schemas.RouteHealth) *routeCache {
	return &routeCache{store: st, connectors: connectors, now: now, health: health, senders: map[string]cachedSender{}}
}

func (c *routeCache) all(ctx context.Context) ([]store.Route, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if now.Before(c.until) {
		return c.routes, nil
	}
	routes, err := c.store.Routes(ctx)
	if err != nil {
		return nil, err
	}
	c.routes, c.until = routes, now.Add(freshFor)
	c.isDown = make(map[string]bool, len(routes))
	for i := range routes {
		c.isDown[routes[i].Name] = c.health(routes[i].Name).State == schemas.LineStateDown
	}
	return routes, nil
}

// route returns a route by name, or [schemas.ErrNotFound].
func (c *routeCache) route(ctx context.Context, name string) (*store.Route, error) {
	routes, err := c.all(ctx)
	if err != nil {
		return nil, err
	}
	for i := range routes {
		if routes[i].Name == name {
			return &routes[i], nil
		}
	}
	return nil, schemas.ErrNotFound
}

// simulated returns a route that carries the channel to the simulator.
func (c *routeCache) simulated(ctx context.Context, channel schemas.Channel) (*store.Route, error) {
	routes, err := c.all(ctx)
	if err != nil {
		return nil, problem.Unavailable(storeRetry, err, "The routes cannot be read now.")
	}
	for i := range routes {
		if r := &routes[i]; c.connectors.simulates(r.Connector) && carries(r, channel) {
			return r, nil
		}
	}
	return nil, problem.Field(problem.CodeInvalid, "channel", "No simulated route carries %s, and a test can use only simulated routes.", schemas.ChannelName(channel))
}

// best returns the route of a channel when no route is named. Of the enabled routes that carry the channel and are not
// down it takes those with the smallest priority number, of these the cheapest, and of these one according to their
// shares. Routes to a simulator come last. While no route goes down or up, the same pick always gives the same route.
// If all of these kinds of carrier, real or simulated, are down, it chooses as if they were up: a campaign to people does
// not go to a simulator because the real routes are down.
func (c *routeCache) best(ctx context.Context, channel schemas.Channel, pick uint64) (*store.Route, error) {
	routes, err := c.all(ctx)
	if err != nil {
		return nil, err
	}
	simulated := !slices.ContainsFunc(routes, func(r store.Route) bool { return carries(&r, channel) && !c.connectors.simulates(r.Connector) })
	var best []*store.Route
	for _, evenDown := range []bool{false, true} {
		for i := range routes {
			r := &routes[i]
			switch {
			case !carries(r, channel) || c.connectors.simulates(r.Connector) != simulated || !evenDown && c.down(r.Name):
			case len(best) == 0 || c.compare(r, best[0]) < 0:
				best = []*store.Route{r}
			case c.compare(r, best[0]) == 0:
				best = append(best, r)
			}
		}
		if len(best) > 0 {
			break
		}
	}
	shares := uint64(0)
	for _, r := range best {
		shares += uint64(r.Share)
	}
	if shares == 0 {
		return nil, schemas.ErrNotFound
	}
	at := pick % shares
	for _, r := range best {
		if at < uint64(r.Share) {
			return r, nil
		}
		at -= uint64(r.Share)
	}
	return best[0], nil
}

// compare orders routes: one to a simulator comes last, then the smaller priority number and the lower cost come first.
func (c *routeCache) compare(a, b *store.Route) int {
	simulated := func(r *store.Route) int {
		if c.connectors.simulates(r.Connector) {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(simulated(a), simulated(b)), cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Cost, b.Cost))
}

// mostOthers bounds the routes that can carry a leg in place of its own.
const mostOthers = 4

// others returns the routes that can carry a channel while a route is down, the best first: the enabled routes that
// carry it, to the same kind of carrier, real or simulated. Only routes whose failover is on have others and are others.
// RCS, WhatsApp and voice have none: sender, template, queue and trunk belong to one account.
func (c *routeCache) others(ctx context.Context, of *store.Route, channel schemas.Channel) ([]*store.Route, error) {
	if of.Care.NoFailover || channel != schemas.ChannelSMS {
		return nil, nil
	}
	routes, err := c.all(ctx)
	if err != nil {
		return nil, err
	}
	var out []*store.Route
	for i := range routes {
		r := &routes[i]
		if r.Name != of.Name && carries(r, channel) && !r.Care.NoFailover && c.connectors.simulates(r.Connector) == c.connectors.simulates(of.Connector) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *store.Route) int { return cmp.Or(c.compare(a, b), cmp.Compare(a.Name, b.Name)) })
	return out[:min(len(out), mostOthers)], nil
}

// carrying returns the route that carries a channel now in place of a route: the route itself, unless it is paused or
// down and another can carry it.
func (c *routeCache) carrying(ctx context.Context, r *store.Route, channel schemas.Channel) (*store.Route, error) {
	if r.Enabled && !c.down(r.Name) {
		return r, nil
	}
	others, err := c.others(ctx, r, channel)
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		if !c.down(other.Name) {
			return other, nil
		}
	}
	return r, nil
}

// down reports whether nothing could be handed over on a route when the cache was last filled.
func (c *routeCache) down(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.isDown[name]
}

// forget makes the next request read the routes again. Call it after this process has changed a route.
func (c *routeCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = time.Time{}
}

// senderRate returns the limit of a sender, 0 when it has none.
func (c *routeCache) senderRate(ctx context.Context, tenant, id string) uint32 {
	key := schemas.SenderKey(tenant, id)
	now := c.now()
	c.mu.Lock()
	known, ok := c.senders[key]
	c.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.rate
	}
	known = cachedSender{until: now.Add(freshFor)}
	if row, err := c.store.Sender(ctx, tenant, id); err == nil {
		known.rate = row.Rate
	}
	c.mu.Lock()
	keep(c.senders, key, known)
	c.mu.Unlock()
	return known.rate
}

// carries reports whether a route is enabled and carries a channel.
func carries(r *store.Route, channel schemas.Channel) bool {
	return r.Enabled && slices.Contains(r.Channels, channel)
}
