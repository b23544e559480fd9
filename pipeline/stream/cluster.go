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

// Cluster says how to reach Kafka, and has the names of topics and groups. It is a value: copy it and change the copy.
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

// Validate returns what is missing.
func (c Cluster) Validate() error {
	switch {
	case len(c.Brokers) == 0:
		return errors.New("cluster: no brokers")
	case c.Logger == nil:
		return errors.New("cluster: no logger")
	}
	return nil
}

// metadataMinAge is how soon a client refreshes its metadata. At franz-go's default of 5 s a transaction that gets
// CONCURRENT_TRANSACTIONS stalls for 5 s, and so does a client after a partition leader moved.
const metadataMinAge = 100 * time.Millisecond

// Client returns a client of the cluster with the options that all clients share; opts come last and override them.
func (c Cluster) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	all, metrics, err := c.options(opts)
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(all...)
	if err != nil {
		return nil, fmt.Errorf("kafka client %s: %w", c.Name, err)
	}
	metrics.registerWith(c.Registry)
	return cl, nil
}

func (c Cluster) options(opts []kgo.Opt) ([]kgo.Opt, *clientMetrics, error) {
	if err := c.Validate(); err != nil {
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
		kgo.DisableClientMetrics(), // metrics that a client pushes to the broker (KIP-714): not used
	}
	all = append(all, c.Options...)
	return append(all, opts...), metrics, nil
}

// GroupOptions are the options of every member of a group. The classic cooperative protocol moves only the partitions
// that must move; ten heartbeats per session make members notice a rebalance soon. A rebalance waits for a member for
// twice the drain. If a member was killed while it joined, kfake waits for that whole time.
func GroupOptions(group string, topics []string, session, drain time.Duration) []kgo.Opt {
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

// fetchMaxWait is how long a broker holds a fetch without records. A partition that is assigned meanwhile waits until
// the fetch returns, so franz-go's default of 5 s would make each takeover 5 s longer.
const fetchMaxWait = 250 * time.Millisecond

// Outliving returns a context that ends when the time in by has passed since the end of ctx, or when it is cancelled.
func Outliving(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
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

// Cutter closes a client whose broker may be away.
type Cutter struct {
	Client *kgo.Client
	// Cancel ends the context that the client was given by [kgo.WithContext].
	Cancel context.CancelFunc
}

// Cut fails at once everything that the client is doing. The client can only be closed afterwards.
func (c Cutter) Cut() {
	c.Cancel()
	c.Client.UnsafeAbortBufferedRecords() // cancelling the context does not fail records in flight
}

// Close closes the client, and cuts it when closing takes longer than within: a process must be able to end without a
// broker.
func (c Cutter) Close(within time.Duration) {
	timer := time.AfterFunc(within, c.Cut)
	defer timer.Stop()
	c.Client.CloseAllowingRebalance()
	c.Cancel()
}

// Answer returns the answer of a kadm call together with the first error in it: kadm returns the errors of single
// topics, partitions and groups within the answer.
func Answer[R interface{ Error() error }](answer R, err error) (R, error) {
	if err == nil {
		err = answer.Error()
	}
	return answer, err
}

// clientLog logs a client's Info lines at Debug, because it writes several for each assignment and each transaction.
type clientLog struct{ kgo.Logger }

// Log implements kgo.Logger.
func (l clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if level == kgo.LogLevelInfo {
		level = kgo.LogLevelDebug
	}
	l.Logger.Log(level, msg, keyvals...)
}

// clientMetrics registers kprom's metrics as one collector: kprom itself panics when two clients have the same name.
type clientMetrics struct {
	*kprom.Metrics
	reg prometheus.Registerer
}

func (m *clientMetrics) registerWith(reg prometheus.Registerer) {
	if reg != nil && reg.Register(m.Metrics) == nil {
		m.reg = reg // otherwise a client of this name already has these metrics
	}
}

// OnClientClosed implements the hook of kgo.
func (m *clientMetrics) OnClientClosed(*kgo.Client) {
	if m.reg != nil {
		m.reg.Unregister(m.Metrics)
	}
}
