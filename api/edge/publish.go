package edge

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// errPatience is the outcome of a record that Kafka has not acknowledged in time. It may still arrive: what is published twice has the
// same id both times.
var errPatience = errors.New("not acknowledged in time")

// publish publishes a record, or keeps it in the file. When it returns nil, the record is acknowledged or kept.
func (s *Server) publish(ctx context.Context, r *kgo.Record) error {
	var err error
	if s.spool.waiting() == 0 {
		if err = s.produce(ctx, r); err == nil {
			return nil
		}
	}
	// Others wait: so does this one. Else each request would wait for a Kafka that is away.
	if err := s.spool.add(r); err != nil {
		s.metrics.dropped.Inc()
		if now := s.cfg.Now(); now.Sub(time.Unix(0, s.warned.Load())) > time.Minute {
			s.warned.Store(now.UnixNano())
			s.cfg.Logger.ErrorContext(ctx, "clicks are lost: Kafka is away and they cannot be kept", "err", err)
		}
		return err
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

// produce publishes a record and waits for Kafka as long as patience lasts.
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
	// flushRecords are published at once from the file.
	flushRecords = 500
	// flushEvery is the pause between two attempts while Kafka is away.
	flushEvery = 500 * time.Millisecond
)

// flush publishes what is in the file until ctx ends.
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
				s.cfg.Logger.DebugContext(ctx, "unpublished clicks wait", "waiting", s.spool.waiting(), "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(flushEvery):
			}
		}
	}
}

// flushSome publishes the first records of the file and takes them off once all are acknowledged.
func (s *Server) flushSome(ctx context.Context) error {
	records, lines, bytes, err := s.spool.head(flushRecords)
	if err != nil {
		return err
	}
	if len(records) > 0 {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- s.kafka.ProduceSync(ctx, records...).FirstErr() }() // it may outlive ctx: what is on the wire cannot be given up
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
