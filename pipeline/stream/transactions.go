package stream

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// runTransactions works exactly once. It returns an error when the session cannot go on; nothing is lost by that.
func (s *Stage) runTransactions(ctx, work context.Context) error {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	instance := s.cfg.Instance
	if instance == "" {
		instance = rand.Text()
	}
	var moved atomic.Bool // partitions were revoked or lost, so the session will abort its transaction
	wanted := make(chan struct{}, 1)
	revoked := func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
		if len(partitions) == 0 {
			return // a session of the group ends and nothing moves
		}
		moved.Store(true)
		select {
		case wanted <- struct{}{}:
		default:
		}
	}
	opts, metrics, err := s.cfg.Cluster.options(append(s.options(life),
		kgo.TransactionalID(s.cfg.Cluster.Names.TransactionalID(s.cfg.Name, instance)),
		kgo.TransactionTimeout(s.cfg.TransactionTimeout),
		kgo.OnPartitionsRevoked(revoked),
		kgo.OnPartitionsLost(revoked),
	))
	if err != nil {
		cancel()
		return err
	}
	session, err := kgo.NewGroupTransactSession(opts...)
	if err != nil {
		cancel()
		return fmt.Errorf("kafka client %s: %w", s.cfg.Cluster.Name, err)
	}
	metrics.registerWith(s.cfg.Cluster.Registry)
	// End must not be cancelled: its outcome would be unknown. If the broker does not answer within the drain, the
	// client is closed.
	end := Cutter{session.Client(), cancel}
	defer end.Close(s.cfg.DrainTimeout)
	defer context.AfterFunc(work, end.Cut)()

	t := &transactor{Stage: s, session: session, moved: &moved, wanted: wanted, most: s.cfg.MaxRecords, refused: map[topicPartition]Dead{}}
	for ctx.Err() == nil {
		select {
		case <-wanted:
		default:
		}
		batch, err := s.poll(ctx, session, t.most)
		if err != nil {
			return err
		}
		if len(batch) == 0 {
			continue
		}
		if err := t.transact(ctx, work, batch); err != nil {
			return err
		}
	}
	return nil
}

// transactor runs batches as transactions of one session.
type transactor struct {
	*Stage
	session *kgo.GroupTransactSession
	moved   *atomic.Bool
	wanted  <-chan struct{}
	// most is the largest batch. When Kafka refuses results permanently, the transactor halves it until the batch has
	// only the record that causes the refusal.
	most int
	// refused are records whose results Kafka refused, at most one of a partition. The next poll may begin with another
	// partition, so a record is identified by its partition and offset.
	refused map[topicPartition]Dead
	retry   *Backoff
}

// transact handles a batch and publishes it in one transaction. The client polls records again that were not committed.
func (t *transactor) transact(ctx, work context.Context, batch []*kgo.Record) error {
	res, ok := t.result(ctx, work, batch)
	if !ok {
		t.moved.Store(false)
		// No transaction is open: this resets the client to the committed offsets
		_, err := t.session.End(context.WithoutCancel(ctx), kgo.TryAbort)
		return err
	}
	if err := t.session.Begin(); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	err := publish(work, t.session.Client(), t.outgoing(res))
	if err != nil {
		t.failed(err)
	}
	t.moved.Store(false)
	committed, endErr := t.session.End(context.WithoutCancel(ctx), kgo.TransactionEndTry(err == nil))
	if endErr != nil {
		return fmt.Errorf("end a transaction: %w", endErr)
	}
	if committed {
		t.succeeded(res)
		t.most, t.retry = min(2*t.most, t.cfg.MaxRecords), nil
		for _, r := range batch {
			if t.condemned(r) {
				delete(t.refused, topicPartition{r.Topic, r.Partition})
			}
		}
		return nil
	}
	t.metrics.aborts.Inc()
	switch {
	case Permanent(err) && len(batch) == 1:
		t.log.ErrorContext(ctx, "kafka refuses a record's results permanently; the record becomes a dead letter", Position(batch[0])...)
		t.refused[topicPartition{batch[0].Topic, batch[0].Partition}] = Dead{batch[0], err}
	case Permanent(err):
		t.most = len(batch) / 2
	case err != nil:
		t.wait(ctx)
	}
	return nil
}

func (t *transactor) wait(ctx context.Context) bool {
	if t.retry == nil {
		t.retry = NewBackoff(50*time.Millisecond, 10*time.Second)
	}
	return t.again(ctx, t.retry, t.wanted)
}

// result handles a batch until that succeeds; false: a stop, or its partitions are wanted elsewhere.
func (t *transactor) result(ctx, work context.Context, batch []*kgo.Record) (Result, bool) {
	var dead []Dead
	good := make([]*kgo.Record, 0, len(batch))
	for _, r := range batch {
		if t.condemned(r) {
			dead = append(dead, Dead{r, t.refused[topicPartition{r.Topic, r.Partition}].Cause})
		} else {
			good = append(good, r)
		}
	}
	if len(good) == 0 {
		return Result{Dead: dead}, true
	}
	for {
		res, err := t.handle(work, good)
		if t.moved.Load() {
			return Result{}, false // the transaction would abort
		}
		if err == nil {
			res.Dead = append(res.Dead, dead...)
			return res, true
		}
		t.failed(err)
		if !t.wait(ctx) {
			return Result{}, false
		}
	}
}

// condemned reports whether Kafka refuses a record's results permanently.
func (t *transactor) condemned(r *kgo.Record) bool {
	d, ok := t.refused[topicPartition{r.Topic, r.Partition}]
	return ok && d.Record.Offset == r.Offset
}
