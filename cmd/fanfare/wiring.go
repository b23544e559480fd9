package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/store"
	"fanfare/api/ui"
	"fanfare/deploy/embedded"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/clickhouse"
	"fanfare/sinks/analytics/sqlite"
	"fanfare/sinks/carrier/sim"
)

// wiring is what the roles of a process stand on, opened in order and closed in reverse.
type wiring struct {
	cfg   Config
	log   *slog.Logger
	reg   *prometheus.Registry
	names schemas.Names

	services  *embedded.Services // nil when both addresses are given
	store     *store.Store
	keys      *schemas.Keys
	cluster   stream.Cluster
	brokers   []string    // those that could be reached at the start
	ops       *kgo.Client // asked by /readyz whether Kafka answers
	redis     redis.UniversalClient
	analytics analytics.Store
	view      *stream.View
	page      bool       // whoever starts it opens the live page
	logins    *ui.Logins // nil without the page
	stopping  chan struct{}

	kafkaOpts []kgo.Opt // of every client, beside those of the settings: tests put a dialer here

	// remains are the lines that say what a stop has left for the next start.
	remains []string

	closers []func()
}

func newWiring(cfg Config, log *slog.Logger) *wiring {
	names, _ := schemas.NewNames(cfg.Prefix) // validated
	w := &wiring{cfg: cfg, log: log, names: names, reg: prometheus.NewRegistry(), stopping: make(chan struct{})}
	w.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return w
}

func (w *wiring) onClose(f func()) { w.closers = append(w.closers, f) }

// close lets go of everything, the newest first.
func (w *wiring) close() {
	for _, f := range slices.Backward(w.closers) {
		f()
	}
	w.closers = nil
}

// startPatience is how long a start waits for a service that may itself be about to start.
const startPatience = 4 * time.Second

// reach asks every service that has an address, and is needed, whether it lets us in. Only here does a wrong address end the
// process: once it runs, whatever is away is waited for.
func (w *wiring) reach(ctx context.Context, needs ...need) error {
	errs := make([]error, len(needs))
	var wg sync.WaitGroup
	for i, n := range needs {
		wg.Go(func() {
			flag, t := w.reachInTime(ctx, n)
			if t != nil {
				errs[i] = fmt.Errorf("%s: %w", flag, t)
			}
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("interrupted while starting: %w", err)
	}
	return errors.Join(errs...)
}

// reachInTime is reachOne, again and again while what is wrong may pass.
func (w *wiring) reachInTime(ctx context.Context, n need) (flag string, t *trouble) {
	began := time.Now()
	for {
		flag, t = w.reachOne(ctx, n)
		if t == nil || !t.passing || time.Since(began) > startPatience {
			return flag, t
		}
		select {
		case <-ctx.Done():
			return flag, t
		case <-time.After(startPatience / 20):
		}
	}
}

// reachOne is reach of one service; what has no address is embedded.
func (w *wiring) reachOne(ctx context.Context, n need) (flag string, t *trouble) {
	switch {
	case n == needKafka && !w.cfg.embeddedBroker():
		var cl *kgo.Client
		if cl, w.brokers, t = openKafka(ctx, w.cfg, w.kafkaOpts...); t == nil {
			cl.Close()
		}
		return "--kafka", t
	case n == needRedis && w.cfg.Redis != "":
		rdb, t := openRedis(ctx, w.cfg)
		if t == nil {
			_ = rdb.Close()
		}
		return "--redis", t
	case n == needStore && w.cfg.Store != "":
		conn, t := openPostgres(ctx, w.cfg)
		if t == nil {
			_ = conn.Close(ctx)
		}
		return "--store", t
	case n == needAnalytics && w.cfg.ClickHouse != "":
		conn, t := openClickHouse(ctx, w.cfg)
		if t == nil {
			_ = conn.Close()
		}
		return "--clickhouse", t
	}
	return "", nil
}

// needed is what the roles of this process stand on.
func (w *wiring) needed() []need {
	needs := []need{needKafka}
	for _, n := range []need{needRedis, needStore, needAnalytics} {
		if w.cfg.needs(n) || n == needStore && w.cfg.IDKey == "" {
			needs = append(needs, n)
		}
	}
	return needs
}

// open opens what the roles of this process need, in order.
func (w *wiring) open(ctx context.Context) error {
	if w.cfg.keptInData() {
		if t := dataTrouble(w.cfg.Data); t != nil {
			return fmt.Errorf("--data: %w", t)
		}
		if err := ensureDataDir(w.cfg.Data); err != nil {
			return err
		}
	}
	if err := w.reach(ctx, w.needed()...); err != nil {
		return err
	}
	if w.cfg.needs(needStore) || w.cfg.IDKey == "" { // without a key of ids even a sender asks the store for it, once
		if err := w.openStore(ctx); err != nil {
			return err
		}
		if err := w.ensureRoute(ctx); err != nil {
			return err
		}
	} else {
		keys, err := parseIDKey(w.cfg.IDKey)
		if err != nil {
			return err
		}
		w.keys = keys
	}
	if err := w.openServices(); err != nil {
		return err
	}
	if _, err := w.ensureTopics(ctx); err != nil {
		return err
	}
	var err error
	if w.ops, err = w.cluster.Named("ops").Client(); err != nil {
		return err
	}
	w.onClose(w.ops.Close)
	if w.cfg.needs(needAnalytics) {
		if err := w.openAnalytics(ctx); err != nil {
			return err
		}
	}
	w.view, err = stream.NewView(stream.ViewConfig{Cluster: w.cluster, Keys: w.keys, Suppressions: w.cfg.has("sender") || w.cfg.has("api")})
	return err
}

// openStore opens the control plane, migrates it, and finds the key that signs ids: one for the whole installation, made at
// the first start and kept in the store, unless it is given.
func (w *wiring) openStore(ctx context.Context) error {
	if w.cfg.Store == "" {
		if t := dataTrouble(w.cfg.Data); t != nil {
			return fmt.Errorf("--data: %w", t)
		}
		if err := ensureDataDir(w.cfg.Data); err != nil {
			return err
		}
	}
	cfg := store.Config{DSN: w.cfg.storeDSN(), Schema: w.cfg.schemaName(), Logger: w.log}
	err := store.Migrate(ctx, cfg)
	text := w.cfg.IDKey
	if err == nil && text == "" {
		text, err = store.IDKey(ctx, cfg)
	}
	if err != nil {
		return fmt.Errorf("--store: %w", err)
	}
	if w.keys, err = parseIDKey(text); err != nil {
		return err
	}
	cfg.Keys = w.keys
	if w.store, err = store.Open(ctx, cfg); err != nil {
		return fmt.Errorf("--store: %w", err)
	}
	w.onClose(func() { _ = w.store.Close() })
	return nil
}

// Names of the simulated carrier: every tenant's default route is it.
const (
	simRoute     = "sim"
	simConnector = "sim"
)

// ensureRoute makes the route of the simulated carrier, and gives it the limits of the flags.
func (w *wiring) ensureRoute(ctx context.Context) error {
	want := store.Route{
		Name: simRoute, Connector: simConnector, Rate: uint32(w.cfg.SimRate), P99: w.cfg.simP99(), ReceiptWindow: w.cfg.ReceiptWindow, Enabled: true,
		Channels: []fanfarev1.Channel{fanfarev1.Channel_CHANNEL_SMS, fanfarev1.Channel_CHANNEL_RCS, fanfarev1.Channel_CHANNEL_WHATSAPP, fanfarev1.Channel_CHANNEL_VOICE},
	}
	_, made, err := w.store.EnsureRoute(ctx, want)
	if err == nil && !made {
		_, err = w.store.UpdateRoute(ctx, simRoute, 0, func(r *store.Route) error {
			r.Rate, r.P99, r.ReceiptWindow = want.Rate, want.P99, want.ReceiptWindow
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("route of the simulated carrier: %w", err)
	}
	return nil
}

// simP99 is within which the simulated carrier answers 99 of 100 hand-overs, with every profile: what is assumed of a carrier
// that several processes share, whose profile only it knows.
const simP99 = 300 * time.Millisecond

// leastP99 is what is assumed of a carrier that answers at once: the record of a route says 0 when nothing is known.
const leastP99 = time.Millisecond

// simP99 is within which the simulated carrier of this process answers 99 of 100 hand-overs.
func (c Config) simP99() time.Duration {
	profile, err := sim.ProfileNamed(c.SimProfile)
	if err != nil || c.CarrierSim != "" {
		return simP99
	}
	return max(profile.Answer.P99, leastP99)
}

// parseIDKey reads one or two secrets in hexadecimal, separated by a comma.
func parseIDKey(text string) (*schemas.Keys, error) {
	var secrets [][]byte
	for part := range strings.SplitSeq(text, ",") {
		b, err := hex.DecodeString(strings.TrimSpace(part))
		if err != nil {
			return nil, errors.New("--id-key: want hexadecimal digits, such as `openssl rand -hex 32` prints")
		}
		secrets = append(secrets, b)
	}
	keys, err := schemas.NewKeys(secrets...)
	if err != nil {
		return nil, fmt.Errorf("--id-key: %w", err)
	}
	return keys, nil
}

// openServices starts what is embedded and connects to what is not.
func (w *wiring) openServices() error {
	brokers, redisAddr := w.cfg.Kafka, w.cfg.Redis
	ownRedis := redisAddr == "" && w.cfg.needs(needRedis)
	if len(brokers) == 0 || ownRedis {
		s, err := embedded.Start(embedded.Config{
			Dir: w.cfg.Data, Logger: w.log, Kafka: len(brokers) == 0, Redis: ownRedis,
		})
		if err != nil {
			return err
		}
		w.services = s
		w.onClose(s.Stop)
		if len(brokers) == 0 {
			brokers = []string{s.Kafka}
		}
		if redisAddr == "" {
			redisAddr = s.Redis
		}
	}
	if err := w.nameCluster(brokers); err != nil {
		return err
	}
	if redisAddr == "" {
		return nil
	}
	opts, err := redisOptions(redisAddr)
	if err != nil {
		return err
	}
	opts.ContextTimeoutEnabled = true // whoever asks Redis says how long the answer is worth waiting for
	w.redis = redis.NewUniversalClient(opts)
	w.onClose(func() { _ = w.redis.Close() })
	return nil
}

// nameCluster says where Kafka is and how it is reached.
func (w *wiring) nameCluster(brokers []string) error {
	opts, err := w.cfg.kafkaOptions()
	if err != nil {
		return err
	}
	w.cluster = stream.Cluster{Brokers: brokers, Names: w.names, Logger: w.log, Registry: w.reg, Options: append(opts, w.kafkaOpts...)}
	return nil
}

// redisOptions reads host:port, several of them separated by commas (a Redis Cluster), or a redis:// URL.
func redisOptions(addr string) (*redis.UniversalOptions, error) {
	if strings.Contains(addr, "://") {
		o, err := redis.ParseURL(addr)
		if err != nil {
			return nil, fmt.Errorf("--redis: %w", err)
		}
		return &redis.UniversalOptions{
			Addrs: []string{o.Addr}, Username: o.Username, Password: o.Password, DB: o.DB, TLSConfig: o.TLSConfig,
		}, nil
	}
	return &redis.UniversalOptions{Addrs: strings.Split(addr, ",")}, nil
}

// openAnalytics opens the store of delivery events and brings its tables up to date.
func (w *wiring) openAnalytics(ctx context.Context) error {
	if w.cfg.ClickHouse != "" {
		s, err := clickhouse.Open(ctx, clickhouse.Config{DSN: w.cfg.ClickHouse, Database: w.cfg.schemaName()})
		if err != nil {
			return fmt.Errorf("--clickhouse: %w", err)
		}
		w.analytics = s
		w.onClose(func() { _ = s.Close() })
		return nil
	}
	if err := ensureDataDir(w.cfg.Data); err != nil {
		return err
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(w.cfg.Data, "analytics.db")})
	if err != nil {
		return fmt.Errorf("statistics: %w", err)
	}
	w.analytics = s
	w.onClose(func() { _ = s.Close() })
	return nil
}
