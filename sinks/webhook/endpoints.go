package webhook

import (
	"context"
	"sync"

	"fanfare/schemas"
)

// endpoints caches the active endpoints until one changes. To detect a change it reads one row.
type endpoints struct {
	store Endpoints

	mu      sync.Mutex
	changes int64
	have    *hooks
}

// hooks are the endpoints as they were at one moment. They do not change.
type hooks struct {
	byTenant map[string][]*schemas.Webhook
	byNumber map[uint64]*schemas.Webhook
}

// hooksOf puts endpoints in order.
func hooksOf(list ...schemas.Webhook) *hooks {
	h := &hooks{byTenant: map[string][]*schemas.Webhook{}, byNumber: map[uint64]*schemas.Webhook{}}
	for i := range list {
		w := &list[i]
		h.byTenant[w.Tenant] = append(h.byTenant[w.Tenant], w)
		h.byNumber[w.Number] = w
	}
	return h
}

// current returns the endpoints as they are now.
func (e *endpoints) current(ctx context.Context) (*hooks, error) {
	changes, err := e.store.WebhookChanges(ctx)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.have != nil && e.changes == changes {
		return e.have, nil
	}
	// read the list after the number, so that a change in between is detected the next time
	list, err := e.store.Webhooks(ctx)
	if err != nil {
		return nil, err
	}
	e.changes, e.have = changes, hooksOf(list...)
	return e.have, nil
}
