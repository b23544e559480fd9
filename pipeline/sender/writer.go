package sender

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"

	"fanfare/pipeline/dlrindex"
)

// task is an outcome that may be written only after something else was.
type task struct {
	entry   *entry
	verdict verdict
	late    bool // the message has an outcome already; this one follows it
	// found is an id of an outcome that an earlier owner of the partition wrote; there is nothing to finish.
	found *dlrindex.Entry
}

// tasks is a queue with one consumer. The window bounds it: its messages have no outcome yet, so they are in flight.
type tasks struct {
	mu   sync.Mutex
	list []task
	wake chan struct{}
}

func newTasks() tasks { return tasks{wake: make(chan struct{}, 1)} }

func (q *tasks) add(t task) {
	q.mu.Lock()
	q.list = append(q.list, t)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// next waits for tasks and returns them all; nil when ctx has ended.
func (q *tasks) next(ctx context.Context) []task {
	for {
		if list := q.take(); len(list) > 0 {
			return list
		}
		select {
		case <-ctx.Done():
			return nil
		case <-q.wake:
		}
	}
}

// take returns all tasks without waiting.
func (q *tasks) take() []task {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	q.list = nil
	return list
}

// unnamedAgain is the wait before a single send is tried again that was returned without a time, such as one of a
// disabled tenant.
const unnamedAgain = 5 * time.Minute

// writer publishes dead letters and the `held` records of single sends before their outcomes.
type writer struct {
	tasks
	lane *lane
}

func newWriter(l *lane) *writer { return &writer{newTasks(), l} }

func (w *writer) run(ctx context.Context) error {
	for {
		list := w.next(ctx)
		if list == nil {
			return nil
		}
		recs := make([]*kgo.Record, 0, len(list))
		for _, t := range list {
			if r := w.before(t); r != nil {
				recs = append(recs, r)
			}
		}
		if !w.lane.publish(ctx, recs) {
			return nil // it is unknown which records were written; the next owner finds their messages uncertain
		}
		for _, t := range list {
			w.lane.finish(t)
		}
	}
}

// before returns the record that must be durable before the outcome of t; nil when there is none.
func (w *writer) before(t task) *kgo.Record {
	l, e, v := w.lane, t.entry, t.verdict
	switch {
	case e.id.IsZero():
		return nil // finish writes the dead letter in place of an outcome
	case v.poison:
		return l.deadLetter(e)
	}
	now := l.now()
	due := v.again
	if due.IsZero() {
		due = now.Add(unnamedAgain)
	}
	r, err := held(l.names, l.keys, e.msg, e.id, due, now)
	if err != nil {
		l.logger.Error("encode held record failed", slog.String("submission", e.id.String()), slog.Any("err", err))
		return nil
	}
	l.metrics.held.Inc()
	return r
}

func (l *lane) deadLetter(e *entry) *kgo.Record {
	l.metrics.poison.Inc()
	cause := e.cause
	if cause == nil {
		cause = errTenant
	}
	return stream.DeadLetter(l.names, source, stream.Dead{Record: e.rec, Cause: cause})
}

// finish writes the outcome of a task.
func (l *lane) finish(t task) {
	var r *kgo.Record
	if t.entry.id.IsZero() {
		// Poison without a submission id: no outcome can name its message. The dead letter settles the record.
		r = l.deadLetter(t.entry)
	} else {
		r = l.record(t.entry, &t.verdict)
	}
	if t.late {
		t.entry.item.Late(r)
	} else {
		t.entry.item.Settle(r)
	}
}

// publish produces records until Kafka has acknowledged them all; it returns false when ctx ended first.
func (l *lane) publish(ctx context.Context, recs []*kgo.Record) bool {
	if len(recs) == 0 {
		return true
	}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := l.window.Produce(ctx, recs...)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		l.logger.WarnContext(ctx, "publish failed; it is retried", slog.Any("err", err))
		if !stream.Sleep(ctx, pause) {
			return false
		}
	}
}
