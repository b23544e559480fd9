package simulation

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

// plan is everything that a seed determines.
type plan struct {
	seed      uint64
	brokers   int
	rate      int // limit of the route, messages a second
	pace      time.Duration
	profile   sim.Profile
	processes [][]string // the roles of each process
	campaigns []planned
	singles   []singles
	lasts     time.Duration // how long faults happen
	// stopsWithin is the longest time from the record of a pause or an abort in its topic to the last hand-over.
	stopsWithin time.Duration
	events      []event
	// finally, if set, makes more checks at the end than the oracles do.
	finally func(w *world, truth map[string][]sim.Entry)
}

// planned is a campaign that the run confirms.
type planned struct {
	at     time.Duration
	people int
	text   string // "" for a short text
	// hours gives the campaign calling hours that open in the second minute of the run.
	hours bool
	// chain gives the campaign a leg of RCS before the one of SMS.
	chain bool
}

// chains reports whether a campaign has more than one leg.
func (p *plan) chains() bool {
	return slices.ContainsFunc(p.campaigns, func(c planned) bool { return c.chain })
}

// event is something that happens at a time.
type event struct {
	at   time.Duration
	name string
	do   func(*world)
}

// dice draw a plan from its seed.
type dice struct {
	*rand.Rand
	more bool // draw single sends, chains of channels, and crashes in their lanes
}

// moreFrom is the first seed with single sends and chains: those of `make test` are below it, those of `make chaos` above.
const moreFrom = 1000

func newDice(seed uint64) dice { return dice{rand.New(rand.NewPCG(seed, 14)), seed >= moreFrom} }

func (d dice) between(low, high time.Duration) time.Duration {
	return low + time.Duration(d.Int64N(int64(high-low)+1))
}

// hit returns true with probability share.
func (d dice) hit(share float64) bool { return d.Float64() < share }

func pick[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// planOf draws everything that the seed determines.
func planOf(seed uint64) plan {
	d := newDice(seed)
	p := plan{
		seed: seed, brokers: pick(d, 1, 3), rate: pick(d, 10, 40, 200), pace: 20 * time.Millisecond,
		lasts: d.between(10*time.Second, 60*time.Second), stopsWithin: 6 * time.Second, // a sender sends nothing when its view is older than 5 s
	}
	p.profile = d.profile()
	switch d.IntN(3) {
	case 0: // all roles in each process, as in the embedded mode and on small clusters
		for range 1 + d.IntN(2) {
			p.processes = append(p.processes, roles)
		}
	case 1: // one process deals, the others send
		p.processes = [][]string{{"relay", "scheduler", "expander", "analytics"}, {"sender", "tracker"}, {"sender", "tracker"}}
	default:
		for _, role := range roles {
			p.processes = append(p.processes, []string{role})
		}
	}
	for range 1 + d.IntN(2) {
		p.campaigns = append(p.campaigns, planned{at: d.between(0, 5*time.Second), people: pick(d, 1, 20, 50, 100), hours: d.hit(0.2)})
	}
	for range 1 + d.IntN(8) {
		p.events = append(p.events, d.event(p.lasts))
	}
	slices.SortStableFunc(p.events, func(a, b event) int { return int(a.at - b.at) })
	if !d.more {
		return p
	}
	for range d.IntN(4) {
		s := singles{at: d.between(0, p.lasts), n: pick(d, 1, 5, 20)}
		if d.hit(0.4) {
			s.due = d.between(time.Second, 40*time.Second)
		}
		p.singles = append(p.singles, s)
	}
	for i := range p.campaigns {
		if p.campaigns[i].chain = d.hit(0.3); p.campaigns[i].chain && len(p.profile.Refused) == 1 {
			p.profile.Refused = append(p.profile.Refused, sim.Refusal{Share: 0.2 * d.Float64(), Sub: schemas.CodeRCSNotCapable})
		}
	}
	return p
}

// profile draws a carrier.
func (d dice) profile() sim.Profile {
	p := sim.Profile{
		Name:   "drawn",
		Answer: sim.Lognormal{P50: d.between(0, 200*time.Millisecond), P99: d.between(200*time.Millisecond, 2*time.Second)},
		Fates: []sim.Fate{
			{Weight: 8, Status: schemas.ReceiptStatusDelivered, Sub: schemas.CodeDelivered},
			{Weight: 1, Status: schemas.ReceiptStatusFailed, Sub: schemas.CodeAbsentSubscriber},
			{Weight: 1, Status: schemas.ReceiptStatusFailed, Sub: schemas.CodeUnknownSubscriber},
		},
		Receipt:  sim.Lognormal{P50: d.between(0, time.Second), P99: d.between(time.Second, 8*time.Second)},
		HidesKey: d.hit(0.3),
		Doubt:    pick(d, carrier.DoubtNone, carrier.DoubtNone, carrier.DoubtKeyHeader, carrier.DoubtNaturalID, carrier.DoubtQuery),
	}
	some := func(share float64) float64 { // half of all carriers never do it
		if d.hit(0.5) {
			return 0
		}
		return share * d.Float64()
	}
	p.Refused = []sim.Refusal{{Share: some(0.1), Sub: schemas.CodeInvalidNumber}}
	p.Throttled, p.Busy, p.Silent, p.Dropped = some(0.1), some(0.1), some(0.1), some(0.05)
	p.Disconnect, p.Lost, p.Duplicate, p.Enroute, p.EnrouteLate, p.Early = some(0.1), some(0.1), some(0.3), some(0.3), some(0.2), some(0.2)
	p.Reordered, p.ReorderedBy = some(0.3), 2*time.Second
	return p
}

// people returns the recipients of a campaign. The pipeline must not send to some of them.
func (w *world) people(number uint64, n int) []audience.Entry {
	out := make([]audience.Entry, n)
	for i := range out {
		out[i] = audience.Entry{
			ContactID: uint64(i + 1), To: fmt.Sprintf("+39340%03d%04d", number%1000, i), Zone: "UTC", Country: "IT", Class: audience.Mobile,
			Attrs: []audience.Attr{{Name: "first_name", Value: "Ada"}},
		}
		if i%17 == 16 {
			out[i].Flag = audience.OptedOut
		}
	}
	return out
}

// confirm confirms a campaign.
func (w *world) confirm(number uint64, c planned) {
	var hours *fanfarev1.CallingHours
	if c.hours {
		hours = &fanfarev1.CallingHours{StartMinute: opensAt, EndMinute: 23 * 60, Timezone: "UTC"}
	}
	legs := []*fanfarev1.Leg{{Channel: schemas.ChannelSMS, Route: route, Sender: "FANFARE", PriceMicros: 50_000, MaxHandovers: 3, BackoffMs: []int64{2_000, 5_000}}}
	if c.chain {
		legs = slices.Insert(legs, 0, &fanfarev1.Leg{
			Channel: schemas.ChannelRCS, Route: firstRoute, Sender: "agent", PriceMicros: 80_000, MaxHandovers: 2, BackoffMs: []int64{2_000},
			Content: &fanfarev1.Content{Json: []byte(`{"text":"Ciao {{1}}!"}`), Params: []string{"{{first_name}}"}, Missing: schemas.MissingPolicyFail},
		})
	}
	w.plane.confirm(&fanfarev1.Campaign{
		CallingHours: hours,
		Tenant:       tenant, Id: schemas.CampaignID(number), Number: number, Version: 1, State: schemas.StatePreparing,
		Legs:    legs,
		Content: &fanfarev1.Content{Body: cmp.Or(c.text, "Ciao {{first_name}}!"), Missing: schemas.MissingPolicyFail}, MaxSegments: 2, Currency: "EUR",
		ValidityMs: validity.Milliseconds(), ReceiptWindowMs: receiptWindow.Milliseconds(), ConfirmedMs: time.Now().UnixMilli(), CreatedMs: time.Now().UnixMilli(),
	}, w.people(number, c.people))
	w.tracef("%s is confirmed, %d recipients", schemas.CampaignID(number), c.people)
}

// opensAt is the minute of the day in which calling hours open. The run begins at midnight.
const opensAt = 1

const (
	validity      = 5 * time.Minute
	receiptWindow = 3 * time.Minute
)

// points are the moments at which a process may die.
var points, fewPoints = func() (all []point, few int) {
	add := func(client string, what ...string) {
		for _, x := range what {
			all = append(all, point{client: client, what: x}, point{client: client, what: x, after: true})
		}
	}
	add("relay", "Produce")
	add("scheduler.deals", "InitProducerID", "AddPartitionsToTxn", "Produce", "EndTxn")
	add("expander", "AddPartitionsToTxn", "AddOffsetsToTxn", "Produce", "TxnOffsetCommit", "EndTxn")
	add("sender-sim-bulk", "OffsetCommit", "Produce", "Fetch", "JoinGroup")
	add("sender-sim-receipts", "Produce")
	add("tracker", "Produce", "OffsetCommit")
	add("analytics", "OffsetCommit", "Fetch")
	add("store", "freeze", "blob", "apply", "mark")
	add("carrier", "send", "receipt", "query")
	add("redis", "call")
	add("analytics", "append", "mark")
	few = len(all)
	add("sender-rcs-bulk", "OffsetCommit", "Produce", "Fetch")
	add("sender-sim-txn", "OffsetCommit", "Produce", "Fetch", "JoinGroup")
	return all, few
}()

// may lists the errors with which a broker may answer a request for a while.
var may = map[kmsg.Key][]*kerr.Error{
	kmsg.Produce: {
		kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.KafkaStorageError,
		kerr.UnknownTopicOrPartition, kerr.LeaderNotAvailable,
	},
	kmsg.Fetch:           {kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch, kerr.ReplicaNotAvailable},
	kmsg.ListOffsets:     {kerr.NotLeaderForPartition, kerr.LeaderNotAvailable, kerr.UnknownTopicOrPartition},
	kmsg.Metadata:        {kerr.LeaderNotAvailable},
	kmsg.OffsetCommit:    {kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator, kerr.RequestTimedOut, kerr.RebalanceInProgress},
	kmsg.OffsetFetch:     {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.UnstableOffsetCommit},
	kmsg.FindCoordinator: {kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress},
	kmsg.JoinGroup:       {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.CoordinatorNotAvailable},
	kmsg.SyncGroup:       {kerr.RebalanceInProgress, kerr.NotCoordinator, kerr.CoordinatorNotAvailable},
	kmsg.Heartbeat:       {kerr.RebalanceInProgress, kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress},
	kmsg.InitProducerID:  {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions},
	kmsg.AddPartitionsToTxn: {
		kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable,
	},
	kmsg.AddOffsetsToTxn: {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions},
	kmsg.TxnOffsetCommit: {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.UnknownTopicOrPartition},
	kmsg.EndTxn:          {kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions, kerr.CoordinatorNotAvailable},
}

// event draws an event that happens before end.
func (d dice) event(end time.Duration) event {
	e := event{at: d.between(time.Second, end)}
	which := d.Uint64()
	switch d.IntN(17) {
	case 0, 1: // a process dies at any moment
		back := d.between(0, 15*time.Second)
		e.name = "kill"
		e.do = func(w *world) {
			if p := w.anyProcess(which); p != nil {
				w.tracef("%s is killed", p.name)
				p.kill()
				w.restartIn(p, back)
			}
		}
	case 2, 3, 4: // a process dies at a named point
		at := pick(d, points[:fewPoints]...)
		if d.more {
			at = pick(d, points...)
		}
		at.nth = 1 + d.IntN(4)
		e.name = "die " + at.String()
		e.do = func(w *world) { w.arm(at) }
	case 5:
		e.name = "restart"
		back := d.between(0, 5*time.Second)
		e.do = func(w *world) {
			if p := w.anyProcess(which); p != nil {
				w.tracef("%s stops", p.name)
				w.restartIn(p, back)
				p.cancel()
			}
		}
	case 6:
		e.name = "another process"
		run := pick(d, roles, []string{"sender"}, []string{"expander", "tracker"}, []string{"scheduler"})
		e.do = func(w *world) { w.startMore(run) }
	case 7:
		e.name = "pause a process"
		lasts := d.between(time.Second, 25*time.Second)
		e.do = func(w *world) {
			if p := w.anyProcess(which); p != nil {
				w.tracef("%s stands still for %s", p.name, lasts)
				p.freeze()
				w.later(lasts, func() { p.thaw() })
			}
		}
	case 8, 9:
		keys := slices.Sorted(maps.Keys(may))
		key := pick(d, keys...)
		f := kfake.Fault{Keys: []kmsg.Key{key}, Err: pick(d, may[key]...), Count: 1 + d.IntN(5)}
		e.name = fmt.Sprintf("broker answers %d × %s with %s", f.Count, kmsg.NameForKey(int16(key)), f.Err.Message)
		e.do = func(w *world) { w.broker.Fault(f) }
	case 10:
		key := pick(d, kmsg.Fetch, kmsg.Produce, kmsg.OffsetCommit, kmsg.EndTxn, kmsg.Heartbeat)
		e.name = "broker never answers a " + kmsg.NameForKey(int16(key))
		e.do = func(w *world) {
			w.broker.ControlKey(int16(key), func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true })
		}
	case 11:
		switch d.IntN(3) {
		case 0:
			e.name = "leaders move"
			e.do = func(w *world) { w.broker.ShufflePartitionLeaders() }
		case 1:
			e.name = "coordinators move"
			e.do = func(w *world) { w.broker.RehashCoordinators() }
		default:
			e.name = "connections break"
			e.do = func(w *world) {
				if p := w.anyProcess(which); p != nil {
					w.tracef("%s loses its connections", p.name)
					p.net.breakConnections()
				}
			}
		}
	case 12:
		lasts := d.between(time.Second, 15*time.Second)
		switch d.IntN(3) {
		case 0:
			e.name = fmt.Sprintf("Redis is away for %s", lasts)
			e.do = func(w *world) {
				w.setRedisDown(true)
				w.later(lasts, func() { w.setRedisDown(false) })
			}
		case 1:
			e.name = fmt.Sprintf("Redis is loading for %s", lasts)
			e.do = func(w *world) {
				w.redis.SetError("LOADING Redis is loading the dataset in memory")
				w.later(lasts, func() { w.redis.SetError("") })
			}
		default:
			e.name = "Redis loses everything"
			e.do = func(w *world) {
				w.redis.FlushAll()
				w.noteFlush()
			}
		}
	case 13:
		fault, lasts := pick(d, refusing, throttling, resetting), d.between(100*time.Millisecond, 4*time.Second)
		e.name = fmt.Sprintf("carrier %s for %s", [...]string{"", "refuses", "throttles", "resets after it accepts"}[fault], lasts)
		e.do = func(w *world) {
			w.setCarrierDown(fault)
			w.later(lasts, func() { w.setCarrierDown(0) })
		}
	case 14:
		lasts := d.between(time.Second, 15*time.Second)
		e.name = fmt.Sprintf("store is away for %s", lasts)
		e.do = func(w *world) {
			w.plane.setAway(true)
			w.later(lasts, func() { w.plane.setAway(false) })
		}
	case 15:
		// The clock jumps forward by less than the receipt window. After a longer jump, campaigns settle and the run
		// ends before their receipts come, although these receipts would count.
		jump := pick(d, d.between(-10*time.Minute, 0), d.between(0, receiptWindow/2), d.between(-3*time.Second, 3*time.Second))
		e.name = fmt.Sprintf("a clock jumps by %s", jump)
		e.do = func(w *world) {
			if p := w.anyProcess(which); p != nil {
				w.tracef("the clock of %s jumps", p.name)
				p.setSkew(jump)
				w.noteJump()
			}
		}
	default:
		e = d.control(e, which)
	}
	return e
}

// control draws an action of a user or a recipient.
func (d dice) control(e event, which uint64) event {
	campaignOf := func(w *world) uint64 { return firstCampaign + which%uint64(len(w.plan.campaigns)) }
	switch d.IntN(5) {
	case 4:
		rate := pick(d, 5, 20, 100)
		e.name = fmt.Sprintf("operator sets the limit to %d/s", rate)
		e.do = func(w *world) {
			w.setRate(rate)
			w.plane.control(schemas.RouteKey(route), "", func(c *fanfarev1.Control) { c.GetRoute().Rate = uint32(rate) })
		}
	case 0, 1:
		lasts := d.between(0, 10*time.Second)
		e.name = "user pauses"
		e.do = func(w *world) {
			n := campaignOf(w)
			w.pause(n)
			w.later(lasts, func() { w.resume(n) })
		}
	case 2:
		e.name = "recipient opts out"
		e.do = func(w *world) {
			people := w.plane.audienceOf(campaignOf(w))
			if len(people) > 0 {
				w.plane.optOut(people[which%uint64(len(people))].To)
			}
		}
	default:
		e.name = "user aborts"
		e.do = func(w *world) {
			w.act(campaignOf(w), func(r *fanfarev1.Campaign) bool {
				may := schemas.CanTransition(r.GetState(), schemas.StateAborted, schemas.TriggerAbort)
				if may {
					r.State = schemas.StateAborted
				}
				return may
			})
		}
	}
	return e
}

// describe returns the plan in words.
func (p plan) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d brokers, route %d/s, carrier %s (hides our id: %v), faults for %s\n", p.seed, p.brokers, p.rate, p.profile.Doubt, p.profile.HidesKey, p.lasts)
	fmt.Fprintf(&b, "processes: %v\n", p.processes)
	for _, e := range p.events {
		fmt.Fprintf(&b, "%9.3fs %s\n", e.at.Seconds(), e.name)
	}
	return b.String()
}
