package tracing

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protowire"

	"fanfare/schemas"
	"fanfare/schemas/trace"
)

func newExporter(t *testing.T, endpoint string, change func(*Config)) *Exporter {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Endpoint: endpoint, OneIn: 1, Keys: keys, Version: "test", Logger: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), Every: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func record(e *Exporter, n int) {
	for i := range n {
		w := e.Tracer().OfCampaign(1)
		e.Tracer().Record(trace.Span{Name: trace.NameDeal, At: w.Deal(uint64(i) + 1), Parent: w.Root(), Start: time.UnixMilli(1), End: time.UnixMilli(2)})
	}
}

func count(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// ended waits until n spans have a result.
func ended(t *testing.T, e *Exporter, n float64) {
	t.Helper()
	for range 6000 {
		if count(t, e.exported)+count(t, e.failed)+count(t, e.dropped) >= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("got %v exported, %v failed, %v dropped within a minute, want %v in all", count(t, e.exported), count(t, e.failed), count(t, e.dropped), n)
}

// Nobody who makes a span waits: what does not fit into the queue is dropped and counted.
func TestFullQueueDrops(t *testing.T) {
	e := newExporter(t, "http://127.0.0.1:1", func(c *Config) { c.Queue = 4 })
	record(e, 10)
	if got := count(t, e.dropped); got != 6 {
		t.Errorf("got %v dropped, want 6", got)
	}
}

// A collector that is busy is asked again; one that refuses spans, or answers an error, costs them.
func TestResults(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer elsewhere.Close()
	partial := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3)
	for _, c := range []struct {
		name             string
		answers          []int
		body             []byte
		exported, failed float64
		requests         int
	}{
		{"takes", []int{200}, nil, 10, 0, 1},
		{"is busy once", []int{503, 200}, nil, 10, 0, 2},
		{"refuses three", []int{200}, protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), partial), 7, 3, 1},
		{"answers garbage", []int{200}, []byte{0xff, 0xff}, 10, 0, 1},
		{"refuses all", []int{400}, nil, 0, 10, 1},
		{"sends elsewhere", []int{307}, nil, 0, 10, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			requests := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				w.Header().Set("Location", elsewhere.URL)
				w.WriteHeader(c.answers[min(requests, len(c.answers)-1)])
				requests++
				_, _ = w.Write(c.body)
			}))
			defer server.Close()
			e := newExporter(t, server.URL, nil)
			record(e, 10) // one batch: they are all in the queue before Run reads it
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				e.Run(ctx)
			}()
			ended(t, e, 10)
			stop()
			<-done
			mu.Lock()
			defer mu.Unlock()
			if got, failed := count(t, e.exported), count(t, e.failed); got != c.exported || failed != c.failed || requests != c.requests {
				t.Errorf("got %v exported and %v failed in %d requests, want %v, %v, %d", got, failed, requests, c.exported, c.failed, c.requests)
			}
		})
	}
}

// A stop sends what is left; it does not wait for a collector that hangs.
func TestStop(t *testing.T) {
	var mu sync.Mutex
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		requests++
	}))
	defer server.Close()
	e := newExporter(t, server.URL, nil)
	e.lastWords = time.Minute // a slow machine needs more than two seconds
	record(e, 2*batchSize)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	e.Run(stopped)
	if got := count(t, e.exported); got != 2*batchSize {
		t.Errorf("got %v spans exported at the stop, want all %d", got, 2*batchSize)
	}

	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer hanging.Close()
	defer close(release)
	e = newExporter(t, hanging.URL, func(c *Config) { c.Timeout = time.Hour })
	record(e, 10)
	e.Run(stopped) // returns after lastWords, or the test ends by its time limit
	if got := count(t, e.failed); got != 10 {
		t.Errorf("got %v spans lost, want 10", got)
	}
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"http://127.0.0.1:4318": "http://127.0.0.1:4318/v1/traces", "https://otel.example.com/": "https://otel.example.com/v1/traces",
		"https://example.com/otlp/v1/traces": "https://example.com/otlp/v1/traces",
		"127.0.0.1:4318":                     "", "grpc://x:4317": "", "http://": "", "http://user:pw@x": "", "http://x/?a=b": "", "": "",
	} {
		got, err := Address(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "such as http://") {
			t.Errorf("%q: the error %q says not what to give", in, err)
		}
	}
}
