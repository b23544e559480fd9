package health

import (
	"sync"
	"time"
)

// Outcomes that [Rates] counts.
const (
	Accepted    = iota // the carrier accepted the message
	Refused            // the carrier refused it for good
	Delivered          // a receipt says that the message arrived
	Undelivered        // a receipt says that it did not arrive
	kinds
)

// Counts of outcomes, by kind.
type Counts [kinds]uint64

// The counts cover five minutes, in steps of ten seconds.
const (
	ratesCover = 5 * time.Minute
	ratesStep  = 10 * time.Second
	rateSteps  = int64(ratesCover / ratesStep)
)

// Rates counts the outcomes of the last five minutes by route. The zero value is ready for use. It is safe for
// concurrent use.
type Rates struct {
	mu     sync.Mutex
	routes map[string]*[rateSteps]bucket
}

type bucket struct {
	step   int64
	counts Counts
}

// Add counts outcomes of a route.
func (r *Rates) Add(route string, n Counts, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.routes == nil {
		r.routes = map[string]*[rateSteps]bucket{}
	}
	ring := r.routes[route]
	if ring == nil {
		ring = &[rateSteps]bucket{}
		r.routes[route] = ring
	}
	step := now.UnixNano() / int64(ratesStep)
	b := &ring[step%rateSteps]
	if b.step != step {
		*b = bucket{step: step}
	}
	for i := range n {
		b.counts[i] += n[i]
	}
}

// Of returns the counts of a route in the last five minutes.
func (r *Rates) Of(route string, now time.Time) (sum Counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ring := r.routes[route]
	if ring == nil {
		return sum
	}
	step := now.UnixNano() / int64(ratesStep)
	for i := range ring {
		if b := &ring[i]; b.step > step-rateSteps && b.step <= step {
			for k := range sum {
				sum[k] += b.counts[k]
			}
		}
	}
	return sum
}

// Routes returns the routes that have counts.
func (r *Rates) Routes() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]string, 0, len(r.routes))
	for name := range r.routes {
		out = append(out, name)
	}
	return out
}
