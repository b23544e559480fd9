package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/api/ui"
	"fanfare/schemas"
)

// OIDC is a provider of OpenID Connect by which people log in to the console.
type OIDC = ui.OIDC

// actorKey is the context key of the person on whose behalf the console makes a request. Requests from outside cannot
// set it; they authenticate with an API key.
type actorKey struct{}

func asActor(ctx context.Context, actor ui.Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// actor returns the principal of a person who uses the console. It has the person's permissions and no rate limit,
// because rate limits are for programs.
func (a *authenticator) actor(ctx context.Context, actor ui.Actor) (*principal, error) {
	sum := sha256.Sum256([]byte("tenant of the console\n" + actor.Tenant))
	now := a.now()
	a.mu.RLock()
	known := a.known[sum]
	a.mu.RUnlock()
	if known == nil || !now.Before(known.until) {
		tenant, err := a.store.Tenant(ctx, actor.Tenant)
		if errors.Is(err, schemas.ErrNotFound) || err == nil && !tenant.Enabled {
			return nil, problem.New(problem.CodeUnauthenticated, "The tenant is disabled.")
		}
		var p *principal
		if err == nil {
			p, err = a.fill(ctx, store.Key{}, tenant)
		}
		if err != nil {
			return nil, problem.Unavailable(2*time.Second, err, "The tenant could not be read.")
		}
		known = &knownKey{p, now.Add(freshFor)}
		a.mu.Lock()
		if len(a.known) >= maxCached {
			clear(a.known)
		}
		a.known[sum] = known
		a.mu.Unlock()
	}
	p := *known.principal
	p.key = store.Key{ID: actor.User, Tenant: actor.Tenant, Name: actor.Name, Scopes: actor.Scopes}
	p.quota = nil
	return &p, nil
}
