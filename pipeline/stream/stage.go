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
	// Handle turns a batch into records to publish. It may be called again with the same records, alone or in another
	// batch, so it must be idempotent. An error is temporary: nothing of the batch is published, and Handle is called
	// again until it succeeds. A panic makes the record that caused it a dead letter. ctx ends when a stop has waited
	// for DrainTimeout.
	Handle(ctx context.Context, batch []*kgo.Record) (Result, error)
}

// HandlerFunc makes a function a [Handler].
type HandlerFunc func(ctx context.Context, batch []*kgo.Record) (Result, error)

// Handle implements [Handler].
func (f HandlerFunc) Handle(ctx context.Context, batch []*kgo.Record) (Result, error) {
	return f(ctx, batch)
}

// Result is what a handler made of a batch.
type Result struct {
	// Publish are records to produce. Kafka acknowledges all of them before the batch counts as done.
	Publish []*kgo.Record
	// Dead are records that can never be handled. The outcomes that their recipients get instead are in Publish.
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
	// ExactlyOnce publishes each batch and commits its offsets in one transaction. From 1,000 records a batch upwards
	// it costs little; with batches of one record it costs 100 times as much per record.
	ExactlyOnce bool
	// MaxRecords of a batch; default 1,000.
	MaxRecords int
	// MaxWait is how long a batch may grow after its first record; default 0: a batch has the records that are
	// available at once.
	MaxWait time.Duration
	// Linger of the producer, default 0.
	Linger time.Duration
	// SessionTimeout is when the group notices that a member has crashed; default 10 s.
	SessionTimeout time.Duration
	// DrainTimeout is how long a stop waits for the current batch; default 10 s.
	DrainTimeout time.Duration
	// TransactionTimeout is when the broker aborts the open transaction of a producer that crashed; default 10 s. Until
	// then read_committed readers of its topics wait.
	TransactionTimeout time.Duration
	// Instance is part of the transactional id, which no other process may use; default: random. It must be random on a
	// broker that may keep half a transaction when it is killed (kfake).
	Instance string
}

// Stage reads topics as a member of a consumer group and runs a [Handler] on each batch: it publishes the handler's
// records, awaits their acknowledgement, commits the offsets of the batch and reads the next one.
//
//   - At least once: a crash or a rebalance between publishing and committing handles the batch again.
//   - Exactly once: publishing and committing are one transaction. A rebalance aborts it, and the next owner of the
//     partition handles the batch. Handle runs before the transaction begins, because an open transaction holds up
//     every reader.
//   - An error of the handler is temporary: the stage calls it again with growing waits, until it succeeds or a
//     rebalance takes the partitions away.
//   - A record at which the handler panics, or whose results Kafka refuses permanently, is found by bisection and
//     becomes a dead letter.
//   - A stop finishes the current batch, within DrainTimeout, and leaves the group.
type Stage struct {
	cfg     StageConfig
	handler Handler
	log     *slog.Logger
	failing struct {
		sync.Mutex
		reason string // of the last failure, "" while batches succeed
		since  time.Time
	}
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
	if err := cfg.Cluster.Validate(); err != nil {
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

// idlePoll is how long a poll waits before the stage counts as idle.
const idlePoll = time.Second

// Run works until ctx ends; then it finishes the current batch, leaves the group and returns nil. While the broker is
// unreachable it retries.
func (s *Stage) Run(ctx context.Context) error {
	// The current batch is finished under the context work, which outlives ctx by DrainTimeout.
	work, cancel := Outliving(ctx, s.cfg.DrainTimeout)
	defer cancel()
	retry := NewBackoff(100*time.Millisecond, 5*time.Second)
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
		s.log.WarnContext(ctx, "stage restarts", "err", err)
		if time.Since(began) > time.Minute {
			retry = NewBackoff(100*time.Millisecond, 5*time.Second)
		}
		if !retry.Wait(ctx) {
			return nil
		}
	}
}

// options returns the options of the stage's client.
func (s *Stage) options(life context.Context) []kgo.Opt {
	opts := GroupOptions(s.cfg.Group, s.cfg.Topics, s.cfg.SessionTimeout, s.cfg.DrainTimeout)
	return append(opts,
		kgo.WithContext(life),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // no record is skipped; handlers are idempotent
		kgo.ProducerLinger(s.cfg.Linger),
		kgo.ProducerBatchMaxBytesFn(BatchMaxBytes),
	)
}

// BatchMaxBytes is how large a produced batch may be, for [kgo.ProducerBatchMaxBytesFn]. A dead letter is larger than
// its record, and the topics of dead letters accept larger records.
func BatchMaxBytes(topic string) int32 {
	if strings.HasSuffix(topic, ".dlq") {
		return 2<<20 - 4096
	}
	return 1_000_012 // Kafka's default max.message.bytes less the framing of a batch
}

// poller is a client or a transact session.
type poller interface {
	PollRecords(ctx context.Context, most int) kgo.Fetches
}

// poll returns the next batch, empty when no record arrived within idlePoll.
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
			s.log.WarnContext(ctx, "fetch failed", "topic", topic, "partition", p, "err", err)
		}
	})
	return fetches.Records(), nil
}

// runBatches processes batches with at-least-once delivery.
func (s *Stage) runBatches(ctx, work context.Context) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	wanted := make(chan struct{}, 1) // a signal here means that a rebalance waits for this member
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
	end := Cutter{cl, cancel}
	defer end.Close(s.cfg.DrainTimeout)
	defer context.AfterFunc(work, end.Cut)()
	for ctx.Err() == nil {
		select {
		case <-wanted: // the signal is left over from an earlier batch
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
			rewind(cl, batch) // the next owner of the partitions begins with this batch
		}
		cl.AllowRebalance()
	}
	return nil
}

// attempt handles and publishes a batch and retries until it succeeds; false: a stop or a rebalance came first.
func (s *Stage) attempt(ctx, work context.Context, cl *kgo.Client, batch []*kgo.Record, wanted <-chan struct{}) bool {
	retry := NewBackoff(50*time.Millisecond, 10*time.Second)
	for {
		res, err := s.handle(work, batch)
		if err == nil {
			err = publish(work, cl, s.outgoing(res))
		}
		switch {
		case err == nil:
			s.succeeded(res)
			return true
		case Permanent(err) && len(batch) > 1:
			half := len(batch) / 2
			return s.attempt(ctx, work, cl, batch[:half], wanted) && s.attempt(ctx, work, cl, batch[half:], wanted)
		case Permanent(err):
			s.log.ErrorContext(ctx, "kafka refuses a record's results permanently; the record becomes a dead letter", Position(batch[0])...)
			res = Result{Dead: []Dead{{batch[0], fmt.Errorf("publish: %w", err)}}}
			if err = publish(work, cl, s.outgoing(res)); err == nil {
				s.succeeded(res)
				return true
			}
		}
		s.failed(err)
		if !s.again(ctx, retry, wanted) {
			return false
		}
	}
}

// failed counts a failed batch. It logs when batches begin to fail and when the reason changes, not at each try.
func (s *Stage) failed(err error) {
	s.metrics.retries.Inc()
	s.failing.Lock()
	defer s.failing.Unlock()
	if s.failing.reason == err.Error() {
		return
	}
	if s.failing.reason == "" {
		s.failing.since = time.Now()
	}
	s.failing.reason = err.Error()
	s.log.Warn("batch failed; retrying", "err", err)
}

// succeeded counts a finished batch, and logs it if the batches before it failed.
func (s *Stage) succeeded(res Result) {
	s.metrics.done(res)
	s.failing.Lock()
	defer s.failing.Unlock()
	if s.failing.reason != "" {
		s.log.Info("batches succeed again", "failed_for_ms", time.Since(s.failing.since).Milliseconds())
		s.failing.reason = ""
	}
}

// again waits before a batch is tried again; false: a stop or a rebalance came first.
func (s *Stage) again(ctx context.Context, retry *Backoff, wanted <-chan struct{}) bool {
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
	ok := retry.Wait(waiting)
	cancel()
	<-done
	return ok && !elsewhere
}

// commit commits the offsets of a batch. If the commit fails for good, the batch is handled again after the next
// rebalance.
func (s *Stage) commit(work context.Context, cl *kgo.Client, batch []*kgo.Record) {
	retry := NewBackoff(20*time.Millisecond, time.Second)
	for range 5 {
		err := cl.CommitRecords(work, batch...)
		if err == nil {
			return
		}
		s.log.WarnContext(work, "offset commit failed", "err", err)
		if !retry.Wait(work) {
			return
		}
	}
}

// rewind makes the client poll a batch again. The caller blocks rebalances.
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
				if first == nil || Permanent(err) {
					first = err
				}
				mu.Unlock()
			}
			wg.Done()
		})
	}
	flushErr := cl.Flush(ctx) // flush before waiting for the promises: otherwise each batch would wait for the linger
	wg.Wait()
	if first != nil {
		return fmt.Errorf("publish: %w", first)
	}
	if flushErr != nil {
		return fmt.Errorf("publish: %w", flushErr)
	}
	return nil
}

// Permanent reports whether Kafka will refuse the same records again.
func Permanent(err error) bool {
	return errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) || errors.Is(err, kerr.InvalidRecord)
}

// Position names a record in a log line without its content.
func Position(r *kgo.Record) []any {
	return []any{"topic", r.Topic, "partition", r.Partition, "offset", r.Offset}
}
