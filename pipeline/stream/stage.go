package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Handler is the work of a stage.
type Handler interface {
	// Handle turns a batch into what is to be published. It may be called again with the same records, alone or in other
	// company, so it must be idempotent. An error is temporary: nothing of the batch is published and it is handled again,
	// for ever. A panic makes the record that caused it a dead letter. ctx ends when a stop has waited long enough.
	Handle(ctx context.Context, batch []*kgo.Record) (Result, error)
}

// HandlerFunc is a function as a [Handler].
type HandlerFunc func(ctx context.Context, batch []*kgo.Record) (Result, error)

// Handle implements [Handler].
func (f HandlerFunc) Handle(ctx context.Context, batch []*kgo.Record) (Result, error) {
	return f(ctx, batch)
}

// Result is what came of a batch.
type Result struct {
	// Publish is acknowledged by Kafka, all of it, before the batch counts as done.
	Publish []*kgo.Record
	// Dead are records that can never be handled. Whatever outcome keeps the account of the recipients is in Publish.
	Dead []Dead
}

// Dead is a poison record.
type Dead struct {
	Record *kgo.Record
	// Cause goes into a header, so it must name no number and quote no text.
	Cause error
}

// StageConfig of a [Stage].
type StageConfig struct {
	Cluster Cluster
	// Name of the stage in metrics, logs, dead letters and transactional ids, such as `expander`.
	Name string
	// Group is the consumer group, as [schemas.Names] gives it.
	Group  string
	Topics []string
	// ExactlyOnce publishes each batch and commits its offsets in one transaction. It costs little from 1,000 records a batch
	// upwards and 100 times as much at one.
	ExactlyOnce bool
	// MaxRecords of a batch; default 1,000.
	MaxRecords int
	// MaxWait lets a batch grow for so long once it has its first record; default 0: a batch is what is there.
	MaxWait time.Duration
	// Linger of the producer, default 0.
	Linger time.Duration
	// SessionTimeout after which a member that is gone is missed; default 10 s.
	SessionTimeout time.Duration
	// DrainTimeout is how long a stop waits for the batch in hand; default 10 s.
	DrainTimeout time.Duration
	// TransactionTimeout is how long the broker keeps a transaction open whose producer is gone, and readers wait; default 10 s.
	TransactionTimeout time.Duration
	// Instance makes the transactional id this process's own; default: random, as it must be on a broker whose transactions
	// may be torn by a kill.
	Instance string
}

// Stage reads topics as a member of a group and runs a [Handler] on them: a batch, what comes of it published and
// acknowledged, its offsets committed, the next batch.
//
//   - At least once: a crash or a rebalance between publishing and committing handles the batch again.
//   - Exactly once: publishing and committing are one transaction. A rebalance meanwhile aborts it and the batch is redone by
//     whoever owns it then. Handle is called before the transaction begins, for a slow one inside it would hold up every reader.
//   - An error of the handler is temporary: it is called again with growing waits, for ever, or until the partitions are
//     wanted elsewhere.
//   - A record at which the handler panics, or whose results Kafka refuses for good, is found by halving and becomes a dead letter.
//   - A stop finishes the batch in hand, for at most DrainTimeout, and leaves the group.
type Stage struct {
	cfg     StageConfig
	handler Handler
	log     *slog.Logger
	metrics *stageMetrics
}

// NewStage returns a stage that [Stage.Run] runs.
func NewStage(cfg StageConfig, h Handler) (*Stage, error) {
	switch {
	case h == nil:
		return nil, errors.New("stage: no handler")
	case cfg.Name == "" || cfg.Group == "" || len(cfg.Topics) == 0:
		return nil, errors.New("stage: a name, a group and topics are needed")
	}
	if err := cfg.Cluster.validate(); err != nil {
		return nil, fmt.Errorf("stage %s: %w", cfg.Name, err)
	}
	if cfg.MaxRecords <= 0 {
		cfg.MaxRecords = 1000
	}
	if cfg.SessionTimeout <= 0 {
		cfg.SessionTimeout = 10 * time.Second
	}
	if cfg.DrainTimeout <= 0 {
		cfg.DrainTimeout = 10 * time.Second
	}
	if cfg.TransactionTimeout <= 0 {
		cfg.TransactionTimeout = 10 * time.Second
	}
	if cfg.Cluster.Name == "" {
		cfg.Cluster.Name = cfg.Name
	}
	return &Stage{
		cfg: cfg, handler: h,
		log:     cfg.Cluster.Logger.With("stage", cfg.Name),
		metrics: newStageMetrics(cfg.Cluster.Registry, cfg.Name, cfg.Topics),
	}, nil
}

// idlePoll is how long a poll waits before the stage says that it has nothing to do.
const idlePoll = time.Second

// Run works until ctx ends; then it finishes the batch in hand, leaves the group and returns nil. It waits for a broker that is
// away and goes on when it is back.
func (s *Stage) Run(ctx context.Context) error {
	// The batch in hand is finished under work, which outlives ctx by DrainTimeout.
	work, cancel := outliving(ctx, s.cfg.DrainTimeout)
	defer cancel()
	retry := newBackoff(100*time.Millisecond, 5*time.Second)
	for {
		began := time.Now()
		var err error
		if s.cfg.ExactlyOnce {
			err = s.runTransactions(ctx, work)
		} else {
			err = s.runBatches(ctx, work)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("the client was closed")
		}
		s.log.WarnContext(ctx, "stage begins anew", "err", err)
		if time.Since(began) > time.Minute {
			retry = newBackoff(100*time.Millisecond, 5*time.Second)
		}
		if !retry.wait(ctx) {
			return nil
		}
	}
}

// options returns the options of the stage's client.
func (s *Stage) options(life context.Context) []kgo.Opt {
	opts := groupOptions(s.cfg.Group, s.cfg.Topics, s.cfg.SessionTimeout, s.cfg.DrainTimeout)
	return append(opts,
		kgo.WithContext(life),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // nothing is left out; handlers are idempotent
		kgo.ProducerLinger(s.cfg.Linger),
		kgo.ProducerBatchMaxBytesFn(batchMaxBytes),
	)
}

// batchMaxBytes is how large a batch may be: a dead letter is its record and more, and its topic has room for it.
func batchMaxBytes(topic string) int32 {
	if strings.HasSuffix(topic, ".dlq") {
		return 2<<20 - 4096
	}
	return 1_000_012 // Kafka's default max.message.bytes less what frames it
}

// poller is a client or a transact session.
type poller interface {
	PollRecords(ctx context.Context, most int) kgo.Fetches
}

// poll returns the next batch, empty when nothing came for a while.
func (s *Stage) poll(ctx context.Context, p poller, most int) ([]*kgo.Record, error) {
	idle, cancel := context.WithTimeout(ctx, idlePoll)
	defer cancel()
	batch, err := s.records(idle, p.PollRecords(idle, most))
	if len(batch) == 0 || s.cfg.MaxWait <= 0 {
		s.metrics.polled(batch)
		return batch, err
	}
	grow, cancelGrow := context.WithTimeout(ctx, s.cfg.MaxWait)
	defer cancelGrow()
	for err == nil && len(batch) < most && grow.Err() == nil {
		var more []*kgo.Record
		more, err = s.records(grow, p.PollRecords(grow, most-len(batch)))
		batch = append(batch, more...)
	}
	s.metrics.polled(batch)
	return batch, err
}

func (s *Stage) records(ctx context.Context, fetches kgo.Fetches) ([]*kgo.Record, error) {
	if fetches.IsClientClosed() {
		return nil, kgo.ErrClientClosed
	}
	fetches.EachError(func(topic string, p int32, err error) {
		if ctx.Err() == nil {
			s.log.WarnContext(ctx, "stage cannot fetch", "topic", topic, "partition", p, "err", err)
		}
	})
	return fetches.Records(), nil
}

// runBatches works at least once.
func (s *Stage) runBatches(ctx, work context.Context) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	wanted := make(chan struct{}, 1) // a rebalance waits for us
	cl, err := s.cfg.Cluster.Client(append(s.options(life),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsCallbackBlocked(func(context.Context, *kgo.Client) {
			select {
			case wanted <- struct{}{}:
			default:
			}
		}))...)
	if err != nil {
		cancel()
		return err
	}
	end := cutter{cl, cancel}
	defer end.close(s.cfg.DrainTimeout)
	defer context.AfterFunc(work, end.cut)()
	for ctx.Err() == nil {
		select {
		case <-wanted: // of an earlier batch
		default:
		}
		batch, err := s.poll(ctx, cl, s.cfg.MaxRecords)
		if err != nil {
			return err
		}
		switch {
		case len(batch) == 0:
		case s.attempt(ctx, work, cl, batch, wanted):
			s.commit(work, cl, batch)
		default:
			rewind(cl, batch) // whoever owns the partitions then begins with this batch
		}
		cl.AllowRebalance()
	}
	return nil
}

// attempt handles and publishes a batch until it is done; false: it is not, for a stop or because its partitions are wanted elsewhere.
func (s *Stage) attempt(ctx, work context.Context, cl *kgo.Client, batch []*kgo.Record, wanted <-chan struct{}) bool {
	retry := newBackoff(50*time.Millisecond, 10*time.Second)
	for {
		res, err := s.handle(work, batch)
		if err == nil {
			err = publish(work, cl, s.outgoing(res))
		}
		switch {
		case err == nil:
			s.metrics.done(res)
			return true
		case permanent(err) && len(batch) > 1:
			half := len(batch) / 2
			return s.attempt(ctx, work, cl, batch[:half], wanted) && s.attempt(ctx, work, cl, batch[half:], wanted)
		case permanent(err):
			s.log.ErrorContext(ctx, "kafka refuses for good what comes of a record; it becomes a dead letter", position(batch[0])...)
			res = Result{Dead: []Dead{{batch[0], fmt.Errorf("publish: %w", err)}}}
			if err = publish(work, cl, s.outgoing(res)); err == nil {
				s.metrics.done(res)
				return true
			}
		}
		s.failed(err)
		if !s.again(ctx, retry, wanted) {
			return false
		}
	}
}

func (s *Stage) failed(err error) {
	s.metrics.retries.Inc()
	s.log.Warn("a batch failed and is tried again", "err", err)
}

// again waits before a batch is tried again; false: a stop, or its partitions are wanted elsewhere.
func (s *Stage) again(ctx context.Context, retry *backoff, wanted <-chan struct{}) bool {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	elsewhere := false
	go func() {
		defer close(done)
		select {
		case <-wanted:
			elsewhere = true
			cancel()
		case <-waiting.Done():
		}
	}()
	ok := retry.wait(waiting)
	cancel()
	<-done
	return ok && !elsewhere
}

// commit commits the offsets of a batch. One that is refused is of no great harm: the batch is handled again.
func (s *Stage) commit(work context.Context, cl *kgo.Client, batch []*kgo.Record) {
	retry := newBackoff(20*time.Millisecond, time.Second)
	for range 5 {
		err := cl.CommitRecords(work, batch...)
		if err == nil {
			return
		}
		s.log.WarnContext(work, "a commit was refused", "err", err)
		if !retry.wait(work) {
			return
		}
	}
}

// rewind makes the client poll a batch again. Rebalances are blocked meanwhile.
func rewind(cl *kgo.Client, batch []*kgo.Record) {
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, r := range batch {
		if offsets[r.Topic] == nil {
			offsets[r.Topic] = map[int32]kgo.EpochOffset{}
		}
		if have, ok := offsets[r.Topic][r.Partition]; !ok || r.Offset < have.Offset {
			offsets[r.Topic][r.Partition] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset}
		}
	}
	cl.SetOffsets(offsets)
}

// publish produces records and returns once all are acknowledged, with the first error.
func publish(ctx context.Context, cl *kgo.Client, recs []*kgo.Record) error {
	if len(recs) == 0 {
		return nil
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	wg.Add(len(recs))
	for _, r := range recs {
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				if first == nil || permanent(err) {
					first = err
				}
				mu.Unlock()
			}
			wg.Done()
		})
	}
	flushErr := cl.Flush(ctx) // waiting for the promises first would wait out the linger
	wg.Wait()
	if first != nil {
		return fmt.Errorf("publish: %w", first)
	}
	if flushErr != nil {
		return fmt.Errorf("publish: %w", flushErr)
	}
	return nil
}

// permanent reports whether Kafka will refuse the same records again.
func permanent(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) || errors.Is(err, kerr.InvalidRecord)
}

// position names a record in a log without what is in it.
func position(r *kgo.Record) []any {
	return []any{"topic", r.Topic, "partition", r.Partition, "offset", r.Offset}
}
