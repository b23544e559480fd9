package window

import (
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// part is the window over one partition, from its assignment to its end. The window's mu guards the fields, unless they
// say otherwise.
type part struct {
	w      *Window
	id     int32
	source string // header source of its outcomes, without the offset; never changes
	// Our member id at the assignment. If the id has changed, another member may have owned the partition since.
	member string

	stopped atomic.Bool // no item of it may begin; why has the reason
	why     stop
	gone    bool // this process does not own it any more

	from  int64 // committed offset at the assignment
	base  int64 // committed offset
	head  int64 // declared by an acknowledged commit
	next  int64 // offset after the last polled record
	epoch int32 // leader epoch of the last polled record
	high  int64 // end of the log at the last poll

	// State from earlier owners. Records below uncertain may have been handed over, unless their state says otherwise;
	// known is what this process settled itself under an earlier assignment.
	uncertain int64
	states    offsetStates // all of them; commits repeat them until the base has passed them
	ahead     offsetStates // those of records that are not polled yet
	known     *settledHere
	// claimed is the end of the offsets that the earlier owners' commit mentions. Until the offsets below it are
	// polled, answered has the submissions from base on with a final outcome, by offset, and report counts the
	// uncertain records.
	claimed  int64
	answered map[int64]schemas.ID
	report   *takeoverReport
	seen     *seen // used by the poller alone
	polled   int64 // next, as the poller knows it

	// items are the records from the base on. The first `declared` of them are below head; the first `released` of
	// those were given to the releaser. Planning a commit takes done items off the front.
	items              []*Item
	declared, released int
	declare            int // value of declared once the planned commit is accepted
	// With Config.Tenant: items above head that are declared by themselves, and those that the planned commit would
	// add.
	early, planned []*Item
	unreleased     bool // some early item was not given to the releaser yet
	open           int  // of those, without an acknowledged outcome

	metadata string // of the last accepted commit, or as it was found at the assignment

	sent    []sentCommit // commits whose answer is not known
	refusal error        // why the last commit was refused
	retryAt time.Time    // when recover looks at it again
	retry   *stream.Backoff
	paused  bool      // fetching is paused
	movedAt time.Time // when the base last moved, or front
	front   int64     // the oldest declared record that takes a place of the window, at the last plan
}

// settledHere is what this process itself has settled of a partition, under earlier assignments too.
type settledHere struct {
	spans  []span
	single map[int64]struct{} // offsets above the spans
	// doubtful offsets were begun and not settled, so they may have been handed over whatever the committed offset
	// says.
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

// settledHere returns the offsets that are settled until now (every offset from the assignment's first up to the oldest
// record without an outcome, and the done items above it) and those that were begun and not settled.
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
		case state == itemBegun || state == itemSettling || state == itemDoubted || it.uncertain.Load():
			s.doubtful[it.Record.Offset] = struct{}{}
		}
	}
	return s
}

// stop is why a part is stopped.
type stop uint8

const (
	stopNone      stop = iota
	stopRefused        // a commit was refused: the committed offset must be read
	stopProbing        // this process wrote the committed offset: a commit must be accepted first
	stopReset          // this process did not write the committed offset: restart from it
	stopSuspended      // a person must repair the committed offset
	stopLeaving        // it is being given up
)

// sentCommit is what the broker holds if a commit whose answer is unknown has come through.
type sentCommit struct {
	base, head int64
	metadata   string
}

func newPart(w *Window, id int32, member string, base int64, epoch int32, in intent, s *seen, known *settledHere) *part {
	return &part{
		w: w, id: id, member: member,
		source: w.cfg.Topic + "/" + strconv.Itoa(int(id)) + "/",
		from:   base, base: base, head: in.head, next: base, epoch: epoch, high: base,
		uncertain: in.head, claimed: in.end(), states: in.states, ahead: in.states, known: known, seen: s, polled: base,
		movedAt: time.Now(),
	}
}

// recognise makes items of polled records, remembers their submissions, and says which of them are duplicates. Only the
// poller calls it, without the lock, because it is the largest part of the cost of a record.
func (p *part) recognise(recs []*kgo.Record) (block []Item, again []bool) {
	block = make([]Item, len(recs)) // one allocation for all
	again = make([]bool, len(recs))
	for k, r := range recs {
		block[k].Record, block[k].p = r, p
		if r.Offset < p.polled {
			continue // polled before a restart; it must not count as its own duplicate
		}
		p.polled = r.Offset + 1
		if r.Attrs.IsControl() {
			continue // a control record has no submission
		}
		if id, err := p.w.cfg.Identity(r); err == nil {
			block[k].ID = id
			again[k] = !p.seen.remember(id)
		}
	}
	return block, again
}

// take adds recognised records and returns how many of them are duplicates and how many are uncertain.
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
			// The marker of a transaction's end. The base must pass the marker; otherwise the base falls below the
			// start of the log when an idle log expires.
			continue
		}
		switch f := p.ahead.at(r.Offset); {
		case p.known.has(r.Offset) || f == settled || !it.ID.IsZero() && p.answered[r.Offset] == it.ID:
			it.state.Store(itemDone)
		case f == doubtful || r.Offset < p.uncertain || p.known.doubts(r.Offset):
			it.uncertain.Store(true)
			doubts++
			if p.report != nil {
				p.report.uncertain++
				p.report.campaigns[it.ID.CampaignNumber()]++
			}
		case again[k]:
			it.state.Store(itemDone)
			dropped++
		}
		if r.Offset < p.head {
			p.declared++
			it.declared = true
		} else if tenant := p.w.cfg.Tenant; tenant != nil && it.state.Load() == itemQueued {
			p.w.fair.add(tenant(r), it)
		}
		p.items = append(p.items, it)
	}
	if p.report != nil && p.next >= p.claimed {
		p.report.open--
		p.report, p.answered = nil, nil
	}
	return dropped, doubts
}

// trim takes done items off the front.
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

// counts counts the declared items that take a place of the window, which are those without an acknowledged outcome
// that are not doubted; and those of them that are neither handed over nor settled. Uncertain ones are not among the
// latter.
func (p *part) counts() (open, waiting int) {
	count := func(it *Item, state uint32) {
		switch state {
		case itemDone, itemDoubted:
		case itemQueued, itemReleased, itemRecalled:
			open++
			if !it.uncertain.Load() {
				waiting++
			}
		default:
			open++
		}
	}
	for _, it := range p.early {
		count(it, it.state.Load())
	}
	first := true
	for _, it := range p.items[:p.declared] {
		state := it.state.Load()
		if first && state != itemDone && state != itemDoubted {
			first = false
			if it.Record.Offset != p.front {
				p.front, p.movedAt = it.Record.Offset, time.Now()
			}
		}
		count(it, state)
	}
	return open, waiting
}

// oldest is the base that a commit may carry now: the oldest record without an acknowledged outcome.
func (p *part) oldest() int64 {
	if len(p.items) > 0 {
		return p.items[0].Record.Offset
	}
	return p.next
}

// undeclared is how many polled records are not declared.
func (p *part) undeclared() int { return len(p.items) - p.declared }

// intent returns the intent of a commit that declares the first n items.
func (p *part) intent(n int) intent {
	in := intent{head: p.head, states: p.states}
	if n > 0 && n <= len(p.items) {
		in.head = max(in.head, p.items[n-1].Record.Offset+1)
	}
	in.head = max(in.head, p.oldest())
	return in
}

// finalIntent returns the intent of the commit that gives the partition up. It declares nothing; its states say which
// records are settled and which are doubtful, and doubts counts the latter.
func (p *part) finalIntent() (in intent, doubts int) {
	in.head = p.oldest()
	last := untouched
	for _, it := range p.items {
		f := untouched
		switch state := it.state.Load(); {
		case state == itemDone:
			f = settled
		case state == itemBegun || state == itemSettling || state == itemDoubted || it.uncertain.Load():
			f = doubtful
			doubts++
		}
		in.states = in.states.add(it.Record.Offset, f, f == last)
		last = f
	}
	// Add the states from earlier owners of records that this process has not polled.
	at := p.next
	doubt := func(to int64) {
		if to > at {
			in.states = append(in.states, stateRun{at, to, doubtful})
		}
	}
	for _, m := range p.ahead {
		if m.to <= at {
			continue
		}
		from := max(m.from, at)
		doubt(min(from, p.uncertain))
		in.states = append(in.states, stateRun{from, m.to, m.state})
		at = m.to
	}
	doubt(p.uncertain)
	return in, doubts
}

// ending reports whether no item of it will begin under this assignment any more.
func (p *part) ending() bool {
	return p.why != stopNone && p.why != stopRefused && p.why != stopProbing
}

// doubted is how many items are doubted, and when the oldest record was written that has no outcome, not even an
// ambiguous one; zero: there is none.
func (p *part) doubted() (n int, oldest time.Time) {
	for i, it := range p.items {
		switch it.state.Load() {
		case itemDoubted:
			n++
		case itemDone:
		default:
			if oldest.IsZero() {
				oldest = it.Record.Timestamp
			}
			if i >= p.declared {
				return n, oldest
			}
		}
	}
	return n, oldest
}

// stop stops the part: no item of it begins or is released any more.
func (p *part) stop(why stop) {
	p.why = why
	p.stopped.Store(true)
}

// start lets the part work again.
func (p *part) start() {
	p.why, p.retry, p.sent = stopNone, nil, nil
	p.stopped.Store(false)
}

// recall withdraws the items that were released and not begun, for good.
func (p *part) recall() {
	for it := range p.given() {
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
	p.unreleased = false
}

// inFlight is how many items were begun, or settled without an acknowledgement yet.
func (p *part) inFlight() (n int) {
	for _, it := range p.items {
		if state := it.state.Load(); state == itemBegun || state == itemSettling {
			n++
		}
	}
	return n
}
