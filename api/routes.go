package api

import (
	"context"
	"slices"
	"sync"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// storeRetry is what a client is told to wait when the store is away.
const storeRetry = 2 * time.Second

// simConnector is the connector that reaches nobody.
const simConnector = "sim"

// routeCache remembers routes and senders for a moment: every single send asks for them.
type routeCache struct {
	store *store.Store
	now   func() time.Time

	mu      sync.Mutex
	until   time.Time
	routes  []store.Route
	senders map[string]cachedSender
}

type cachedSender struct {
	rate  uint32
	until time.Time
}

func newRouteCache(st *store.Store, now func() time.Time) *routeCache {
	return &routeCache{store: st, now: now, senders: map[string]cachedSender{}}
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
	return routes, nil
}

// route finds a route; [schemas.ErrNotFound] when there is none of that name.
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

// simulated finds a route that carries the channel to the simulator.
func (c *routeCache) simulated(ctx context.Context, channel fanfarev1.Channel) (*store.Route, error) {
	routes, err := c.all(ctx)
	if err != nil {
		return nil, unavailable(storeRetry, err, "The routes cannot be read at present.")
	}
	for i := range routes {
		if r := &routes[i]; r.Connector == simConnector && carries(r, channel) {
			return r, nil
		}
	}
	return nil, fieldProblem(CodeInvalid, "channel", "No simulated route carries %s, and a test reaches no other.", schemas.ChannelName(channel))
}

// senderRate is the sender's own limit, 0 when it has none.
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

// carries reports whether a route takes messages of a channel now.
func carries(r *store.Route, channel fanfarev1.Channel) bool {
	return r.Enabled && slices.Contains(r.Channels, channel)
}
