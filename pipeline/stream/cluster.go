package stream

import (
	"context"
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
		kgo.WithLogger(clientLog{kslog.New(c.Logger.With("client", name))}),
		kgo.WithHooks(metrics),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.DisableClientMetrics(), // what a client pushes to the broker, which is nobody's here
	}
	all = append(all, c.Options...)
	return append(all, opts...), metrics, nil
}

// groupOptions are those of every member of a group. The classic cooperative protocol moves only what must move; heartbeats
// are ten to a session, so that a rebalance is heard of soon. A rebalance waits for a member for as long as a drain takes
// twice over: kfake waits all of it for a member that was killed while it joined.
func groupOptions(group string, topics []string, session, drain time.Duration) []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(group),
		kgo.ConsumeTopics(topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(session),
		kgo.HeartbeatInterval(session / 10),
		kgo.RebalanceTimeout(session + 2*drain),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(fetchMaxWait),
	}
}

// fetchMaxWait is how long a broker holds a fetch that has nothing to give. A partition that is assigned meanwhile waits it
// out, so at franz-go's default of 5 s a take-over takes so much longer.
const fetchMaxWait = 250 * time.Millisecond

// outliving returns a context that ends later than ctx by so much, or when it is cancelled.
func outliving(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(by)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-out.Done():
		}
	})
	return out, func() { stop(); cancel() }
}

// cutter ends a client that cannot wait for its broker. cancel ends the context that the client was given by [kgo.WithContext].
type cutter struct {
	cl     *kgo.Client
	cancel context.CancelFunc
}

// cut fails everything that the client is doing, at once. Only closing it is left to be done then.
func (c cutter) cut() {
	c.cancel()
	c.cl.UnsafeAbortBufferedRecords() // what is in flight is not failed by a context
}

// close closes the client, and cuts it when that takes longer than within: a broker that is away must not keep a process from ending.
func (c cutter) close(within time.Duration) {
	timer := time.AfterFunc(within, c.cut)
	defer timer.Stop()
	c.cl.CloseAllowingRebalance()
	c.cancel()
}

// clientLog lets a client say at Debug what it calls Info: several lines for each assignment and each transaction.
type clientLog struct{ kgo.Logger }

// Log implements kgo.Logger.
func (l clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if level == kgo.LogLevelInfo {
		level = kgo.LogLevelDebug
	}
	l.Logger.Log(level, msg, keyvals...)
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
