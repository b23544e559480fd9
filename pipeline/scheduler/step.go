package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// step makes the next decisions and begins to write them, unless a transaction is still under way.
func (l *leader) step(work context.Context) error {
	now := l.cfg.Now()
	if l.busy || !l.live || now.Sub(l.stepAt) < l.cfg.Pace && l.round == nil {
		return nil
	}
	l.stepAt = now
	if now.Sub(l.secondAt) >= time.Second {
		l.secondAt = now
		l.metrics.observe(l.core, now)
		l.tidy(now)
	}
	fresh := l.cfg.View.Age() <= viewStale
	set(l.metrics.withheld.WithLabelValues("view"), !fresh)
	if fresh {
		l.askStore(now)
	}
	var records []*kgo.Record
	var err error
	switch {
	case l.round != nil || l.roundDue(now):
		records, err = l.writeRound(now)
	case fresh && l.mayDeal(now):
		records, err = l.decide(now)
	}
	if err != nil {
		return err
	}
	if len(records) > 0 {
		l.busy = true
		l.group.Go(func() error { l.committed <- l.commit(work, l.cl, records); return nil })
	}
	return nil
}

func set(g interface{ Set(float64) }, on bool) {
	v := 0.0
	if on {
		v = 1
	}
	g.Set(v)
}

// askHook is how often the hook is asked.
const askHook = 250 * time.Millisecond

// mayDeal asks the hook now and then.
func (l *leader) mayDeal(now time.Time) bool {
	if now.Sub(l.hookAt) >= askHook {
		l.hookAt = now
		err := l.cfg.MayDeal()
		if (err == nil) != (l.withheld == nil) {
			if err != nil {
				l.log.Warn("nothing is dealt", "err", err)
			} else {
				l.log.Info("dealing again")
			}
		}
		l.withheld = err
		set(l.metrics.withheld.WithLabelValues("hook"), err != nil)
	}
	return l.withheld == nil
}

// decide returns the records of all that is to be done now.
func (l *leader) decide(now time.Time) ([]*kgo.Record, error) {
	records := l.dead
	l.dead = nil
	again, err := l.redeal()
	if err != nil || len(again) > 0 {
		return append(records, again...), err
	}
	if l.dealtHeld != nil && l.lanesReady() {
		l.reholdTorn()
	}
	for _, e := range l.core.Ends(now, endsPerCommit) {
		r, err := l.endRecord(&e, now)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
		l.metrics.ends.WithLabelValues(kindName(e.kind)).Inc()
	}
	deals := l.core.Deals(now)
	dealt := map[*campaign]bool{}
	for i := range deals {
		r, err := l.chunkRecord(&deals[i])
		if err != nil {
			return nil, err
		}
		records = append(records, r)
		dealt[deals[i].campaign] = true
		l.countDeal(&deals[i])
	}
	for c := range dealt {
		r, err := l.cursorRecord(c.key(), c.tenant, now, c.cursor())
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	singles, err := l.dealHeld(now)
	return append(records, singles...), err
}

func kindName(k fanfarev1.Kind) string {
	info, _ := schemas.LookupKind(k)
	return info.Name
}

func (l *leader) countDeal(d *deal) {
	purpose := "deal"
	switch {
	case d.cancel:
		purpose = "cancel"
	case d.try > 1:
		purpose = "again"
	}
	l.metrics.deals.WithLabelValues(purpose).Inc()
	l.metrics.dealt.WithLabelValues(purpose).Add(float64(d.size()))
}

// redeal returns the chunks that the self-check missed; their cursors name them already.
func (l *leader) redeal() ([]*kgo.Record, error) {
	n := min(len(l.redeals), dealsAtOnce)
	var records []*kgo.Record
	for i := range l.redeals[:n] {
		r, err := l.chunkRecord(&l.redeals[i])
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	l.redeals = l.redeals[n:]
	return records, nil
}

func (l *leader) lanesReady() bool {
	for _, n := range l.lanes {
		if !n.ready() {
			return false
		}
	}
	return true
}

const (
	// heldAtOnce bounds the single sends of one transaction.
	heldAtOnce = 500
	// heldAgain is when one that could not be dealt is looked at again.
	heldAgain = 250 * time.Millisecond
)

// dealHeld deals the single sends whose time has come, each in one transaction with the tombstone in its place.
func (l *leader) dealHeld(now time.Time) ([]*kgo.Record, error) {
	var records []*kgo.Record
	for _, h := range l.core.holding.due(ms(now), heldAtOnce) {
		n, ok := l.nextTry(h)
		if !ok {
			h.dueMs = ms(now.Add(heldAgain))
			l.core.holding.put(h)
			continue
		}
		out, err := l.heldRecords(h, n, now)
		if err != nil {
			return nil, err
		}
		records = append(records, out...)
		if n > 0 {
			l.metrics.deals.WithLabelValues("single").Inc()
			l.metrics.dealt.WithLabelValues("single").Inc()
		}
	}
	return records, nil
}

// nextTry returns the try that a held message is dealt at, 0 when it is not dealt any more; false: not now. The deal is taken
// for written.
func (l *leader) nextTry(h *held) (n uint32, ok bool) {
	lane := l.lanes[h.route]
	if lane == nil || !lane.ready() {
		return 0, false // what stands on the lane is not known
	}
	r, t := l.core.route(h.route), l.core.tenant(h.tenant)
	if !r.enabled || !t.enabled || r.txn >= r.target(r) {
		return 0, false
	}
	e := event{campaign: h.campaign, seq: h.seq, try: h.try + 1, leg: 1, tenant: []byte(h.tenant), id: []byte(schemas.CampaignID(h.campaign))}
	c := l.core.of(&e)
	switch {
	case c == nil:
		return 0, false
	case c.closed:
		l.core.ends = append(l.core.ends, ending{
			campaign: c, seq: h.seq, try: uint8(max(h.try, 1)), leg: 1, kind: fanfarev1.Kind_KIND_NOT_SENT, code: fanfarev1.Code_CODE_VALIDITY_EXPIRED,
		})
		return 0, true
	case h.try >= lastTry:
		l.core.finish(c, h.seq, int(h.try), fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_TRIES_SPENT)
		return 0, true
	}
	if t := c.have(int(e.try)); t != nil && t.known(h.seq) {
		return 0, true // dealt before: only the tombstone was lost
	}
	l.core.mark(c, int(e.try), 1, r, true, roaring.BitmapOf(h.seq), h.notAfter)
	return e.try, true
}

// laneWithin is how long hidden campaigns wait for lanes to be read: a route whose topics never come must not keep them open.
const laneWithin = time.Hour

// askStore asks for moves, freezes and indexes.
func (l *leader) askStore(now time.Time) {
	l.core.laneUnread = !l.lanesReady() && time.Since(l.began) < laneWithin
	for _, ch := range l.core.Moves(now) {
		if !offer(l.jobs, l.move(ch)) {
			l.core.MoveFailed(ch, now)
		}
	}
	for _, w := range l.core.Wants(now) {
		if !offer(l.slowJobs, l.want(w)) {
			l.wanted(w, nil, errBusy)
		}
	}
}

var errBusy = errors.New("too much is asked of the store")

func offer(jobs chan job, j job) bool {
	select {
	case jobs <- j:
		return true
	default:
		return false
	}
}

// Bounds of what is asked of the store.
const (
	moveWithin   = 10 * time.Second
	indexWithin  = 30 * time.Second
	freezeWithin = 10 * time.Minute // a million contacts
)

func (l *leader) move(ch schemas.Change) job {
	return func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, moveWithin)
		defer cancel()
		version, err := l.cfg.Store.Apply(ctx, ch)
		if isConflict(err) {
			l.log.DebugContext(ctx, "a campaign has changed meanwhile", "campaign", ch.Campaign, "err", err)
		}
		return func() {
			switch {
			case err == nil:
				l.metrics.moves.WithLabelValues("made").Inc()
				l.core.Moved(ch, version)
				return
			case isConflict(err):
				l.metrics.moves.WithLabelValues("conflict").Inc()
			default:
				l.metrics.moves.WithLabelValues("failed").Inc()
				l.complain(fmt.Errorf("move %s: %w", ch.Campaign, err))
			}
			l.core.MoveFailed(ch, l.cfg.Now())
		}
	}
}

// isConflict reports whether the store says that a campaign is not what it was.
func isConflict(err error) bool {
	return errors.Is(err, schemas.ErrConflict) || errors.Is(err, schemas.ErrTransition) || errors.Is(err, schemas.ErrNotFound)
}

func (l *leader) want(w wants) job {
	return func(ctx context.Context) func() {
		if w.freezeID == "" {
			ctx, cancel := context.WithTimeout(ctx, freezeWithin)
			defer cancel()
			err := l.cfg.Audience.Freeze(ctx, w.tenant, w.campaign, w.version)
			if errors.Is(err, schemas.ErrConflict) || errors.Is(err, schemas.ErrTransition) {
				err = nil // and it is asked again, of what the campaign is now
			}
			return func() { l.wanted(w, nil, err) }
		}
		ctx, cancel := context.WithTimeout(ctx, indexWithin)
		defer cancel()
		blobs, err := l.cfg.Audience.Blobs(ctx, w.freezeID)
		return func() { l.wanted(w, blobs, err) }
	}
}

func (l *leader) wanted(w wants, blobs []audience.Index, err error) {
	if err := l.core.Wanted(w, blobs, err, l.cfg.Now()); err != nil {
		l.complain(err)
	}
}

// complain logs trouble with the store: once a second at most, for it may be away for long and every campaign asks; and the same
// trouble once in some minutes, for it may last as long as a campaign that the topics have and a restored store has not.
func (l *leader) complain(err error) {
	now, what := l.cfg.Now(), err.Error()
	if at, said := l.saidOfStore[what]; now.Sub(l.storeSaid) < time.Second || said && now.Sub(at) < sameTrouble {
		return
	}
	if l.saidOfStore == nil || len(l.saidOfStore) >= troubles {
		l.saidOfStore = map[string]time.Time{}
	}
	l.storeSaid, l.saidOfStore[what] = now, now
	l.log.Warn("the store does not do what it is asked", "err", err)
}

const (
	// sameTrouble is when the same is said again.
	sameTrouble = 5 * time.Minute
	// troubles bounds what is remembered.
	troubles = 1000
)

// serveStore does what is asked of the store, so that the leader never waits for it.
func (l *leader) serveStore(ctx context.Context, jobs <-chan job) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-jobs:
			answer := j(ctx)
			select {
			case l.answers <- answer:
			case <-ctx.Done():
				return nil
			}
		}
	}
}
