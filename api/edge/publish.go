package edge

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// errPatience means that Kafka did not acknowledge a record in time. The record may still arrive; if it is published
// again, it has the same id.
var errPatience = errors.New("not acknowledged in time")

// publish publishes a record, or keeps it in the file. If it returns nil, Kafka has acknowledged the record or the file
// has it. While other records wait in the file, this one goes there as well, unless it is urgent: otherwise each
// request would wait for a Kafka that is away.
func (s *Server) publish(ctx context.Context, r *kgo.Record, urgent bool) error {
	if urgent || s.spool.waiting() == 0 {
		if s.produce(ctx, r) == nil {
			return nil
		}
	}
	if err := s.spool.add(r); err != nil {
		s.metrics.dropped.Inc()
		if now := s.cfg.Now(); now.Sub(time.Unix(0, s.warned.Load())) > time.Minute {
			s.warned.Store(now.UnixNano())
			s.cfg.Logger.ErrorContext(ctx, "clicks or opt-outs are lost: Kafka is away and they cannot be kept", "err", err)
		}
		return err
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// produce publishes a record and waits at most Config.Patience for Kafka.
func (s *Server) produce(ctx context.Context, r *kgo.Record) error {
	done := make(chan error, 1)
	s.kafka.TryProduce(context.WithoutCancel(ctx), r, func(_ *kgo.Record, err error) { done <- err })
	timer := time.NewTimer(s.cfg.Patience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errPatience
	}
}

const (
	// flushRecords is how many records of the file are published at once.
	flushRecords = 500
	// flushEvery is the pause between two attempts while Kafka is away.
	flushEvery = 500 * time.Millisecond
)

// flush publishes the records of the file until ctx ends.
func (s *Server) flush(ctx context.Context) {
	for {
		if s.spool.waiting() == 0 {
			select {
			case <-ctx.Done():
				return
			case <-s.wake:
				continue
			}
		}
		if err := s.flushSome(ctx); err != nil {
			if ctx.Err() == nil {
				s.cfg.Logger.DebugContext(ctx, "unpublished clicks and opt-outs wait", "waiting", s.spool.waiting(), "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(flushEvery):
			}
		}
	}
}

// flushSome publishes the first records of the file and removes them once Kafka has acknowledged all of them.
func (s *Server) flushSome(ctx context.Context) error {
	records, lines, bytes, err := s.spool.head(flushRecords)
	if err != nil {
		return err
	}
	if len(records) > 0 {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		done := make(chan error, 1)
		// The goroutine may outlive ctx, because a record that was sent cannot be cancelled
		go func() { done <- s.kafka.ProduceSync(ctx, records...).FirstErr() }()
		select {
		case err := <-done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.spool.drop(bytes, lines)
}
