package scheduler

import (
	"cmp"
	"slices"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// core is the dealer's mind: what it knows, and what follows from that. It has no client and no clock of its own: events,
// records and the time come in; deals, ends and moves come out. One goroutine uses it.
//
// Everything known of a recipient is kept as membership in sets that only grow, so events may come late, twice and in any
// order. What is decided is a function of the sets, the records of the control plane and the time.
type core struct {
	campaigns map[uint64]*campaign
	open      []*campaign // those that may still need something, by number
	last      *campaign   // of the last event: most events have the campaign of the one before
	routes    map[string]*route
	ordered   []*route // by name
	tenants   map[string]*tenant
	senders   map[senderKey]*level
	holding   holding
	// laneUnread: what stands on some transactional lane is not known yet, so nobody can say of a hidden campaign that it is over.
	laneUnread bool

	ends    []ending // decided, not yet given out
	rings   bool     // rings must be made again
	strays  uint64   // events of nobody's try
	evalCap int      // notes of a campaign that are evaluated at once when there are more; see observe
}

type senderKey struct{ tenant, id string }

// level is one of the limits that a deal must pass.
type level struct {
	rate   int64 // messages per second, 0: none
	flight int64 // dealt and not answered
}

type route struct {
	level         // of the bulk lane
	txn     int64 // in flight on the transactional lane
	name    string
	known   bool // its record is
	enabled bool
	p99     int64 // milliseconds
	window  int64 // of receipts, milliseconds

	// The breaker: no deals before stopUntil; after it a trickle, until something is answered otherwise.
	stopUntil int64
	probing   int64 // time of the newest return because of the breaker, 0: none
	// Retries that the route may still take: 10 % of its rate flow in.
	retries   float64
	retriesAt int64

	shares []*share
	turn   int
}

type tenant struct {
	level
	id      string
	weight  int64
	enabled bool
}

// notesCap bounds what waits to be evaluated while many events come in between two rounds of deals.
const notesCap = 4096

func newCore() *core {
	return &core{
		campaigns: map[uint64]*campaign{},
		routes:    map[string]*route{},
		tenants:   map[string]*tenant{},
		senders:   map[senderKey]*level{},
		holding:   newHolding(),
		evalCap:   notesCap,
	}
}

// RouteChanged takes in a route. A route that is gone comes as a record that is not enabled.
func (k *core) RouteChanged(r *fanfarev1.Route) {
	got := k.route(r.GetName())
	got.rate = int64(max(r.GetRate(), 1))
	got.known, got.enabled = true, r.GetEnabled()
	got.p99 = r.GetP99Ms()
	got.window = r.GetReceiptWindowMs()
}

func (k *core) route(name string) *route {
	r := k.routes[name]
	if r == nil {
		r = &route{name: name}
		r.rate = 1
		k.routes[name] = r
		i, _ := slices.BinarySearchFunc(k.ordered, r, func(a, b *route) int { return cmp.Compare(a.name, b.name) })
		k.ordered = slices.Insert(k.ordered, i, r)
	}
	return r
}

// TenantChanged takes in a tenant.
func (k *core) TenantChanged(t *fanfarev1.Tenant) {
	got := k.tenant(t.GetId())
	got.rate = int64(t.GetRate())
	got.weight = int64(max(t.GetWeight(), 1))
	got.enabled = t.GetEnabled()
}

// tenant returns a tenant; one whose record has not come yet is not enabled.
func (k *core) tenant(id string) *tenant {
	t := k.tenants[id]
	if t == nil {
		t = &tenant{id: id, weight: 1}
		k.tenants[id] = t
		k.rings = true
	}
	return t
}

// SenderChanged takes in a sender id.
func (k *core) SenderChanged(s *fanfarev1.Sender) {
	k.sender(s.GetTenant(), s.GetId()).rate = int64(s.GetRate())
}

func (k *core) sender(tenant, id string) *level {
	key := senderKey{tenant, id}
	l := k.senders[key]
	if l == nil {
		l = &level{}
		k.senders[key] = l
	}
	return l
}

// CampaignChanged takes in a campaign's record. One that is not newer than what is known is ignored.
func (k *core) CampaignChanged(r *fanfarev1.Campaign) {
	c := k.campaigns[r.GetNumber()]
	if c != nil && c.record != nil && (r.GetVersion() < c.record.GetVersion() || r.GetVersion() == c.record.GetVersion() && !c.guessed) {
		return
	}
	if c == nil {
		if !concerns(r) {
			return
		}
		c = k.add(r.GetNumber(), r.GetTenant(), r.GetId())
	}
	k.attach(c, r)
}

// concerns reports whether the scheduler has anything to do with a campaign in that state. A settled one it remembers, to end
// what is said of it afterwards.
func concerns(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case fanfarev1.State_STATE_READY, fanfarev1.State_STATE_SCHEDULED, fanfarev1.State_STATE_PREPARING, fanfarev1.State_STATE_SENDING,
		fanfarev1.State_STATE_PAUSED, fanfarev1.State_STATE_SUSPENDED, fanfarev1.State_STATE_COMPLETED, fanfarev1.State_STATE_ABORTED:
		return true
	default:
		return false
	}
}

// CampaignGone forgets a campaign whose record was tombstoned.
func (k *core) CampaignGone(number uint64) {
	if c := k.campaigns[number]; c != nil {
		k.drop(c)
		delete(k.campaigns, number)
	}
}

// add makes room for a campaign.
func (k *core) add(number uint64, tenant, id string) *campaign {
	c := &campaign{number: number, tenant: tenant, id: id}
	k.campaigns[number] = c
	i, _ := slices.BinarySearchFunc(k.open, c, byNumber)
	k.open = slices.Insert(k.open, i, c)
	k.rings = true
	return c
}

func byNumber(a, b *campaign) int { return cmp.Compare(a.number, b.number) }

// drop takes a campaign out of the open ones and frees what is known of its recipients.
func (k *core) drop(c *campaign) {
	k.fly(c, -1)
	if i, ok := slices.BinarySearchFunc(k.open, c, byNumber); ok {
		k.open = slices.Delete(k.open, i, i+1)
	}
	if k.last == c {
		k.last = nil
	}
	c.forget()
	k.rings = true
}

// attach gives a campaign its record.
func (k *core) attach(c *campaign, r *fanfarev1.Campaign) {
	fresh := c.record == nil
	was := c.record
	c.record, c.guessed = r, false
	c.changed = true
	switch {
	case r.GetSettled():
		if !c.closed {
			k.drop(c)
			c.closed = true
		}
		return
	case c.deals == 0 && len(c.tries) == 0 && !concerns(r):
		// Unscheduled, cancelled or failed before anything was dealt: if it comes back, it comes back anew.
		k.drop(c)
		delete(k.campaigns, c.number)
		return
	}
	if was.GetFreezeId() != r.GetFreezeId() || fresh {
		c.blobs, c.wanting = nil, wish{}
	}
	if !r.GetHidden() {
		c.total = r.GetTotal()
	}
	c.own.rate = int64(r.GetRate())
	c.setHours(r.GetCallingHours())
	// Records in between may never be seen: unscheduled, moved to another route and confirmed again is one change.
	rerouted := c.deals == 0 && len(c.tries) == 0 && !slices.EqualFunc(was.GetLegs(), r.GetLegs(), sameWay)
	if fresh || rerouted {
		k.fly(c, -1) // whatever was counted without the record was counted nowhere
		c.flows = nil
		for i, leg := range r.GetLegs() {
			if i+1 >= maxLegs {
				break
			}
			c.flows = append(c.flows, flow{route: k.route(leg.GetRoute()), sender: k.sender(r.GetTenant(), leg.GetSender())})
		}
		c.owner = k.tenant(r.GetTenant())
		c.resolve()
		k.fly(c, +1)
		c.review(k)
	}
	if stopping(r) && !stopping(was) {
		c.wakeAll()
	}
	k.rings = true
}

// sameWay reports whether two legs go by the same route under the same sender id.
func sameWay(a, b *fanfarev1.Leg) bool {
	return a.GetRoute() == b.GetRoute() && a.GetSender() == b.GetSender()
}

// stopping reports whether nothing more may be handed over for a campaign: what was not dealt is cancelled.
func stopping(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case fanfarev1.State_STATE_ABORTED, fanfarev1.State_STATE_CANCELLED, fanfarev1.State_STATE_FAILED:
		return true
	default:
		return r.GetStopped()
	}
}

// dealing reports whether recipients of a campaign may be dealt.
func dealing(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case fanfarev1.State_STATE_SENDING, fanfarev1.State_STATE_COMPLETED:
		return !r.GetStopped() && !r.GetSettled() && !r.GetHidden()
	default:
		return false
	}
}

// target is how much may be in flight at a level: what it can take in one second and the carrier's answer time.
func (l *level) target(r *route) int64 {
	if l.rate == 0 {
		return 1 << 40
	}
	return max(l.rate*(1000+r.p99)/1000, 1)
}

func (l *level) room(r *route) bool { return l.flight < l.target(r) }

// Moved takes in that the store has made a move: nothing waits for the record to come round. The record that does come has
// the same version and more in it.
func (k *core) Moved(ch schemas.Change, version uint64) {
	c := k.find(ch.Campaign)
	if c == nil || c.record == nil || c.record.GetVersion() >= version {
		return
	}
	r := cloneRecord(c.record)
	r.Version = version
	r.State = ch.To
	r.Reason = ch.Reason
	r.Settled = r.GetSettled() || ch.Settled
	switch {
	case ch.Settled:
		r.SettledMs = ch.At.UnixMilli()
	case ch.To == fanfarev1.State_STATE_COMPLETED:
		r.CompletedMs = ch.At.UnixMilli()
	}
	k.attach(c, r)
	c.guessed = true
}

func (k *core) find(id string) *campaign {
	number, err := schemas.CampaignNumber(id)
	if err != nil {
		return nil
	}
	return k.campaigns[number]
}

func ms(t time.Time) int64 { return t.UnixMilli() }
