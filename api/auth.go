package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"sync"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/api/ui"
)

// principal is the key of a request, its tenant and their permissions. Requests share it; it is immutable.
type principal struct {
	key    store.Key
	tenant store.Tenant
	prices store.Prices
	// limited: the tenant's credit is limited, so the price of a single send is reserved before it is sent.
	limited bool
	quota   *quota
}

// by returns the id of the key, which campaign events record.
func (p *principal) by() string { return p.key.ID }

// freshFor is how long a valid key is cached. A revoked key, or a key of a disabled tenant, works at most that much
// longer.
const freshFor = 2 * time.Second

// maxCached is the most entries of a cache. A full cache is emptied.
const maxCached = 10_000

// authenticator finds the principal of a request. It caches valid keys by the hash of their secret.
type authenticator struct {
	store  *store.Store
	limits Limits
	own    func(*store.Key) Limits
	now    func() time.Time

	mu     sync.RWMutex
	known  map[[sha256.Size]byte]*knownKey
	quotas map[string]*quota // by key id
}

type knownKey struct {
	*principal
	until time.Time
}

func newAuthenticator(st *store.Store, limits Limits, own func(*store.Key) Limits, now func() time.Time) *authenticator {
	return &authenticator{store: st, limits: limits.over(Limits{50, 1000}), own: own, now: now, known: map[[sha256.Size]byte]*knownKey{}, quotas: map[string]*quota{}}
}

// principal reads the key from X-Api-Key or, as the password, from Basic authentication (X8).
func (a *authenticator) principal(r *http.Request) (*principal, error) {
	if actor, ok := r.Context().Value(actorKey{}).(ui.Actor); ok {
		return a.actor(r.Context(), actor)
	}
	secret := r.Header.Get("X-Api-Key")
	if secret == "" {
		_, secret, _ = r.BasicAuth()
	}
	if secret == "" {
		return nil, problem.New(problem.CodeUnauthenticated, "The request has no API key.")
	}
	sum := sha256.Sum256([]byte(secret))
	now := a.now()
	a.mu.RLock()
	k := a.known[sum]
	a.mu.RUnlock()
	if k != nil && now.Before(k.until) {
		return k.principal, nil
	}
	p, err := a.load(r.Context(), secret)
	if err != nil {
		if errors.Is(err, store.ErrNoKey) {
			a.mu.Lock()
			delete(a.known, sum)
			a.mu.Unlock()
			return nil, problem.New(problem.CodeUnauthenticated, "The API key is not known, or has been revoked.")
		}
		return nil, problem.Unavailable(2*time.Second, err, "The key could not be checked.")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= maxCached {
		clear(a.known)
	}
	a.known[sum] = &knownKey{p, now.Add(freshFor)}
	return p, nil
}

func (a *authenticator) load(ctx context.Context, secret string) (*principal, error) {
	key, tenant, err := a.store.Authenticate(ctx, secret)
	if err != nil {
		return nil, err
	}
	p, err := a.fill(ctx, key, tenant)
	if err == nil {
		p.quota = a.quotaOf(&key)
	}
	return p, err
}

// fill returns the principal of a key and tenant, with the fields that need further reads.
func (a *authenticator) fill(ctx context.Context, key store.Key, tenant store.Tenant) (*principal, error) {
	prices, err := a.store.Prices(ctx, tenant.ID)
	if err != nil {
		return nil, err
	}
	balance, err := a.store.Balance(ctx, tenant.ID)
	if err != nil {
		return nil, err
	}
	return &principal{key: key, tenant: tenant, prices: prices, limited: !balance.Unlimited}, nil
}

func (a *authenticator) quotaOf(key *store.Key) *quota {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.quotas[key.ID]
	if q == nil {
		if len(a.quotas) >= maxCached {
			clear(a.quotas)
		}
		q = &quota{}
		a.quotas[key.ID] = q
	}
	limits := a.limits
	if a.own != nil {
		limits = a.own(key).over(limits)
	}
	q.mu.Lock()
	q.limits = limits
	q.mu.Unlock()
	return q
}
