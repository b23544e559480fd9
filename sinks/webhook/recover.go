package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// recover starts to queue the events since a time that an endpoint was not sent because it was paused or disabled, or
// did not exist. A process recovers one endpoint at a time, because it reads all of the log since then. After a kill
// the recovery starts again.
func (d *deliverer) recover(ctx context.Context, w schemas.Webhook, since time.Time) {
	d.mu.Lock()
	busy := d.recovering
	d.recovering = true
	d.mu.Unlock()
	if busy {
		return
	}
	d.lanes.Go(func() {
		defer func() {
			d.mu.Lock()
			d.recovering = false
			d.mu.Unlock()
		}()
		began := time.Now()
		n, err := d.reread(ctx, w, since)
		if err == nil {
			err = d.store.RecoveredWebhook(ctx, w.Number, since)
		}
		switch {
		case err == nil:
			d.log.InfoContext(ctx, "events of an endpoint were read again", "endpoint", w.Number, "events", n, "took_ms", time.Since(began).Milliseconds())
		case ctx.Err() == nil:
			d.log.WarnContext(ctx, "events of an endpoint can't be read again; retrying", "endpoint", w.Number, "err", err)
			timer := time.NewTimer(time.Second)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
	})
}

// errEnd ends a tail that has read to the end.
var errEnd = errors.New("read to the end")

// reread reads the logs of deliveries and replies from a time to its end and queues what the endpoint wants. Events
// that the store still has stay unchanged.
func (d *deliverer) reread(ctx context.Context, w schemas.Webhook, since time.Time) (queued int, err error) {
	if since.Before(w.Created) {
		w.Created = since
	}
	only := hooksOf(w)
	// A separate handler, because it remembers other messages than the reader of the log
	h := newHandler(d.cfg, d.store, d.handler.view, d.known, d.metrics)
	cluster := d.cfg.Cluster.Named(Stage + "-recover")
	cl, err := cluster.Client()
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	topics := []string{d.cfg.Cluster.Names.Deliveries(), d.cfg.Cluster.Names.Replies()}
	starts, err := stream.Answer(kadm.NewClient(cl).ListOffsetsAfterMilli(ctx, since.UnixMilli(), topics...))
	if err != nil {
		return 0, fmt.Errorf("list offsets of %v: %w", topics, err)
	}
	from := map[string]map[int32]int64{topics[0]: {}, topics[1]: {}}
	starts.Each(func(o kadm.ListedOffset) { from[o.Topic][o.Partition] = o.Offset })

	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	tail, err := stream.NewTail(stream.TailConfig{Cluster: cluster, Topics: topics, From: from}, func(records []*kgo.Record) {
		if context.Cause(reading) != nil {
			return
		}
		b, err := h.convert(reading, only, records)
		if err == nil && len(b.items)+len(b.refs) > 0 {
			err = d.store.QueueWebhooks(reading, b.items, b.refs)
			queued += len(b.items)
			d.handler.wakeUp()
		}
		if err != nil {
			stop(err) // the first error is kept
		}
	})
	if err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- tail.Run(reading) }()
	select {
	case <-tail.Ready():
		stop(errEnd)
	case <-reading.Done():
	}
	if err := <-ended; err != nil {
		return queued, err
	}
	if err := context.Cause(reading); !errors.Is(err, errEnd) {
		return queued, err
	}
	return queued, nil
}
