package api

import (
	"sync"
	"time"
)

// budgets bound the single sends that wait on a route, by tenant: the lane of single sends is shared, and one tenant must not fill
// it. A tenant is admitted at its share of the route, which is the whole route while no other tenant's sends wait, and may have a
// second's worth of that waiting. So at most about a second of the route waits, however many tenants send as much as they can, and
// the sender hands over fairly among what waits. Each process counts for itself.
type budgets struct {
	mu     sync.Mutex
	routes map[string]map[string]*bucket // by route and tenant
}

// budgetFor is how much of its share of a route a tenant may have waiting.
const budgetFor = time.Second

// maxTenants is how many tenants of a route are remembered before those are forgotten of whom nothing waits.
const maxTenants = 1000

func newBudgets() *budgets { return &budgets{routes: map[string]map[string]*bucket{}} }

// take admits n messages of a tenant, or returns how long to wait until they fit. rate is the route's, own the tenant's limit, 0 for
// none, in messages per second. A batch that is larger than the budget is admitted when nothing of the tenant waits: else it never
// would be.
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
