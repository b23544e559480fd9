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

// Reporter reports what one process knows about the routes.
type Reporter struct {
	// Process names the process. After a restart it has a new name.
	Process string
	Cluster stream.Cluster
	// Source is the stage that reports, such as `sender`.
	Source string
	// Reports returns one report for each route. The reporter fills in the process and the time.
	Reports func(now time.Time) []*fanfarev1.RouteHealth
	// Now is the clock; default time.Now.
	Now func() time.Time

	written map[string]*fanfarev1.RouteHealth
}

// Intervals and bounds of a reporter.
const (
	lookEvery = 500 * time.Millisecond
	sayGoodby = 2 * time.Second
)

// Run reports until ctx ends, and then writes a tombstone for each report. It drops a report that cannot be written,
// because the next one replaces it.
func (r *Reporter) Run(ctx context.Context) error {
	if r.Process == "" || r.Reports == nil {
		return errors.New("health: a name of the process and its reports are needed")
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	r.written = map[string]*fanfarev1.RouteHealth{}
	// A report waits for Kafka at most until the next one is due, and is not written twice.
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
			_ = cl.Flush(end) // a report without a tombstone expires by its age
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

// changed reports whether a new report must be written before it is due.
func changed(a, b *fanfarev1.RouteHealth) bool {
	return a.GetState() != b.GetState() || a.GetBreaker() != b.GetBreaker() || a.GetAccountRefused() != b.GetAccountRefused()
}

// record returns the record of a report, or its tombstone if h is nil.
func (r *Reporter) record(route string, h *fanfarev1.RouteHealth) *kgo.Record {
	key := schemas.HealthKey(route, r.Process)
	e := schemas.Event{Topic: r.Cluster.Names.Health(), Key: key, Type: schemas.TypeHealth, Source: r.Source, ID: key, Time: r.Now(), Value: h}
	if h == nil {
		return e.Raw(nil)
	}
	out, err := e.Record()
	if err != nil {
		return e.Raw(nil) // cannot happen: texts are made valid UTF-8 where they are set
	}
	return out
}
