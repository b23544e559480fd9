package webhook

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// deliverer posts the due events to the endpoints that this process has leased.
type deliverer struct {
	cfg     Config
	store   Store
	known   *endpoints
	handler *handler
	post    *poster
	metrics *metrics
	log     *slog.Logger
	owner   string // of the leases
	records chan *recording

	lanes sync.WaitGroup
	mu    sync.Mutex
	// running are the endpoints that have a lane now, recovering those whose events are read again.
	running    map[uint64]bool
	recovering bool
}

// tickLeast is the shortest time between two looks at the queue, so that one look finds the events of many small
// batches.
const tickLeast = 20 * time.Millisecond

// run posts until ctx ends, then waits for the open requests and releases the leases.
func (d *deliverer) run(ctx context.Context) error {
	// The recorder outlives ctx, so that the results of posted requests are recorded.
	recording, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	recorder := make(chan struct{})
	go func() {
		defer close(recorder)
		d.record(recording)
	}()
	d.loop(ctx)
	d.lanes.Wait()
	stop()
	<-recorder
	release, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := d.store.ReleaseWebhooks(release, d.owner); err != nil {
		d.log.WarnContext(ctx, "leases of endpoints not given back; they end by themselves", "err", err)
	}
	return nil
}

func (d *deliverer) loop(ctx context.Context) {
	var claimed time.Time
	failing := false
	retry := stream.NewBackoff(100*time.Millisecond, 2*time.Second)
	for ctx.Err() == nil {
		err := error(nil)
		if time.Since(claimed) > d.cfg.Lease/4 {
			if err = d.store.ClaimWebhooks(ctx, d.owner, d.cfg.Lease, d.cfg.Most); err == nil {
				claimed = time.Now()
			}
		}
		if err == nil {
			err = d.tick(ctx)
		}
		switch {
		case err != nil && ctx.Err() == nil:
			d.metrics.storeErrors.Inc()
			if !failing {
				d.log.WarnContext(ctx, "the queue of events can't be read; retrying", "err", err)
			}
			failing = true
			retry.Wait(ctx)
			continue
		case failing:
			d.log.InfoContext(ctx, "the queue of events is read again")
			failing = false
			retry = stream.NewBackoff(100*time.Millisecond, 2*time.Second)
		}
		d.wait(ctx)
	}
}

// wait returns when this process has queued an event, or after Poll.
func (d *deliverer) wait(ctx context.Context) {
	poll, least := time.NewTimer(d.cfg.Poll), time.NewTimer(tickLeast)
	defer poll.Stop()
	defer least.Stop()
	select {
	case <-least.C:
	case <-ctx.Done():
	}
	select {
	case <-d.handler.wake:
	case <-poll.C:
	case <-ctx.Done():
	}
}

// tick starts a lane for each endpoint that has due events and no lane.
func (d *deliverer) tick(ctx context.Context) error {
	hooks, err := d.known.current(ctx)
	if err != nil {
		return err
	}
	owned, err := d.store.OwnedWebhooks(ctx, d.owner)
	if err != nil {
		return err
	}
	now, failing := d.cfg.Now(), 0
	for _, h := range owned {
		w := hooks.byNumber[h.Endpoint]
		if w == nil {
			continue // paused, disabled or deleted
		}
		if h.Failures >= failuresOpen {
			failing++
		}
		if !h.Recover.IsZero() {
			d.recover(ctx, *w, h.Recover)
		}
		if h.Due.IsZero() || h.Due.After(now) || h.NotBefore.After(now) {
			continue
		}
		d.mu.Lock()
		busy := d.running[h.Endpoint]
		d.running[h.Endpoint] = true
		d.mu.Unlock()
		if busy {
			continue
		}
		d.lanes.Go(func() {
			defer func() {
				d.mu.Lock()
				delete(d.running, h.Endpoint)
				d.mu.Unlock()
			}()
			d.lane(ctx, h)
		})
	}
	d.metrics.failing.Set(float64(failing))
	d.metrics.owned.Set(float64(len(owned)))
	return nil
}

// recording is an outcome that waits to be recorded.
type recording struct {
	outcome schemas.WebhookOutcome
	done    chan error
}

// recordedAtOnce is how many outcomes one transaction takes.
const recordedAtOnce = 100

// record records outcomes until ctx ends. It writes all outcomes that wait in one transaction, because a store with one
// writer must serve many lanes.
func (d *deliverer) record(ctx context.Context) {
	for {
		var waiting []*recording
		select {
		case r := <-d.records:
			waiting = append(waiting, r)
		case <-ctx.Done():
			return
		}
	more:
		for len(waiting) < recordedAtOnce {
			select {
			case r := <-d.records:
				waiting = append(waiting, r)
			default:
				break more
			}
		}
		outcomes := make([]schemas.WebhookOutcome, len(waiting))
		for i, r := range waiting {
			outcomes[i] = r.outcome
		}
		err := d.settle(ctx, outcomes)
		for _, r := range waiting {
			r.done <- err
		}
	}
}

// settleFor is how long the recorder waits for a store that is away. After that the leases have ended, and requests
// whose answer is not recorded are posted again.
const settleFor = 10 * time.Second

func (d *deliverer) settle(ctx context.Context, outcomes []schemas.WebhookOutcome) error {
	ctx, cancel := context.WithTimeout(ctx, settleFor)
	defer cancel()
	retry := stream.NewBackoff(50*time.Millisecond, time.Second)
	for {
		err := d.store.SettleWebhooks(ctx, outcomes)
		if err == nil {
			return nil
		}
		d.metrics.storeErrors.Inc()
		if !retry.Wait(ctx) {
			return err
		}
	}
}
