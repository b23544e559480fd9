package health

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestReportsReachTheBoard: the board shows a change of state within seconds, and drops the reports of a process that
// stops.
func TestReportsReachTheBoard(t *testing.T) {
	names, err := schemas.NewNames("t.")
	if err != nil {
		t.Fatal(err)
	}
	kafka, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, names.Health()))
	if err != nil {
		t.Fatal(err)
	}
	defer kafka.Close()
	cluster := stream.Cluster{Brokers: kafka.ListenAddrs(), Names: names, Logger: slog.New(slog.DiscardHandler)}
	board, err := NewBoard(cluster, nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	state := schemas.LineStateUp
	reporter := &Reporter{Process: "sender-1", Cluster: cluster, Source: "sender", Reports: func(now time.Time) []*fanfarev1.RouteHealth {
		mu.Lock()
		defer mu.Unlock()
		return []*fanfarev1.RouteHealth{{Route: "sim", State: state, SinceMs: now.UnixMilli()}}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	reading, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = board.Run(reading) })
	ended := make(chan error, 1)
	go func() { ended <- reporter.Run(ctx) }()
	until := func(want schemas.LineState) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); board.RouteHealth("sim").State != want; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("got %v, want %v", board.RouteHealth("sim").State, want)
			}
		}
	}
	until(schemas.LineStateUp)
	mu.Lock()
	state = schemas.LineStateDown
	mu.Unlock()
	until(schemas.LineStateDown)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	until(schemas.LineStateUnspecified)
	stop()
	wg.Wait()
}

func TestRatesForget(t *testing.T) {
	now := time.Date(2030, 3, 4, 10, 0, 0, 0, time.UTC)
	var r Rates
	r.Add("sim", Counts{Accepted: 3, Refused: 1}, now)
	r.Add("sim", Counts{Accepted: 2, Delivered: 4}, now.Add(2*time.Minute))
	r.Add("other", Counts{Accepted: 9}, now)
	for _, c := range []struct {
		after time.Duration
		want  Counts
	}{{0, Counts{Accepted: 3, Refused: 1}}, {4 * time.Minute, Counts{Accepted: 5, Refused: 1, Delivered: 4}}, {6 * time.Minute, Counts{Accepted: 2, Delivered: 4}}, {8 * time.Minute, Counts{}}} {
		if got := r.Of("sim", now.Add(c.after)); got != c.want {
			t.Errorf("after %s: got %v, want %v", c.after, got, c.want)
		}
	}
}
