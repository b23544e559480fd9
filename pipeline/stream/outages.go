package stream

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Outages logs when a task begins to fail and when it succeeds again: one line each, however often it is tried in
// between. It is safe for concurrent use.
type Outages struct {
	log *slog.Logger

	mu    sync.Mutex
	since map[string]time.Time // the start of the failure, by failing task
}

// NewOutages returns an Outages without failing tasks.
func NewOutages(log *slog.Logger) *Outages { return &Outages{log: log, since: map[string]time.Time{}} }

// Failed records that a task failed and will be tried again.
func (o *Outages) Failed(ctx context.Context, task string, err error) {
	o.mu.Lock()
	_, failing := o.since[task]
	if !failing {
		o.since[task] = time.Now()
	}
	o.mu.Unlock()
	if !failing {
		o.log.WarnContext(ctx, "task failed; retrying", "task", task, "err", err)
	}
}

// OK records that a task succeeded.
func (o *Outages) OK(ctx context.Context, task string) {
	o.mu.Lock()
	since, failing := o.since[task]
	delete(o.since, task)
	o.mu.Unlock()
	if failing {
		o.log.InfoContext(ctx, "task succeeds again", "task", task, "failed_for_ms", time.Since(since).Milliseconds())
	}
}
