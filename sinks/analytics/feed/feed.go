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
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// Stage is the name of the role, in groups, client ids and dead letters. StageDeals is that of its reader of deals.
const (
	Stage      = "analytics"
	StageDeals = "analytics-deals"
)

// Config of a feed.
type Config struct {
	Cluster stream.Cluster
	// Store is filled with the events.
	Store analytics.Store
	// Campaigns gives a campaign's tenant and month.
	Campaigns Campaigns
	// Lookup is asked for campaigns that Campaigns does not have, such as those that settled long ago; it may be nil.
	// schemas.ErrNotFound, or a nil campaign, means that the campaign does not exist. Any other error is temporary.
	Lookup func(ctx context.Context, id string) (*fanfarev1.Campaign, error)
	// Interval is how long events are collected before they are appended; default 200 ms. Statistics lag by about that
	// long. A store with a high cost per batch, such as ClickHouse, wants a longer interval.
	Interval time.Duration
	// MaxRows is how many collected rows are appended without waiting for the interval; default 50,000. At most about
	// twice as many rows are in memory, 0.5 KB each.
	MaxRows int
	// SessionTimeout of the group; default 10 s. The partitions of a dead process are idle for that long.
	SessionTimeout time.Duration
	// DrainTimeout is how long Run may take, when it is stopped, to append what it has read; default 5 s.
	DrainTimeout time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Validate sets defaults and returns an error if something is missing.
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
		return errors.New("analytics feed: Config.Store is missing")
	case c.Campaigns == nil:
		return errors.New("analytics feed: Config.Campaigns is missing")
	case c.Cluster.Logger == nil:
		return errors.New("analytics feed: Config.Cluster.Logger is missing")
	case c.Interval < 0, c.MaxRows < 0, c.SessionTimeout < 0, c.DrainTimeout < 0:
		return errors.New("analytics feed: Interval, MaxRows, SessionTimeout and DrainTimeout must not be negative")
	}
	return nil
}

// Feed fills a store from topics deliveries and chunks.
type Feed struct {
	events, deals *reader
}

// New returns a feed. It opens no connection before Run.
func New(cfg Config) (*Feed, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Feed{events: newReader(cfg, eventSource), deals: newReader(cfg, dealSource)}, nil
}

// AsOf returns the time up to which the partitions of deliveries that this process reads are completely stored; zero
// while it is not known.
func (f *Feed) AsOf() time.Time { return f.events.AsOf() }

// Run fills the store until ctx ends, then appends what it has read and leaves the groups. It must be called only once.
func (f *Feed) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.events.run(ctx) })
	g.Go(func() error { return f.deals.run(ctx) })
	return g.Wait()
}

// source is one topic that a feed reads.
type source struct {
	stage, label string // label is the value of the label topic
	topic        func(schemas.Names) string
	// take turns one record into a row of the partition. An error that wraps errRecord, errCampaign or errTenant makes
	// the record a dead letter; any other is temporary.
	take func(r *reader, ctx context.Context, p *partition, record *kgo.Record, fetched time.Time) error
	// marks says that the store's AsOf is that of this topic. Deals come before the events that answer them, so AsOf is
	// about the events.
	marks bool
}

var (
	eventSource = source{stage: Stage, label: "deliveries", topic: schemas.Names.Deliveries, take: (*reader).takeEvent, marks: true}
	dealSource  = source{stage: StageDeals, label: "chunks", topic: schemas.Names.Chunks, take: (*reader).takeDeal}
)

// reader fills a store from one topic.
type reader struct {
	source
	cfg        Config
	topic      string
	log        *slog.Logger
	cl         *kgo.Client
	adm        *kadm.Client
	positioner analytics.Positioner // nil: the store keeps no positions
	decoder    *decoder
	resolver   *resolver
	metrics    *metrics
	outages    *stream.Outages
	// connected is closed when cl and adm are set. The client may call back before kgo.NewClient returns.
	connected chan struct{}

	// asOf is the least time of the owned partitions, in milliseconds; 0 while one of them has none.
	asOf atomic.Int64
	// held lists the partitions whose fetching is paused.
	held []int32
	// lastMark and lastSettle are the times of the last Mark and of the last commit that only settles.
	lastMark, lastSettle time.Time
	// interrupted is called between the steps of a flush; for tests.
	interrupted func(step string) error

	// mu is held while partitions are assigned or revoked, and during commits: a revocation waits for the commit in
	// progress.
	mu         sync.Mutex
	topicID    analytics.TopicID
	partitions map[int32]*partition
	committed  map[int32]committed
	unnamed    []int32 // partitions of the topic that the store may not know yet
}

func newReader(cfg Config, from source) *reader {
	f := &reader{
		source: from, cfg: cfg, topic: from.topic(cfg.Cluster.Names), log: cfg.Cluster.Logger.With("stage", from.stage),
		decoder: newDecoder(), resolver: newResolver(cfg), connected: make(chan struct{}), partitions: map[int32]*partition{}, committed: map[int32]committed{},
	}
	f.positioner, _ = cfg.Store.(analytics.Positioner)
	f.metrics = newMetrics(cfg.Cluster.Registry, f)
	f.outages = stream.NewOutages(f.log)
	return f
}

// AsOf returns the time up to which the partitions of this process are completely stored; zero while it is not known.
func (f *reader) AsOf() time.Time {
	if at := f.asOf.Load(); at != 0 {
		return time.UnixMilli(at).UTC()
	}
	return time.Time{}
}

func (f *reader) run(ctx context.Context) error {
	// The client outlives ctx so that Run can finish its work. kill closes the connections if that takes too long.
	clientCtx, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	var err error
	f.cl, err = f.cfg.Cluster.Named(f.stage).Client(
		kgo.WithContext(clientCtx),
		kgo.ConsumerGroup(f.cfg.Cluster.Names.Group(f.stage)),
		kgo.ConsumeTopics(f.topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(f.cfg.SessionTimeout),
		kgo.HeartbeatInterval(f.cfg.SessionTimeout/10),
		kgo.RebalanceTimeout(2*f.cfg.SessionTimeout),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// After a transaction the log ends with a control record. The feed must see it to know that it has read
		// everything.
		kgo.KeepControlRecords(),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnOffsetsFetched(f.fetched),
		kgo.AdjustFetchOffsetsFn(f.assign),
		kgo.OnPartitionsRevoked(f.release),
		kgo.OnPartitionsLost(f.release),
		// The records of one fetch are in memory beside the collected rows.
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
	if f.marks {
		g.Go(func() error { return f.askEnds(ctx, ends) })
	}
	g.Go(func() error { return f.loop(ctx, ends) })
	err = g.Wait()

	timer := time.AfterFunc(f.cfg.DrainTimeout, kill)
	defer timer.Stop()
	f.cl.CloseAllowingRebalance()
	return err
}

// polled is the most records taken from the client at once, so that the collected rows do not exceed MaxRows by much.
const polled = 10_000

// loop collects and flushes. Everything except the callbacks of the group runs in it.
func (f *reader) loop(ctx context.Context, ends <-chan map[int32]check) error {
	next := f.cfg.Now().Add(f.cfg.Interval)
	for ctx.Err() == nil {
		if wait := next.Sub(f.cfg.Now()); wait > 0 && !f.full() {
			f.poll(ctx, wait)
		}
		if err := f.decode(ctx); err != nil && !errors.Is(err, errStoreAway) && ctx.Err() == nil {
			// The campaign of a record cannot be resolved now. The records before it are stored nevertheless.
			f.log.WarnContext(ctx, "campaign lookup failed; the partition waits", "err", err)
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
	// The first flush appends what was read, the second settles it, so that the next owner reads nothing twice.
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.DrainTimeout)
	defer cancel()
	for range 2 {
		if err := f.flush(drain); err != nil {
			return err
		}
	}
	return nil
}

// pause waits for d/2 to d and returns false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool { return stream.Sleep(ctx, d/2+rand.N(d/2+1)) }

// poll waits at most for wait until records come, and queues them at the partition, under the assignment with which
// they were fetched.
func (f *reader) poll(ctx context.Context, wait time.Duration) {
	f.holdStuck()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	fetches := f.cl.PollRecords(ctx, min(polled, f.cfg.MaxRows))
	fetches.EachError(func(_ string, partition int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) && !errors.Is(err, kgo.ErrClientClosed) {
			f.log.WarnContext(ctx, "fetch failed", "partition", partition, "err", err)
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

// holdStuck pauses fetching of a partition that waits for a campaign and has enough records queued, so that the other
// partitions continue.
func (f *reader) holdStuck() {
	var hold, let []int32
	owned := f.owned()
	most := min(polled, f.cfg.MaxRows/max(1, len(owned))) // all partitions together fill the memory once
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
func (f *reader) owned() []*partition {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*partition, 0, len(f.partitions))
	for _, p := range f.partitions {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *partition) int { return cmp.Compare(a.id, b.id) })
	return out
}

// full reports whether MaxRows rows are in memory. It returns false while a declared batch is incomplete, because only
// the whole batch can be appended.
func (f *reader) full() bool {
	n := 0
	for _, p := range f.owned() {
		if p.declared > p.next && len(p.raw) == 0 {
			return false
		}
		n += len(p.events) + len(p.deals)
		if !p.stuck {
			n += len(p.raw)
		}
	}
	f.metrics.waiting.Set(float64(n))
	return n >= f.cfg.MaxRows
}

// decode turns the raw records into events. An error means that a record, and those behind it in its partition, must
// wait.
func (f *reader) decode(ctx context.Context) error {
	fetched := f.cfg.Now()
	var errs []error
	for _, p := range f.owned() {
		n := 0
		for _, r := range p.raw {
			if err := f.accept(ctx, p, r, fetched); err != nil {
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

// accept turns one record into a row or a dead letter. The record's memory must not be used afterwards.
func (f *reader) accept(ctx context.Context, p *partition, r *kgo.Record, fetched time.Time) error {
	offset := r.Offset
	if offset < p.next {
		return nil
	}
	if !r.Attrs.IsControl() {
		err := f.take(f, ctx, p, r, fetched)
		cause := ""
		switch {
		case err == nil:
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

func (f *reader) takeEvent(ctx context.Context, p *partition, r *kgo.Record, fetched time.Time) error {
	var e analytics.Event
	env, err := f.decoder.decode(r.Value, &e)
	if err != nil {
		return err
	}
	if e.Campaign, err = f.resolver.resolve(ctx, env, fetched); err != nil {
		return err
	}
	e.Offset = r.Offset
	p.events = append(p.events, e)
	return nil
}

func (f *reader) takeDeal(ctx context.Context, p *partition, r *kgo.Record, fetched time.Time) error {
	d, env, err := decodeDeal(r.Value)
	if err != nil {
		return err
	}
	if d.Campaign, err = f.resolver.resolve(ctx, env, fetched); err != nil {
		return err
	}
	d.Offset, d.TimeMS = r.Offset, min(max(r.Timestamp.UnixMilli(), 0), analytics.MaxTimeMS)
	p.deals = append(p.deals, d)
	return nil
}
