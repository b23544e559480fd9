package window

import (
	"cmp"
	"iter"
	"slices"
)

// With [Config.Tenant] the window declares the records of several tenants in turn, so that a tenant whose record was
// polled waits for one record of each other tenant, however many of them lie before its own.
//
// The head is one offset, so a record that goes ahead of others in its partition is declared by itself: the metadata
// names its offset as doubtful, and as settled once its outcome is acknowledged, until the head has passed it. See
// [intent].

// maxEarly is the most records of a partition that are declared ahead of the head: their states must fit into the
// metadata. A record takes four bytes of 2,900 at most.
const maxEarly = 600

// fairness has the records that wait to be declared, by tenant. The window's mu guards it.
type fairness struct {
	tenants map[string]*tenantQueue
	ring    []*tenantQueue
	turn    int    // index in ring at which planning begins
	round   uint32 // number of the plan being made
}

// tenantQueue has the records of one tenant that wait to be declared, oldest first, and some that do not any more.
type tenantQueue struct {
	name  string
	items []*Item
	next  int // of the plan being made
}

// add adds a record that waits to be declared.
func (f *fairness) add(tenant string, it *Item) {
	q := f.tenants[tenant]
	if q == nil {
		if f.tenants == nil {
			f.tenants = map[string]*tenantQueue{}
		}
		q = &tenantQueue{name: tenant}
		f.tenants[tenant] = q
		f.ring = append(f.ring, q)
	}
	q.items = append(q.items, it)
}

// waits reports whether the item waits to be declared. w.mu is held.
func (i *Item) waits() bool { return !i.declared && !i.p.gone && i.state.Load() == itemQueued }

// begin starts a plan: it drops records that do not wait any more.
func (f *fairness) begin() {
	f.round++
	for _, q := range f.ring {
		n := 0
		for n < len(q.items) && !q.items[n].waits() {
			q.items[n] = nil
			n++
		}
		q.items, q.next = q.items[n:], 0
		if len(q.items) == 0 {
			delete(f.tenants, q.name)
		}
	}
	f.ring = slices.DeleteFunc(f.ring, func(q *tenantQueue) bool { return len(q.items) == 0 })
}

// planFair plans to declare up to left records, the tenants in turn, and returns how many of left it could not plan.
// With keep the next plan begins at another tenant.
func (w *Window) planFair(pl *plan, left int, keep bool) int {
	f := &w.fair
	f.begin()
	n := len(f.ring)
	served := -1
	for k, idle := 0, 0; left > 0 && idle < n; k++ {
		if w.planNext(f.ring[(f.turn+k)%n], pl) {
			served, idle = k, 0
			left--
		} else {
			idle++
		}
	}
	if keep && n > 0 {
		f.turn = (f.turn + served + 1) % n
	}
	for _, p := range w.order {
		p.absorb(f.round)
	}
	return left
}

// planNext plans to declare the next record of a tenant, if it has one that may be.
func (w *Window) planNext(q *tenantQueue, pl *plan) bool {
	round := w.fair.round
	for ; q.next < len(q.items); q.next++ {
		it := q.items[q.next]
		p := it.p
		if !it.waits() || it.planned == round || p.why != stopNone {
			continue
		}
		p.absorb(round)
		switch {
		case p.declare < min(len(p.items), maxSpan) && p.items[p.declare] == it:
			p.declare++
		case p.mayBeEarly(it):
			p.planned = append(p.planned, it)
		default:
			return false // the rest of the plan follows the order of the log
		}
		it.planned = round
		p.open++
		pl.fresh++
		q.next++
		return true
	}
	return false
}

// mayBeEarly reports whether an item may be declared ahead of the head. The head must first pass all records that
// earlier owners declared.
func (p *part) mayBeEarly(it *Item) bool {
	return len(p.states) == 0 && len(p.early)+len(p.planned) < maxEarly && it.Record.Offset-p.items[0].Record.Offset < maxSpan
}

// absorb moves the end of what is planned over items that need no declaring, or are declared already.
func (p *part) absorb(round uint32) {
	for p.why == stopNone && p.declare < min(len(p.items), maxSpan) {
		it := p.items[p.declare]
		if !it.declared && it.planned != round && it.state.Load() != itemDone {
			return
		}
		p.declare++
	}
}

// earlyStates are the states of the records that are declared, or planned to be, ahead of head.
func (p *part) earlyStates(head int64) (states offsetStates) {
	if len(p.early)+len(p.planned) == 0 {
		return nil
	}
	all := slices.Concat(p.early, p.planned)
	slices.SortFunc(all, func(a, b *Item) int { return cmp.Compare(a.Record.Offset, b.Record.Offset) })
	for _, it := range all {
		offset := it.Record.Offset
		if offset < head {
			continue
		}
		state := doubtful
		if it.state.Load() == itemDone {
			state = settled
		}
		n := len(states)
		states = states.add(offset, state, n > 0 && states[n-1].to == offset && states[n-1].state == state)
	}
	return states
}

// declares applies an accepted commit that declares the first n items and the early ones.
func (p *part) declares(n int, early []*Item) {
	for ; p.declared < n; p.declared++ {
		p.items[p.declared].declared = true
	}
	for _, it := range early {
		it.declared = true
	}
	p.unreleased = p.unreleased || len(early) > 0
	if p.early = append(p.early, early...); len(p.early) > 0 {
		p.early = slices.DeleteFunc(p.early, func(it *Item) bool { return it.Record.Offset < p.head })
	}
}

// given yields the items that were given to the releaser, possibly some of them twice.
func (p *part) given() iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		for _, it := range p.items[:p.released] {
			if !yield(it) {
				return
			}
		}
		for _, it := range p.early {
			if !yield(it) {
				return
			}
		}
	}
}
