package stream

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
	"github.com/twmb/franz-go/plugin/kslog"

	"fanfare/schemas"
)

// Cluster says how to reach Kafka and what everything in it is called. It is a value: copy it and change the copy.
type Cluster struct {
	// Brokers to begin with, host:port.
	Brokers []string
	Names   schemas.Names
	Logger  *slog.Logger
	// Registry takes the metrics; nil: none are kept.
	Registry prometheus.Registerer
	// Options of every client, such as a dialer, TLS, SASL or hooks.
	Options []kgo.Opt
	// Name of the clients, in metrics (label client) and at the broker.
	Name string
}

// Named returns the cluster with another client name.
func (c Cluster) Named(name string) Cluster {
	c.Name = name
	return c
}

func (c Cluster) validate() error {
	switch {
	case len(c.Brokers) == 0:
		return errors.New("cluster: no brokers")
	case c.Logger == nil:
		return errors.New("cluster: no logger")
	}
	return nil
}

// metadataMinAge is how soon a client asks for metadata again. At franz-go's default of 5 s a transaction that meets
// CONCURRENT_TRANSACTIONS stalls that long, and so does whoever meets a moved leader.
const metadataMinAge = 100 * time.Millisecond

// Client returns a client of the cluster with what all of ours have in common; opts come last and so win.
func (c Cluster) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	all, metrics, err := c.options(opts)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(all...)
	if err != nil {
		return nil, fmt.Errorf("kafka client %s: %w", c.Name, err)
	}
	metrics.register(c.Registry)
	return cl, nil
}

func (c Cluster) options(opts []kgo.Opt) ([]kgo.Opt, *clientMetrics, error) {
	if err := c.validate(); err != nil {
		return nil, nil, err
	}
	name := c.Name
	if name == "" {
		name = "fanfare"
	}
	metrics := &clientMetrics{Metrics: kprom.NewMetrics("fanfare_kafka", kprom.Registry(nil), kprom.WithStaticLabel(prometheus.Labels{"client": name}))}
	all := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(name),
		kgo.WithLogger(kslog.New(c.Logger.With("client", name))),
		kgo.WithHooks(metrics),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.DisableClientMetrics(), // what a client pushes to the broker, which is nobody's here
	}
	all = append(all, c.Options...)
	return append(all, opts...), metrics, nil
}

// clientMetrics are kprom's, registered as one collector: kprom itself panics when two clients have one name.
type clientMetrics struct {
	*kprom.Metrics
	reg prometheus.Registerer
}

func (m *clientMetrics) register(reg prometheus.Registerer) {
	if reg != nil && reg.Register(m.Metrics) == nil {
		m.reg = reg // else: a client of this name is counted already
	}
}

// OnClientClosed implements the hook of kgo.
func (m *clientMetrics) OnClientClosed(*kgo.Client) {
	if m.reg != nil {
		m.reg.Unregister(m.Metrics)
	}
}
