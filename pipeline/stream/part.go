package stream

import (
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// part is the window over one partition, from one assignment to the next. Its fields are guarded by the window's mu unless
// they say otherwise.
type part struct {
	w      *Window
	id     int32
	source string // header source of its outcomes, less the offset; never changes
	member string // as whom we were given it: another member id means that somebody else may have had it since

	stopped atomic.Bool // nothing of it may be begun; see why
	why     stop
	gone    bool // it is not ours any more

	from  int64 // committed when we were given it
	base  int64 // committed
	head  int64 // declared by an acknowledged commit
	next  int64 // after the last record polled
	epoch int32 // of the leader, of the last record polled
	high  int64 // where the log ended when it was polled last

	// What earlier owners left: below uncertain they may have handed over, unless the marks say otherwise; known was settled by
	// ourselves under an earlier assignment.
	uncertain int64
	marks     marks // all, for the commits until the base has passed them
	ahead     marks // of what has not been polled yet
	known     *settledHere
	seen      *seen // the poller's
	polled    int64 // next, the poller's

	// items are the records from the base on. The first declared of them are covered by head, the first released of those have
	// been given out. What is done is taken off the front while a commit is planned.
	items              []*Item
	declared, released int
	declare            int // declared, once the commit that is planned is accepted

	sent    []sentCommit // commits since the last one whose fate is known
	refusal error        // of the last commit that was refused
	retryAt time.Time    // when that is looked at again
	retry   *backoff
	paused  bool
	movedAt time.Time // when the base moved last
}

// settledHere is what this process has settled of a partition, under earlier assignments too.
type settledHere struct {
	spans  []span
	single map[int64]struct{} // above the spans
	// doubtful is what it has begun and not settled: handed over, perhaps, whatever a broker that lost commits says.
	doubtful map[int64]struct{}
}

func (s *settledHere) has(offset int64) bool {
	if s == nil {
		return false
	}
	_, ok := s.single[offset]
	return ok || slices.ContainsFunc(s.spans, func(a span) bool { return a.from <= offset && offset < a.to })
}

func (s *settledHere) doubts(offset int64) bool {
	if s == nil {
		return false
	}
	_, ok := s.doubtful[offset]
	return ok
}

// settledHere returns what was settled here until now: all from the first offset up to the oldest record without an outcome,
// taken off the items or not, and what is done above it; and what was begun.
func (p *part) settledHere() *settledHere {
	s := &settledHere{single: map[int64]struct{}{}, doubtful: map[int64]struct{}{}}
	if p.known != nil {
		s.spans = slices.Clone(p.known.spans)
		maps.Copy(s.single, p.known.single)
		maps.Copy(s.doubtful, p.known.doubtful)
	}
	s.spans = append(s.spans, span{p.from, p.oldest()})
	for _, it := range p.items {
		switch state := it.state.Load(); {
		case state == itemDone:
			s.single[it.Record.Offset] = struct{}{}
		case state == itemBegun || state == itemSettling || it.Uncertain:
			s.doubtful[it.Record.Offset] = struct{}{}
		}
	}
	return s
}

// stop is why a part is stopped.
type stop uint8

const (
	stopNone      stop = iota
	stopRefused        // a commit was refused: what is committed must be read
	stopProbing        // what is committed is ours: a commit must be accepted
	stopReset          // what is committed is not ours: begin anew from it
	stopSuspended      // a person must look at it
	stopLeaving        // it is being handed over
)

// sentCommit is what a commit may have left at the broker.
type sentCommit struct {
	base, head int64
	metadata   string
}

func newPart(w *Window, id int32, member string, base int64, epoch int32, in intent, s *seen, known *settledHere) *part {
	return &part{
		w: w, id: id, member: member,
		source: w.cfg.Topic + "/" + strconv.Itoa(int(id)) + "/",
		from:   base, base: base, head: in.head, next: base, epoch: epoch, high: base,
		uncertain: in.head, marks: in.marks, ahead: in.marks, known: known, seen: s, polled: base,
		movedAt: time.Now(),
	}
}

// recognise makes items of polled records and remembers their submissions; what was seen before is marked. Only the poller
// calls it, and without the lock: it is most of what a record costs here.
func (p *part) recognise(recs []*kgo.Record) (block []Item, again []bool) {
	block = make([]Item, len(recs)) // one allocation for all
	again = make([]bool, len(recs))
	for k, r := range recs {
		block[k].Record, block[k].p = r, p
		if r.Offset < p.polled {
			continue // polled before a reset; it must not be its own twin
		}
		p.polled = r.Offset + 1
		if r.Attrs.IsControl() {
			continue // nobody's submission
		}
		if id, err := p.w.cfg.Identity(r); err == nil {
			again[k] = !p.seen.remember(id)
		}
	}
	return block, again
}

// take puts recognised records in and returns how many of them were seen before and how many are uncertain.
func (p *part) take(block []Item, again []bool) (dropped, doubts int) {
	p.items = slices.Grow(p.items, len(block))
	for k := range block {
		it := &block[k]
		r := it.Record
		if r.Offset < p.next {
			continue
		}
		p.next, p.epoch = r.Offset+1, r.LeaderEpoch
		if r.Attrs.IsControl() {
			continue // it ends a transaction; the base passes it, or stays below the log once an idle one has expired
		}
		switch f := p.ahead.at(r.Offset); {
		case p.known.has(r.Offset) || f == settled:
			it.state.Store(itemDone)
		case f == doubtful || r.Offset < p.uncertain || p.known.doubts(r.Offset):
			it.Uncertain = true
			doubts++
		case again[k]:
			it.state.Store(itemDone)
			dropped++
		}
		if r.Offset < p.head {
			p.declared++
		}
		p.items = append(p.items, it)
	}
	return dropped, doubts
}

// trim takes what is done off the front.
func (p *part) trim() {
	n := 0
	for n < len(p.items) && p.items[n].state.Load() == itemDone {
		p.items[n] = nil
		n++
	}
	if n > 0 {
		p.items = p.items[n:]
		p.declared = max(0, p.declared-n)
		p.released = max(0, p.released-n)
		p.movedAt = time.Now()
	}
}

// oldest is the base that a commit may settle now: the oldest record without an acknowledged outcome.
func (p *part) oldest() int64 {
	if len(p.items) > 0 {
		return p.items[0].Record.Offset
	}
	return p.next
}

// undeclared is how many records wait to be declared.
func (p *part) undeclared() int { return len(p.items) - p.declared }

// intent returns what a commit says that declares the first n items.
func (p *part) intent(n int) intent {
	in := intent{head: p.head, marks: p.marks}
	if n > 0 && n <= len(p.items) {
		in.head = max(in.head, p.items[n-1].Record.Offset+1)
	}
	in.head = max(in.head, p.oldest())
	return in
}

// handOver returns what a commit says that hands the partition over: nothing is declared any more, and marks say what of it is
// settled and what nobody knows.
func (p *part) handOver() (in intent, doubts int) {
	in.head = p.oldest()
	last := untouched
	for _, it := range p.items {
		f := untouched
		switch state := it.state.Load(); {
		case state == itemDone:
			f = settled
		case state == itemBegun || state == itemSettling || it.Uncertain:
			f = doubtful
			doubts++
		}
		in.marks = in.marks.add(it.Record.Offset, f, f == last)
		last = f
	}
	// What earlier owners left and we have not polled.
	at := p.next
	doubt := func(to int64) {
		if to > at {
			in.marks = append(in.marks, mark{at, to, doubtful})
		}
	}
	for _, m := range p.ahead {
		if m.to <= at {
			continue
		}
		from := max(m.from, at)
		doubt(min(from, p.uncertain))
		in.marks = append(in.marks, mark{from, m.to, m.fate})
		at = m.to
	}
	doubt(p.uncertain)
	return in, doubts
}

// stop stops the part: nothing of it is begun or released any more.
func (p *part) stop(why stop) {
	p.why = why
	p.stopped.Store(true)
}

// start lets it work again.
func (p *part) start() {
	p.why, p.retry, p.sent = stopNone, nil, nil
	p.stopped.Store(false)
}

// recall takes back what was given out and not begun, for good.
func (p *part) recall() {
	for _, it := range p.items[:p.released] {
		for {
			state := it.state.Load()
			if state != itemReleased && state != itemRecalled {
				break
			}
			if it.state.CompareAndSwap(state, itemGone) {
				if state == itemRecalled {
					p.w.recalled.Add(-1)
				}
				p.w.done()
				break
			}
		}
	}
}

// inFlight is how many items are begun, or settled and not acknowledged.
func (p *part) inFlight() (n int) {
	for _, it := range p.items {
		if state := it.state.Load(); state == itemBegun || state == itemSettling {
			n++
		}
	}
	return n
}
