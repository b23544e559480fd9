package main

import (
	"fmt"
	"hash/fnv"
	"math/bits"
	"sync"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// ledger has what was requested and what became of it. It knows the promises.
type ledger struct {
	mu         sync.Mutex
	recipients []recipient
	campaigns  map[uint64]int // place of the first recipient, by the campaign's number
	people     int            // of each campaign
	singles    map[schemas.ID]int
	early      map[schemas.ID][]early // events of messages that no request has returned yet
	earlyAll   int
	forgotten  int // early events for which there was no room

	answered, final int // recipients with an outcome, with a final state
	sent, delivered histogram
	doubles         []string
	lastAnswer      time.Time
	events          uint64
}

// recipient is one recipient of a campaign or of a single send.
type recipient struct {
	asked     time.Time // when the request was made
	state     schemas.Precedence
	ref       uint32 // hash of the provider's id of the newest try that was sent
	refTry    uint8
	sent      uint64 // tries that were handed over: bit n is try n; later tries share the last bit
	ambiguous uint64
	resolved  uint64 // tries about which something but ambiguous is known
	bounced   uint64
	wasSent   bool // an event said so
	neverLeft bool // it has a final outcome by which it was never handed over
	delivered bool
	maybe     bool // of a campaign whose confirm the API has not answered: it may never have been asked for
}

// early is an event that came before the answer to its request.
type early struct {
	event *fanfarev1.Delivery
	at    time.Time
}

// mostEarly bounds the early events. Other clients of the installation cause them, too.
const mostEarly = 100_000

func newLedger(o *options) *ledger {
	return &ledger{
		recipients: make([]recipient, 0, o.total()), campaigns: map[uint64]int{}, people: o.people,
		singles: make(map[schemas.ID]int, o.singles), early: map[schemas.ID][]early{},
	}
}

// askCampaign adds the recipients of a campaign that is about to be confirmed; confirmed says that it was.
func (l *ledger) askCampaign(number uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.campaigns[number] = len(l.recipients)
	for range l.people {
		l.recipients = append(l.recipients, recipient{asked: at, maybe: true})
	}
}

func (l *ledger) confirmed(number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := l.campaigns[number]
	for i := range l.people {
		l.recipients[first+i].maybe = false
	}
}

// askSingle adds a single send that the API has accepted.
func (l *ledger) askSingle(id schemas.ID, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.singles[id]; ok {
		l.doubles = append(l.doubles, fmt.Sprintf("%s: the API has returned this id for two messages", id))
		return
	}
	l.singles[id] = len(l.recipients)
	l.recipients = append(l.recipients, recipient{asked: at})
	for _, e := range l.early[id] {
		l.apply(&l.recipients[len(l.recipients)-1], e.event, e.at)
	}
	l.earlyAll -= len(l.early[id])
	delete(l.early, id)
}

// read takes an event. It ignores events of messages that this run did not ask for.
func (l *ledger) read(d *fanfarev1.Delivery, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first, ok := l.campaigns[d.GetCampaignNumber()]; ok {
		if seq := int(d.GetSeq()); seq < l.people {
			l.apply(&l.recipients[first+seq], d, at)
		} else {
			l.doubles = append(l.doubles, fmt.Sprintf("%s: an event of recipient %d, and the campaign has %d", d.GetCampaignId(), seq, l.people))
		}
		return
	}
	id, err := schemas.IDFromBytes(d.GetMessageId())
	if err != nil {
		return
	}
	if i, ok := l.singles[id]; ok {
		l.apply(&l.recipients[i], d, at)
		return
	}
	if l.earlyAll == mostEarly {
		l.forgotten++
		return
	}
	l.earlyAll++
	l.early[id] = append(l.early[id], early{d, at})
}

// bit returns the bit of a try.
func bit(try uint32) uint64 { return 1 << min(try, 63) }

// apply adds an event to a recipient.
func (l *ledger) apply(r *recipient, d *fanfarev1.Delivery, at time.Time) {
	l.events++
	try := bit(d.GetTry())
	was := r.state
	r.state = schemas.Join(r.state, schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
	if d.GetKind() != schemas.KindAmbiguous {
		r.resolved |= try
	}
	switch d.GetKind() {
	case schemas.KindAmbiguous:
		r.ambiguous |= try
	case schemas.KindSent:
		if !r.wasSent {
			r.wasSent = true
			l.sent.add(at.Sub(r.asked))
		}
		ref := hash(d.GetProviderId())
		if r.refTry == uint8(min(d.GetTry(), schemas.MaxTry)) && r.ref != ref {
			l.double(d, "the carrier took try %d twice, as two of its ids say", d.GetTry())
		}
		r.sent |= try
		r.ref, r.refTry = ref, uint8(min(d.GetTry(), schemas.MaxTry))
	case schemas.KindBounced:
		r.sent |= try
		r.bounced |= try
	case schemas.KindBuffered, schemas.KindUnconfirmed, schemas.KindUndelivered:
		r.sent |= try
	case schemas.KindNotSent, schemas.KindSkipped:
		r.neverLeft = true
	case schemas.KindDelivered, schemas.KindRead:
		r.sent |= try
		if !r.delivered {
			r.delivered = true
			l.delivered.add(at.Sub(r.asked))
		}
	default: // a return, and facts such as clicks
	}
	if !answered(was) && answered(r.state) {
		l.answered++
		l.lastAnswer = at
	}
	if !final(was) && final(r.state) {
		l.final++
	}
}

func (l *ledger) double(d *fanfarev1.Delivery, format string, args ...any) {
	l.doubles = append(l.doubles, fmt.Sprintf("%s recipient %d: ", d.GetCampaignId(), d.GetSeq())+fmt.Sprintf(format, args...))
}

// answered reports whether a state is an answer: the recipient is not pending.
func answered(p schemas.Precedence) bool { return p != 0 && p.Bucket() != schemas.BucketPending }

// final reports whether no receipt is awaited.
func final(p schemas.Precedence) bool {
	switch p.Bucket() {
	case schemas.BucketNotSent, schemas.BucketSkipped, schemas.BucketUndelivered, schemas.BucketDelivered:
		return p != 0
	default:
		return false
	}
}

func hash(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s))
	return h.Sum32()
}

// progress returns how many recipients there are, how many have an answer and a final state, and when the last answer
// came.
func (l *ledger) progress() (all, answered, final int, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.recipients), l.answered, l.final, l.lastAnswer
}

// mostBreaches is how many breaches are told in words; all are counted.
const mostBreaches = 20

// breach returns what is wrong with a recipient, "" if nothing is.
func (r *recipient) breach() string {
	taken := r.sent &^ r.bounced
	doubtful := r.ambiguous &^ r.resolved
	switch {
	case r.state == 0 && r.maybe:
		return ""
	case r.state == 0:
		return "lost: no event ever came (P1, P2)"
	case !answered(r.state):
		return "pending at the end: no outcome came (P2)"
	case bits.OnesCount64(taken) > 1:
		return "handed over again without a bounce of the try before (P3)"
	case doubtful != 0 && r.sent>>(bits.TrailingZeros64(doubtful)+1) != 0:
		return "handed over again after a try whose outcome is not known (P3)"
	case r.neverLeft && taken != 0:
		return "a final outcome says that it was never sent, and a try was handed over (P2)"
	default:
		return ""
	}
}

// verdict returns how many promises are broken, the first of them in words, and the recipients by state.
func (l *ledger) verdict() (broken int, words []string, states map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	states = map[string]int{}
	tell := func(text string) {
		if broken++; len(words) < mostBreaches {
			words = append(words, text)
		}
	}
	for _, text := range l.doubles {
		tell(text)
	}
	for i := range l.recipients {
		r := &l.recipients[i]
		states[r.state.Bucket().String()]++
		if text := r.breach(); text != "" {
			tell(fmt.Sprintf("recipient %d of the run: %s", i, text))
		}
	}
	return broken, words, states
}
