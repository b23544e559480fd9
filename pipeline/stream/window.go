package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/schemas"
)

// WindowConfig of a [Window].
type WindowConfig struct {
	Cluster Cluster
	// Topic is read by Group, one intent window over each partition that this process is given.
	Topic, Group string
	// Outcomes is the topic of delivery events. Their `source` headers are the second witness of how far an earlier owner came;
	// without it a broker that loses commits makes a window hand over again.
	Outcomes string
	// Size is the most that may be uncertain after a crash of this process, over all its partitions, 1 to 2,000. It is asked
	// again and again, so that it may follow the rate of the route: rate × (0.25 s + the carrier's p99 answer time). A commit
	// takes 5–6 ms on a real broker, so below rate × 20 ms the window holds the route up.
	Size func() int
	// SessionTimeout of the group; default 10 s. A crash is noticed so much later.
	SessionTimeout time.Duration
	// GuardMargin is how long before the session's end submitting ends; default 2 s. It covers what passes between the guard's
	// test and the carrier's socket, and clocks that run differently.
	GuardMargin time.Duration
	// DrainTimeout is how long a revoke and a stop wait for what is in flight; default 10 s. What is not answered then is
	// uncertain for the next owner.
	DrainTimeout time.Duration
	// Linger of the outcomes' producer; default 0.
	Linger time.Duration
	// Identity of a record, for recognising one that was seen before. A record for which it fails is released unseen.
	Identity func(*kgo.Record) (schemas.ID, error)
	// Suspended is told about a partition that is held until somebody mends its offset; the rest goes on. It must not block. An
	// offset can be mended only while nobody of the group runs, and is looked at when a partition is assigned. Without it
	// [Window.Run] ends with the error.
	Suspended func(*SuspendedError)
	// Now is the wall clock of the guard; default time.Now.
	Now func() time.Time
}

func (cfg *WindowConfig) validate() error {
	if err := cfg.Cluster.validate(); err != nil {
		return err
	}
	if cfg.Topic == "" || cfg.Group == "" || cfg.Size == nil || cfg.Identity == nil {
		return errors.New("topic, group, size and identity are needed")
	}
	defaults := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	defaults(&cfg.SessionTimeout, 10*time.Second)
	defaults(&cfg.GuardMargin, 2*time.Second)
	defaults(&cfg.DrainTimeout, 10*time.Second)
	if cfg.SessionTimeout <= cfg.GuardMargin {
		return fmt.Errorf("session timeout %s leaves nothing to the guard, which ends %s before it", cfg.SessionTimeout, cfg.GuardMargin)
	}
	if cfg.Cluster.Name == "" {
		cfg.Cluster.Name = cfg.Group
	}
	return nil
}

// Reason of a suspension.
type Reason string

// Reasons why a partition is held.
const (
	ReasonMetadata   Reason = "foreign_metadata"    // the commit's metadata is neither ours nor empty
	ReasonNoOffset   Reason = "no_committed_offset" // nobody knows how far the predecessor came
	ReasonOutOfRange Reason = "offset_out_of_range" // the committed offset is not in the log
	ReasonDataLoss   Reason = "data_loss"           // the log was cut below what was read
)

// SuspendedError says that nothing more is done to a partition until somebody looks at it: going on by guess would send again.
type SuspendedError struct {
	Topic     string
	Partition int32
	Reason    Reason
	Detail    string
	Fix       string
}

func (e *SuspendedError) Error() string {
	return fmt.Sprintf("%s/%d is suspended, %s: %s; fix: %s", e.Topic, e.Partition, e.Reason, e.Detail, e.Fix)
}

// Releaser takes what a window releases.
type Releaser interface {
	// Release is given items in the order of each partition, once an acknowledged commit covers them. It is called by one
	// goroutine at a time and must not block: while it does, nothing else is released. It may keep the slice.
	Release(items []*Item)
}

// ReleaserFunc is a function as a [Releaser].
type ReleaserFunc func(items []*Item)

// Release implements [Releaser].
func (f ReleaserFunc) Release(items []*Item) { f(items) }

// Window hands the records of a topic to a [Releaser], each to be handed over outside at most once. Its rules:
//
//  1. Nothing is done to a record before an acknowledged commit covers it. A commit settles (its offset, the base, is the
//     oldest record without an acknowledged outcome) and declares (its metadata carries the head) in one. At most
//     [WindowConfig.Size] records lie between the two.
//  2. What is uncertain is reported and never submitted; what was seen is dropped; the rest is tested by [Item.Begin] right
//     before it is handed over.
//  3. The base never passes an outcome that Kafka has not acknowledged. Outcomes say in header `source` what they are about.
//  4. A refused commit stops the partition. What is committed is read again: if it is ours, the same records go on once a
//     commit is accepted; if it is not, everything below its head whose outcome is not known here is uncertain.
//  5. A revoke and a stop wait for what is in flight, and commit what of the window is settled already, so that the next
//     owner finds nothing uncertain. Partitions that are lost are let go of without a commit.
//  6. Nothing is submitted when the last accepted commit was begun longer ago than the session's timeout less a margin. What
//     was not submitted for that is released again once a commit is accepted.
//  7. On assignment the submissions of the 50,000 records below the committed offset are remembered, and the remembering
//     goes on: a record whose submission was seen is dropped.
//  8. An offset that is missing or not in the log suspends the partition, as does metadata that somebody else wrote. The
//     sources of the newest 50,000 outcomes are a second witness: one at or above the head means that the broker has lost
//     commits, and what it may have lost is uncertain.
//
// A record in flight when its partition is taken away is still answered by [Item.Settle]: its outcome is written, and
// outranks the doubt of the next owner.
type Window struct {
	cfg     WindowConfig
	rel     Releaser
	log     *slog.Logger
	metrics *windowMetrics
	guard   *guard

	started chan struct{} // closed once cl is there
	cl      *kgo.Client

	// commits is held while a commit is planned, sent and taken in, and while partitions are handed over: no commit may
	// follow the one that hands over.
	commits sync.Mutex
	mu      sync.Mutex // guards what follows, never held while something is waited for
	parts   map[int32]*part
	order   []*part // parts by number
	turn    int     // where planning begins
	retries []*unproduced
	resets  bool // some part wants to be reset
	unpoll  context.CancelFunc

	commitTook time.Duration // the last commit

	wake      chan struct{} // for the committer, of one place
	give      chan struct{} // for the releaser, of one place
	room      chan struct{} // for the poller, of one place
	fatal     chan error    // of one place
	unsettled atomic.Int64  // released and neither done nor gone
	freed     atomic.Int64  // done since the last commit
	quantum   atomic.Int64  // so many freed are worth a commit at once
	recalled  atomic.Int64  // to be released again
	tripped   atomic.Bool   // the guard has said no since it was proved last
	stopping  atomic.Bool
	running   atomic.Bool
}

// NewWindow returns a window that [Window.Run] runs.
func NewWindow(cfg WindowConfig, r Releaser) (*Window, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("window: %w", err)
	}
	if r == nil {
		return nil, errors.New("window: no releaser")
	}
	w := &Window{
		cfg: cfg, rel: r,
		log:     cfg.Cluster.Logger.With("topic", cfg.Topic, "group", cfg.Group),
		guard:   newGuard(cfg.SessionTimeout-cfg.GuardMargin, cfg.Now),
		started: make(chan struct{}),
		parts:   map[int32]*part{},
		wake:    make(chan struct{}, 1),
		give:    make(chan struct{}, 1),
		room:    make(chan struct{}, 1),
		fatal:   make(chan error, 1),
	}
	w.metrics = newWindowMetrics(cfg.Cluster.Registry, cfg.Topic)
	w.quantum.Store(1)
	return w, nil
}

// fetchPartitionBytes is how much is fetched of a partition at once: some 600 messages, compressed.
const fetchPartitionBytes = 64 << 10

// leaveTimeout bounds what a stop takes beside the drain.
const leaveTimeout = 3 * time.Second

// Run works until ctx ends; then it waits for what is in flight, hands its partitions over and returns nil. It may be run
// once. It waits for a broker that is away.
func (w *Window) Run(ctx context.Context) error {
	if w.running.Swap(true) {
		return errors.New("window: it was run before")
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	opts := append(groupOptions(w.cfg.Group, []string{w.cfg.Topic}, w.cfg.SessionTimeout, w.cfg.DrainTimeout),
		kgo.WithContext(life),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // a reset would send the log again
		kgo.KeepControlRecords(),                    // see part.take
		kgo.BlockRebalanceOnPoll(),
		kgo.OnOffsetsFetched(w.fetched),
		kgo.AdjustFetchOffsetsFn(w.adjust),
		kgo.OnPartitionsRevoked(w.revoked),
		kgo.OnPartitionsLost(w.lost),
		// What is fetched at once must fit into the queue, so that every poll has something of every partition.
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.ProducerLinger(w.cfg.Linger),
		kgo.ProducerBatchMaxBytesFn(batchMaxBytes),
	)
	cl, err := w.cfg.Cluster.Client(opts...)
	if err != nil {
		cancel()
		return fmt.Errorf("window over %s: %w", w.cfg.Topic, err)
	}
	w.cl = cl
	close(w.started)
	end := cutter{cl, cancel}
	defer end.close(leaveTimeout)

	g, working := errgroup.WithContext(ctx)
	// A broker that is away must not keep the process from ending.
	late, inTime := outliving(working, w.cfg.DrainTimeout+leaveTimeout)
	defer inTime()
	defer context.AfterFunc(late, end.cut)()
	g.Go(func() error { w.poll(working); return nil })
	g.Go(func() error { w.commitAlways(working, life); return nil })
	g.Go(func() error { w.releaseAlways(working); return nil })
	g.Go(func() error {
		select {
		case <-working.Done():
			return nil
		case err := <-w.fatal:
			return err
		}
	})
	err = g.Wait()
	w.stopping.Store(true)
	cl.AllowRebalance()
	w.handOver(life, w.all())
	return err
}

// Produce publishes records that are no outcomes and returns when Kafka has acknowledged them all.
func (w *Window) Produce(ctx context.Context, recs ...*kgo.Record) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.started:
	}
	// Not flushed: that would wait for every outcome on its way, and while a route is busy there always is one.
	if err := w.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// maxSize is the largest window: what is uncertain must stay small enough for people to look at.
const maxSize = 2000

func (w *Window) size() int { return min(max(w.cfg.Size(), 1), maxSize) }

// signal wakes whoever waits at a channel of one place.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (w *Window) nudge() { signal(w.wake) }

func (w *Window) fail(err error) {
	select {
	case w.fatal <- err:
	default:
	}
}

// all returns the parts we own.
func (w *Window) all() []*part {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*part(nil), w.order...)
}
