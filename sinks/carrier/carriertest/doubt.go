package carriertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fanfare/sinks/carrier"
)

// repeatedKey: a carrier that ignores a repeated key gives the first answer again, and has one message. This holds on
// the same connector, on a connector that another process has opened, and if the first hand-over was never answered.
func repeatedKey(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 64, Latency: time.Millisecond})
	if err != nil {
		return err
	}
	caps := s.Connector.Caps()
	if caps.Doubt != carrier.DoubtKeyHeader && caps.Doubt != carrier.DoubtNaturalID {
		return nil
	}
	if caps.Doubt == carrier.DoubtKeyHeader && caps.KeyWindow <= 0 {
		return errors.New("keys are remembered for KeyWindow, which is 0")
	}
	n := min(8, caps.MaxBatch)
	first, err := handOver(ctx, s.Connector, n)
	if err != nil {
		return err
	}
	another, err := s.Again()
	if err != nil {
		return err
	}
	for _, c := range []carrier.Connector{s.Connector, another} {
		again, err := handOver(ctx, c, n)
		if err != nil {
			return fmt.Errorf("repeated: %w", err)
		}
		for i := range again.results {
			if got, want := again.results[i].Ref, first.results[i].Ref; got != want {
				return fmt.Errorf("index %d: the repetition got ref %q, want %q as the first", i, got, want)
			}
		}
	}
	return seen(s, first.keys, exactly(1))
}

// repeatedUnanswered: the same if the first hand-over got no answer. This is the case that matters.
func repeatedUnanswered(ctx context.Context, open func(Peer) (Subject, error)) error {
	s, err := open(Peer{Window: 64, Silent: true})
	if err != nil {
		return err
	}
	caps := s.Connector.Caps()
	if caps.Doubt != carrier.DoubtKeyHeader && caps.Doubt != carrier.DoubtNaturalID {
		return nil
	}
	batch, err := Batch(0, min(4, caps.MaxBatch))
	if err != nil {
		return err
	}
	l, err := send(ctx, s.Connector, batch)
	if err != nil {
		return err
	}
	if err := await(ctx, func() error { return seen(s, l.keys, exactly(1)) }); err != nil {
		return err
	}
	another, err := s.Again()
	if err != nil {
		return err
	}
	again, err := send(ctx, another, batch)
	if err != nil {
		return err
	}
	pause(ctx, 100*time.Millisecond) // the peer may not answer the repetition either
	return errors.Join(again.check(), seen(s, l.keys, exactly(1)), drain(ctx, another, 50*time.Millisecond))
}

// query: a carrier that can be queried knows which submissions it has accepted, whether it has answered them or not. A
// query changes nothing.
func query(ctx context.Context, open func(Peer) (Subject, error)) error {
	for _, silent := range []bool{false, true} {
		s, err := open(Peer{Window: 64, Silent: silent})
		if err != nil {
			return err
		}
		caps := s.Connector.Caps()
		if caps.Doubt != carrier.DoubtQuery {
			return nil
		}
		n := min(4, caps.MaxBatch)
		batch, err := Batch(0, n)
		if err != nil {
			return err
		}
		l, err := send(ctx, s.Connector, batch)
		if err != nil {
			return err
		}
		if silent {
			err = await(ctx, func() error { return seen(s, l.keys, exactly(1)) })
		} else {
			err = errors.Join(l.wait(ctx), l.all(carrier.Accepted))
		}
		if err != nil {
			return err
		}
		others, err := Batch(1000, n)
		if err != nil {
			return err
		}
		another, err := s.Again()
		if err != nil {
			return err
		}
		for _, c := range []carrier.Connector{s.Connector, another} {
			if err := l.asked(ctx, c, others); err != nil {
				return err
			}
		}
		unsent := make([]carrier.Key, 0, n)
		for i := range others {
			unsent = append(unsent, others[i].Key)
		}
		if err := errors.Join(seen(s, l.keys, exactly(1)), seen(s, unsent, exactly(0))); err != nil {
			return err
		}
	}
	return nil
}

// asked queries c about the batch, which the peer has, and about other submissions, which it does not have.
func (l *batchLog) asked(ctx context.Context, c carrier.Connector, others []carrier.Outbound) error {
	q, ok := c.(carrier.Querier)
	if !ok {
		return errors.New("doubts end by asking, and the connector is no Querier")
	}
	keys := append([]carrier.Key(nil), l.keys...)
	for i := range others {
		keys = append(keys, others[i].Key)
	}
	results, err := q.Query(ctx, keys)
	if err != nil {
		return fmt.Errorf("query: %w", err)
	}
	if len(results) != len(keys) {
		return fmt.Errorf("query: got %d answers, want %d", len(results), len(keys))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range results {
		want := carrier.Retryable
		if i < len(l.keys) {
			want = carrier.Accepted
		}
		switch {
		case r.Outcome != want:
			return fmt.Errorf("query: key %d: got %v, want %v", i, r.Outcome, want)
		case want == carrier.Accepted && (r.Ref == "" || l.calls[i] > 0 && r.Ref != l.results[i].Ref):
			return fmt.Errorf("query: key %d: got ref %q, want %q as the answer to the hand-over", i, r.Ref, l.results[i].Ref)
		}
	}
	return nil
}

// await repeats try until it returns nil or ctx ends.
func await(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil || !pause(ctx, 5*time.Millisecond) {
			return err
		}
	}
}
