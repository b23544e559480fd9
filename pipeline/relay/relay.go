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
	// Unpublished returns rows that are newer than what was published: what campaigns name before the campaigns. It fails when the
	// lead was lost.
	Unpublished(ctx context.Context, limit int) ([]schemas.OutboxRow, error)
	// MarkPublished records that these versions are on their topics; a row that has changed since stays unpublished.
	MarkPublished(ctx context.Context, rows []schemas.OutboxRow) error
	// Republish makes a row unpublished again.
	Republish(ctx context.Context, typ schemas.EventType, key string) error
	// Changed wakes the relay: closed when something may be unpublished. Take it before asking.
	Changed() <-chan struct{}
}

// Config of a [Relay].
type Config struct {
	Cluster stream.Cluster
	// Poll is how often the store is asked for what other processes have changed; default 50 ms. Changes of this process wake the relay at once.
	Poll time.Duration
	// Batch is the most rows published at once; default 500.
	Batch int
	// AckTimeout is how long a publication is waited for; default 10 s. After it without a single acknowledgement the lead is given back.
	AckTimeout time.Duration
}

// standby is how often a relay that does not lead tries to.
const standby = 500 * time.Millisecond

// remembered is how many keys of `suppressions` are remembered; see [memory].
const remembered = 100_000

// Relay publishes what the store has changed.
type Relay struct {
	cfg     Config
	outbox  Outbox
	log     *slog.Logger
	metrics *metrics
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
	return &Relay{cfg: cfg, outbox: outbox, log: cfg.Cluster.Logger.With("stage", source), metrics: newMetrics(cfg.Cluster.Registry)}, nil
}

// Run publishes whenever this process leads, until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		release, ok, err := r.takeLead(ctx)
		switch {
		case err != nil:
			r.failed(ctx, "store", "cannot ask for the lead", err)
			fallthrough
		case !ok:
			pause(ctx, standby/2+rand.N(standby))
			continue
		}
		r.metrics.leading.Set(1)
		err = r.lead(ctx)
		r.metrics.leading.Set(0)
		release()
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, errNoAck): // another host may still reach Kafka: it gets the time to take the lead
			r.failed(ctx, "kafka", "gave the lead back", err)
			pause(ctx, 3*standby+rand.N(standby))
		default:
			r.failed(ctx, "store", "gave the lead back", err)
			pause(ctx, standby/2+rand.N(standby))
		}
	}
	return nil
}

// storePatience is how long one call of the store may take. A database that went silent, and whose address another one has by now, is
// asked anew; without a bound the call would wait for as long as TCP does.
const storePatience = 10 * time.Second

// errNoAck: Kafka has acknowledged nothing for AckTimeout.
var errNoAck = errors.New("kafka acknowledges nothing")

func (r *Relay) takeLead(ctx context.Context) (release func(), ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	return r.outbox.Lead(ctx)
}

// lead publishes until ctx ends or the store says that this process does not lead any more.
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

// publish publishes what is newest and marks it; more says that there may be more at once. An error ends the lead.
func (r *Relay) publish(ctx context.Context, cl *kgo.Client) (more bool, err error) {
	asking, cancelAsking := context.WithTimeout(ctx, storePatience)
	rows, err := r.outbox.Unpublished(asking, r.cfg.Batch)
	cancelAsking()
	if err != nil {
		return false, fmt.Errorf("what is unpublished: %w", err)
	}
	if len(rows) == 0 {
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
	// What was begun is finished, also while we are being stopped: acknowledged and marked, or neither.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.AckTimeout+storePatience)
	defer cancel()
	var done []schemas.OutboxRow
	late := len(records) // rows without an answer
	for result := range answers(ctx, cl, records, r.cfg.AckTimeout) {
		if result.Err != nil {
			if err = result.Err; !timedOut(err) {
				late-- // the broker's no
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
	if err != nil { // Kafka's: the rows wait, and are asked for again
		r.failed(ctx, "kafka", "cannot publish", err)
	}
	switch {
	case late == len(records):
		return false, fmt.Errorf("%w: %w", errNoAck, err)
	case len(done) == 0: // refused, each of them: the others go on
		return false, nil
	}
	if err := r.outbox.MarkPublished(ctx, done); err != nil {
		return false, fmt.Errorf("mark published: %w", err)
	}
	return err == nil && len(rows) == r.cfg.Batch, nil
}

// timedOut reports whether Kafka has not answered.
func timedOut(err error) bool {
	return errors.Is(err, kgo.ErrRecordTimeout) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) ||
		errors.Is(err, kgo.ErrRecordRetries)
}

// answers produces records and yields what becomes of each, for so long. Of a batch that may have been written the client itself would
// wait for the answer for ever.
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

// watch publishes again what an earlier leader has put behind a newer version.
func (r *Relay) watch(ctx context.Context, seen *memory, batch []*kgo.Record) {
	names := r.cfg.Cluster.Names
	for _, rec := range batch {
		if !seen.see(rec, rec.Topic == names.Suppressions()) {
			continue
		}
		r.metrics.again.Inc()
		var typ schemas.EventType
		switch rec.Topic {
		case names.Campaigns():
			typ = schemas.TypeCampaign
		case names.Control():
			typ = schemas.TypeControl
		default:
			typ = schemas.TypeSuppression
		}
		for ctx.Err() == nil {
			asking, cancel := context.WithTimeout(ctx, storePatience)
			err := r.outbox.Republish(asking, typ, string(rec.Key))
			cancel()
			if err == nil || errors.Is(err, schemas.ErrNotFound) {
				break
			}
			r.failed(ctx, "store", "cannot publish again what went backwards", err)
			pause(ctx, standby)
		}
	}
}

// failed counts and says a failure; the caller goes on.
func (r *Relay) failed(ctx context.Context, of, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	r.metrics.failures.WithLabelValues(of).Inc()
	r.log.WarnContext(ctx, "relay failed, will try again", "what", what, "err", err)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
