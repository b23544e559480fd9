package stream

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// handle runs the handler on a batch. If it panics, the batch is bisected to find the record that causes the panic.
// That record is dead; the others are handled.
func (s *Stage) handle(ctx context.Context, batch []*kgo.Record) (Result, error) {
	began := time.Now()
	res, err := s.halve(ctx, batch)
	s.metrics.handled(len(batch), time.Since(began))
	return res, err
}

func (s *Stage) halve(ctx context.Context, batch []*kgo.Record) (Result, error) {
	res, err, cause := call(ctx, s.handler, batch)
	if cause == nil {
		return res, err
	}
	if len(batch) == 1 {
		// The value of a panic may quote the record, so it goes to the dead letter and not to the log.
		s.log.ErrorContext(ctx, "handler panicked; the record becomes a dead letter", append(Position(batch[0]), "stack", cause.stack)...)
		return Result{Dead: []Dead{{batch[0], cause}}}, nil
	}
	half := len(batch) / 2
	res, err = s.halve(ctx, batch[:half])
	if err != nil {
		return Result{}, err
	}
	rest, err := s.halve(ctx, batch[half:])
	if err != nil {
		return Result{}, err
	}
	return Result{Publish: append(res.Publish, rest.Publish...), Dead: append(res.Dead, rest.Dead...)}, nil
}

// panicError is the value with which a handler panicked.
type panicError struct {
	value any
	stack string
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// call runs the handler; cause is non-nil if it panicked.
func call(ctx context.Context, h Handler, batch []*kgo.Record) (res Result, err error, cause *panicError) { //nolint:staticcheck // the error is the handler's, the cause is about the handler
	defer func() {
		if v := recover(); v != nil {
			cause = &panicError{v, string(debug.Stack())}
		}
	}()
	res, err = h.Handle(ctx, batch)
	return res, err, nil
}

// outgoing returns all records to publish for a result: its records and its dead letters.
func (s *Stage) outgoing(res Result) []*kgo.Record {
	if len(res.Dead) == 0 {
		return res.Publish
	}
	out := make([]*kgo.Record, 0, len(res.Publish)+len(res.Dead))
	out = append(out, res.Publish...)
	for _, d := range res.Dead {
		out = append(out, DeadLetter(s.cfg.Cluster.Names, s.cfg.Name, d))
	}
	return out
}
