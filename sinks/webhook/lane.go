package webhook

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"fanfare/schemas"
)

// lane posts the due events of one endpoint until none is left or the endpoint asks for a pause.
func (d *deliverer) lane(ctx context.Context, health schemas.WebhookHealth) {
	for ctx.Err() == nil {
		hooks, err := d.known.current(ctx)
		if err != nil {
			return // the loop gets the same error and logs it
		}
		w := hooks.byNumber[health.Endpoint]
		if w == nil {
			return
		}
		items, err := d.store.DueWebhooks(ctx, health.Endpoint, d.cfg.Page)
		if err != nil || len(items) == 0 {
			return
		}
		p := &page{d: d, w: w, health: health, probing: health.Failures >= failuresOpen}
		p.run(ctx, items)
		if len(p.tried) == 0 {
			return
		}
		if p.gone != "" {
			if err := d.disable(context.WithoutCancel(ctx), hooks, w, p.health.Failing, p.gone); err != nil {
				d.log.WarnContext(ctx, "an endpoint is not disabled yet", "endpoint", w.Number, "err", err)
			}
		}
		r := &recording{schemas.WebhookOutcome{Endpoint: w.Number, Items: p.tried, Health: p.health}, make(chan error, 1)}
		d.records <- r
		if err := <-r.done; err != nil {
			d.log.WarnContext(ctx, "answers of an endpoint are not recorded; they are posted again", "endpoint", w.Number, "events", len(p.tried), "err", err)
			return
		}
		health = p.health
		if p.gone != "" || health.NotBefore.After(d.cfg.Now()) {
			return
		}
	}
}

// disable first queues endpoint.disabled for the tenant's other endpoints and then disables the endpoint. If a kill
// repeats it, the event is queued once.
func (d *deliverer) disable(ctx context.Context, hooks *hooks, w *schemas.Webhook, failing time.Time, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, settleFor)
	defer cancel()
	items, err := endpointItems(hooks, w, failing, d.cfg.Now(), reason)
	if err == nil && len(items) > 0 {
		err = d.store.QueueWebhooks(ctx, items, nil)
	}
	if err == nil {
		err = d.store.DisableWebhook(ctx, w.Tenant, w.Number, reason)
	}
	if err != nil {
		return err
	}
	d.metrics.disabled.Inc()
	d.log.WarnContext(ctx, "an endpoint is disabled", "endpoint", w.Number, "tenant", w.Tenant, "reason", reason)
	return nil
}

// page has events of one endpoint that are posted concurrently.
type page struct {
	d *deliverer
	w *schemas.Webhook
	// probing: the endpoint counts as down, and one request at a time tests whether it is up again.
	probing bool

	mu     sync.Mutex
	tried  []schemas.WebhookItem
	health schemas.WebhookHealth
	after  time.Duration // the greatest Retry-After
	gone   string        // why the endpoint is to be disabled
}

// run posts the events. It stops early if the endpoint fails or asks for a pause.
func (p *page) run(ctx context.Context, items []schemas.WebhookItem) {
	size := max(p.w.Batch, 1)
	requests := p.d.cfg.Requests
	if p.probing {
		requests, items = 1, items[:min(size, len(items))]
	}
	var posting sync.WaitGroup
	free := make(chan struct{}, requests)
	for part := range slices.Chunk(items, size) {
		free <- struct{}{}
		if ctx.Err() != nil || p.closed() {
			break
		}
		posting.Go(func() {
			defer func() { <-free }()
			id, body := request(part, p.w.Batch > 1, p.d.cfg.Now())
			// A stop waits for the answer, for as long as a request may take.
			a := p.d.post.post(context.WithoutCancel(ctx), p.w, id, body)
			p.note(part, a)
		})
	}
	posting.Wait()
	now := p.d.cfg.Now()
	p.health.NotBefore = time.Time{}
	if p.health.Failures >= failuresOpen {
		p.health.NotBefore = now.Add(pause(now.Sub(p.health.Failing), p.d.cfg.Jitter()))
		if p.gone == "" && now.Sub(p.health.Failing) >= failingMost {
			p.gone = "It has failed for five days. The last time: " + p.tried[len(p.tried)-1].Error + "."
		}
	}
	if until := now.Add(p.after); p.after > 0 && until.After(p.health.NotBefore) {
		p.health.NotBefore = until
	}
}

// closed reports whether no further request may begin.
func (p *page) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone != "" || p.after > 0 || p.health.Failures >= failuresOpen && len(p.tried) > 0
}

// note notes an answer.
func (p *page) note(items []schemas.WebhookItem, a answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, m := p.d.cfg.Now(), p.d.metrics
	m.answered(a)
	if a.err == "" {
		p.health.Failures, p.health.Failing, p.health.Succeeded = 0, time.Time{}, now
	} else {
		p.health.Failures++
		if p.health.Failing.IsZero() {
			p.health.Failing = now
		}
		p.after = max(p.after, a.after)
	}
	if a.status == http.StatusGone {
		p.gone = "It answered 410 Gone."
	}
	for _, it := range items {
		if it.Tries == 0 && it.Type != schemas.WebhookTestType { // a test is due before all others
			m.wait.Observe(now.Sub(it.Due).Seconds())
		}
		if !p.probing || a.err == "" {
			it.Tries++ // tries while the endpoint is down are not counted: they are not the event's fault
		}
		it.Tried, it.Status, it.Answer, it.Error, it.Took = now, a.status, a.text, a.err, a.took
		if a.err == "" {
			it.State = schemas.WebhookDone
		} else if p.probing && it.Type != schemas.WebhookTestType {
			it.Due = now.Add(a.after)
		} else if wait, again := nextTry(it.Tries, p.d.cfg.Jitter()); again && it.Type != schemas.WebhookTestType {
			it.Due = now.Add(max(wait, a.after))
		} else {
			it.State = schemas.WebhookGivenUp
			m.givenUp.Inc()
		}
		p.tried = append(p.tried, it)
	}
}
