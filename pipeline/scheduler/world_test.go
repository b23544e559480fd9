package scheduler

import (
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	testTenant = "tn_a"
	partitions = 6
)

// world is everything around the core, in memory and with a clock of its own: a store, a carrier, the log of deliveries. It is
// driven by one seed. Its oracles see what the core deals and what really happened, never what the core thinks.
type world struct {
	rng    *rand.Rand
	core   *core
	now    time.Time
	camps  map[uint64]*fakeCampaign
	routes []*fanfarev1.Route
	log    [partitions][]event // of deliveries
	read   [partitions]int     // how far the core is
	about  map[[2]uint64][]int // places in the log, by campaign and seq
	saved  saved
	flying []submission // dealt, no outcome yet
	owed   []event      // receipts and late answers
	odds   odds
	faults []string // what the oracles saw
	// The store answers with a conflict now and then.
	conflicts bool

	submitted map[submission]int
	settled   map[uint64]uint64 // captured
	completed map[uint64]bool
	dealtTo   map[string]int // recipients dealt, by tenant

	// Planted bugs, to see the oracles catch them.
	tamper  func(*event) bool // what the core reads; false: it never does
	forgets bool              // cursors do not name the deals since the sets
}

type fakeCampaign struct {
	record *fanfarev1.Campaign
	blobs  []audience.Index
}

type submission struct {
	campaign uint64
	seq      uint32
	try, leg uint8
}

// odds of what a submission comes to, in percent of each other.
type odds struct {
	sent, notSent, returned, ambiguous, lost int
	// of what was sent, or was doubtful and in truth taken
	delivered, bounced, undelivered, silent int
}

// saved is what `cursors` holds.
type saved struct {
	cursors map[uint64][]byte
	sets    map[uint64][][]byte
	offsets [partitions]int
}

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), core: newCore(), now: time.Date(2030, 3, 4, 10, 0, 0, 0, time.UTC),
		camps: map[uint64]*fakeCampaign{}, submitted: map[submission]int{},
		settled: map[uint64]uint64{}, completed: map[uint64]bool{}, dealtTo: map[string]int{},
		about: map[[2]uint64][]int{},
		saved: saved{cursors: map[uint64][]byte{}, sets: map[uint64][][]byte{}},
		odds:  odds{sent: 70, notSent: 5, returned: 10, ambiguous: 10, lost: 1, delivered: 60, bounced: 20, undelivered: 10, silent: 10},
	}
	return w
}

func (w *world) fault(format string, args ...any) {
	if len(w.faults) < 5 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

func (w *world) addRoute(name string, rate uint32) {
	r := &fanfarev1.Route{Name: name, Rate: rate, P99Ms: 300, Enabled: true, ReceiptWindowMs: time.Hour.Milliseconds()}
	w.routes = append(w.routes, r)
	w.core.RouteChanged(r)
}

func (w *world) addTenant(id string, rate, weight uint32) {
	w.core.TenantChanged(&fanfarev1.Tenant{Id: id, Rate: rate, Weight: weight, Enabled: true})
}

// addCampaign makes a confirmed campaign whose audience is frozen.
func (w *world) addCampaign(number uint64, tenant string, total uint32, blob uint32, legs ...*fanfarev1.Leg) *fakeCampaign {
	c := &fakeCampaign{record: &fanfarev1.Campaign{
		Tenant: tenant, Id: schemas.CampaignID(number), Number: number, Version: 5, State: fanfarev1.State_STATE_PREPARING,
		Legs: legs, FreezeId: fmt.Sprint("freeze", number), Total: total, ValidityMs: time.Hour.Milliseconds(), ConfirmedMs: ms(w.now), CreatedMs: ms(w.now),
	}}
	for at := uint32(0); at < total; at += blob {
		c.blobs = append(c.blobs, audience.Index{Blob: uint32(len(c.blobs)), First: at, Count: min(blob, total-at), Zone: "Europe/Rome"})
	}
	w.camps[number] = c
	w.core.CampaignChanged(cloneRecord(c.record))
	return c
}

func smsLeg(handovers uint32) *fanfarev1.Leg {
	return &fanfarev1.Leg{Channel: fanfarev1.Channel_CHANNEL_SMS, Route: "sim", Sender: "S", PriceMicros: 50_000, MaxHandovers: handovers, BackoffMs: []int64{20_000, 60_000}}
}

func rcsLeg(route string) *fanfarev1.Leg {
	return &fanfarev1.Leg{Channel: fanfarev1.Channel_CHANNEL_RCS, Route: route, Sender: "S", PriceMicros: 80_000, MaxHandovers: 1, BackoffMs: []int64{20_000}}
}

// set moves a campaign by hand, as a user does.
func (w *world) set(c *fakeCampaign, change func(*fanfarev1.Campaign)) {
	c.record = cloneRecord(c.record)
	c.record.Version++
	change(c.record)
	w.core.CampaignChanged(cloneRecord(c.record))
}

// step is one round of the scheduler's loop: store, ends, deals, and then a part of the log.
func (w *world) step(deliver int) {
	w.serveStore()
	ends := w.core.Ends(w.now, 1000)
	for _, e := range ends {
		c := w.camps[e.campaign.number]
		if c == nil {
			continue
		}
		w.write(event{campaign: e.campaign.number, seq: e.seq, try: uint32(e.try), leg: uint32(e.leg), kind: e.kind, code: e.code, at: ms(w.now)})
	}
	for _, d := range w.core.Deals(w.now) {
		w.dealt(d)
	}
	w.saveCursors(false)
	w.carry(deliver)
	for p := range partitions {
		for n := w.rng.IntN(deliver + 1); n > 0 && w.read[p] < len(w.log[p]); n-- {
			w.readOne(p)
		}
	}
}

func (w *world) readOne(p int) {
	e := w.log[p][w.read[p]]
	w.read[p]++
	if w.tamper != nil && !w.tamper(&e) {
		return
	}
	w.core.observe(&e)
}

// serveStore does what the core asks of the store, with a conflict now and then.
func (w *world) serveStore() {
	for _, want := range w.core.Wants(w.now) {
		c := w.camps[want.number]
		if err := w.core.Wanted(want, c.blobs, nil, w.now); err != nil {
			w.fault("Wanted: %v", err)
		}
	}
	for _, ch := range w.core.Moves(w.now) {
		number, _ := schemas.CampaignNumber(ch.Campaign)
		c := w.camps[number]
		if w.conflicts && w.rng.IntN(10) == 0 {
			w.core.MoveFailed(ch, w.now)
			continue
		}
		if ch.Version != c.record.GetVersion() {
			w.fault("move of %s on version %d, it is %d", ch.Campaign, ch.Version, c.record.GetVersion())
			continue
		}
		if ch.Settled {
			if _, twice := w.settled[number]; twice {
				w.fault("%s settled twice", ch.Campaign)
			}
			w.settled[number] = ch.Captured
		} else if !schemas.CanTransition(c.record.GetState(), ch.To, ch.Trigger) {
			w.fault("%s: %s from %s to %s is not in the table", ch.Campaign, ch.Trigger, c.record.GetState(), ch.To)
		}
		if ch.To == fanfarev1.State_STATE_COMPLETED && !ch.Settled {
			w.completed[number] = true
			w.checkCompleted(c)
		}
		r := cloneRecord(c.record)
		r.Version++
		r.State, r.Settled = ch.To, r.GetSettled() || ch.Settled
		if r.GetState() == fanfarev1.State_STATE_COMPLETED && r.GetCompletedMs() == 0 {
			r.CompletedMs = ms(w.now)
		}
		if ch.Settled {
			r.SettledMs = ms(w.now)
		} else {
			r.Reason = ch.Reason
		}
		c.record = r
		w.core.Moved(ch, r.GetVersion())
		if w.rng.IntN(2) == 0 { // the record comes round at once, or with the next change
			w.core.CampaignChanged(cloneRecord(r))
		}
	}
}

// checkCompleted holds that nobody is without an outcome of the last try, or waits.
func (w *world) checkCompleted(c *fakeCampaign) {
	for _, s := range w.flying {
		if s.campaign == c.record.GetNumber() {
			w.fault("%s completed with seq %d of try %d in flight", c.record.GetId(), s.seq, s.try)
		}
	}
}

// dealt takes in a deal: the oracles of what may be dealt, then it is in flight.
func (w *world) dealt(d deal) {
	c := w.camps[d.campaign.number]
	r := c.record
	seqs := d.members()
	b := c.blobs[d.blob]
	if seqs.Minimum() < b.First || seqs.Maximum() >= b.First+b.Count {
		w.fault("deal %d crosses the bounds of blob %d", d.number, d.blob)
	}
	if d.cancel != stopping(r) {
		w.fault("deal %d of a campaign %s: cancel is %v", d.number, r.GetState(), d.cancel)
	}
	if !d.cancel && !dealing(r) {
		w.fault("dealt while %s", r.GetState())
	}
	if !d.cancel {
		w.dealtTo[r.GetTenant()] += int(seqs.GetCardinality())
	}
	seqs.Iterate(func(seq uint32) bool {
		s := submission{d.campaign.number, seq, d.try, 0}
		if w.submitted[s]++; w.submitted[s] > 1 {
			w.fault("campaign %d seq %d try %d dealt %d times", s.campaign, seq, d.try, w.submitted[s])
		}
		if d.try > 1 {
			w.checkProof(s.campaign, seq, uint32(d.try))
		}
		if d.cancel {
			w.write(event{campaign: s.campaign, seq: seq, try: uint32(d.try), leg: uint32(d.leg), kind: d.outcome, code: d.code, at: ms(w.now)})
			return true
		}
		w.flying = append(w.flying, submission{d.campaign.number, seq, d.try, d.leg})
		return true
	})
}

// checkProof holds P3: the try before was given back, or bounced, and nothing final was read.
func (w *world) checkProof(campaign uint64, seq, n uint32) {
	var proof bool
	p := seq % partitions
	for _, i := range w.about[[2]uint64{campaign, uint64(seq)}] {
		if i >= w.read[p] {
			break
		}
		e := w.log[p][i]
		if class := schemas.PrecedenceOf(e.kind, e.try, e.code).Class(); class == schemas.ClassNegative || class == schemas.ClassPositive || class == schemas.ClassNeverLeft {
			w.fault("campaign %d seq %d: try %d after %s", campaign, seq, n, e.kind)
		}
		if e.try == n-1 && (e.kind == fanfarev1.Kind_KIND_RETURNED || e.kind == fanfarev1.Kind_KIND_BOUNCED) {
			proof = true
		}
	}
	if !proof {
		w.fault("campaign %d seq %d: try %d without proof", campaign, seq, n)
	}
}

// write appends an event to the log.
func (w *world) write(e event) {
	e.id, e.tenant = []byte(schemas.CampaignID(e.campaign)), []byte(testTenant)
	e.logged = ms(w.now)
	p, key := e.seq%partitions, [2]uint64{e.campaign, uint64(e.seq)}
	w.about[key] = append(w.about[key], len(w.log[p]))
	w.log[p] = append(w.log[p], e)
}

// carry lets some of what is in flight come to its outcome, and some receipts come in.
func (w *world) carry(most int) {
	w.rng.Shuffle(len(w.flying), func(i, j int) { w.flying[i], w.flying[j] = w.flying[j], w.flying[i] })
	for n := w.rng.IntN(4*most + 1); n > 0 && len(w.flying) > 0; n-- {
		s := w.flying[len(w.flying)-1]
		w.flying = w.flying[:len(w.flying)-1]
		w.outcome(s)
	}
	w.rng.Shuffle(len(w.owed), func(i, j int) { w.owed[i], w.owed[j] = w.owed[j], w.owed[i] })
	for n := w.rng.IntN(4*most + 1); n > 0 && len(w.owed) > 0; n-- {
		e := w.owed[len(w.owed)-1]
		w.owed = w.owed[:len(w.owed)-1]
		e.at = ms(w.now)
		w.write(e)
		if w.rng.IntN(5) == 0 {
			w.write(e) // carriers say things twice
		}
	}
}

var returnCodes = []fanfarev1.Code{
	fanfarev1.Code_CODE_PAUSED, fanfarev1.Code_CODE_RATE, fanfarev1.Code_CODE_BREAKER, fanfarev1.Code_CODE_UNSUPPORTED, fanfarev1.Code_CODE_THROTTLED,
	fanfarev1.Code_CODE_CONTROL_BEHIND, fanfarev1.Code_CODE_WINDOW, fanfarev1.Code_CODE_PROVIDER_ERROR,
}

var bounceCodes = []fanfarev1.Code{
	fanfarev1.Code_CODE_EXPIRED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, fanfarev1.Code_CODE_MEMORY_FULL, fanfarev1.Code_CODE_PROVIDER_ERROR,
	fanfarev1.Code_CODE_BARRED, fanfarev1.Code_CODE_UNKNOWN_SUBSCRIBER,
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// outcome makes the outcome of a submission, and what the carrier will say of it later.
func (w *world) outcome(s submission) {
	c := w.camps[s.campaign]
	price := c.record.GetLegs()[s.leg-1].GetPriceMicros() * uint64(1+s.seq%2)
	e := event{campaign: s.campaign, seq: s.seq, try: uint32(s.try), leg: uint32(s.leg), price: price, at: ms(w.now)}
	if stopping(c.record) {
		e.kind, e.code = fanfarev1.Kind_KIND_SKIPPED, fanfarev1.Code_CODE_CANCELLED
		w.write(e)
		return
	}
	o := w.odds
	taken := false
	switch n := w.rng.IntN(o.sent + o.notSent + o.returned + o.ambiguous + o.lost); {
	case n < o.sent:
		e.kind, e.code = fanfarev1.Kind_KIND_SENT, fanfarev1.Code_CODE_AWAITING_DLR
		taken = true
	case n < o.sent+o.notSent:
		e.kind, e.code = fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_SPAM_CONTENT
	case n < o.sent+o.notSent+o.returned:
		e.kind, e.code = fanfarev1.Kind_KIND_RETURNED, pick(w.rng, returnCodes)
		if e.code == fanfarev1.Code_CODE_BREAKER || e.code == fanfarev1.Code_CODE_RATE {
			e.again = ms(w.now) + int64(w.rng.IntN(5000))
		}
	case n < o.sent+o.notSent+o.returned+o.ambiguous:
		e.kind, e.code = fanfarev1.Kind_KIND_AMBIGUOUS, fanfarev1.Code_CODE_TIMEOUT
		switch w.rng.IntN(3) {
		case 0:
			taken = true
		case 1: // the holder can prove that it did not
			late := e
			late.kind, late.code = fanfarev1.Kind_KIND_RETURNED, fanfarev1.Code_CODE_RATE
			w.owed = append(w.owed, late)
		}
	default:
		return // no outcome ever
	}
	w.write(e)
	if !taken {
		return
	}
	r := e
	r.price = 0
	switch n := w.rng.IntN(o.delivered + o.bounced + o.undelivered + o.silent); {
	case n < o.delivered:
		r.kind, r.code = fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED
	case n < o.delivered+o.bounced:
		r.kind, r.code = fanfarev1.Kind_KIND_BOUNCED, pick(w.rng, bounceCodes)
	case n < o.delivered+o.bounced+o.undelivered:
		r.kind, r.code = fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_HANDSET_ERROR
	default:
		return
	}
	w.owed = append(w.owed, r)
}

// saveCursors writes what the transactions of deals and sets write; the sets only now and then.
func (w *world) saveCursors(all bool) {
	all = all && w.core.atRest()
	for _, c := range w.core.open {
		if all {
			parts, _ := c.snapshot()
			w.saved.sets[c.number] = nil
			for _, p := range parts {
				w.saved.sets[c.number] = append(w.saved.sets[c.number], marshal(p))
			}
		}
		cur := c.cursor()
		if w.forgets {
			cur.Recent = nil
		}
		w.saved.cursors[c.number] = marshal(cur)
	}
	if all {
		w.saved.offsets = w.read
	}
}

func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

// takeOver replaces the core by a successor that knows what is in the topics.
func (w *world) takeOver() error {
	old := w.core
	w.core = newCore()
	w.core.evalCap = old.evalCap
	for number, b := range w.saved.cursors {
		cur := &fanfarev1.Cursor{}
		if err := proto.Unmarshal(b, cur); err != nil {
			return err
		}
		if w.camps[number].record.GetSettled() {
			continue
		}
		var parts []*fanfarev1.CursorSets
		for _, b := range w.saved.sets[number] {
			p := &fanfarev1.CursorSets{}
			if err := proto.Unmarshal(b, p); err != nil {
				return err
			}
			parts = append(parts, p)
		}
		if err := w.core.restore(cur, parts); err != nil {
			return err
		}
	}
	for _, r := range w.routes {
		w.core.RouteChanged(r)
	}
	for _, t := range old.tenants {
		w.core.TenantChanged(&fanfarev1.Tenant{Id: t.id, Rate: uint32(t.rate), Weight: uint32(t.weight), Enabled: t.enabled})
	}
	for _, c := range w.camps {
		w.core.CampaignChanged(cloneRecord(c.record))
	}
	was := w.read
	w.read = w.saved.offsets
	for p := range partitions {
		for w.read[p] < was[p] {
			w.readOne(p)
		}
	}
	return nil
}

// model is what the log says of every recipient of a campaign, by the table of precedence alone.
func (w *world) model(c *fakeCampaign) (census, uint64) {
	state := make([]schemas.Precedence, c.record.GetTotal())
	type tryOf struct {
		seq, try uint32
	}
	took, free, good := map[tryOf]uint64{}, map[tryOf]bool{}, map[tryOf]bool{}
	doubt, heard := map[tryOf]uint64{}, map[tryOf]bool{}
	for p := range partitions {
		for _, e := range w.log[p] {
			if e.campaign != c.record.GetNumber() {
				continue
			}
			p := schemas.PrecedenceOf(e.kind, e.try, e.code)
			state[e.seq] = schemas.Join(state[e.seq], p)
			at := tryOf{e.seq, e.try}
			switch {
			case e.kind == fanfarev1.Kind_KIND_SENT:
				took[at] = e.price
			case e.kind == fanfarev1.Kind_KIND_AMBIGUOUS:
				doubt[at] = max(doubt[at], e.price)
			case p.Class() == schemas.ClassPositive:
				good[at], heard[at] = true, true
			case e.kind == fanfarev1.Kind_KIND_BOUNCED, e.kind == fanfarev1.Kind_KIND_UNDELIVERED:
				heard[at] = true
				if info, _ := schemas.LookupCode(e.code); !info.Billed {
					free[at] = true
				}
			}
		}
	}
	var captured uint64
	for at, price := range doubt {
		if heard[at] {
			took[at] = max(took[at], price)
		}
	}
	for at, price := range took {
		if !free[at] || good[at] {
			captured += price
		}
	}
	out := census{total: uint64(len(state))}
	for _, p := range state {
		switch p.Bucket() {
		case schemas.BucketPending:
			out.pending++
		case schemas.BucketAmbiguous:
			out.ambiguous++
		case schemas.BucketNotSent, schemas.BucketSkipped:
			out.never++
		case schemas.BucketAwaiting:
			out.awaiting++
		case schemas.BucketUndelivered:
			out.undelivered++
		case schemas.BucketDelivered:
			out.delivered++
		case schemas.BucketFact:
		}
	}
	return out, captured
}

// places leaves of a census what a model can know.
func (c census) places() census {
	c.undealt, c.inFlight, c.waiting = 0, 0, 0
	return c
}

// drain reads the log to its end.
func (w *world) drain() {
	for p := range partitions {
		for w.read[p] < len(w.log[p]) {
			w.readOne(p)
		}
	}
}
