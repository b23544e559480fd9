package api

import (
	"context"
	"sync"
	"time"

	"fanfare/api/store"
)

// whoNames caches the names of keys and people (R41). A name may be a little old, because it is only shown to people
// and changes rarely.
type whoNames struct {
	store *store.Store
	now   func() time.Time
	mu    sync.Mutex
	known map[string]listName
}

func newWhoNames(st *store.Store, now func() time.Time) *whoNames {
	return &whoNames{store: st, now: now, known: map[string]listName{}}
}

// of returns the name of the key or person with an id in a tenant, or the id itself when there is none.
func (w *whoNames) of(ctx context.Context, tenant, id string) string {
	if id == "" {
		return ""
	}
	at := tenant + "/" + id
	now := w.now()
	w.mu.Lock()
	known, ok := w.known[at]
	w.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.name
	}
	name := id
	if user, err := w.store.User(ctx, id); err == nil {
		name = user.Name
	} else if keys, err := w.store.Keys(ctx, tenant); err == nil {
		for i := range keys {
			if keys[i].ID == id && keys[i].Name != "" {
				name = keys[i].Name
			}
		}
	}
	w.mu.Lock()
	keep(w.known, at, listName{name, now.Add(listNameFresh)})
	w.mu.Unlock()
	return name
}
