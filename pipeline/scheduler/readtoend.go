package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/pipeline/stream"
)

// readToEnd calls apply for every committed record that the topics hold now.
func (s *Scheduler) readToEnd(ctx context.Context, name string, topics []string, from map[string]map[int32]int64, apply func(*kgo.Record)) error {
	t, err := stream.NewTail(stream.TailConfig{
		Cluster: s.cfg.Cluster.Named(name), Topics: topics, From: from, Every: 100 * time.Millisecond,
	}, func(batch []*kgo.Record) {
		for _, r := range batch {
			apply(r)
		}
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.Run(gctx) })
	g.Go(func() error {
		defer cancel()
		for {
			timer := time.NewTimer(nudgeAfter)
			select {
			case <-gctx.Done():
				timer.Stop()
				return gctx.Err()
			case <-t.Ready():
				timer.Stop()
				return nil
			case <-timer.C:
				s.nudge(gctx, topics)
			}
		}
	})
	return g.Wait()
}

// nudgeAfter is how long a reader waits for the end of a topic before the topic is nudged.
const nudgeAfter = time.Second

// nudge appends the control record of an aborted transaction to every partition of topics. No reader sees it, and every
// tail passes it. The embedded broker needs it. After it was killed within a transaction, it knows that the last
// records are aborted but has no control record behind them, so a reader that waits for the end of the partition waits
// until a record is appended. Without the nudge that may never happen: the scheduler deals only when it has read
// everything, and the other records follow from its deals.
func (s *Scheduler) nudge(ctx context.Context, topics []string) {
	if err := s.nudgeAll(ctx, topics); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "nudge of topics failed", "topics", topics, "err", err)
	}
}

func (s *Scheduler) nudgeAll(ctx context.Context, topics []string) error {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	cl, err := s.cfg.Cluster.Named("scheduler.nudge").Client(
		kgo.TransactionalID(s.names.TransactionalID("scheduler", "nudge")),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	there, err := kadm.NewClient(cl).ListTopics(ctx, topics...)
	if err == nil {
		err = there.Error()
	}
	if err != nil {
		return err
	}
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	there.EachPartition(func(p kadm.PartitionDetail) {
		records = append(records, &kgo.Record{Topic: p.Topic, Partition: p.Partition, Key: []byte("nudge")})
	})
	err = cl.ProduceSync(ctx, records...).FirstErr()
	return errors.Join(err, cl.EndTransaction(ctx, kgo.TryAbort))
}
