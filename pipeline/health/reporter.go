package health

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Reporter writes what one process knows of the routes.
type Reporter struct {
	// Process names the process; a new start has a new name.
	Process string
	Cluster stream.Cluster
	// Source is the stage that reports, such as `sender`.
	Source string
	// Reports returns one report for each route, without process and time.
	Reports func(now time.Time) []*fanfarev1.RouteHealth
	// Now is the clock; default time.Now.
	Now func() time.Time

	written map[string]*fanfarev1.RouteHealth
}

// Times of a reporter.
const (
	lookEvery = 500 * time.Millisecond
	sayGoodby = 2 * time.Second
)

// Run reports until ctx ends, and then takes the reports back. A report that cannot be written is dropped: the next one
// is newer.
func (r *Reporter) Run(ctx context.Context) error {
	if r.Process == "" || r.Reports == nil {
		return errors.New("health: a name of the process and its reports are needed")
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	r.written = map[string]*fanfarev1.RouteHealth{}
	// Reports wait for Kafka no longer than they are worth anything, and none is written twice.
	cl, err := r.Cluster.Named("health").Client(kgo.RecordDeliveryTimeout(schemas.HealthEvery), kgo.MaxBufferedRecords(maxBuffered))
	if err != nil {
		return err
	}
	defer cl.Close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), sayGoodby)
			defer cancel()
			for route := range r.written {
				cl.TryProduce(end, r.record(route, nil), nil)
			}
			_ = cl.Flush(end) // what was not taken back is forgotten by its age
			return nil
		case <-tick.C:
			r.report(ctx, cl)
		}
	}
}

const maxBuffered = 1000

func (r *Reporter) report(ctx context.Context, cl *kgo.Client) {
	now := r.Now()
	seen := map[string]bool{}
	for _, h := range r.Reports(now) {
		seen[h.GetRoute()] = true
		last := r.written[h.GetRoute()]
		if last != nil && !changed(last, h) && now.Sub(time.UnixMilli(last.GetTimeMs())) < schemas.HealthEvery {
			continue
		}
		h.Process, h.TimeMs = r.Process, now.UnixMilli()
		r.written[h.GetRoute()] = h
		cl.TryProduce(ctx, r.record(h.GetRoute(), h), nil)
	}
	for route := range r.written {
		if !seen[route] {
			delete(r.written, route)
			cl.TryProduce(ctx, r.record(route, nil), nil)
		}
	}
}

// changed reports whether there is something to be said before its time.
func changed(a, b *fanfarev1.RouteHealth) bool {
	return a.GetState() != b.GetState() || a.GetBreaker() != b.GetBreaker() || a.GetAccountRefused() != b.GetAccountRefused()
}

// record returns the record of a report; nil: its tombstone.
func (r *Reporter) record(route string, h *fanfarev1.RouteHealth) *kgo.Record {
	key := schemas.HealthKey(route, r.Process)
	e := schemas.Event{Topic: r.Cluster.Names.Health(), Key: key, Type: schemas.TypeHealth, Source: r.Source, ID: key, Time: r.Now(), Value: h}
	if h == nil {
		return e.Raw(nil)
	}
	out, err := e.Record()
	if err != nil {
		return e.Raw(nil) // cannot happen: texts are made valid where they come from
	}
	return out
}
