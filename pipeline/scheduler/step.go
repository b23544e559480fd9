package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/scheduler/plan"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// step makes the next decisions and starts to write them, unless a transaction is under way.
func (l *leader) step(work context.Context) error {
	now := l.cfg.Now()
	if l.busy || !l.live || now.Sub(l.stepAt) < l.cfg.Pace && l.snapshot == nil {
		return nil
	}
	l.stepAt = now
	if now.Sub(l.secondAt) >= time.Second {
		l.secondAt = now
		l.metrics.observe(l.planner, now)
		l.forgetUnknown(now)
		l.observeStalled(now)
		if l.cfg.Health != nil {
			l.planner.SetHealth(l.cfg.Health, now)
		}
	}
	fresh := l.cfg.View.Age() <= viewStale
	set(l.metrics.withheld.WithLabelValues("view"), !fresh)
	if fresh {
		l.askStore(now)
	}
	var records []*kgo.Record
	var err error
	switch {
	case l.snapshot != nil || l.snapshotDue(now):
		records, err = l.writeSnapshot(now)
	case fresh && l.mayDeal(now):
		records, err = l.decide(now)
	}
	if err != nil {
		return err
	}
	if len(records) > 0 {
		l.busy = true
		spans := l.spans
		l.spans = nil
		l.group.Go(func() error {
			err := l.commit(work, l.cl, records)
			l.record(spans, err)
			l.committed <- err
			return nil
		})
	}
	return nil
}

// observeStalled counts the campaigns that make no progress, and logs each once.
func (l *leader) observeStalled(now time.Time) {
	stalled := l.planner.Stalled(now)
	l.metrics.stalled.Set(float64(len(stalled)))
	logged := map[uint64]int64{}
	for _, s := range stalled {
		if number := s.Campaign.Number(); l.stalledLogged[number] != s.SinceMs {
			l.log.Warn("campaign makes no progress", "campaign", s.Campaign.ID(), "undealt", s.Undealt, "in_flight", s.InFlight,
				"since", time.UnixMilli(s.SinceMs).UTC())
		}
		logged[s.Campaign.Number()] = s.SinceMs
	}
	l.stalledLogged = logged
}

func set(g interface{ Set(float64) }, on bool) {
	v := 0.0
	if on {
		v = 1
	}
	g.Set(v)
}

// hookEvery is how often the MayDeal hook is called.
const hookEvery = 250 * time.Millisecond

func (l *leader) mayDeal(now time.Time) bool {
	if now.Sub(l.hookAt) >= hookEvery {
		l.hookAt = now
		err := l.cfg.MayDeal()
		if (err == nil) != (l.mayNotDeal == nil) {
			if err != nil {
				l.log.Warn("dealing stopped", "err", err)
			} else {
				l.log.Info("dealing resumed")
			}
		}
		l.mayNotDeal = err
		set(l.metrics.withheld.WithLabelValues("hook"), err != nil)
	}
	return l.mayNotDeal == nil
}

// decide returns the records of everything that is decided now.
func (l *leader) decide(now time.Time) ([]*kgo.Record, error) {
	records := l.dead
	l.dead = nil
	again, err := l.repeatMissing()
	if err != nil || len(again) > 0 {
		return append(records, again...), err
	}
	if l.recentHeld != nil && l.lanesReady() {
		l.reholdTorn()
	}
	ends, err := l.endRecords(l.planner.Ends(now, endsPerCommit), now)
	if err != nil {
		return nil, err
	}
	records = append(records, ends...)
	deals := l.planner.Deals(now)
	l.spans = l.dealSpans(deals)
	dealt := map[*plan.Campaign]bool{}
	for i := range deals {
		r, err := l.chunkRecord(&deals[i])
		if err != nil {
			return nil, err
		}
		records = append(records, r)
		dealt[deals[i].Campaign] = true
		l.countDeal(&deals[i])
	}
	for c := range dealt {
		r, err := l.cursorRecord(c.Key(), c.Tenant(), now, c.Cursor())
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	singles, err := l.dealHeld(now)
	return append(records, singles...), err
}

// endRecords returns the events of ends, and the cursors of campaigns with an order that was just carried out.
func (l *leader) endRecords(ends []plan.End, now time.Time) ([]*kgo.Record, error) {
	var records []*kgo.Record
	for i := range ends {
		r, err := l.endRecord(&ends[i], now)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
		l.metrics.ends.WithLabelValues(kindName(ends[i].Kind)).Inc()
		if c := ends[i].Campaign; c.OrderUnsaved() {
			r, err := l.cursorRecord(c.Key(), c.Tenant(), now, c.Cursor())
			if err != nil {
				return nil, err
			}
			records = append(records, r)
		}
	}
	return records, nil
}

func kindName(k schemas.Kind) string {
	info, _ := schemas.LookupKind(k)
	return info.Name
}

func (l *leader) countDeal(d *plan.Deal) {
	purpose := "deal"
	switch {
	case d.Cancel:
		purpose = "cancel"
	case d.Try > 1:
		purpose = "again"
	}
	l.metrics.deals.WithLabelValues(purpose).Inc()
	l.metrics.dealt.WithLabelValues(purpose).Add(float64(d.Size()))
}

// missingAtOnce bounds the missing deals of one transaction.
const missingAtOnce = 64

// repeatMissing returns the chunks that the self-check did not find; their cursors list them already.
func (l *leader) repeatMissing() ([]*kgo.Record, error) {
	n := min(len(l.missingDeals), missingAtOnce)
	var records []*kgo.Record
	for i := range l.missingDeals[:n] {
		r, err := l.chunkRecord(&l.missingDeals[i])
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	l.missingDeals = l.missingDeals[n:]
	return records, nil
}

// laneReady reports whether the transactional lane of a route was read to its end.
func (l *leader) laneReady(route string) bool {
	n := l.lanes[route]
	return n != nil && n.ready()
}

func (l *leader) lanesReady() bool {
	for _, n := range l.lanes {
		if !n.ready() {
			return false
		}
	}
	return true
}

// heldAtOnce bounds the single sends of one transaction.
const heldAtOnce = 500

// dealHeld deals the single sends whose time has come, each in one transaction with the tombstone in topic held.
func (l *leader) dealHeld(now time.Time) ([]*kgo.Record, error) {
	var records []*kgo.Record
	for _, h := range l.planner.DealHeld(now, heldAtOnce, l.laneReady) {
		out, err := l.heldRecords(h, now)
		if err != nil {
			return nil, err
		}
		records = append(records, out...)
		if h.DealtTry > 0 {
			l.metrics.deals.WithLabelValues("single").Inc()
			l.metrics.dealt.WithLabelValues("single").Inc()
		}
	}
	return records, nil
}

// laneWithin is how long hidden campaigns wait until all lanes are read: a route whose topics are never created must
// not keep them open.
const laneWithin = time.Hour

// askStore queues moves, freezes and requests for indexes.
func (l *leader) askStore(now time.Time) {
	l.planner.SetLanesUnread(!l.lanesReady() && time.Since(l.began) < laneWithin)
	for _, ch := range l.planner.Moves(now) {
		if !offer(l.jobs, l.move(ch)) {
			l.planner.MoveFailed(ch, now)
		}
	}
	for _, r := range l.planner.AudienceRequests(now) {
		if !offer(l.audienceJobs, l.audienceJob(r)) {
			l.audienceAnswered(r, nil, errQueueFull)
		}
	}
	for _, r := range l.planner.DomainRequests() {
		if !offer(l.jobs, l.domainJob(r)) {
			l.planner.DomainsAnswered(r, nil, errQueueFull, now)
		}
	}
}

var errQueueFull = errors.New("too many store calls are queued")

func offer(jobs chan job, j job) bool {
	select {
	case jobs <- j:
		return true
	default:
		return false
	}
}

// largeAudience is from how many recipients on a freeze waits for a worker of its own kind. A million take seconds to
// freeze, and two of them must not hold up the campaigns of a few people that are confirmed meanwhile.
const largeAudience = 50_000

// Time-outs of store calls.
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
			l.log.DebugContext(ctx, "campaign changed meanwhile", "campaign", ch.Campaign, "err", err)
		}
		return func() {
			switch {
			case err == nil:
				l.metrics.moves.WithLabelValues("made").Inc()
				if ch.Trigger == schemas.TriggerSuspend {
					l.metrics.suspended.WithLabelValues(ch.Reason).Inc()
				}
				l.planner.Moved(ch, version)
				return
			case isConflict(err):
				l.metrics.moves.WithLabelValues("conflict").Inc()
			default:
				l.metrics.moves.WithLabelValues("failed").Inc()
				l.logStoreFailure(fmt.Errorf("move %s: %w", ch.Campaign, err))
			}
			l.planner.MoveFailed(ch, l.cfg.Now())
		}
	}
}

// isConflict reports whether the store refused a move because the campaign has changed meanwhile.
func isConflict(err error) bool {
	return errors.Is(err, schemas.ErrConflict) || errors.Is(err, schemas.ErrTransition) || errors.Is(err, schemas.ErrNotFound)
}

func (l *leader) audienceJob(r plan.AudienceRequest) job {
	return func(whole context.Context) func() {
		ctx, cancel := context.WithTimeout(whole, indexWithin)
		defer cancel()
		if r.FreezeID == "" {
			size, err := l.cfg.Audience.AudienceSize(ctx, r.Tenant, r.Campaign)
			switch {
			case err != nil:
				return func() { l.audienceAnswered(r, nil, err) }
			case size < largeAudience:
				return l.freeze(whole, r)
			case offer(l.largeJobs, func(ctx context.Context) func() { return l.freeze(ctx, r) }):
				return func() {} // the job answers
			default:
				return func() { l.audienceAnswered(r, nil, errQueueFull) }
			}
		}
		blobs, err := l.cfg.Audience.Blobs(ctx, r.FreezeID)
		return func() { l.audienceAnswered(r, blobs, err) }
	}
}

// freeze freezes the audience of a campaign.
func (l *leader) freeze(ctx context.Context, r plan.AudienceRequest) func() {
	ctx, cancel := context.WithTimeout(ctx, freezeWithin)
	defer cancel()
	err := l.cfg.Audience.Freeze(ctx, r.Tenant, r.Campaign, r.Version)
	if errors.Is(err, schemas.ErrConflict) || errors.Is(err, schemas.ErrTransition) {
		err = nil // the campaign has changed: its request is made again from the new record
	}
	return func() { l.audienceAnswered(r, nil, err) }
}

// domainsWithin is the time-out of a request for domains.
const domainsWithin = 10 * time.Second

func (l *leader) domainJob(r schemas.DomainRequest) job {
	return func(ctx context.Context) func() {
		ctx, cancel := context.WithTimeout(ctx, domainsWithin)
		defer cancel()
		blocks, err := l.cfg.Domains.AllotDomains(ctx, r)
		return func() {
			if err != nil {
				l.logStoreFailure(err)
			}
			l.planner.DomainsAnswered(r, blocks, err, l.cfg.Now())
		}
	}
}

func (l *leader) audienceAnswered(r plan.AudienceRequest, blobs []audience.Index, err error) {
	if err := l.planner.AudienceAnswered(r, blobs, err, l.cfg.Now()); err != nil {
		l.logStoreFailure(err)
	}
}

// logStoreFailure logs a failed store call: at most one a second, because every campaign asks while the store is away;
// and the same failure once in five minutes, because it may last, for example while a restored store lacks a campaign
// that the topics have.
func (l *leader) logStoreFailure(err error) {
	now, text := l.cfg.Now(), err.Error()
	if at, logged := l.storeFailures[text]; now.Sub(l.storeLogged) < time.Second || logged && now.Sub(at) < sameFailure {
		return
	}
	if l.storeFailures == nil || len(l.storeFailures) >= maxFailures {
		l.storeFailures = map[string]time.Time{}
	}
	l.storeLogged, l.storeFailures[text] = now, now
	l.log.Warn("store call failed", "err", err)
}

const (
	// sameFailure is how long the same failure is not logged again.
	sameFailure = 5 * time.Minute
	// maxFailures bounds the failures that are remembered.
	maxFailures = 1000
)

// callStore runs jobs, so that the leader's loop never waits for the store.
func (l *leader) callStore(ctx context.Context, jobs <-chan job) error {
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
