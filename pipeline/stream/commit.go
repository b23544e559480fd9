package stream

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// When commits are made. One costs 5–6 ms on a real broker, so they follow activity and not each record.
const (
	commitToDeclare = 10 * time.Millisecond  // after the last one, when records wait
	commitToSettle  = 20 * time.Millisecond  // when only the base has moved
	lookForRoom     = 250 * time.Microsecond // at least, while records wait for room in the window
	commitToProve   = time.Second            // while anything is in flight: the guard counts from the last one
)

// plan is what the next commit would be.
type plan struct {
	entries []entry
	fresh   int  // records it declares
	moves   bool // some base
	probes  bool // some part waits for a commit to be accepted
}

// entry is the part of a commit that is about one partition.
type entry struct {
	p        *part
	base     int64
	head     int64
	declared int
	metadata string
}

// commitAlways commits until ctx ends.
// ctx does not end a commit that was sent: nobody would know what came of it, and it could arrive after the next. life does.
func (w *Window) commitAlways(ctx, life context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time // when the last commit was begun
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

// due returns how long the next commit, or look at what is committed, is away, after a commit that was begun at last.
func (w *Window) due(last time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	pl, since := w.plan(false), time.Since(last)
	held := w.recalled.Load() > 0 // what waits for the guard to hold again
	give := held
	for _, p := range w.order {
		give = give || p.released < p.declared
		held = held || p.released < p.declared && p.why == stopNone
	}
	if give {
		signal(w.give)
	}
	wait := time.Second
	switch {
	case pl.fresh > 0 && (w.unsettled.Load() == 0 || int64(pl.fresh) >= w.quantum.Load()):
		return 0 // nothing else is on its way, or it is worth a commit of its own
	case pl.fresh > 0:
		// What is done does not wake us each time; it is looked after.
		wait = min(commitToDeclare-since, max(lookForRoom, w.commitTook/4))
		if since >= commitToDeclare {
			return 0
		}
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

// stalled is how long a base may stand still before its partition gets no more than its share of the window.
const stalled = 500 * time.Millisecond

// plan takes what is done off the parts and returns the next commit; entries only when they are wanted. The lock is held.
//
// Each part may declare its share of the window. What the others leave goes to those that have more waiting, up to half of
// the window, unless one record holds their base back. When there are more parts than the window is large they take turns.
func (w *Window) plan(entries bool) plan {
	var pl plan
	size, n := w.size(), len(w.order)
	w.quantum.Store(int64(max(1, size/2)))
	left := size // of the window
	for _, p := range w.order {
		p.trim()
		p.declare = p.declared
		if p.why != stopSuspended { // a person looks after what it holds; the rest goes on
			left -= p.declared
		}
	}
	grow := func(p *part, to int) {
		more := min(min(len(p.items), to)-p.declare, left)
		if more > 0 {
			p.declare += more
			left -= more
			pl.fresh += more
		}
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
	for _, p := range w.order {
		if p.why != stopNone && p.why != stopProbing {
			continue
		}
		pl.probes = pl.probes || p.why == stopProbing
		base := p.oldest()
		pl.moves = pl.moves || base > p.base
		if entries {
			in := p.intent(p.declare)
			metadata, complete := in.encode(base)
			if !complete {
				w.log.Warn("what an earlier owner left does not fit into a commit and counts as uncertain", "partition", p.id)
			}
			pl.entries = append(pl.entries, entry{p, base, in.head, p.declare, metadata})
		}
	}
	if entries && n > 0 {
		w.turn = (w.turn + 1) % n
	}
	return pl
}

// errNotOurs stops a commit in which nothing of ours is left.
var errNotOurs = errors.New("no partition of the commit is ours any more")

// commitOnce makes one commit of all parts: it settles, declares, and proves that they are ours.
func (w *Window) commitOnce(ctx context.Context) {
	w.commits.Lock()
	defer w.commits.Unlock()
	w.freed.Store(0)
	w.mu.Lock()
	entries := w.plan(true).entries
	w.mu.Unlock()
	w.commit(ctx, entries)
}

// commit sends entries and takes in what came of them, per partition; it reports whether all were accepted. The lock of
// commits is held.
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
		began   = w.guard.read() // the guard counts from here, not from the answer
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
				// A member that the group had given up is taken in again under another id, and the client goes on as if
				// nothing had happened. Somebody else may have had the partition meanwhile: to commit now could take back
				// what they have declared.
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
			for _, t := range resp.Topics { // a member that is fenced off is refused here and not in err
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
	w.commitTook = took
	good := 0
	for i := range entries {
		e := &entries[i]
		err, answered := codes[e.p.id]
		switch {
		case foreign[e.p.id]:
			w.reset(e.p, "we are another member than when it was assigned")
		case failed != nil:
			w.refused(e.p, failed)
		case !answered:
			w.refused(e.p, errors.New("not in the answer"))
		case err != nil:
			w.refused(e.p, err)
		default:
			w.accepted(e)
			good++
		}
	}
	if good > 0 {
		// The commit proves what this member has; a part that another one was given must be stopped first.
		for _, p := range w.order {
			if p.member != member {
				w.reset(p, "we are another member than when it was assigned")
			}
		}
		w.guard.prove(began)
		w.tripped.Store(false)
	}
	return good == len(entries)
}

// accepted takes in that the broker has taken an entry. The lock is held.
func (w *Window) accepted(e *entry) {
	p := e.p
	p.base, p.head = e.base, max(p.head, e.head)
	p.declared = max(p.declared, e.declared)
	p.sent = p.sent[:0]
	p.retry = nil
	if n := len(p.marks); n > 0 && p.marks[n-1].to <= p.base {
		p.marks = nil // passed
	}
	if p.why == stopProbing {
		w.log.Info("commits of the partition are accepted again", "partition", p.id)
		p.start()
	}
}

// refused takes in that the broker has refused an entry, or that nobody knows. The lock is held.
func (w *Window) refused(p *part, err error) {
	defer w.metrics.refused.Inc() // once the partition stands: whoever sees the count may rely on it
	w.log.Warn("a commit was refused; the partition is stopped until it is known what is committed", "partition", p.id, "err", err)
	p.refusal = err
	if p.why == stopLeaving || p.why == stopSuspended || p.why == stopReset {
		return // stopped for more than this while the commit was on its way
	}
	if p.retry == nil {
		p.retry = newBackoff(20*time.Millisecond, time.Second)
	}
	p.stop(stopRefused)
	p.retryAt = time.Now().Add(p.retry.step())
}

// reset asks the poller to begin a part anew from what is committed. The lock is held.
func (w *Window) reset(p *part, why string) {
	if p.why == stopReset || p.gone || p.why == stopLeaving {
		return
	}
	w.metrics.resets.Inc()
	w.log.Warn("the partition begins anew from what is committed", "partition", p.id, "why", why)
	p.stop(stopReset)
	p.recall()
	w.interrupt()
}

// interrupt wakes the poller. The lock is held.
func (w *Window) interrupt() {
	w.resets = true
	if w.unpoll != nil {
		w.unpoll()
	}
}

// readTimeout bounds a look at what is committed.
const readTimeout = 5 * time.Second

// recover looks at what is committed of parts whose commits were refused. If it is what we sent, we may go on once a commit is
// accepted: nobody else can have had them. If not, somebody has, or the broker has lost commits.
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
			w.log.WarnContext(ctx, "what is committed cannot be read", "partition", p.id, "err", errors.Join(err, o.Err))
			p.retryAt = time.Now().Add(p.retry.step())
			continue
		}
		ours := false
		for _, s := range p.sent {
			ours = ours || s.base == o.At && s.metadata == o.Metadata
		}
		in, parseErr := parseIntent(o.Metadata, o.At)
		if ours = ours || parseErr == nil && o.At == p.base && in.head == p.head; !ours {
			w.reset(p, "what is committed is not ours")
			continue
		}
		// What was declared by a commit that came through though it was refused is declared.
		p.head = max(p.head, in.head)
		p.stop(stopProbing)
	}
}

// releaseAlways releases until ctx ends. It alone calls the releaser, beside the committer, so that the next commit is made
// while the last one's records are given out.
func (w *Window) releaseAlways(ctx context.Context) {
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

// releasable returns what is declared and was not given out, and what Begin has refused for the guard.
func (w *Window) releasable() []*Item {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, p := range w.order {
		n += p.declared - p.released
	}
	holds := w.guard.holds()
	again := holds && w.recalled.Load() > 0
	if n == 0 && !again {
		return nil
	}
	items := make([]*Item, 0, n)
	for _, p := range w.order {
		var doubts bool // only what is uncertain; that needs no commit of ours
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
			for _, it := range p.items[:p.released] {
				if it.state.CompareAndSwap(itemRecalled, itemReleased) {
					w.recalled.Add(-1)
					items = append(items, it)
				}
			}
		}
		for ; p.released < p.declared; p.released++ {
			it := p.items[p.released]
			if doubts && !it.Uncertain && it.state.Load() == itemQueued {
				break // it would come back
			}
			if it.state.CompareAndSwap(itemQueued, itemReleased) {
				w.unsettled.Add(1)
				items = append(items, it)
			}
		}
	}
	return items
}
