package plan

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

// env is everything around the planner, in memory and with a clock of its own: a store, a carrier, the log of
// deliveries. One seed drives it. Its oracles see what the planner deals and what really happened, never the planner's
// own state.
type env struct {
	rng     *rand.Rand
	planner *Planner
	now     time.Time
	camps   map[uint64]*fakeCampaign
	routes  []*fanfarev1.Route
	log     [partitions][]Event // of deliveries
	read    [partitions]int     // up to which offset the planner has read each partition
	about   map[[2]uint64][]int // places in the log, by campaign and seq
	saved   saved
	flying  []submission // dealt, no outcome yet
	owed    []Event      // receipts and late answers
	odds    odds
	faults  []string // what the oracles saw
	// The store answers with a conflict now and then.
	conflicts bool

	submitted map[submission]int
	settled   map[uint64]uint64 // captured
	completed map[uint64]bool
	dealtTo   map[string]int       // recipients dealt, by tenant
	weights   map[[2]uint64]uint32 // of the first deal, by campaign and seq
	// Money by campaign: what was captured so far, and the most that it could still cost by the newest report.
	soFar, mostCost map[uint64]uint64
	moneySteps      int
	// mayDeal is one more oracle: whether a recipient may be dealt now.
	mayDeal func(c *fakeCampaign, seq uint32) bool
	// waitsUntil says until when a recipient's hours are closed, zero: they are open. The sender returns those that it
	// gets while they are closed.
	waitsUntil func(c *fakeCampaign, seq uint32) time.Time

	// domains answers requests for domains of links; nil: no campaign has any. seeDeal and seeMove are further oracles.
	domains func(schemas.DomainRequest) []*fanfarev1.DomainBlock
	seeDeal func(*Deal)
	seeMove func(*schemas.Change)

	// health of the routes, and the routes that were away when the planner last heard of it; see failover_test.go.
	health map[string]schemas.RouteHealth
	away   map[string]bool

	// Planted bugs, with which TestOraclesCatch checks the oracles.
	tamper  func(*Event) bool // changes the event that the planner reads; false: the planner never reads it
	forgets bool              // cursors do not list the deals since the last snapshot
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

// odds are the relative weights of the outcomes of a submission, and of the receipts that follow it.
type odds struct {
	sent, notSent, returned, ambiguous, lost int
	// for submissions that the carrier accepted, whether their outcome is sent or ambiguous
	delivered, bounced, undelivered, silent int
}

// saved is the content of topic `cursors`.
type saved struct {
	cursors map[uint64][]byte
	sets    map[uint64][][]byte
	offsets [partitions]int
}

func newEnv(seed uint64) *env {
	w := &env{
		rng: rand.New(rand.NewPCG(seed, 1)), planner: New(), now: time.Date(2030, 3, 4, 10, 0, 0, 0, time.UTC),
		camps: map[uint64]*fakeCampaign{}, submitted: map[submission]int{},
		settled: map[uint64]uint64{}, completed: map[uint64]bool{}, dealtTo: map[string]int{}, weights: map[[2]uint64]uint32{},
		about: map[[2]uint64][]int{}, soFar: map[uint64]uint64{}, mostCost: map[uint64]uint64{},
		saved: saved{cursors: map[uint64][]byte{}, sets: map[uint64][][]byte{}},
		odds:  odds{sent: 70, notSent: 5, returned: 10, ambiguous: 10, lost: 1, delivered: 60, bounced: 20, undelivered: 10, silent: 10},
	}
	return w
}

func (w *env) fault(format string, args ...any) {
	if len(w.faults) < 5 {
		w.faults = append(w.faults, fmt.Sprintf(format, args...))
	}
}

func (w *env) addRoute(name string, rate uint32) {
	r := &fanfarev1.Route{Name: name, Rate: rate, P99Ms: 300, Enabled: true, ReceiptWindowMs: time.Hour.Milliseconds(), Care: schemas.DefaultCare()}
	r.Care.NoFailover = false
	w.routes = append(w.routes, r)
	w.planner.setRoute(r)
}

func (w *env) addTenant(id string, rate, weight uint32) {
	w.planner.setTenant(&fanfarev1.Tenant{Id: id, Rate: rate, Weight: weight, Enabled: true})
}

// addCampaign makes a confirmed campaign whose audience is frozen.
func (w *env) addCampaign(number uint64, tenant string, total uint32, blob uint32, legs ...*fanfarev1.Leg) *fakeCampaign {
	c := &fakeCampaign{record: &fanfarev1.Campaign{
		Tenant: tenant, Id: schemas.CampaignID(number), Number: number, Version: 5, State: schemas.StatePreparing,
		Legs: legs, FreezeId: fmt.Sprint("freeze", number), Total: total, MaxSegments: 2, ValidityMs: time.Hour.Milliseconds(), ConfirmedMs: ms(w.now), CreatedMs: ms(w.now),
	}}
	for at := uint32(0); at < total; at += blob {
		c.blobs = append(c.blobs, audience.Index{Blob: uint32(len(c.blobs)), First: at, Count: min(blob, total-at), Zone: "Europe/Rome"})
	}
	w.camps[number] = c
	w.planner.CampaignChanged(cloneRecord(c.record))
	return c
}

func smsLeg(handovers uint32) *fanfarev1.Leg {
	return &fanfarev1.Leg{Channel: schemas.ChannelSMS, Route: "sim", Sender: "S", PriceMicros: 50_000, MaxHandovers: handovers, BackoffMs: []int64{20_000, 60_000}}
}

func rcsLeg(route string) *fanfarev1.Leg {
	return &fanfarev1.Leg{Channel: schemas.ChannelRCS, Route: route, Sender: "S", PriceMicros: 80_000, MaxHandovers: 1, BackoffMs: []int64{20_000}}
}

// set changes a campaign as a user does.
func (w *env) set(c *fakeCampaign, change func(*fanfarev1.Campaign)) {
	c.record = cloneRecord(c.record)
	c.record.Version++
	change(c.record)
	w.planner.CampaignChanged(cloneRecord(c.record))
}

// step is one round of the scheduler's loop: store, ends, deals, and then a part of the log.
func (w *env) step(deliver int) {
	w.serveStore()
	ends := w.planner.Ends(w.now, 1000)
	for _, e := range ends {
		c := w.camps[e.Campaign.number]
		if c == nil {
			continue
		}
		w.write(Event{Campaign: e.Campaign.number, Seq: e.Seq, Try: uint32(e.Try), Leg: uint32(e.Leg), Kind: e.Kind, Code: e.Code, TimeMs: ms(w.now)})
	}
	for _, d := range w.planner.Deals(w.now) {
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

func (w *env) readOne(p int) {
	e := w.log[p][w.read[p]]
	w.read[p]++
	if w.tamper != nil && !w.tamper(&e) {
		return
	}
	w.planner.Observe(&e)
}

// serveStore makes the store calls that the planner requests, with a conflict now and then.
func (w *env) serveStore() {
	for _, want := range w.planner.AudienceRequests(w.now) {
		c := w.camps[want.Number]
		if err := w.planner.AudienceAnswered(want, c.blobs, nil, w.now); err != nil {
			w.fault("Wanted: %v", err)
		}
	}
	for _, r := range w.planner.DomainRequests() {
		w.planner.DomainsAnswered(r, w.domains(r), nil, w.now)
	}
	for _, ch := range w.planner.Moves(w.now) {
		if w.seeMove != nil {
			w.seeMove(&ch)
		}
		number, _ := schemas.CampaignNumber(ch.Campaign)
		c := w.camps[number]
		if w.conflicts && w.rng.IntN(10) == 0 {
			w.planner.MoveFailed(ch, w.now)
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
		} else if ch.Trigger == "" && ch.To == c.record.GetState() {
			w.moneySteps++
		} else if !schemas.CanTransition(c.record.GetState(), ch.To, ch.Trigger) {
			w.fault("%s: %s from %s to %s is not in the table", ch.Campaign, ch.Trigger, c.record.GetState(), ch.To)
		}
		w.checkMoney(number, &ch)
		if ch.Trigger == schemas.TriggerComplete {
			w.completed[number] = true
			w.checkCompleted(c)
		}
		r := cloneRecord(c.record)
		r.Version++
		r.State, r.Settled = ch.To, r.GetSettled() || ch.Settled
		if r.GetState() == schemas.StateCompleted && r.GetCompletedMs() == 0 {
			r.CompletedMs = ms(w.now)
		}
		if ch.Settled {
			r.SettledMs = ms(w.now)
		} else {
			r.Reason = ch.Reason
		}
		c.record = r
		w.planner.Moved(ch, r.GetVersion())
		if w.rng.IntN(2) == 0 { // the published record arrives at once, or with the next change
			w.planner.CampaignChanged(cloneRecord(r))
		}
	}
}

// checkMoney checks that the captured amount never falls, and remembers the most that the campaign may cost by this
// report.
func (w *env) checkMoney(number uint64, ch *schemas.Change) {
	if !ch.Settled && ch.CapturedSoFar < w.soFar[number] {
		w.fault("%s: captured so far %d, it was %d", ch.Campaign, ch.CapturedSoFar, w.soFar[number])
	}
	w.soFar[number] = max(w.soFar[number], ch.CapturedSoFar)
	if bound, said := w.mostCost[number]; ch.MaxLeft != nil && (!said || ch.CapturedSoFar+*ch.MaxLeft < bound) {
		w.mostCost[number] = ch.CapturedSoFar + *ch.MaxLeft
	}
	if !ch.Settled {
		return
	}
	if ch.Captured < w.soFar[number] {
		w.fault("%s settled with %d captured, %d were captured before", ch.Campaign, ch.Captured, w.soFar[number])
	}
	if bound, said := w.mostCost[number]; said && ch.Captured > bound {
		w.fault("%s cost %d, %d at most were left reserved", ch.Campaign, ch.Captured, bound)
	}
}

// checkCompleted checks that every recipient has an outcome for its last try, and that none waits.
func (w *env) checkCompleted(c *fakeCampaign) {
	for _, s := range w.flying {
		if s.campaign == c.record.GetNumber() {
			w.fault("%s completed with seq %d of try %d in flight", c.record.GetId(), s.seq, s.try)
		}
	}
}

// dealt checks a deal with the oracles of what may be dealt, then puts it in flight.
func (w *env) dealt(d Deal) {
	c := w.camps[d.Campaign.number]
	r := c.record
	seqs := d.members()
	if w.seeDeal != nil {
		w.seeDeal(&d)
	}
	b := c.blobs[d.blob]
	if seqs.Minimum() < b.First || seqs.Maximum() >= b.First+b.Count {
		w.fault("deal %d crosses the bounds of blob %d", d.Number, d.blob)
	}
	if d.Cancel != stopping(r) && d.code != schemas.CodeQuietHoursExpired {
		w.fault("deal %d of a campaign %s: cancel is %v", d.Number, r.GetState(), d.Cancel)
	}
	if !d.Cancel && !dealing(r) {
		w.fault("dealt while %s", r.GetState())
	}
	w.checkRoute(&d)
	if !d.Cancel {
		w.dealtTo[r.GetTenant()] += int(seqs.GetCardinality())
	}
	seqs.Iterate(func(seq uint32) bool {
		s := submission{d.Campaign.number, seq, d.Try, 0}
		if w.submitted[s]++; w.submitted[s] > 1 {
			w.fault("campaign %d seq %d try %d dealt %d times", s.campaign, seq, d.Try, w.submitted[s])
		}
		if d.Try > 1 {
			w.checkProof(s.campaign, seq, uint32(d.Try))
		}
		if d.Cancel {
			w.write(Event{Campaign: s.campaign, Seq: seq, Try: uint32(d.Try), Leg: uint32(d.Leg), Kind: d.outcome, Code: d.code, TimeMs: ms(w.now)})
			return true
		}
		w.checkWeights(&d, seq)
		if w.mayDeal != nil && !w.mayDeal(c, seq) {
			w.fault("campaign %d seq %d try %d dealt at %s, outside the hours of its zone", s.campaign, seq, d.Try, w.now)
		}
		w.flying = append(w.flying, submission{d.Campaign.number, seq, d.Try, d.Leg})
		return true
	})
}

// checkWeights checks R38: a recipient's first deal names the weights that are current then, and every later deal of it
// names the same.
func (w *env) checkWeights(d *Deal, seq uint32) {
	at := [2]uint64{d.Campaign.number, uint64(seq)}
	first, known := w.weights[at]
	got := d.Chunk().GetWeights()
	if d.Try == 1 {
		first = uint32(max(len(w.camps[d.Campaign.number].record.GetWeights()), 1) - 1)
		w.weights[at] = first
	} else if !known {
		return
	}
	if got != first {
		w.fault("campaign %d seq %d try %d: weights %d, want %d", d.Campaign.number, seq, d.Try, got, first)
	}
}

// checkProof checks P3: the sender returned the try before, or that try bounced, and the planner has read no final
// receipt.
func (w *env) checkProof(campaign uint64, seq, n uint32) {
	var proof bool
	p := seq % partitions
	for _, i := range w.about[[2]uint64{campaign, uint64(seq)}] {
		if i >= w.read[p] {
			break
		}
		e := w.log[p][i]
		if class := schemas.PrecedenceOf(e.Kind, e.Try, e.Code).Class(); class == schemas.ClassNegative || class == schemas.ClassPositive || class == schemas.ClassNeverLeft {
			w.fault("campaign %d seq %d: try %d after %s", campaign, seq, n, e.Kind)
		}
		if e.Try == n-1 && (e.Kind == schemas.KindReturned || e.Kind == schemas.KindBounced) {
			proof = true
		}
	}
	if !proof {
		w.fault("campaign %d seq %d: try %d without proof", campaign, seq, n)
	}
}

// write appends an event to the log.
func (w *env) write(e Event) {
	e.CampaignID, e.Tenant = []byte(schemas.CampaignID(e.Campaign)), []byte(testTenant)
	e.LoggedMs = ms(w.now)
	p, key := e.Seq%partitions, [2]uint64{e.Campaign, uint64(e.Seq)}
	w.about[key] = append(w.about[key], len(w.log[p]))
	w.log[p] = append(w.log[p], e)
}

// carry writes the outcomes of some submissions in flight, and some receipts.
func (w *env) carry(most int) {
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
		e.TimeMs = ms(w.now)
		w.write(e)
		if w.rng.IntN(5) == 0 {
			w.write(e) // carriers say things twice
		}
	}
}

var returnCodes = []schemas.Code{
	schemas.CodePaused, schemas.CodeRate, schemas.CodeBreaker, schemas.CodeUnsupported, schemas.CodeThrottled,
	schemas.CodeControlBehind, schemas.CodeWindow, schemas.CodeProviderError,
}

var bounceCodes = []schemas.Code{
	schemas.CodeExpired, schemas.CodeAbsentSubscriber, schemas.CodeMemoryFull, schemas.CodeProviderError,
	schemas.CodeBarred, schemas.CodeUnknownSubscriber,
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// outcome makes the outcome of a submission and the receipts that the carrier will send later.
func (w *env) outcome(s submission) {
	c := w.camps[s.campaign]
	price := c.record.GetLegs()[s.leg-1].GetPriceMicros() * uint64(1+s.seq%2)
	e := Event{Campaign: s.campaign, Seq: s.seq, Try: uint32(s.try), Leg: uint32(s.leg), PriceMicros: price, TimeMs: ms(w.now)}
	if stopping(c.record) {
		e.Kind, e.Code = schemas.KindSkipped, schemas.CodeCancelled
		w.write(e)
		return
	}
	if w.waitsUntil != nil {
		if again := w.waitsUntil(c, s.seq); !again.IsZero() {
			e.Kind, e.Code, e.AgainMs = schemas.KindReturned, schemas.CodeWindow, ms(again)
			w.write(e)
			return
		}
	}
	o := w.odds
	taken := false
	switch n := w.rng.IntN(o.sent + o.notSent + o.returned + o.ambiguous + o.lost); {
	case n < o.sent:
		e.Kind, e.Code = schemas.KindSent, schemas.CodeAwaitingDLR
		taken = true
	case n < o.sent+o.notSent:
		e.Kind, e.Code = schemas.KindNotSent, schemas.CodeSpamContent
	case n < o.sent+o.notSent+o.returned:
		e.Kind, e.Code = schemas.KindReturned, pick(w.rng, returnCodes)
		if e.Code == schemas.CodeBreaker || e.Code == schemas.CodeRate {
			e.AgainMs = ms(w.now) + int64(w.rng.IntN(5000))
		}
	case n < o.sent+o.notSent+o.returned+o.ambiguous:
		e.Kind, e.Code = schemas.KindAmbiguous, schemas.CodeTimeout
		switch w.rng.IntN(3) {
		case 0:
			taken = true
		case 1: // the sender can prove that it did not hand the message over
			late := e
			late.Kind, late.Code = schemas.KindReturned, schemas.CodeRate
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
	r.PriceMicros = 0
	switch n := w.rng.IntN(o.delivered + o.bounced + o.undelivered + o.silent); {
	case n < o.delivered:
		r.Kind, r.Code = schemas.KindDelivered, schemas.CodeDelivered
	case n < o.delivered+o.bounced:
		r.Kind, r.Code = schemas.KindBounced, pick(w.rng, bounceCodes)
	case n < o.delivered+o.bounced+o.undelivered:
		r.Kind, r.Code = schemas.KindUndelivered, schemas.CodeHandsetError
	default:
		return
	}
	w.owed = append(w.owed, r)
}

// saveCursors writes the cursors, as the transactions of deals do, and now and then the sets, as a snapshot does.
func (w *env) saveCursors(all bool) {
	all = all && !w.planner.EndsPending()
	for _, c := range w.planner.open {
		if all {
			parts, _ := c.Snapshot()
			w.saved.sets[c.number] = nil
			for _, p := range parts {
				w.saved.sets[c.number] = append(w.saved.sets[c.number], marshal(p))
			}
		}
		cur := c.Cursor()
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

// takeOver replaces the planner by a successor that knows only what the topics hold.
func (w *env) takeOver() error {
	old := w.planner
	w.planner = New()
	w.planner.evalCap = old.evalCap
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
		if err := w.planner.Restore(cur, parts, w.now); err != nil {
			return err
		}
	}
	for _, r := range w.routes {
		w.planner.setRoute(r)
	}
	for _, t := range old.tenants {
		w.planner.setTenant(&fanfarev1.Tenant{Id: t.id, Rate: uint32(t.rate), Weight: uint32(t.weight), Enabled: t.enabled})
	}
	for _, c := range w.camps {
		w.planner.CampaignChanged(cloneRecord(c.record))
	}
	was := w.read
	w.read = w.saved.offsets
	for p := range partitions {
		for w.read[p] < was[p] {
			w.readOne(p)
		}
	}
	w.feelAll()
	return nil
}

// model computes the state of every recipient of a campaign from the log, by the table of precedence alone.
func (w *env) model(c *fakeCampaign) (counts, uint64) {
	state := make([]schemas.Precedence, c.record.GetTotal())
	type tryOf struct {
		seq, try uint32
	}
	took, doubt := map[tryOf]uint64{}, map[tryOf]uint64{}
	receipt := map[tryOf]schemas.Precedence{} // the receipt of the try with the greatest precedence
	for p := range partitions {
		for _, e := range w.log[p] {
			if e.Campaign != c.record.GetNumber() {
				continue
			}
			p := schemas.PrecedenceOf(e.Kind, e.Try, e.Code)
			state[e.Seq] = schemas.Join(state[e.Seq], p)
			at := tryOf{e.Seq, e.Try}
			switch {
			case e.Kind == schemas.KindSent:
				took[at] = e.PriceMicros
			case e.Kind == schemas.KindAmbiguous:
				doubt[at] = max(doubt[at], e.PriceMicros)
			case p.Class() >= schemas.ClassNegative, e.Kind == schemas.KindBuffered, e.Kind == schemas.KindBounced:
				receipt[at] = max(receipt[at], p)
			}
		}
	}
	var captured uint64
	for at, price := range doubt {
		if receipt[at] != 0 {
			took[at] = max(took[at], price)
		}
	}
	for at, price := range took {
		info, known := schemas.LookupCode(receipt[at].Code())
		failed := receipt[at].Class() == schemas.ClassNegative || receipt[at].Kind() == schemas.KindBounced
		if !failed || !known || info.Billed {
			captured += price
		}
	}
	out := counts{total: uint64(len(state))}
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

// places returns only those counts that the model can compute, too.
func (c counts) places() counts {
	c.undealt, c.inFlight, c.waiting = 0, 0, 0
	return c
}

// drain reads the log to its end.
func (w *env) drain() {
	for p := range partitions {
		for w.read[p] < len(w.log[p]) {
			w.readOne(p)
		}
	}
}
