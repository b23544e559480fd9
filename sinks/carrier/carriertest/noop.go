package carriertest

import (
	"context"
	"sync"
	"sync/atomic"

	"fanfare/sinks/carrier"
)

// Noop is a connector that accepts everything at once and only counts. Benchmarks use it to measure the sender alone.
type Noop struct {
	// Batch is MaxBatch; 0: 1,000.
	Batch int

	accepted atomic.Int64
	mu       sync.RWMutex // held by Send, so that Drain waits for it
	drained  bool
}

var _ carrier.Connector = (*Noop)(nil)

// Accepted returns how many messages it took.
func (n *Noop) Accepted() int64 { return n.accepted.Load() }

// Caps implements [carrier.Connector].
func (n *Noop) Caps() carrier.Caps {
	caps := carrier.Caps{MaxBatch: n.Batch, EchoesKey: true}
	if caps.MaxBatch == 0 {
		caps.MaxBatch = 1000
	}
	return caps
}

// Send implements [carrier.Connector]: all results come before it returns.
func (n *Noop) Send(_ context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.drained {
		return carrier.ErrDrained
	}
	if len(batch) > n.Caps().MaxBatch {
		return carrier.ErrBatch
	}
	n.accepted.Add(int64(len(batch)))
	for i := range batch {
		done(i, carrier.Result{Outcome: carrier.Accepted, Ref: "noop"})
	}
	return nil
}

// Drain implements [carrier.Connector].
func (n *Noop) Drain(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drained = true
	return nil
}

// Health implements [carrier.Connector].
func (n *Noop) Health() carrier.Health {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return carrier.Health{Ready: !n.drained, Sessions: 1, Window: n.Caps().MaxBatch}
}
