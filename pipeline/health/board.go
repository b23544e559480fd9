package health

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Board has the newest report of each process about each route.
type Board struct {
	tail *stream.Tail
	now  func() time.Time

	mu      sync.Mutex
	reports map[string]map[string]*fanfarev1.RouteHealth // by route and process
}

// NewBoard returns a board that [Board.Run] fills.
func NewBoard(cluster stream.Cluster, now func() time.Time) (*Board, error) {
	b := &Board{now: now, reports: map[string]map[string]*fanfarev1.RouteHealth{}}
	if b.now == nil {
		b.now = time.Now
	}
	var err error
	b.tail, err = stream.NewTail(stream.TailConfig{Cluster: cluster.Named("health.board"), Topics: []string{cluster.Names.Health()}, Now: b.now}, b.apply)
	return b, err
}

// Run follows the topic until ctx ends.
func (b *Board) Run(ctx context.Context) error { return b.tail.Run(ctx) }

// apply reads reports. It ignores a report that cannot be decoded, just like one that is too old.
func (b *Board) apply(records []*kgo.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range records {
		route, process, _ := strings.Cut(string(r.Key), "/")
		h := &fanfarev1.RouteHealth{}
		if r.Value == nil || proto.Unmarshal(r.Value, h) != nil || h.GetRoute() != route || h.GetProcess() != process {
			delete(b.reports[route], process)
			continue
		}
		if b.reports[route] == nil {
			b.reports[route] = map[string]*fanfarev1.RouteHealth{}
		}
		b.reports[route][process] = h
	}
	for route, of := range b.reports {
		for process, h := range of {
			if b.now().Sub(time.UnixMilli(h.GetTimeMs())) > schemas.HealthValid {
				delete(of, process)
			}
		}
		if len(of) == 0 {
			delete(b.reports, route)
		}
	}
}

// RouteHealth returns the health of a route, from the reports of all processes.
func (b *Board) RouteHealth(route string) schemas.RouteHealth {
	b.mu.Lock()
	defer b.mu.Unlock()
	reports := make([]*fanfarev1.RouteHealth, 0, len(b.reports[route]))
	for _, h := range b.reports[route] {
		reports = append(reports, h)
	}
	slices.SortFunc(reports, func(x, y *fanfarev1.RouteHealth) int { return strings.Compare(x.GetProcess(), y.GetProcess()) })
	return schemas.RouteHealthOf(reports, b.now())
}
