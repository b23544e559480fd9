// Package tracing sends spans to an OpenTelemetry collector by OTLP over HTTP. A slow or dead collector costs spans,
// which are counted, and holds up nothing else.
package tracing

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"fanfare/schemas"
	"fanfare/schemas/trace"
)

// Config of an [Exporter].
type Config struct {
	// Endpoint is the collector's address, http or https. Without a path it means /v1/traces, where OTLP is expected.
	Endpoint string
	// OneIn: one in so many recipients is traced.
	OneIn int
	Keys  *schemas.Keys
	// Version of the product and the roles of this process name it in every span.
	Version string
	Roles   []string
	// Queue is how many spans wait for the collector at most; default 8,192, about 10 MB.
	Queue int
	// Every is how long a span waits for others at most; default 1 s.
	Every time.Duration
	// Timeout of one request to the collector; default 10 s.
	Timeout  time.Duration
	Logger   *slog.Logger
	Registry prometheus.Registerer
}

// batchSize is the most spans of one request.
const batchSize = 512

// Exporter sends spans while [Exporter.Run] runs.
type Exporter struct {
	cfg      Config
	queue    chan sdktrace.ReadOnlySpan
	tracer   *trace.Tracer
	exporter *otlptrace.Exporter
	client   *client
	exported, dropped,
	failed prometheus.Counter
	failing   bool          // the last request failed; used by Run alone
	lastWords time.Duration // how long the end of Run may take
}

// New returns an exporter. It does not call the collector.
func New(cfg Config) (*Exporter, error) {
	if cfg.Keys == nil || cfg.Logger == nil {
		return nil, errors.New("tracing: keys and a logger are needed")
	}
	address, err := Address(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 8192
	}
	if cfg.Every <= 0 {
		cfg.Every = time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fanfare_trace_spans_total",
		Help: "Spans, by result: exported (the collector has them), dropped (the queue to the collector was full), failed (the collector did not take them).",
	}, []string{"result"})
	if cfg.Registry != nil {
		if err := cfg.Registry.Register(spans); err != nil {
			return nil, err
		}
	}
	e := &Exporter{
		cfg: cfg, queue: make(chan sdktrace.ReadOnlySpan, cfg.Queue), lastWords: lastWords,
		exported: spans.WithLabelValues("exported"), dropped: spans.WithLabelValues("dropped"), failed: spans.WithLabelValues("failed"),
	}
	e.client = &client{address: address, http: &http.Client{Timeout: cfg.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	e.exporter = otlptrace.NewUnstarted(e.client)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithIDGenerator(trace.IDs{}),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // whoever makes a span has asked Tracer.Samples
		sdktrace.WithSpanProcessor(processor{e}),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "fanfare"),
			attribute.String("service.version", cfg.Version),
			attribute.StringSlice("fanfare.roles", cfg.Roles),
		)),
	)
	e.tracer = trace.New(provider, cfg.OneIn, cfg.Keys)
	return e, nil
}

// Tracer makes the spans that the exporter sends.
func (e *Exporter) Tracer() *trace.Tracer { return e.tracer }

// processor puts every span that ends into the queue, or drops it.
type processor struct{ e *Exporter }

var _ sdktrace.SpanProcessor = processor{}

// OnStart does nothing: spans are made when they end.
func (processor) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd is called by everyone who makes a span; it does not wait.
func (p processor) OnEnd(s sdktrace.ReadOnlySpan) {
	select {
	case p.e.queue <- s:
	default:
		p.e.dropped.Inc()
	}
}

// Shutdown does nothing: the end of Run does.
func (processor) Shutdown(context.Context) error { return nil }

// ForceFlush does nothing: Run does not wait long.
func (processor) ForceFlush(context.Context) error { return nil }

// lastWords is how long the end of Run may take: a collector that is away must not hold up the stop of a process.
const lastWords = 2 * time.Second

// Run sends spans until ctx ends, and then those that are left, for at most two seconds.
func (e *Exporter) Run(ctx context.Context) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(e.lastWords, cancel) })()
	defer e.client.http.CloseIdleConnections()
	for {
		batch := e.gather(ctx)
		if len(batch) == 0 { // ctx has ended
			return
		}
		e.send(work, batch)
	}
}

// gather waits for a span and returns it with those that come until the batch is full or the wait is over. After the
// end of ctx it returns what is there.
func (e *Exporter) gather(ctx context.Context) (batch []sdktrace.ReadOnlySpan) {
	select {
	case s := <-e.queue:
		batch = append(batch, s)
	case <-ctx.Done():
	}
	timer := time.NewTimer(e.cfg.Every)
	defer timer.Stop()
	for len(batch) < batchSize {
		select {
		case s := <-e.queue:
			batch = append(batch, s)
			continue
		default:
		}
		if ctx.Err() != nil {
			return batch
		}
		select {
		case s := <-e.queue:
			batch = append(batch, s)
		case <-timer.C:
			return batch
		case <-ctx.Done():
		}
	}
	return batch
}

// send sends a batch, and again a few times while the collector asks for it. What it does not take is lost.
func (e *Exporter) send(ctx context.Context, batch []sdktrace.ReadOnlySpan) {
	e.client.rejected = 0
	err := e.exporter.ExportSpans(ctx, batch)
	if err == nil {
		n := min(e.client.rejected, len(batch))
		e.failed.Add(float64(n))
		e.exported.Add(float64(len(batch) - n))
	} else {
		e.failed.Add(float64(len(batch)))
	}
	switch {
	case err != nil && !e.failing:
		e.cfg.Logger.WarnContext(ctx, "the collector of traces does not take spans; they are lost until it does", "err", err)
	case err == nil && e.failing:
		e.cfg.Logger.InfoContext(ctx, "the collector of traces takes spans again")
	}
	e.failing = err != nil
}
