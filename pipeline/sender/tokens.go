package sender

import (
	"context"
	"slices"
	"time"

	"fanfare/pipeline/ratelimit"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// queue holds the messages that wait for tokens of the same buckets, oldest first.
type queue struct {
	set     ratelimit.Set
	rates   ratelimit.Rates
	entries []*entry
	// debt is how many tokens a message of several units took beyond what was granted.
	debt int
	// notBefore is the earliest time at which asking again can help; short is the level that had no token.
	notBefore time.Time
	short     ratelimit.Level
}

// narrow reports whether a level below the route has a lower limit than the route.
func (q *queue) narrow() bool {
	for _, rate := range []uint32{q.rates.Tenant, q.rates.Sender, q.rates.Campaign} {
		if rate > 0 && rate < q.rates.Route {
			return true
		}
	}
	return false
}

// take removes and returns the messages that tokens pay for, and the tokens that are left over.
func (q *queue) take(tokens int, cost func(*entry) int) (out []*entry, left int) {
	paid := min(q.debt, tokens)
	q.debt -= paid
	tokens -= paid
	n := 0
	for n < len(q.entries) && tokens > 0 {
		tokens -= cost(q.entries[n])
		n++
	}
	if tokens < 0 {
		q.debt, tokens = -tokens, 0
	}
	out = q.entries[:n:n]
	q.entries = q.entries[n:]
	return out, tokens
}

// paidBatch has messages that hold their tokens: they may be handed over from ready on and before until.
type paidBatch struct {
	entries      []*entry
	set          ratelimit.Set
	ready, until time.Time
	narrow       bool // see queue.narrow
}

// tokenRequest is one round trip to the limiter.
type tokenRequest struct {
	reqs   []ratelimit.Request
	grants []ratelimit.Grant
}

// maxAsk is the most sets of one round trip.
const maxAsk = 64

// queue returns the queue for the buckets from which m needs tokens. A level without a limit is left out of the set, so
// that messages that compete for the same tokens are in one queue.
func (l *lane) queue(m *fanfarev1.Message) *queue {
	r := l.route()
	rates := ratelimit.Rates{
		Route: max(1, r.GetRate()), Burst: r.GetBurst(), Tenant: l.view.Tenant(m.GetTenant()).GetRate(),
		Sender: l.view.Sender(m.GetTenant(), m.GetSender()).GetRate(), Campaign: l.view.Campaign(m.GetCampaignId()).GetRate(),
	}
	set := ratelimit.Set{Route: l.name, Lane: l.lane}
	if rates.Tenant|rates.Sender|rates.Campaign > 0 {
		set.Tenant = m.GetTenant()
	}
	if rates.Sender > 0 {
		set.Sender = m.GetSender()
	}
	if rates.Campaign > 0 {
		set.Campaign = m.GetCampaignId()
	}
	if l.last != nil && l.last.set == set {
		l.last.rates = rates
		return l.last
	}
	q := l.queues[set]
	if q == nil {
		q = &queue{set: set}
		l.queues[set] = q
	}
	q.rates, l.last = rates, q
	return q
}

func (l *lane) cost(e *entry) int { return units(e.msg, l.caps.Pacing) }

// due reports whether a batch that holds its tokens waits to be handed over.
func (l *lane) due(now time.Time) bool { return len(l.ready) > 0 && !now.Before(l.ready[0].ready) }

// request asks for the tokens of all queues that may ask, the one with the oldest message first: that message holds up
// the base of its partition.
func (l *lane) request(now time.Time) {
	if l.asking || l.due(now) { // tokens would age while the carrier's window is full
		return
	}
	var asking []*queue
	for _, q := range l.queues {
		if len(q.entries) > 0 && !now.Before(q.notBefore) {
			asking = append(asking, q)
		}
	}
	if len(asking) == 0 {
		return
	}
	slices.SortFunc(asking, func(x, y *queue) int { return x.entries[0].released.Compare(y.entries[0].released) })
	var a tokenRequest
	for _, q := range asking[:min(len(asking), maxAsk)] {
		want := q.debt + len(q.entries)
		if l.caps.Pacing == carrier.PacingSegments {
			want = q.debt
			for _, e := range q.entries {
				want += l.cost(e)
			}
		}
		a.reqs = append(a.reqs, ratelimit.Request{Set: q.set, Rates: q.rates, Want: want})
	}
	a.grants = make([]ratelimit.Grant, len(a.reqs))
	l.asking = true
	if l.limiter.Leased(a.reqs, a.grants) {
		l.granted(a)
		return
	}
	l.requests <- a // never blocks: one request at a time
}

// askForTokens makes the round trips to the limiter. While Redis is away it blocks in one of them and no message
// leaves.
func (l *lane) askForTokens(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-l.requests:
			if err := l.limiter.Take(ctx, a.reqs, a.grants); err != nil {
				if ctx.Err() != nil {
					return nil //nolint:nilerr // stopping
				}
				return err
			}
			l.answers <- a // never blocks: one request at a time
		}
	}
}

// granted turns grants into batches that may be handed over.
func (l *lane) granted(a tokenRequest) {
	now := l.now()
	l.asking = false
	for i, g := range a.grants {
		set := a.reqs[i].Set
		q := l.queues[set]
		if q == nil {
			l.limiter.Put(set, g.Tokens, g.Until)
			continue
		}
		out, left := q.take(g.Tokens, l.cost)
		l.limiter.Put(set, left, g.Until)
		if len(out) > 0 {
			l.ready = append(l.ready, &paidBatch{entries: out, set: set, ready: g.Ready, until: g.Until, narrow: q.narrow()})
		}
		if q.short = g.Short; g.Short == ratelimit.LevelNone {
			q.notBefore = time.Time{}
			if g.Ready.After(now) { // the grant is a reservation: make only one at a time
				q.notBefore = g.Ready
			}
			continue
		}
		l.metrics.denied(g.Short).Inc()
		q.notBefore = now.Add(g.Retry)
		if g.Short > ratelimit.LevelRoute && g.Wait > rateWait {
			for n, e := range q.entries {
				if e.doubt != nil {
					l.reopen(e, now)
					continue
				}
				again := now.Add(g.Wait + time.Duration(n)*time.Second/time.Duration(max(1, a.reqs[i].Rates.Of(g.Short))))
				l.settle(e, returned(schemas.CodeRate, again), false)
			}
			q.entries = nil
		}
	}
	slices.SortStableFunc(l.ready, func(a, b *paidBatch) int { return a.ready.Compare(b.ready) })
}
