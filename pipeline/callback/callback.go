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

// errInbound is the cause of a dead letter that holds messages of recipients.
var errInbound = errors.New("the callback holds messages of recipients, which no stage takes")

// Handle implements [stream.Handler].
func (h *handler) Handle(_ context.Context, batch []*kgo.Record) (stream.Result, error) {
	var out stream.Result
	for _, r := range batch {
		receipts, err := h.receipts(r)
		out.Publish = append(out.Publish, receipts...)
		result := "receipts"
		if err != nil {
			out.Dead = append(out.Dead, stream.Dead{Record: r, Cause: err})
			result = "dead"
		} else if len(receipts) == 0 {
			result = "nothing"
		}
		h.metrics.callbacks.WithLabelValues(result).Inc()
	}
	return out, nil
}

// receipts returns the records of topic receipts that a callback becomes. With an error there may be some, too.
func (h *handler) receipts(r *kgo.Record) ([]*kgo.Record, error) {
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
	out := make([]*kgo.Record, 0, len(receipts))
	for i := range receipts {
		record, err := schemas.ReceiptEvent(h.names.Receipts(), source, receipts[i].Record(c.GetRoute(), time.UnixMilli(c.GetReceivedMs()))).Record()
		if err != nil {
			return out, err
		}
		out = append(out, record)
	}
	if len(inbound) > 0 {
		return out, errInbound
	}
	return out, nil
}

type metrics struct{ callbacks *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{stream.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fanfare_callback_callbacks_total", Help: "Callbacks of carriers that were read, by result: receipts, nothing, dead.",
	}, []string{"result"}))}
}
