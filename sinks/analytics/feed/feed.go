package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/stream"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// Stage is the name of the role, in groups, client ids and dead letters.
const Stage = "analytics"

// Config of a feed.
type Config struct {
	Cluster stream.Cluster
	// Store is filled.
	Store analytics.Store
	// Campaigns says whose a campaign is, and of which month.
	Campaigns Campaigns
	// Lookup is asked about campaigns that Campaigns does not know, such as those that settled long ago; may be nil.
	// An error that is schemas.ErrNotFound, or no campaign, means that there is none; any other is temporary.
	Lookup func(ctx context.Context, id string) (*fanfarev1.Campaign, error)
	// Interval is how long events are gathered before they are appended; default 200 ms. Statistics are behind by about that,
	// and a store with a cost per batch, such as ClickHouse, wants 1 s or more.
	Interval time.Duration
	// MaxRows are appended before the interval is over; default 50,000. About twice as many are in memory at most, 0.5 KB each.
	MaxRows int
	// SessionTimeout of the group; default 10 s: how long the partitions of a dead process lie still.
	SessionTimeout time.Duration
	// DrainTimeout is how long Run goes on, when it is stopped, to append what it has read; default 5 s.
	DrainTimeout time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Validate fills in defaults and says what is missing.
func (c *Config) Validate() error {
	c.Interval = cmp.Or(c.Interval, 200*time.Millisecond)
	c.MaxRows = cmp.Or(c.MaxRows, 50_000)
	c.SessionTimeout = cmp.Or(c.SessionTimeout, 10*time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 5*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.Store == nil:
		return errors.New("analytics feed: no store")
	case c.Campaigns == nil:
		return errors.New("analytics feed: no view of campaigns")
	case c.Cluster.Logger == nil:
		return errors.New("analytics feed: no logger")
	case c.Interval < 0, c.MaxRows < 0, c.SessionTimeout < 0, c.DrainTimeout < 0:
		return errors.New("analytics feed: an interval or a bound below 0")
	}
	return nil
}

// Feed fills a store from topic deliveries.
type Feed struct {
	cfg        Config
	topic      string
	log        *slog.Logger
	cl         *kgo.Client
	adm        *kadm.Client
	positioner analytics.Positioner // nil: the store keeps no positions
	decoder    *decoder
	resolver   *resolver
	metrics    *metrics
	// connected is closed when cl and adm are there: a client calls back before the call that makes it returns.
	connected chan struct{}

	// asOf is the least of the partitions', in milliseconds; 0 while one of them has none.
	asOf atomic.Int64
	// held are the partitions of which nothing more is fetched.
	held []int32
	// lastMark and lastSettle are when the store was last told how far it is, and the group.
	lastMark, lastSettle time.Time
	// interrupted is for tests: it is called between the steps of a flush.
	interrupted func(step string) error

	// mu is held while partitions come and go, and during commits: whoever takes a partition away waits for the commit.
	mu         sync.Mutex
	topicID    analytics.TopicID
	partitions map[int32]*partition
	committed  map[int32]committed
	unnamed    []int32 // partitions of the topic that the store may not have heard of
}

// New returns a feed. It talks to nobody before Run.
func New(cfg Config) (*Feed, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	f := &Feed{
		cfg: cfg, topic: cfg.Cluster.Names.Deliveries(), log: cfg.Cluster.Logger.With("stage", Stage),
		decoder: newDecoder(), resolver: newResolver(cfg), connected: make(chan struct{}), partitions: map[int32]*partition{}, committed: map[int32]committed{},
	}
	f.positioner, _ = cfg.Store.(analytics.Positioner)
	f.metrics = newMetrics(cfg.Cluster.Registry, f)
	return f, nil
}

// AsOf is the time up to which everything in the partitions of this process is stored; zero while that is not known.
func (f *Feed) AsOf() time.Time {
	if at := f.asOf.Load(); at != 0 {
		return time.UnixMilli(at).UTC()
	}
	return time.Time{}
}

// Run fills the store until ctx ends; then it appends what it has read and leaves the group. It is called once.
func (f *Feed) Run(ctx context.Context) error {
	// The client outlives ctx: what is in hand is finished. kill cuts its connections when even that takes too long.
	clientCtx, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	var err error
	f.cl, err = f.cfg.Cluster.Named(Stage).Client(
		kgo.WithContext(clientCtx),
		kgo.ConsumerGroup(f.cfg.Cluster.Names.Group(Stage)),
		kgo.ConsumeTopics(f.topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(f.cfg.SessionTimeout),
		kgo.HeartbeatInterval(f.cfg.SessionTimeout/10),
		kgo.RebalanceTimeout(2*f.cfg.SessionTimeout),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Where transactions write, only the records that end them reach the end of the log: without them nobody could
		// tell that everything has been read.
		kgo.KeepControlRecords(),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnOffsetsFetched(f.fetched),
		kgo.AdjustFetchOffsetsFn(f.assign),
		kgo.OnPartitionsRevoked(f.release),
		kgo.OnPartitionsLost(f.release),
		// What one fetch brings is held beside what is gathered.
		kgo.FetchMaxBytes(8<<20),
		kgo.FetchMaxPartitionBytes(2<<20),
		kgo.WithPools(&pool{}),
		kgo.ProducerLinger(0),
	)
	if err != nil {
		return fmt.Errorf("analytics feed: %w", err)
	}
	f.adm = kadm.NewClient(f.cl)
	close(f.connected)
	g, ctx := errgroup.WithContext(ctx)
	ends := make(chan map[int32]check, 1)
	g.Go(func() error { return f.askEnds(ctx, ends) })
	g.Go(func() error { return f.loop(ctx, ends) })
	err = g.Wait()

	timer := time.AfterFunc(f.cfg.DrainTimeout, kill)
	defer timer.Stop()
	f.cl.CloseAllowingRebalance()
	return err
}

// polled is the most records taken from the client at once, so that what is gathered stays near its bound.
const polled = 10_000

// loop gathers and flushes. Everything but the callbacks of the group happens here.
func (f *Feed) loop(ctx context.Context, ends <-chan map[int32]check) error {
	next := f.cfg.Now().Add(f.cfg.Interval)
	for ctx.Err() == nil {
		if wait := next.Sub(f.cfg.Now()); wait > 0 && !f.full() {
			f.poll(ctx, wait)
		}
		if err := f.decode(ctx); err != nil && !errors.Is(err, errStoreAway) && ctx.Err() == nil {
			// The campaign of the next record cannot be found out now. What is before it goes on.
			f.log.WarnContext(ctx, "waiting for the campaign of an event", "error", err)
		}
		select {
		case at := <-ends:
			f.check(at)
		default:
		}
		if f.cfg.Now().Before(next) && !f.full() {
			continue
		}
		if err := f.flush(ctx); err != nil {
			return err
		}
		next = f.cfg.Now().Add(f.cfg.Interval)
		if f.full() && !pause(ctx, f.cfg.Interval) {
			break
		}
	}
	// What has been read is appended, and then settled, so that the next owner reads nothing twice.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.DrainTimeout)
	defer cancel()
	for range 2 {
		if err := f.flush(drain); err != nil {
			return err
		}
	}
	return nil
}

// pause waits for about d; false: ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// poll waits for records, at most so long, and queues them with the assignment that they came under.
func (f *Feed) poll(ctx context.Context, wait time.Duration) {
	f.holdStuck()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	fetches := f.cl.PollRecords(ctx, min(polled, f.cfg.MaxRows))
	fetches.EachError(func(_ string, partition int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) && !errors.Is(err, kgo.ErrClientClosed) {
			f.log.WarnContext(ctx, "fetch failed", "partition", partition, "error", err)
		}
	})
	f.mu.Lock()
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		if p := f.partitions[ftp.Partition]; p != nil {
			p.raw = append(p.raw, ftp.Records...)
		}
	})
	f.mu.Unlock()
	f.cl.AllowRebalance()
}

// holdStuck fetches nothing more of a partition that waits for its next campaign and has enough: the others go on.
func (f *Feed) holdStuck() {
	var hold, let []int32
	owned := f.owned()
	most := min(polled, f.cfg.MaxRows/max(1, len(owned))) // together they fill the memory once
	for _, p := range owned {
		held := slices.Contains(f.held, p.id)
		switch want := p.stuck && len(p.raw) >= most; {
		case want && !held:
			hold = append(hold, p.id)
		case held && !want:
			let = append(let, p.id)
		}
	}
	if len(hold)+len(let) == 0 {
		return
	}
	f.cl.PauseFetchPartitions(map[string][]int32{f.topic: hold})
	f.cl.ResumeFetchPartitions(map[string][]int32{f.topic: let})
	f.held = slices.DeleteFunc(append(f.held, hold...), func(id int32) bool { return slices.Contains(let, id) })
}

// owned returns the partitions of this process, in order.
func (f *Feed) owned() []*partition {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*partition, 0, len(f.partitions))
	for _, p := range f.partitions {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *partition) int { return cmp.Compare(a.id, b.id) })
	return out
}

// full says that memory holds as many rows as it may. A declared batch is read to its end all the same: nothing less of it can be appended.
func (f *Feed) full() bool {
	n := 0
	for _, p := range f.owned() {
		if p.declared > p.next && len(p.raw) == 0 {
			return false
		}
		n += len(p.events)
		if !p.stuck {
			n += len(p.raw)
		}
	}
	f.metrics.waiting.Set(float64(n))
	return n >= f.cfg.MaxRows
}

// decode makes events of the raw records. An error means that a record has to wait, and those of its partition behind it.
func (f *Feed) decode(ctx context.Context) error {
	fetched := f.cfg.Now()
	var errs []error
	for _, p := range f.owned() {
		n := 0
		for _, r := range p.raw {
			if err := f.take(ctx, p, r, fetched); err != nil {
				errs = append(errs, err)
				break
			}
			n++
		}
		p.stuck = n < len(p.raw)
		if n == len(p.raw) {
			p.raw = nil
		} else {
			p.raw = p.raw[n:]
		}
	}
	return errors.Join(errs...)
}

// take makes an event of one record, or a dead letter. A record that was taken must not be looked at again.
func (f *Feed) take(ctx context.Context, p *partition, r *kgo.Record, fetched time.Time) error {
	offset := r.Offset
	if offset < p.next {
		return nil
	}
	if !r.Attrs.IsControl() {
		var e analytics.Event
		env, err := f.decoder.decode(r.Value, &e)
		if err == nil {
			e.Campaign, err = f.resolver.resolve(ctx, env, fetched)
		}
		cause := ""
		switch {
		case err == nil:
			e.Offset = offset
			p.events = append(p.events, e)
		case errors.Is(err, errRecord):
			cause = causeRecord
		case errors.Is(err, errCampaign):
			cause = causeCampaign
		case errors.Is(err, errTenant):
			cause = causeTenant
		default:
			return err
		}
		if cause != "" {
			f.metrics.dead.WithLabelValues(cause).Inc()
			p.dead = append(p.dead, stream.Dead{Record: keep(r), Cause: err})
		}
	}
	p.next = offset + 1
	r.Recycle()
	return nil
}
