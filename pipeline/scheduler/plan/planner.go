package plan

import (
	"cmp"
	"slices"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Planner decides what is dealt and ended. Events, records and the time go in; deals, ends and moves come out. One
// goroutine uses it.
//
// The state of a recipient is its membership in sets that only grow, so events may arrive late, twice and in any order.
// A decision is a function of the sets, the records of the control plane and the time.
type Planner struct {
	campaigns map[uint64]*Campaign
	open      []*Campaign // campaigns that are not settled, by number
	awake     []*Campaign // campaigns that the next round looks at; see awake.go
	sleeping  sleepers    // the other campaigns, by the time at which to wake them
	reviewAt  int64       // when all are looked at again
	unsaved   []*Campaign // campaigns that changed since their sets were last written; some are written by now
	broken    []*Campaign // campaigns that are set aside; they are not open
	unsettled []*Campaign // campaigns that their cursor calls settled and the store does not; they are not open
	last      *Campaign   // campaign of the last event: most events are of the same campaign as the one before
	routes    map[string]*route
	ordered   []*route // by name
	tenants   map[string]*tenant
	senders   map[senderKey]*level
	held      heldQueue
	// lanesUnread: some transactional lane has not been read to its end, so a hidden campaign may have deals we do not
	// know.
	lanesUnread bool

	pendingEnds   []End       // decided, not yet returned by Ends
	wantDomains   []*Campaign // campaigns whose next recipients need domains
	stranded      bool        // some route is disabled
	routeTurn     int         // the route that is served first in the next round
	unknownEvents uint64      // events about tries that were never dealt
	evalCap       int         // a campaign with more notes than this has them evaluated at once; see Observe
}

type senderKey struct{ tenant, id string }

// level is one of the limits that a deal must pass: of a route, a tenant, a sender id or a campaign.
type level struct {
	rate   int64 // messages per second, 0: unlimited
	flight int64 // dealt and not answered
}

type route struct {
	level         // of the bulk lane
	txn     int64 // in flight on the transactional lane
	name    string
	known   bool // the control plane has published its record
	enabled bool
	p99     int64 // answer time of the carrier, milliseconds
	window  int64 // receipts are awaited this long, milliseconds
	// disabledMs is since when the route is disabled, 0: it is enabled.
	disabledMs int64

	// Circuit breaker: nothing is dealt before stopUntil. After that a hundredth of the target is dealt until the
	// carrier accepts a message again.
	stopUntil int64
	probing   int64 // time of the newest return because of the breaker, 0: the breaker is closed
	// Retries that the route may take now: a token bucket that fills with 10 % of the rate.
	retries   float64
	retriesAt int64

	care care

	shares []*tenantTurn
	turn   int
}

type tenant struct {
	level
	id      string
	weight  int64
	enabled bool
}

// notesCap bounds the notes of a campaign that wait to be evaluated while many events arrive between two rounds of
// deals.
const notesCap = 4096

// New returns a planner that knows nothing.
func New() *Planner {
	return &Planner{
		campaigns: map[uint64]*Campaign{},
		routes:    map[string]*route{},
		tenants:   map[string]*tenant{},
		senders:   map[senderKey]*level{},
		held:      newHeldQueue(),
		evalCap:   notesCap,
	}
}

// SetRoutes replaces what is known of the routes. A route that is missing from the list is disabled.
func (pl *Planner) SetRoutes(routes []*fanfarev1.Route) {
	listed := map[string]bool{}
	for _, r := range routes {
		listed[r.GetName()] = true
		pl.setRoute(r)
	}
	for _, r := range pl.ordered {
		if !listed[r.name] && r.enabled {
			r.enabled = false
			pl.wakeAll()
			pl.rejoinRings()
		}
	}
}

func (pl *Planner) setRoute(r *fanfarev1.Route) {
	got := pl.route(r.GetName())
	if got.enabled != r.GetEnabled() || got.window != r.GetReceiptWindowMs() || got.p99 != r.GetP99Ms() {
		pl.wakeAll()
	}
	got.rate = int64(max(r.GetRate(), 1))
	carried, alone, known := got.canCarry(), got.care.alone, got.known
	got.known, got.enabled = true, r.GetEnabled()
	got.p99 = r.GetP99Ms()
	got.window = r.GetReceiptWindowMs()
	got.care.set(r.GetCare())
	if got.canCarry() != carried || got.care.alone != alone || got.known != known {
		pl.wakeAll()
		pl.rejoinRings()
	}
}

// RouteNames returns the names of the routes that the control plane has published, sorted.
func (pl *Planner) RouteNames() []string {
	var out []string
	for _, r := range pl.ordered {
		if r.known {
			out = append(out, r.name)
		}
	}
	return out
}

// route returns a route; one whose record has not arrived is not enabled.
func (pl *Planner) route(name string) *route {
	r := pl.routes[name]
	if r == nil {
		r = &route{name: name}
		r.rate = 1
		pl.routes[name] = r
		i, _ := slices.BinarySearchFunc(pl.ordered, r, func(a, b *route) int { return cmp.Compare(a.name, b.name) })
		pl.ordered = slices.Insert(pl.ordered, i, r)
	}
	return r
}

// RefreshTenants asks for the record of every tenant that has campaigns here. A tenant without a record is disabled.
func (pl *Planner) RefreshTenants(record func(id string) *fanfarev1.Tenant) {
	for id, t := range pl.tenants {
		if r := record(id); r != nil {
			pl.setTenant(r)
		} else {
			t.enabled = false
		}
	}
}

func (pl *Planner) setTenant(t *fanfarev1.Tenant) {
	got := pl.tenant(t.GetId())
	got.rate = int64(t.GetRate())
	got.weight = int64(max(t.GetWeight(), 1))
	got.enabled = t.GetEnabled()
}

// tenant returns a tenant; one whose record has not arrived is not enabled.
func (pl *Planner) tenant(id string) *tenant {
	t := pl.tenants[id]
	if t == nil {
		t = &tenant{id: id, weight: 1}
		pl.tenants[id] = t
	}
	return t
}

// RefreshSenders asks for the record of every sender id that a campaign here uses. A sender id without a record has no
// limit, as in the sender stage.
func (pl *Planner) RefreshSenders(record func(tenant, id string) *fanfarev1.Sender) {
	for key, l := range pl.senders {
		l.rate = int64(record(key.tenant, key.id).GetRate())
	}
}

func (pl *Planner) sender(tenant, id string) *level {
	key := senderKey{tenant, id}
	l := pl.senders[key]
	if l == nil {
		l = &level{}
		pl.senders[key] = l
	}
	return l
}

// Campaign returns a campaign by its number, nil when it is unknown.
func (pl *Planner) Campaign(number uint64) *Campaign { return pl.campaigns[number] }

// OpenCampaigns is how many campaigns are known and not settled.
func (pl *Planner) OpenCampaigns() int { return len(pl.open) }

// UnknownEvents counts delivery events about tries that were never dealt.
func (pl *Planner) UnknownEvents() uint64 { return pl.unknownEvents }

// SetLanesUnread says whether some transactional lane has not been read to its end: until it has, no hidden campaign
// completes.
func (pl *Planner) SetLanesUnread(unread bool) { pl.lanesUnread = unread }

// CampaignChanged applies a campaign's record. A record that is not newer than the known one is ignored.
func (pl *Planner) CampaignChanged(r *fanfarev1.Campaign) {
	c := pl.campaigns[r.GetNumber()]
	if c != nil && c.record != nil && (r.GetVersion() < c.record.GetVersion() || r.GetVersion() == c.record.GetVersion() && !c.assumed) {
		return
	}
	if c == nil {
		if !concerns(r) {
			return
		}
		c = pl.add(r.GetNumber(), r.GetTenant(), r.GetId())
	}
	pl.attach(c, r)
}

// concerns reports whether the scheduler has anything to do with a campaign in that state. A settled campaign is kept,
// so that late events about it are ended.
func concerns(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case schemas.StateReady, schemas.StateScheduled, schemas.StatePreparing, schemas.StateSending,
		schemas.StatePaused, schemas.StateSuspended, schemas.StateCompleted, schemas.StateAborted:
		return true
	default:
		return false
	}
}

// orphanKept is how long a campaign without a record is remembered.
const orphanKept = 24 * time.Hour

// Forget drops settled campaigns that are no longer published, and campaigns whose record never arrived. It returns the
// latter.
func (pl *Planner) Forget(now time.Time, published func(number uint64) bool) (orphans []*Campaign) {
	for number, c := range pl.campaigns {
		switch {
		case (c.closed || c.broken && c.record != nil) && !published(number):
			pl.drop(c)
			delete(pl.campaigns, number)
			pl.unsettled = slices.DeleteFunc(pl.unsettled, func(o *Campaign) bool { return o == c })
			pl.broken = slices.DeleteFunc(pl.broken, func(b *Campaign) bool { return b == c })
		case c.record == nil && !c.broken && c.lastSeen < ms(now.Add(-orphanKept)) && pl.held.count[number] == 0:
			orphans = append(orphans, c)
			pl.drop(c)
			delete(pl.campaigns, number)
		}
	}
	return orphans
}

// add begins to track a campaign.
func (pl *Planner) add(number uint64, tenant, id string) *Campaign {
	c := &Campaign{number: number, tenant: tenant, id: id}
	pl.insert(c)
	return c
}

func (pl *Planner) insert(c *Campaign) {
	pl.campaigns[c.number] = c
	i, _ := slices.BinarySearchFunc(pl.open, c, byNumber)
	pl.open = slices.Insert(pl.open, i, c)
	pl.wake(c)
}

func byNumber(a, b *Campaign) int { return cmp.Compare(a.number, b.number) }

// drop removes a campaign from the open ones and frees the memory of its recipients.
func (pl *Planner) drop(c *Campaign) {
	pl.adjustInFlight(c, -1)
	pl.leaveRings(c)
	if i, ok := slices.BinarySearchFunc(pl.open, c, byNumber); ok {
		pl.open = slices.Delete(pl.open, i, i+1)
	}
	if pl.last == c {
		pl.last = nil
	}
	c.forget()
}

// attach applies a record to a campaign.
func (pl *Planner) attach(c *Campaign, r *fanfarev1.Campaign) {
	fresh := c.record == nil
	was := c.record
	c.record, c.assumed = r, false
	if was.GetState() != r.GetState() {
		c.beginSamples()
		if reason := was.GetReason(); was.GetState() == schemas.StateSuspended && (reason == schemas.ReasonRouteDown || reason == schemas.ReasonProviderAuth) &&
			(r.GetState() == schemas.StateSending || r.GetState() == schemas.StatePreparing) {
			defer pl.userResumed(c)
		}
	}
	c.changed = true
	switch {
	case c.broken:
		c.closed = r.GetSettled()
		return
	case c.settledInLog:
		if !r.GetSettled() && !slices.Contains(pl.unsettled, c) {
			pl.unsettled = append(pl.unsettled, c)
		}
		if r.GetSettled() {
			pl.unsettled = slices.DeleteFunc(pl.unsettled, func(o *Campaign) bool { return o == c })
		}
		return
	case r.GetSettled():
		if !c.closed {
			c.finalCost = c.captured()
			pl.drop(c)
			c.closed = true
		}
		return
	case c.deals == 0 && len(c.tries) == 0 && !concerns(r):
		// Unscheduled, cancelled or failed before anything was dealt. If it is confirmed again, it starts afresh.
		pl.drop(c)
		delete(pl.campaigns, c.number)
		return
	}
	if was.GetFreezeId() != r.GetFreezeId() || fresh {
		c.blobs, c.groups, c.request = nil, nil, storeRequest{}
		c.domains = domainState{}
	}
	if was.GetState() != r.GetState() { // such as resumed: there may be room again
		c.domains.spent, c.domains.again = false, 0
	}
	if !r.GetHidden() {
		c.total = r.GetTotal()
	}
	c.own.rate = int64(r.GetRate())
	c.setHours(r.GetCallingHours())
	// The view may skip versions: unscheduled, moved to another route and confirmed again can arrive as one change.
	rerouted := c.deals == 0 && len(c.tries) == 0 && !slices.EqualFunc(was.GetLegs(), r.GetLegs(), sameWay)
	if fresh || rerouted {
		pl.leaveRings(c)
		pl.adjustInFlight(c, -1) // deals that were counted before the record arrived are at no level
		c.flows = nil
		for i, leg := range r.GetLegs() {
			if i+1 >= maxLegs {
				break
			}
			f := flow{route: pl.route(leg.GetRoute()), sender: pl.sender(r.GetTenant(), leg.GetSender())}
			for _, other := range leg.GetOtherRoutes() {
				f.others = append(f.others, pl.route(other))
			}
			c.flows = append(c.flows, f)
		}
		c.owner = pl.tenant(r.GetTenant())
		c.resolve()
		pl.adjustInFlight(c, +1)
		c.review(pl)
	}
	if stopping(r) && !stopping(was) {
		c.makeAllReady()
	}
	if fresh && !c.HasCursor() {
		// without a cursor the planner does not know whether the order was carried out: it does not carry it out
		c.orderDone = r.GetAmbiguousOrder().GetId()
	}
	pl.wake(c)
	pl.updateRing(c)
}

// sameWay reports whether two legs go by the same routes under the same sender id.
func sameWay(a, b *fanfarev1.Leg) bool {
	return a.GetRoute() == b.GetRoute() && a.GetSender() == b.GetSender() && slices.Equal(a.GetOtherRoutes(), b.GetOtherRoutes())
}

// stopping reports whether nothing more may be handed over for a campaign: recipients that were not dealt are
// cancelled.
func stopping(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case schemas.StateAborted, schemas.StateCancelled, schemas.StateFailed:
		return true
	default:
		return r.GetStopped()
	}
}

// dealing reports whether recipients of a campaign may be dealt.
func dealing(r *fanfarev1.Campaign) bool {
	switch r.GetState() {
	case schemas.StateSending, schemas.StateCompleted:
		return !r.GetStopped() && !r.GetSettled() && !r.GetHidden()
	default:
		return false
	}
}

// target is how much may be in flight at a level: what the level takes in one second and the carrier's 99th percentile
// answer time.
func (l *level) target(r *route) int64 {
	if l.rate == 0 {
		return 1 << 40
	}
	return max(l.rate*(1000+r.p99)/1000, 1)
}

// smallLimit is the greatest limit, in messages per second, of which a chunk takes a whole second: a quarter of it
// would be so few messages that dealing and expanding the chunk cost more than sending them.
const smallLimit = 100

// room reports whether another chunk fits at a level. A small limit has room only for a whole chunk, so that no more is
// in flight than the level takes within the time that a sender waits for it.
func (l *level) room(r *route) bool {
	if l.small() {
		return l.flight == 0 || l.flight+l.rate <= l.target(r)
	}
	return l.flight < l.target(r)
}

func (l *level) small() bool { return l.rate > 0 && l.rate <= smallLimit }

// chunk is how many recipients one deal may have at a level.
func (l *level) chunk(r *route) int64 {
	if l.small() {
		return l.rate
	}
	return chunkOf(l.target(r))
}

// Moved applies a move that the store has made, without waiting for the record to be published. The published record
// has the same version and replaces what is assumed here.
func (pl *Planner) Moved(ch schemas.Change, version uint64) {
	c := pl.find(ch.Campaign)
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
	case ch.Trigger == schemas.TriggerComplete:
		r.CompletedMs = ch.At.UnixMilli()
	}
	pl.attach(c, r)
	c.assumed = true
}

func (pl *Planner) find(id string) *Campaign {
	number, err := schemas.CampaignNumber(id)
	if err != nil {
		return nil
	}
	return pl.campaigns[number]
}

func ms(t time.Time) int64 { return t.UnixMilli() }
