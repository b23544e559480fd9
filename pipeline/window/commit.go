package window

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream"
)

// When commits are made. A commit costs 5 to 6 ms on a real broker, so they follow activity and not each record.
const (
	commitToDeclare = 10 * time.Millisecond // after the last one, when records wait to be declared
	// Least time between two commits while declared records still wait to be handed over.
	commitSpacing  = 5 * time.Millisecond
	commitExpected = 5 * time.Millisecond  // duration of a commit before the first one was measured
	commitSlowest  = 50 * time.Millisecond // longer ones are outliers and do not widen what is declared ahead
	commitToSettle = 20 * time.Millisecond // after the last one, when only the base has moved
	// Time after the last commit while a record is in flight: each commit restarts the guard.
	commitToProve = time.Second
)

// plan describes the next commit.
type plan struct {
	entries []entry
	fresh   int  // records that it declares
	dry     bool // no record that is declared already waits to be handed over
	all     bool // it declares all records that wait to be declared
	moves   bool // it moves some base
	probes  bool // some part waits until a commit is accepted
}

// entry is one partition's share of a commit.
type entry struct {
	p        *part
	base     int64
	head     int64
	declared int
	early    []*Item // declared by themselves
	metadata string
}

// commitLoop commits until ctx ends. A commit that was sent is not cancelled with ctx, because its answer would be lost
// and the request could reach the broker after the next one; it ends with life, the life of the client.
func (w *Window) commitLoop(ctx, life context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time // when the last commit began
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		}
		w.produceAgain() //nolint:contextcheck // closing the client is what ends it
		w.recover(ctx)
		if wait := w.due(last); wait <= 0 {
			last = time.Now()
			w.commitOnce(life)
		}
		w.letPoll()
		timer.Reset(w.due(last))
	}
}

// due returns how long to wait until the next commit, or the next look at a refused one. last is when the last commit
// began.
func (w *Window) due(last time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	pl, since := w.plan(false), time.Since(last)
	held := w.recalled.Load() > 0 // items wait until the guard holds again
	give := held
	for _, p := range w.order {
		some := p.released < p.declared || p.unreleased
		give = give || some
		held = held || some && p.why == stopNone
	}
	if give {
		signal(w.give)
	}
	wait := time.Second
	switch {
	case pl.fresh > 0 && w.unsettled.Load() == 0:
		return 0 // nothing is in flight
	case pl.fresh > 0 && pl.dry && (pl.all || int64(pl.fresh) >= w.quantum.Load()):
		wait = commitSpacing/2 - since // nothing can be handed over before the commit
	case pl.fresh > 0 && int64(pl.fresh) >= w.quantum.Load():
		wait = commitSpacing - since // there is enough for a commit
	case pl.fresh > 0:
		wait = commitToDeclare - since // items that begin or are done wake the committer earlier
	case pl.probes || held && !w.guard.holds():
		wait = commitToDeclare - since
	case pl.moves:
		wait = commitToSettle - since
	case w.unsettled.Load() > 0:
		wait = commitToProve - since
	}
	for _, p := range w.order {
		if p.why == stopRefused {
			wait = min(wait, max(time.Until(p.retryAt), time.Millisecond))
		}
	}
	return wait
}

// ahead is how many records may be declared that are not handed over yet. A crash makes all of them uncertain
// although none was sent. So the window declares only as many as the sender hands over while commits are on their way.
func (w *Window) ahead(size int) int {
	if w.cfg.Rate == nil {
		return size
	}
	pause := max(2*w.commitUsual, w.commitUsual+commitSpacing)
	return int(min(float64(size), 1+w.cfg.Rate()*pause.Seconds()))
}

// stalled is how long a base may stay unchanged before its partition is limited to its share of the window; maxSpan is
// the most records of a partition between base and head, settled ones included. For that many records the next owner of
// the partition finds the outcomes among the newest records of topic Outcomes.
const (
	stalled = 500 * time.Millisecond
	maxSpan = 16_384
)

// plan takes done items off the parts and returns the next commit, with its entries if they are wanted. w.mu is held.
//
// The window has [Config.Size] places, one for each declared record without an acknowledged outcome, and at most
// [Window.ahead] of its records may wait to be handed over. Each part may take its equal share of the places. What
// other parts leave unused goes to parts that have more waiting, up to half of the window, unless one record holds
// their base back. When there are more parts than places they take turns.
func (w *Window) plan(entries bool) plan {
	var pl plan
	size, n := w.size(), len(w.order)
	ahead := w.ahead(size)
	w.quantum.Store(int64(max(1, ahead/2)))
	left, waiting, undeclared := size, 0, 0
	for _, p := range w.order {
		p.trim()
		open, idle := p.counts()
		p.declare, p.open, p.planned = p.declared, open, p.planned[:0]
		if p.why != stopSuspended { // a suspended part must not take places from the others
			left -= open
			waiting += idle
		}
		if p.why == stopNone {
			undeclared += p.undeclared() - len(p.early)
		}
	}
	if w.cfg.Blocked != nil {
		waiting = max(0, waiting-w.cfg.Blocked())
	}
	pl.dry = waiting == 0
	left = min(left, ahead-waiting)
	grow := func(p *part, places int) {
		more := min(min(len(p.items), maxSpan)-p.declare, places-p.open, left)
		if more > 0 {
			p.declare += more
			p.open += more
			left -= more
			pl.fresh += more
		}
	}
	if w.cfg.Tenant != nil {
		left = w.planFair(&pl, left, entries)
	}
	for _, extra := range []bool{false, true} {
		for k := range n {
			i := (w.turn + k) % n
			p := w.order[i]
			switch {
			case p.why != stopNone:
			case !extra:
				share := size / n
				if i < size%n {
					share++
				}
				grow(p, max(1, share))
			case p.declared == 0 || time.Since(p.movedAt) < stalled:
				grow(p, size/2)
			}
		}
	}
	pl.all = pl.fresh == undeclared
	for _, p := range w.order {
		if p.why != stopNone && p.why != stopProbing {
			continue
		}
		pl.probes = pl.probes || p.why == stopProbing
		base := p.oldest()
		pl.moves = pl.moves || base > p.base
		if entries {
			in := p.intent(p.declare)
			in.states = append(slices.Clip(in.states), p.earlyStates(in.head)...)
			metadata, complete := in.encode(base)
			if !complete {
				w.log.Warn("offset states do not fit into a commit; their records count as uncertain", "partition", p.id)
			}
			pl.entries = append(pl.entries, entry{p, base, in.head, p.declare, slices.Clone(p.planned), metadata})
		}
	}
	if entries && n > 0 {
		w.turn = (w.turn + 1) % n
	}
	return pl
}

// errNotOurs stops a commit when this process owns none of its partitions any more.
var errNotOurs = errors.New("no partition of the commit is ours any more")

// commitOnce commits all parts once: the commit settles and declares records, and proves that this process owns the
// parts.
func (w *Window) commitOnce(ctx context.Context) {
	w.commits.Lock()
	defer w.commits.Unlock()
	w.freed.Store(0)
	w.mu.Lock()
	entries := w.plan(true).entries
	w.mu.Unlock()
	w.commit(ctx, entries)
}

// commit sends entries and applies the answer for each partition. It reports whether all were accepted. w.commits is
// held.
func (w *Window) commit(ctx context.Context, entries []entry) bool {
	if len(entries) == 0 {
		return true
	}
	offsets := make(map[int32]kgo.EpochOffset, len(entries))
	of := make(map[int32]*entry, len(entries))
	w.mu.Lock()
	for i := range entries {
		e := &entries[i]
		offsets[e.p.id] = kgo.EpochOffset{Epoch: e.p.epoch, Offset: e.base}
		of[e.p.id] = e
		e.p.sent = append(e.p.sent, sentCommit{e.base, e.head, e.metadata})
	}
	w.mu.Unlock()

	var (
		began   = w.guard.read() // the guard counts from the request, not from the answer
		codes   = make(map[int32]error, len(entries))
		foreign = map[int32]bool{}
		member  string
		failed  error
	)
	sending := kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		left := 0
		member = req.MemberID
		for i := range req.Topics {
			t := &req.Topics[i]
			kept := t.Partitions[:0]
			for _, rp := range t.Partitions {
				e := of[rp.Partition]
				// A member whose session has ended joins again under a new id, and the client goes on as if nothing had
				// happened. Another member may have owned the partition meanwhile: this commit could take back what
				// that member has declared.
				if e == nil || e.p.member != req.MemberID {
					foreign[rp.Partition] = true
					continue
				}
				rp.Metadata = &e.metadata
				kept = append(kept, rp)
			}
			t.Partitions = kept
			left += len(kept)
		}
		if left == 0 {
			return errNotOurs
		}
		return nil
	})
	w.cl.CommitOffsetsSync(sending, map[string]map[int32]kgo.EpochOffset{w.cfg.Topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if failed = err; err != nil {
				return
			}
			for _, t := range resp.Topics { // a fenced member is refused here, not in err
				for _, p := range t.Partitions {
					codes[p.Partition] = kerr.ErrorForCode(p.ErrorCode)
				}
			}
		})
	took := time.Duration(w.guard.read().mono - began.mono)
	w.metrics.commits.Inc()
	w.metrics.commitSeconds.Observe(took.Seconds())

	w.mu.Lock()
	defer w.mu.Unlock()
	w.commitUsual += (min(took, commitSlowest) - w.commitUsual) / 8
	good := 0
	for i := range entries {
		e := &entries[i]
		err, answered := codes[e.p.id]
		switch {
		case foreign[e.p.id]:
			w.reset(e.p, "member id changed since the assignment")
		case failed != nil:
			w.refused(e.p, failed)
		case !answered:
			w.refused(e.p, errors.New("the answer lacks the partition"))
		case err != nil:
			w.refused(e.p, err)
		default:
			w.accepted(e)
			good++
		}
	}
	if good > 0 {
		// The commit proves what this member id owns. Parts that were assigned to another id must stop before the guard
		// restarts.
		for _, p := range w.order {
			if p.member != member {
				w.reset(p, "member id changed since the assignment")
			}
		}
		w.guard.prove(began)
		w.tripped.Store(false)
	}
	return good == len(entries)
}

// accepted records that the broker has accepted an entry. w.mu is held.
func (w *Window) accepted(e *entry) {
	p := e.p
	p.base, p.head = e.base, max(p.head, e.head)
	p.declares(e.declared, e.early)
	p.metadata = e.metadata
	p.sent = p.sent[:0]
	p.retry = nil
	if n := len(p.states); n > 0 && p.states[n-1].to <= p.base {
		p.states = nil // passed
	}
	if p.why == stopProbing {
		w.log.Info("commits accepted again; partition resumed", "partition", p.id)
		p.start()
	}
}

// refused records that the broker has refused an entry, or that its answer is lost. w.mu is held.
func (w *Window) refused(p *part, err error) {
	defer w.metrics.refused.Inc() // after the partition has stopped, so that a reader of the count may rely on that
	w.log.Warn("commit refused; partition stopped until its committed offset is read", "partition", p.id, "err", err)
	p.refusal = err
	if p.why == stopLeaving || p.why == stopSuspended || p.why == stopReset {
		return // stopped for a stronger reason while the commit was on its way
	}
	if p.retry == nil {
		p.retry = stream.NewBackoff(20*time.Millisecond, time.Second)
	}
	p.stop(stopRefused)
	p.retryAt = time.Now().Add(p.retry.Step())
}

// reset asks the poller to restart a part from its committed offset. w.mu is held.
func (w *Window) reset(p *part, why string) {
	if p.why == stopReset || p.gone || p.why == stopLeaving {
		return
	}
	w.metrics.resets.Inc()
	w.log.Warn("resetting partition to committed offset", "partition", p.id, "reason", why)
	p.stop(stopReset)
	p.recall()
	w.interrupt()
}

// interrupt makes the poller restart parts. w.mu is held.
func (w *Window) interrupt() {
	w.resets = true
	if w.interruptPoll != nil {
		w.interruptPoll()
	}
}

// readTimeout is how long fetching the committed offsets may take.
const readTimeout = 5 * time.Second

// recover reads the committed offsets of parts whose commits were refused. If this process sent the offset, no other
// member can have owned the partition: the part goes on once a commit is accepted. If not, another member has owned the
// partition, or the broker has lost commits: the poller resets the part.
func (w *Window) recover(ctx context.Context) {
	w.mu.Lock()
	var parts []*part
	for _, p := range w.order {
		if p.why == stopRefused && !time.Now().Before(p.retryAt) {
			parts = append(parts, p)
		}
	}
	w.mu.Unlock()
	if len(parts) == 0 {
		return
	}
	reading, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	have, err := kadm.NewClient(w.cl).FetchOffsets(kadm.RequireStable(reading), w.cfg.Group)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range parts {
		if p.why != stopRefused {
			continue
		}
		o, ok := have.Lookup(w.cfg.Topic, p.id)
		if err != nil || !ok || o.Err != nil {
			w.log.WarnContext(ctx, "fetch committed offsets failed", "partition", p.id, "err", errors.Join(err, o.Err))
			p.retryAt = time.Now().Add(p.retry.Step())
			continue
		}
		ours := false
		for _, s := range p.sent {
			ours = ours || s.base == o.At && s.metadata == o.Metadata
		}
		in, parseErr := parseIntent(o.Metadata, o.At)
		if ours = parseErr == nil && (ours || o.At == p.base && o.Metadata == p.metadata); !ours {
			w.reset(p, "committed offset is not ours")
			continue
		}
		// The broker may have accepted a commit although its answer was an error: then the records that it declared are
		// declared.
		p.head = max(p.head, in.head)
		p.stop(stopProbing)
	}
}

// releaseLoop calls the releaser until ctx ends. It runs beside the committer, so that the next commit is made while
// the records of the last one are released.
func (w *Window) releaseLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.give:
		}
		if items := w.releasable(); len(items) > 0 {
			w.rel.Release(items)
		}
	}
}

// releasable returns the items that are declared and not released yet, and those that Begin refused because the guard
// had expired.
func (w *Window) releasable() []*Item {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, p := range w.order {
		n += p.declared - p.released
		if p.unreleased {
			n += len(p.early)
		}
	}
	holds := w.guard.holds()
	again := holds && w.recalled.Load() > 0
	if n == 0 && !again {
		return nil
	}
	items := make([]*Item, 0, n)
	for _, p := range w.order {
		var doubts bool // release uncertain items only: reporting them needs no accepted commit
		switch p.why {
		case stopNone:
			doubts = !holds
		case stopRefused, stopProbing:
			doubts = true
		default:
			continue
		}
		if w.stopping.Load() {
			break
		}
		if again && !doubts {
			for it := range p.given() {
				if it.state.CompareAndSwap(itemRecalled, itemReleased) {
					w.recalled.Add(-1)
					items = append(items, it)
				}
			}
		}
		for ; p.released < p.declared; p.released++ {
			it := p.items[p.released]
			if doubts && !it.uncertain.Load() && it.state.Load() == itemQueued {
				break // Begin would refuse it
			}
			if it.state.CompareAndSwap(itemQueued, itemReleased) {
				w.unsettled.Add(1)
				items = append(items, it)
			}
		}
		if !p.unreleased || doubts {
			continue
		}
		p.unreleased = false
		for _, it := range p.early {
			if it.state.CompareAndSwap(itemQueued, itemReleased) {
				w.unsettled.Add(1)
				items = append(items, it)
			}
		}
	}
	return items
}
