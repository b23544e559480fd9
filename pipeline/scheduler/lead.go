package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kslog"
	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

const (
	// stopWithin is how long a leader that must stop may take to finish its transaction and write its sets.
	stopWithin = 8 * time.Second
	// transactionTimeout is when the broker ends a transaction that a dead leader left open: until then nobody reads past it.
	transactionTimeout = 10 * time.Second
	// endsPerCommit bounds the ends of one transaction.
	endsPerCommit = 5000
	// setsPerCommit bounds the bytes of sets of one transaction.
	setsPerCommit = 4 << 20
	// cursorKept is how long a settled campaign's cursor stays.
	cursorKept = 7 * 24 * time.Hour
	// orphanKept is how long a campaign without a record is remembered.
	orphanKept = 24 * time.Hour
)

// leader is one term of leadership: everything it knows ends with it.
type leader struct {
	*Scheduler
	core *core
	cl   *kgo.Client // the producer of all that is decided

	group *errgroup.Group // all that runs beside the leader

	began   time.Time
	feed    chan batch
	offsets map[string]map[int32]int64 // of the records observed: what the sets cover
	lanes   map[string]*lane           // by route
	live    bool                       // everything that stood in the topics is known: deals are made
	nudging atomic.Bool

	jobs, slowJobs chan job
	answers        chan func()
	storeSaid      time.Time            // when trouble with the store was last logged
	saidOfStore    map[string]time.Time // and when what was

	busy      bool // a transaction is under way
	committed chan error

	round     *round
	nextRound time.Time
	unsaved   int // records read since the last round
	graves    map[uint64]*grave
	dealtHeld map[string]*held // taken out of held not long before the term; nil once looked at
	dead      []*kgo.Record
	redeals   []deal
	withheld  error // what the hook said last
	hookAt    time.Time
	secondAt  time.Time
	minuteAt  time.Time
	stepAt    time.Time
}

// batch is what a tail has read; it waits until the leader is done with it.
type batch struct {
	records []*kgo.Record
	done    chan struct{}
}

// job is something asked of the store; what it returns is run by the leader.
type job func(ctx context.Context) func()

// lead is one term.
func (s *Scheduler) lead(ctx context.Context) error {
	began := time.Now()
	// Whatever is being written when the term ends is finished, within a bound.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopWithin, cancel) })()

	cl, err := s.cfg.Cluster.Named("scheduler.deals").Client(
		kgo.TransactionalID(s.names.TransactionalID("scheduler", "")),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.ProducerLinger(0),
		kgo.WithLogger(quiet{kslog.New(s.log)}),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	// First of all: from here on the predecessor can write nothing more, so what is read below is all there is.
	if _, _, err := cl.ProducerID(ctx); err != nil {
		return fmt.Errorf("take the transactional id: %w", err)
	}
	l := &leader{
		Scheduler: s, core: newCore(), cl: cl, feed: make(chan batch), offsets: map[string]map[int32]int64{}, lanes: map[string]*lane{},
		jobs: make(chan job, 256), slowJobs: make(chan job, 256), answers: make(chan func(), 16), committed: make(chan error, 1),
		graves: map[uint64]*grave{}, dealtHeld: map[string]*held{}, began: began,
	}
	saved, err := s.readCursors(ctx)
	if err != nil {
		return fmt.Errorf("read cursors: %w", err)
	}
	named, err := l.restore(saved)
	if err != nil {
		return err
	}
	l.look()
	if l.redeals, err = l.checkChunks(ctx, named, saved.newest); err != nil {
		return err
	}
	for topic, at := range saved.offsets {
		l.offsets[topic] = maps.Clone(at)
	}

	g, gctx := errgroup.WithContext(work)
	l.group = g
	for range 2 {
		g.Go(func() error { return l.serveStore(gctx, l.jobs) })
		g.Go(func() error { return l.serveStore(gctx, l.slowJobs) })
	}
	g.Go(func() error {
		err := l.run(ctx, work, gctx, saved.offsets)
		if err == nil {
			err = errOver // ends the tails too
		}
		return err
	})
	if err = g.Wait(); errors.Is(err, errOver) {
		return nil
	}
	return err
}

// quiet logs no more than warnings: a client that speaks of every transaction would fill the log.
type quiet struct{ kgo.Logger }

// Level implements kgo.Logger.
func (quiet) Level() kgo.LogLevel { return kgo.LogLevelWarn }

// errOver ends what runs beside the leader when its term is over in peace.
var errOver = errors.New("the term is over")

// run reads to the end of what there is, then deals until the term ends: with ctx. Work is the context of what is being written
// then, beside that of what runs beside the leader.
func (l *leader) run(ctx, work, beside context.Context, from map[string]map[int32]int64) error {
	first, err := l.followTopics(beside, []string{l.names.Deliveries(), l.names.Held()}, from)
	if err != nil {
		return err
	}
	ready := first.Ready()
	tick := time.NewTicker(l.cfg.Pace)
	defer tick.Stop()
	nudge := time.NewTicker(2 * nudgeAfter)
	defer nudge.Stop()
	changed := l.cfg.View.Changed()
	for look := true; ; {
		if look {
			look = false
			l.look()
			if err := l.followLanes(beside, from); err != nil {
				return err
			}
		}
		feed := l.feed
		if l.round != nil {
			feed = nil // nothing new is thought about while the sets are written
		}
		select {
		case <-ctx.Done():
			return l.finish(work)
		case <-beside.Done():
			return nil // a tail has failed, and says why
		case b := <-feed:
			l.read(b.records)
			close(b.done)
		case <-changed:
			changed, look = l.cfg.View.Changed(), true
		case answer := <-l.answers:
			answer()
		case err := <-l.committed:
			l.busy = false
			if err != nil {
				return err
			}
		case <-ready:
			ready = nil
			l.begin()
		case <-nudge.C:
			l.nudgeTails(beside)
		case <-tick.C:
		}
		if err := l.step(work); err != nil {
			return err
		}
	}
}

// begin begins to deal: everything that stood in the topics is known.
func (l *leader) begin() {
	now := l.cfg.Now()
	l.live, l.nextRound = true, now.Add(l.cfg.SetsEvery)
	took := time.Since(l.began)
	l.metrics.takeover.Set(took.Seconds())
	l.metrics.leading.Set(1)
	l.log.Info("leading", "took", took, "campaigns", len(l.core.open), "held", len(l.core.holding.byKey))
}

// nudgeTails helps the tails that have not reached the end of their topics, if anything waits for them.
func (l *leader) nudgeTails(ctx context.Context) {
	var topics [][]string
	if !l.live {
		topics = append(topics, []string{l.names.Deliveries(), l.names.Held()})
	}
	for _, n := range l.lanes {
		if !n.ready() && len(l.core.holding.queue)+len(l.dealtHeld) > 0 {
			topics = append(topics, []string{n.topic})
		}
	}
	if len(topics) == 0 || !l.nudging.CompareAndSwap(false, true) {
		return
	}
	l.group.Go(func() error {
		defer l.nudging.Store(false)
		for _, t := range topics {
			l.nudge(ctx, t)
		}
		return nil
	})
}

// followTopics begins to read topics into the core.
func (l *leader) followTopics(ctx context.Context, topics []string, from map[string]map[int32]int64) (*stream.Tail, error) {
	t, err := stream.NewTail(stream.TailConfig{
		Cluster: l.cfg.Cluster.Named("scheduler.events"), Topics: topics, From: from, Every: 250 * time.Millisecond,
	}, func(records []*kgo.Record) {
		b := batch{records, make(chan struct{})}
		select {
		case l.feed <- b:
			<-b.done // the records are the tail's again after that
		case <-ctx.Done():
		}
	})
	if err != nil {
		return nil, err
	}
	l.group.Go(func() error { return t.Run(ctx) })
	return t, nil
}

// lane is the transactional lane of a route.
type lane struct {
	route string
	topic string
	known <-chan struct{} // closed when what stood on it is known
}

func (n *lane) ready() bool {
	select {
	case <-n.known:
		return true
	default:
		return false
	}
}

// followLanes begins to read the transactional lanes of new routes, each by itself: a route whose topics are not there yet
// holds up nobody.
func (l *leader) followLanes(ctx context.Context, from map[string]map[int32]int64) error {
	for _, r := range l.core.ordered {
		if l.lanes[r.name] != nil || schemas.ValidRoute(r.name) != nil || !r.known {
			continue
		}
		topic := l.names.Messages(r.name, schemas.LaneTxn)
		t, err := l.followTopics(ctx, []string{topic}, map[string]map[int32]int64{topic: from[topic]})
		if err != nil {
			return err
		}
		l.lanes[r.name] = &lane{r.name, topic, t.Ready()}
	}
	return nil
}

// look takes in what the view says now.
func (l *leader) look() {
	there := map[string]bool{}
	for _, r := range l.cfg.View.Routes() {
		there[r.GetName()] = true
		l.core.RouteChanged(r)
	}
	for _, r := range l.core.ordered {
		if r.known && !there[r.name] {
			r.enabled = false
		}
	}
	for _, r := range l.cfg.View.Campaigns() {
		l.core.CampaignChanged(r)
		if c := l.core.campaigns[r.GetNumber()]; c != nil && c.closed && l.graves[c.number] == nil && (c.deals > 0 || c.epoch > 0) {
			l.graves[c.number] = &grave{key: c.key(), tenant: c.tenant, settledMs: r.GetSettledMs(), parts: c.parts, cursor: c.cursor()}
		}
	}
	for id, t := range l.core.tenants {
		if r := l.cfg.View.Tenant(id); r != nil {
			l.core.TenantChanged(r)
		} else {
			t.enabled = false
		}
	}
	for key, sender := range l.core.senders {
		if r := l.cfg.View.Sender(key.tenant, key.id); r != nil {
			l.core.SenderChanged(r)
		} else {
			sender.rate = 0 // without a limit, as senders take it
		}
	}
}

// read takes in what a tail has read.
func (l *leader) read(records []*kgo.Record) {
	var e event
	var at *kgo.Record // the last of a run of records of one partition
	var decode func([]byte, *event) error
	var route string
	for _, r := range records {
		if at == nil || r.Topic != at.Topic || r.Partition != at.Partition {
			l.readUpTo(at)
			decode, route = l.reads(r.Topic)
		}
		at = r
		if decode == nil {
			l.hold(r)
			continue
		}
		e.logged = r.Timestamp.UnixMilli()
		if err := decode(r.Value, &e); err != nil {
			l.poison(r, err)
			continue
		}
		if route != "" {
			l.core.submitted(&e, route)
		} else {
			l.core.observe(&e)
		}
	}
	l.readUpTo(at)
	l.metrics.events.Add(float64(len(records)))
	l.unsaved += len(records)
}

// reads says how the records of a topic are read: as events, as single sends of a route, or, with nil, as held ones.
func (l *leader) reads(topic string) (decode func([]byte, *event) error, route string) {
	switch topic {
	case l.names.Deliveries():
		return decodeDelivery, ""
	case l.names.Held():
		return nil, ""
	}
	for _, n := range l.lanes {
		if n.topic == topic {
			return decodeMessage, n.route
		}
	}
	return nil, ""
}

// readUpTo notes how far the sets go. What is held is read from its beginning each time.
func (l *leader) readUpTo(r *kgo.Record) {
	if r == nil || r.Topic == l.names.Held() {
		return
	}
	if l.offsets[r.Topic] == nil {
		l.offsets[r.Topic] = map[int32]int64{}
	}
	l.offsets[r.Topic][r.Partition] = r.Offset + 1
}

// deadAtOnce bounds the dead letters that wait to be written.
const deadAtOnce = 1000

// poison makes a dead letter of a record that cannot be read, and says so without quoting it.
func (l *leader) poison(r *kgo.Record, err error) {
	l.metrics.dead.Inc()
	l.log.Error("a record cannot be read", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
	if r.Topic == l.names.Deliveries() && len(l.dead) < deadAtOnce {
		l.dead = append(l.dead, stream.DeadLetter(l.names, source, stream.Dead{Record: cloneOf(r), Cause: err}))
	}
}

// cloneOf keeps a record beyond the tail's use of it.
func cloneOf(r *kgo.Record) *kgo.Record {
	kept := *r
	return &kept
}
