package callback

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

const source = "callback"

// Webhooks finds what reads the callbacks of a route.
type Webhooks func(route string) (carrier.Webhook, error)

// Config of a [Stage].
type Config struct {
	Cluster stream.Cluster
	// MaxRecords of a batch; default 500.
	MaxRecords int
	// SessionTimeout of the group; 0: the stage's default.
	SessionTimeout time.Duration
}

// New returns the stage.
func New(cfg Config, webhooks Webhooks) (*stream.Stage, error) {
	if webhooks == nil || cfg.MaxRecords < 0 {
		return nil, errors.New("callback: webhooks are needed, and max records must not be negative")
	}
	if cfg.MaxRecords == 0 {
		cfg.MaxRecords = 500
	}
	names := cfg.Cluster.Names
	stage, err := stream.NewStage(stream.StageConfig{
		Cluster: cfg.Cluster, Name: source, Group: names.Group(source), Topics: []string{names.Callbacks()},
		MaxRecords: cfg.MaxRecords, SessionTimeout: cfg.SessionTimeout,
	}, &handler{names, webhooks, newMetrics(cfg.Cluster.Registry)})
	if err != nil {
		return nil, fmt.Errorf("callback: %w", err)
	}
	return stage, nil
}

type handler struct {
	names    schemas.Names
	webhooks Webhooks
	metrics  *metrics
}

// Handle implements [stream.Handler].
func (h *handler) Handle(_ context.Context, batch []*kgo.Record) (stream.Result, error) {
	var out stream.Result
	for _, r := range batch {
		records, err := h.records(r)
		out.Publish = append(out.Publish, records...)
		result := "read"
		if err != nil {
			out.Dead = append(out.Dead, stream.Dead{Record: r, Cause: err})
			result = "dead"
		} else if len(records) == 0 {
			result = "nothing"
		}
		h.metrics.callbacks.WithLabelValues(result).Inc()
	}
	return out, nil
}

// records returns what a callback becomes: records of topic receipts, and of topic inbound. With an error there may be
// some, too.
func (h *handler) records(r *kgo.Record) ([]*kgo.Record, error) {
	c := &fanfarev1.Callback{}
	if err := proto.Unmarshal(r.Value, c); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	hook, err := h.webhooks(c.GetRoute())
	if err != nil {
		return nil, err
	}
	header := http.Header{}
	for _, one := range c.GetHeaders() {
		header.Add(one.GetName(), one.GetValue())
	}
	receipts, inbound, err := hook.Parse(&carrier.Callback{Method: c.GetMethod(), URL: c.GetUrl(), Header: header, Body: c.GetBody()})
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	received := time.UnixMilli(c.GetReceivedMs())
	out := make([]*kgo.Record, 0, len(receipts)+len(inbound))
	for i := range receipts {
		record, err := schemas.ReceiptEvent(h.names.Receipts(), source, receipts[i].Record(c.GetRoute(), received)).Record()
		if err != nil {
			return out, err
		}
		out = append(out, record)
	}
	for i := range inbound {
		record, err := inbound[i].Event(h.names.Inbound(), source, c.GetRoute(), received).Record()
		if err != nil {
			return out, err
		}
		out = append(out, record)
	}
	return out, nil
}

type metrics struct{ callbacks *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{stream.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fanfare_callback_callbacks_total", Help: "Callbacks of carriers that were read, by result: read (it held receipts or messages of recipients), nothing, dead.",
	}, []string{"result"}))}
}
