package api

import (
	"sync"
	"time"
)

// budgets limit, by tenant, the single sends that wait on a route, because tenants share the lane of single sends and
// one tenant must not fill it. A tenant is admitted at its share of the route's rate; while no other tenant's sends
// wait, that is the whole rate. Messages for up to one second at that share may wait. So about one second of the
// route's traffic waits at most, however many tenants send at full speed, and the sender divides the route fairly among
// the waiting messages. Each process counts for itself.
type budgets struct {
	mu     sync.Mutex
	routes map[string]map[string]*bucket // by route and tenant
}

// budgetFor is the budget of waiting messages, as time at the tenant's share of the route.
const budgetFor = time.Second

// maxTenants is how many tenants of a route are kept before tenants without waiting messages are dropped.
const maxTenants = 1000

func newBudgets() *budgets { return &budgets{routes: map[string]map[string]*bucket{}} }

// take admits n messages of a tenant and returns 0, or returns how long to wait until they fit. rate is the limit of
// the route and own the limit of the tenant (0: none), in messages per second. A batch that is larger than the budget
// is admitted when no message of the tenant waits; otherwise it would never be.
func (b *budgets) take(route, tenant string, n, rate, own int, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	tenants := b.routes[route]
	if tenants == nil {
		tenants = map[string]*bucket{}
		b.routes[route] = tenants
	}
	sharing := 1
	for name, q := range tenants {
		if name != tenant && q.tat.After(now) {
			sharing++
		} else if name != tenant && len(tenants) > maxTenants {
			delete(tenants, name)
		}
	}
	q := tenants[tenant]
	if q == nil {
		q = &bucket{}
		tenants[tenant] = q
	}
	share := float64(max(rate, 1)) / float64(sharing)
	if own > 0 {
		share = min(share, float64(own))
	}
	cost := time.Duration(float64(n) / share * float64(time.Second))
	ahead := max(q.tat.Sub(now), 0)
	if over := ahead + cost - budgetFor; over > 0 && ahead > 0 {
		return min(over, ahead)
	}
	q.tat = now.Add(ahead + cost)
	return 0
}
