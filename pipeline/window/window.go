package window

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

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// Config of a [Window].
type Config struct {
	Cluster stream.Cluster
	// Topic is read by Group. Each of its partitions that this process is assigned has an intent window of its own.
	Topic, Group string
	// Outcomes is the topic that [Item.Settle] writes to. The `source` headers of its newest records tell the next
	// owner of a partition how far its predecessor came, even if the broker has lost the commits. Without it such a
	// broker makes the window hand records over a second time.
	Outcomes string
	// Size is the most records, over all partitions of this process, that may be declared: 1 to 2,000. It is called for
	// each commit, so it may follow the rate of the route. It must be at least the number of messages that the carrier
	// may hold unanswered.
	Size func() int
	// Rate is the most records per second that this process hands over. With it the window declares no further ahead
	// than the next commits need: after a crash only what the carrier holds, and about two commits of records that were
	// not handed over, are uncertain. nil: as far ahead as Size allows.
	Rate func() float64
	// Blocked is how many released records cannot begin now although the route has room, for example because of the
	// limit of their tenant. The window declares past them, so that they do not hold up the others. nil: none.
	Blocked func() int
	// Tenant returns the tenant of a record. With it, the window declares one record of each tenant in turn, regardless
	// of their order in the log, so that no tenant waits behind another tenant's backlog (within the 8,192 records that
	// are polled). nil: in the order of the log.
	Tenant func(*kgo.Record) string
	// OutcomeOf returns the submission of a record of Outcomes that is final, and an error for outcomes that leave the
	// hand-over in doubt. At a takeover, records that have such an outcome are not uncertain. nil: all declared records
	// are.
	OutcomeOf func(*kgo.Record) (schemas.ID, error)
	// Reread is called at a takeover with the newest records of Outcomes that are about records of the partitions, in
	// the order of each partition of Outcomes, and again when the takeover is tried again. With it, the new owner can
	// do work that the last owner may not have finished after it had written an outcome. It must neither block nor keep
	// the record. nil: there is no such work.
	Reread func(*kgo.Record)
	// SessionTimeout of the group; default 10 s. The group notices a crashed member after this time.
	SessionTimeout time.Duration
	// GuardMargin is how long before the end of the session hand-overs stop; default 2 s. It covers the time between
	// the guard's test and the carrier's socket, and clocks that run at different speeds.
	GuardMargin time.Duration
	// DrainTimeout is how long a revoke and a stop wait for what is in flight; default 10 s. Records that are not
	// answered then are uncertain for the next owner.
	DrainTimeout time.Duration
	// Linger of the producer of outcomes; default 0.
	Linger time.Duration
	// Identity returns the submission of a record, by which duplicates are recognised. It must refuse ids that are not
	// genuine: a forged one would pass for the first copy of a message and have the real one dropped. Records for which
	// it fails are released without the check for duplicates, with a zero [Item.ID].
	Identity func(*kgo.Record) (schemas.ID, error)
	// Suspended is called when a partition is suspended: a person must repair its committed offset, which is possible
	// only while no member of the group runs; the other partitions go on. It must not block. When it is nil,
	// [Window.Run] returns the error instead.
	Suspended func(*SuspendedError)
	// Now is the wall clock of the guard; default time.Now.
	Now func() time.Time
}

func (cfg *Config) validate() error {
	if err := cfg.Cluster.Validate(); err != nil {
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
		return fmt.Errorf("session timeout %s must be longer than the guard margin %s", cfg.SessionTimeout, cfg.GuardMargin)
	}
	if cfg.Cluster.Name == "" {
		cfg.Cluster.Name = cfg.Group
	}
	return nil
}

// Reason of a suspension.
type Reason string

// Reasons for which a partition is suspended.
const (
	ReasonMetadata Reason = "foreign_metadata" // the commit's metadata is neither empty nor an intent
	// The group has no offset, so it is unknown how far the last owner came.
	ReasonNoOffset   Reason = "no_committed_offset"
	ReasonOutOfRange Reason = "offset_out_of_range" // the committed offset is not in the log
	ReasonDataLoss   Reason = "data_loss"           // the log was truncated below what was read
)

// SuspendedError means that the window has stopped a partition until a person repairs it, because continuing from a
// guessed offset might send messages again.
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

// Releaser receives the records that a window releases.
type Releaser interface {
	// Release is given items once an acknowledged commit covers them, in the order of each partition. One goroutine
	// calls it and releases nothing else meanwhile, so it must not block. It may keep the slice.
	Release(items []*Item)
}

// ReleaserFunc is a function as a [Releaser].
type ReleaserFunc func(items []*Item)

// Release implements [Releaser].
func (f ReleaserFunc) Release(items []*Item) { f(items) }

// Window gives the records of a topic to a [Releaser], which hands each of them over to an outside system (a carrier)
// at most once. To declare a record means to cover it by an acknowledged commit, which tells the next owner that its
// hand-over may have begun. To settle it means that Kafka has acknowledged its outcome. A record is uncertain when a
// previous owner declared it and no outcome is known. The rules, which the tests cite by number:
//
//  1. No record is released before an acknowledged commit covers it. One commit both settles and declares: its offset,
//     the base, is the oldest record without an acknowledged outcome; its metadata carries the head, the end of what is
//     declared. At most [Config.Size] records between the two have no acknowledged outcome. The head runs ahead of the
//     hand-overs only as far as the next commits need ([Config.Rate]). With [Config.Tenant] the metadata also lists
//     single declared records above the head.
//  2. Uncertain records are reported and never handed over. Duplicates are dropped. Every other record is tested by
//     [Item.Begin] right before its hand-over.
//  3. The base never passes a record whose outcome Kafka has not acknowledged. Outcomes name their record in header
//     `source`.
//  4. A refused commit stops the partition, and the window reads the committed offset again. If this process wrote that
//     offset, the partition continues once a commit is accepted. If another process wrote it, the partition restarts
//     from it, and every record below the committed head without an outcome known to this process is uncertain.
//  5. A revoke and a stop wait for what is in flight and commit which records are settled, so that the next owner finds
//     nothing uncertain. Partitions that are lost are dropped without a commit.
//  6. Guard: nothing is handed over when the last accepted commit began longer ago than the session timeout less a
//     margin. Records that were held back for that are released again once a commit is accepted.
//  7. On assignment the window remembers the submissions of the 50,000 records below the committed offset, and from
//     then on those that it reads. A record whose submission it remembers is a duplicate and dropped.
//  8. A missing offset, one outside the log, and metadata that is not ours suspend the partition. If one of the newest
//     50,000 outcomes names a record at or above the committed head, the broker has lost commits, and every record that
//     a lost commit may have declared is uncertain.
//  9. If the outside system can tell whether it has a record, an uncertain record can be resolved. [Item.Doubt] reports
//     the record as ambiguous and keeps it open: the base does not pass it, so after another crash it is uncertain for
//     the next owner, which continues to resolve it. [Item.Settle] records the outcome that was found. [Item.Clear]
//     lets the record begin if it was certainly not handed over.
//
// After a partition is revoked, records in flight can still be settled by [Item.Settle]: the outcome is written and
// takes precedence over the ambiguous outcome that the next owner reports.
type Window struct {
	cfg     Config
	rel     Releaser
	log     *slog.Logger
	metrics *windowMetrics
	guard   *guard

	started chan struct{} // closed once cl is set
	cl      *kgo.Client

	// commits is held while a commit is planned, sent and its answer taken in, and while partitions are given up: no
	// commit may follow the one that gives them up.
	commits sync.Mutex
	mu      sync.Mutex // guards the fields below; never held across a wait
	parts   map[int32]*part
	order   []*part // parts by partition number
	fair    fairness
	turn    int // index in order at which planning begins
	retries []*unproduced
	resets  bool // some part must be restarted
	reports []*takeoverReport

	interruptPoll context.CancelFunc
	commitUsual   time.Duration // moving average of the duration of commits

	wake      chan struct{} // wakes the committer; capacity 1, like the next two
	give      chan struct{} // to the releaser
	room      chan struct{} // to the poller
	fatal     chan error    // ends Run; capacity 1
	unsettled atomic.Int64  // items released and neither done nor gone
	freed     atomic.Int64  // items done since the last commit
	begun     atomic.Int64  // items begun
	quantum   atomic.Int64  // after this many freed or begun items the window commits at once
	recalled  atomic.Int64  // items to be released again
	tripped   atomic.Bool   // the guard has refused since the last accepted commit
	stopping  atomic.Bool
	running   atomic.Bool
}

// New returns a window that [Window.Run] runs.
func New(cfg Config, r Releaser) (*Window, error) {
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
	w.commitUsual = commitExpected
	return w, nil
}

// fetchPartitionBytes is how much one fetch returns of a partition: about 600 messages, compressed.
const fetchPartitionBytes = 64 << 10

// leaveTimeout is how long a stop may take in addition to the drain.
const leaveTimeout = 3 * time.Second

// Run works until ctx ends. Then it waits at most [Config.DrainTimeout] for records in flight, gives its partitions up
// and returns nil. While no broker answers, it waits. It may be called once.
func (w *Window) Run(ctx context.Context) error {
	if w.running.Swap(true) {
		return errors.New("window: Run was called before")
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	opts := append(stream.GroupOptions(w.cfg.Group, []string{w.cfg.Topic}, w.cfg.SessionTimeout, w.cfg.DrainTimeout),
		kgo.WithContext(life),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // a reset would hand the log over again
		kgo.KeepControlRecords(),                    // see part.take
		kgo.BlockRebalanceOnPoll(),
		kgo.OnOffsetsFetched(w.fetched),
		kgo.AdjustFetchOffsetsFn(w.adjust),
		kgo.OnPartitionsRevoked(w.revoked),
		kgo.OnPartitionsLost(w.lost),
		// The fetches of all partitions must fit into the queue together, so that each poll has records of every
		// partition.
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.ProducerLinger(w.cfg.Linger),
		kgo.ProducerBatchMaxBytesFn(stream.BatchMaxBytes),
	)
	cl, err := w.cfg.Cluster.Client(opts...)
	if err != nil {
		cancel()
		return fmt.Errorf("window over %s: %w", w.cfg.Topic, err)
	}
	w.cl = cl
	close(w.started)
	end := stream.Cutter{Client: cl, Cancel: cancel}
	defer end.Close(leaveTimeout)

	g, working := errgroup.WithContext(ctx)
	// The process must be able to end while the broker is away.
	late, inTime := stream.Outliving(working, w.cfg.DrainTimeout+leaveTimeout)
	defer inTime()
	defer context.AfterFunc(late, end.Cut)()
	g.Go(func() error { w.poll(working); return nil })
	g.Go(func() error { w.commitLoop(working, life); return nil })
	g.Go(func() error { w.releaseLoop(working); return nil })
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
	w.giveUp(life, w.all())
	return err
}

// Produce publishes records other than outcomes and returns when Kafka has acknowledged them all.
func (w *Window) Produce(ctx context.Context, recs ...*kgo.Record) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.started:
	}
	// No Flush: it would wait for all outcomes that are being produced, and on a busy route there always are some.
	if err := w.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// maxSize is the largest window. It limits how many records a crash can leave uncertain, because people may have to
// check them.
const maxSize = 2000

func (w *Window) size() int { return min(max(w.cfg.Size(), 1), maxSize) }

// signal wakes the goroutine that waits at a channel of capacity 1.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (w *Window) wakeCommitter() { signal(w.wake) }

func (w *Window) fail(err error) {
	select {
	case w.fatal <- err:
	default:
	}
}

// all returns the parts that this process owns.
func (w *Window) all() []*part {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*part(nil), w.order...)
}
