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

	"fanfare/pipeline/scheduler/plan"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/schemas/trace"
)

const (
	// stopWithin is how long a leader that must stop may take to finish its transaction and to write its sets.
	stopWithin = 8 * time.Second
	// transactionTimeout is when the broker aborts a transaction that a dead leader left open. Until then no reader
	// gets past it.
	transactionTimeout = 10 * time.Second
	// endsPerCommit bounds the ends of one transaction.
	endsPerCommit = 5000
	// setsPerCommit bounds the bytes of sets of one transaction.
	setsPerCommit = 4 << 20
	// cursorKept is how long the cursor of a settled campaign stays.
	cursorKept = 7 * 24 * time.Hour
)

// leader is the state of one leadership. It is discarded when the leadership ends.
type leader struct {
	*Scheduler
	planner *plan.Planner
	cl      *kgo.Client // the producer of all decisions

	group *errgroup.Group // the goroutines beside the leader's loop

	began   time.Time
	feed    chan batch
	offsets map[string]map[int32]int64 // offsets up to which the sets cover each topic
	lanes   map[string]*lane           // by route
	live    bool                       // the topics were read to their ends: deals are made
	nudging atomic.Bool

	jobs, audienceJobs, largeJobs chan job
	answers                       chan func()
	storeLogged                   time.Time            // when a store failure was last logged
	storeFailures                 map[string]time.Time // when each store failure was last logged

	busy      bool // a transaction is under way
	committed chan error

	snapshot      *snapshotWrite // nil: none is under way
	nextSnapshot  time.Time
	unsaved       int // records read since the last snapshot
	tombstones    map[uint64]*tombstone
	recentHeld    map[string]*plan.Held // removed from topic held shortly before this leadership; nil once checked
	dead          []*kgo.Record         // dead letters to be written
	spans         []trace.Span          // of the deals in the transaction that is made next
	missingDeals  []plan.Deal           // deals that the self-check did not find in chunks
	mayNotDeal    error                 // the last answer of the MayDeal hook
	stalledLogged map[uint64]int64      // campaigns that make no progress, and since when
	hookAt        time.Time
	secondAt      time.Time
	minuteAt      time.Time
	stepAt        time.Time
}

// batch is a batch that a tail has read; the tail waits until the leader has applied it.
type batch struct {
	records []*kgo.Record
	done    chan struct{}
}

// job is a call of the store. The leader runs the function that it returns.
type job func(ctx context.Context) func()

// lead leads until ctx ends.
func (s *Scheduler) lead(ctx context.Context) error {
	began := time.Now()
	// A transaction that is being written when ctx ends is finished, within stopWithin.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(stopWithin, cancel) })()

	life, endLife := context.WithCancel(context.WithoutCancel(ctx))
	cl, err := s.cfg.Cluster.Named("scheduler.deals").Client(
		kgo.WithContext(life),
		kgo.TransactionalID(s.names.TransactionalID("scheduler", "")),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.ProducerLinger(0),
		kgo.WithLogger(warnings{kslog.New(s.log)}),
	)
	if err != nil {
		endLife()
		return err
	}
	end := stream.Cutter{Client: cl, Cancel: endLife}
	defer end.Close(time.Second)
	defer context.AfterFunc(work, end.Cut)() // while Kafka is away, a record that is produced outlives its context
	// This comes first: it fences the predecessor, which can write no more, so the reads below are complete.
	if _, _, err := cl.ProducerID(ctx); err != nil {
		return fmt.Errorf("take the transactional id: %w", err)
	}
	l := &leader{
		Scheduler: s, planner: plan.New(), cl: cl, feed: make(chan batch), offsets: map[string]map[int32]int64{}, lanes: map[string]*lane{},
		jobs: make(chan job, 256), audienceJobs: make(chan job, 256), largeJobs: make(chan job, 256), answers: make(chan func(), 16), committed: make(chan error, 1),
		tombstones: map[uint64]*tombstone{}, recentHeld: map[string]*plan.Held{}, began: began,
	}
	saved, err := s.readCursors(ctx)
	if err != nil {
		return fmt.Errorf("read cursors: %w", err)
	}
	listed := l.restore(saved)
	l.readView()
	if l.missingDeals, err = l.checkChunks(ctx, listed, saved.newest); err != nil {
		return err
	}
	for topic, at := range saved.offsets {
		l.offsets[topic] = maps.Clone(at)
	}

	g, gctx := errgroup.WithContext(work)
	l.group = g
	for range 2 {
		g.Go(func() error { return l.callStore(gctx, l.jobs) })
		g.Go(func() error { return l.callStore(gctx, l.audienceJobs) })
		g.Go(func() error { return l.callStore(gctx, l.largeJobs) })
	}
	g.Go(func() error {
		err := l.run(ctx, work, gctx, saved.offsets)
		if err == nil {
			err = errLeadershipOver // ends the tails, too
		}
		return err
	})
	if err = g.Wait(); errors.Is(err, errLeadershipOver) {
		return nil
	}
	return err
}

// warnings drops log records below warnings: the transactional client logs every transaction.
type warnings struct{ kgo.Logger }

// Level implements kgo.Logger.
func (warnings) Level() kgo.LogLevel { return kgo.LogLevelWarn }

// errLeadershipOver ends the goroutines beside the leader when its leadership ends without an error.
var errLeadershipOver = errors.New("leadership is over")

// run reads the topics to their ends, then deals until ctx ends. work is the context of writes, which outlives ctx;
// beside is the context of the goroutines beside the loop.
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
	for viewChanged := true; ; {
		if viewChanged {
			viewChanged = false
			l.readView()
			if err := l.followLanes(beside, from); err != nil {
				return err
			}
		}
		feed := l.feed
		if l.snapshot != nil {
			feed = nil // no event is applied while a snapshot is written
		}
		select {
		case <-ctx.Done():
			return l.shutDown(work)
		case <-beside.Done():
			return nil // a tail has failed and returns its error
		case b := <-feed:
			l.read(b.records)
			close(b.done)
		case <-changed:
			changed, viewChanged = l.cfg.View.Changed(), true
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

// begin starts dealing: the topics were read to their ends.
func (l *leader) begin() {
	now := l.cfg.Now()
	l.live, l.nextSnapshot = true, now.Add(l.cfg.SetsEvery)
	took := time.Since(l.began)
	l.metrics.takeover.Set(took.Seconds())
	l.metrics.leading.Set(1)
	l.log.Info("leading", "took_ms", took.Milliseconds(), "campaigns", l.planner.OpenCampaigns(), "held", l.planner.HeldMessages())
}

// nudgeTails unblocks tails that cannot reach the end of their topics because of an open transaction, if something
// waits for them.
func (l *leader) nudgeTails(ctx context.Context) {
	var topics [][]string
	if !l.live {
		topics = append(topics, []string{l.names.Deliveries(), l.names.Held()})
	}
	for _, n := range l.lanes {
		if !n.ready() && l.planner.HeldMessages()+len(l.recentHeld) > 0 {
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

// followTopics starts a tail whose records go to the leader's loop.
func (l *leader) followTopics(ctx context.Context, topics []string, from map[string]map[int32]int64) (*stream.Tail, error) {
	t, err := stream.NewTail(stream.TailConfig{
		Cluster: l.cfg.Cluster.Named("scheduler.events"), Topics: topics, From: from, Every: 250 * time.Millisecond,
	}, func(records []*kgo.Record) {
		b := batch{records, make(chan struct{})}
		select {
		case l.feed <- b:
			<-b.done // the tail reuses the records after that
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
	read  <-chan struct{} // closed when the lane was read to its end
}

func (n *lane) ready() bool {
	select {
	case <-n.read:
		return true
	default:
		return false
	}
}

// followLanes starts a tail for the transactional lane of each new route. Each has its own, so that a route whose
// topics do not exist yet holds up no other.
func (l *leader) followLanes(ctx context.Context, from map[string]map[int32]int64) error {
	for _, route := range l.planner.RouteNames() {
		if l.lanes[route] != nil || schemas.ValidRoute(route) != nil {
			continue
		}
		topic := l.names.Messages(route, schemas.LaneTxn)
		t, err := l.followTopics(ctx, []string{topic}, map[string]map[int32]int64{topic: from[topic]})
		if err != nil {
			return err
		}
		l.lanes[route] = &lane{route, topic, t.Ready()}
	}
	return nil
}

// readView applies the current records of the control plane.
func (l *leader) readView() {
	l.planner.SetRoutes(l.cfg.View.Routes())
	for _, r := range l.cfg.View.Campaigns() {
		l.planner.CampaignChanged(r)
		if c := l.planner.Campaign(r.GetNumber()); c != nil && c.Closed() && l.tombstones[c.Number()] == nil && c.HasCursor() {
			l.tombstones[c.Number()] = &tombstone{key: c.Key(), tenant: c.Tenant(), settledMs: r.GetSettledMs(), cursor: c.Cursor()}
		}
	}
	l.planner.RefreshTenants(l.cfg.View.Tenant)
	l.planner.RefreshSenders(l.cfg.View.Sender)
}

// read applies records that a tail has read.
func (l *leader) read(records []*kgo.Record) {
	var e plan.Event
	var at *kgo.Record // the last of a run of records of one partition
	var decode func([]byte, *plan.Event) error
	var route string
	for _, r := range records {
		if at == nil || r.Topic != at.Topic || r.Partition != at.Partition {
			l.readUpTo(at)
			decode, route = l.decoder(r.Topic)
		}
		at = r
		if decode == nil {
			l.readHeld(r)
			continue
		}
		e.LoggedMs = r.Timestamp.UnixMilli()
		if err := decode(r.Value, &e); err != nil {
			l.deadLetter(r, err)
			continue
		}
		if route != "" {
			l.planner.ObserveSubmission(&e, route)
		} else {
			l.planner.Observe(&e)
		}
	}
	l.readUpTo(at)
	l.metrics.events.Add(float64(len(records)))
	l.unsaved += len(records)
}

// decoder returns how the records of a topic are decoded: as delivery events, as single sends of a route, or, if nil,
// as held messages.
func (l *leader) decoder(topic string) (decode func([]byte, *plan.Event) error, route string) {
	switch topic {
	case l.names.Deliveries():
		return plan.DecodeDelivery, ""
	case l.names.Held():
		return nil, ""
	}
	for _, n := range l.lanes {
		if n.topic == topic {
			return plan.DecodeMessage, n.route
		}
	}
	return nil, ""
}

// readUpTo records the offset up to which the sets cover a topic. Topic held is read from its beginning each time.
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

// deadLetter queues a record that cannot be read for the dead letters, and logs it without its content.
func (l *leader) deadLetter(r *kgo.Record, err error) {
	l.metrics.dead.Inc()
	l.log.Error("unreadable record; written to the dead letters", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
	switch r.Topic {
	case l.names.Deliveries(), l.names.Held(), l.names.Cursors(), l.names.Chunks():
	default:
		return // a single send: the sender writes its dead letter
	}
	if len(l.dead) < deadAtOnce {
		l.dead = append(l.dead, stream.DeadLetter(l.names, source, stream.Dead{Record: cloneOf(r), Cause: err}))
	}
}

// cloneOf copies a record that the tail will reuse.
func cloneOf(r *kgo.Record) *kgo.Record {
	kept := *r
	return &kept
}
