package relay

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// Outbox is what the relay needs of the control plane's store.
type Outbox interface {
	// Lead makes this process the one that publishes, until release; ok is false while another one is.
	Lead(ctx context.Context) (release func(), ok bool, err error)
	// Unpublished returns rows whose newest version is not published, routes, tenants and senders before the campaigns
	// that name them. It fails when this process no longer leads.
	Unpublished(ctx context.Context, limit int) ([]schemas.OutboxRow, error)
	// MarkPublished records that these versions are on their topics; a row that has changed since stays unpublished.
	MarkPublished(ctx context.Context, rows []schemas.OutboxRow) error
	// Published returns a page of the rows whose newest version has been published. The page begins after the place in
	// after; next is the place at which the next page begins, "" at the end.
	Published(ctx context.Context, after string, limit int) (rows []schemas.PublishedRow, next string, err error)
	// Republish makes rows unpublished again.
	Republish(ctx context.Context, typ schemas.EventType, keys ...string) error
	// Changed returns a channel that is closed when a row may be unpublished. Take it before calling Unpublished.
	Changed() <-chan struct{}
}

// Config of a [Relay].
type Config struct {
	Cluster stream.Cluster
	// Poll is how often the relay looks for changes by other processes; default 50 ms. Changes of this process wake it
	// at once.
	Poll time.Duration
	// Batch is the most rows published at once; default 500.
	Batch int
	// AckTimeout is how long Kafka may take to acknowledge; default 10 s. If it acknowledged nothing by then, the relay
	// gives up the lead.
	AckTimeout time.Duration
	// Reconcile is how long after one comparison of the store with its topics the next one begins; default 10 min.
	Reconcile time.Duration
}

// standby is how often a relay that does not lead tries to take the lead.
const standby = 500 * time.Millisecond

// remembered is how many keys of `suppressions` the relay remembers; see [memory].
const remembered = 100_000

// Relay publishes the changed rows of the store.
type Relay struct {
	cfg     Config
	outbox  Outbox
	log     *slog.Logger
	metrics *metrics
	outages *stream.Outages
}

// New returns a relay that [Relay.Run] runs.
func New(cfg Config, outbox Outbox) (*Relay, error) {
	if outbox == nil {
		return nil, errors.New("relay: an outbox is needed")
	}
	if cfg.Cluster.Logger == nil || len(cfg.Cluster.Brokers) == 0 {
		return nil, errors.New("relay: a cluster with brokers and a logger is needed")
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 50 * time.Millisecond
	}
	if cfg.Batch <= 0 {
		cfg.Batch = 500
	}
	if cfg.AckTimeout <= 0 {
		cfg.AckTimeout = 10 * time.Second
	}
	if cfg.Reconcile <= 0 {
		cfg.Reconcile = 10 * time.Minute
	}
	log := cfg.Cluster.Logger.With("stage", source)
	return &Relay{cfg: cfg, outbox: outbox, log: log, metrics: newMetrics(cfg.Cluster.Registry), outages: stream.NewOutages(log)}, nil
}

// Run publishes whenever this process leads, until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		release, ok, err := r.takeLead(ctx)
		switch {
		case err != nil:
			r.failed(ctx, "store", taskTakeLead, err)
			fallthrough
		case !ok:
			stream.Sleep(ctx, standby/2+rand.N(standby))
			continue
		}
		r.outages.OK(ctx, taskTakeLead)
		r.metrics.leading.Set(1)
		err = r.lead(ctx)
		r.metrics.leading.Set(0)
		release()
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, errNoAck): // another host may still reach Kafka: wait, so that it can take the lead
			r.failed(ctx, "kafka", taskLead, err)
			stream.Sleep(ctx, 3*standby+rand.N(standby))
		default:
			r.failed(ctx, "store", taskLead, err)
			stream.Sleep(ctx, standby/2+rand.N(standby))
		}
	}
	return nil
}

// storePatience bounds one call of the store. After a failover the old connection may never answer; without a bound the
// call would wait for as long as TCP does.
const storePatience = 10 * time.Second

// errNoAck means that Kafka has acknowledged no record for AckTimeout.
var errNoAck = errors.New("kafka acknowledges nothing")

func (r *Relay) takeLead(ctx context.Context) (release func(), ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	return r.outbox.Lead(ctx)
}

// lead publishes until ctx ends or the store says that this process no longer leads.
func (r *Relay) lead(ctx context.Context) error {
	cl, err := r.cfg.Cluster.Named(source).Client(kgo.ProducerLinger(0), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordDeliveryTimeout(r.cfg.AckTimeout))
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	defer cl.Close()
	names := r.cfg.Cluster.Names
	seen := newMemory(remembered)
	tail, err := stream.NewTail(stream.TailConfig{
		Cluster: r.cfg.Cluster.Named("relay-tail"), Topics: []string{names.Campaigns(), names.Control(), names.Suppressions()},
	}, func(batch []*kgo.Record) { r.watch(ctx, seen, batch) })
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return tail.Run(ctx) })
	g.Go(func() error { return r.reconcile(ctx) })
	g.Go(func() error {
		ticker := time.NewTicker(r.cfg.Poll)
		defer ticker.Stop()
		for {
			changed := r.outbox.Changed()
			more, err := r.publish(ctx, cl)
			if err != nil || ctx.Err() != nil {
				return err
			}
			if more {
				continue
			}
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-ticker.C:
			}
		}
	})
	return g.Wait()
}

// publish publishes unpublished rows and marks them; more is true when a full batch was published. An error ends the
// lead.
func (r *Relay) publish(ctx context.Context, cl *kgo.Client) (more bool, err error) {
	asking, cancelAsking := context.WithTimeout(ctx, storePatience)
	rows, err := r.outbox.Unpublished(asking, r.cfg.Batch)
	cancelAsking()
	if err != nil {
		return false, fmt.Errorf("unpublished rows: %w", err)
	}
	if len(rows) == 0 {
		r.outages.OK(ctx, taskLead)
		return false, nil
	}
	records := make([]*kgo.Record, len(rows))
	of := make(map[*kgo.Record]schemas.OutboxRow, len(rows)) // answers come in any order
	for i := range rows {
		if records[i], err = record(r.cfg.Cluster.Names, &rows[i]); err != nil {
			return false, fmt.Errorf("relay: %w", err)
		}
		of[records[i]] = rows[i]
	}
	// A batch is finished even during a stop: its records are acknowledged and marked.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.AckTimeout+storePatience)
	defer cancel()
	var done []schemas.OutboxRow
	late := len(records) // rows without an answer
	for result := range answers(ctx, cl, records, r.cfg.AckTimeout) {
		if result.Err != nil {
			if err = result.Err; !timedOut(err) {
				late-- // the broker refused it
			}
			continue
		}
		late--
		row := of[result.Record]
		done = append(done, row)
		r.metrics.published.WithLabelValues(string(row.Type)).Inc()
		r.metrics.delay.Observe(max(0, time.Since(row.Time).Seconds()))
	}
	if late > 0 && err == nil {
		err = errNoAck
	}
	if err != nil { // the rows stay unpublished and are read again
		r.failed(ctx, "kafka", taskPublish, err)
	}
	switch {
	case late == len(records):
		return false, fmt.Errorf("%w: %w", errNoAck, err)
	case len(done) == 0: // Kafka refused all of them; try again later
		return false, nil
	}
	if err := r.outbox.MarkPublished(ctx, done); err != nil {
		return false, fmt.Errorf("mark published: %w", err)
	}
	if err == nil {
		r.outages.OK(ctx, taskPublish)
		r.outages.OK(ctx, taskLead)
	}
	return err == nil && len(rows) == r.cfg.Batch, nil
}

// timedOut reports whether an error means that Kafka did not answer.
func timedOut(err error) bool {
	return errors.Is(err, kgo.ErrRecordTimeout) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, kgo.ErrRecordRetries)
}

// answers produces records and yields the result of each. It stops after the time in within. The client itself waits
// without end for the answer to a batch that may have been written.
func answers(ctx context.Context, cl *kgo.Client, records []*kgo.Record, within time.Duration) iter.Seq[kgo.ProduceResult] {
	results := make(chan kgo.ProduceResult, len(records))
	for _, rec := range records {
		cl.Produce(ctx, rec, func(rec *kgo.Record, err error) { results <- kgo.ProduceResult{Record: rec, Err: err} })
	}
	return func(yield func(kgo.ProduceResult) bool) {
		late := time.NewTimer(within)
		defer late.Stop()
		for range records {
			select {
			case result := <-results:
				if !yield(result) {
					return
				}
			case <-late.C:
				return
			}
		}
	}
}

// watch makes rows unpublished when an earlier leader has written an older version after a newer one.
func (r *Relay) watch(ctx context.Context, seen *memory, batch []*kgo.Record) {
	for _, rec := range batch {
		typ := r.typeOf(rec.Topic)
		if !seen.see(rec, typ == schemas.TypeSuppression) {
			continue
		}
		r.metrics.again.Inc()
		for ctx.Err() == nil {
			asking, cancel := context.WithTimeout(ctx, storePatience)
			err := r.outbox.Republish(asking, typ, string(rec.Key))
			cancel()
			if err == nil || errors.Is(err, schemas.ErrNotFound) {
				r.outages.OK(ctx, taskRepublish)
				break
			}
			r.failed(ctx, "store", taskRepublish, err)
			stream.Sleep(ctx, standby)
		}
	}
}

// The names of a relay's tasks in the log.
const (
	taskTakeLead  = "take the lead"
	taskLead      = "publish as the leader"
	taskPublish   = "write to kafka"
	taskRepublish = "republish a row that an older one followed"
	taskCompare   = "compare the store with its topics"
)

// failed counts a failure, and logs it if the task has just begun to fail. The caller tries again.
func (r *Relay) failed(ctx context.Context, of, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	r.metrics.failures.WithLabelValues(of).Inc()
	r.outages.Failed(ctx, what, err)
}
