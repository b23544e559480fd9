package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"

	"github.com/redis/go-redis/v9"

	"fanfare/api/store"
	"fanfare/cmd/fanfare/services"
	"fanfare/deploy/embedded"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/sinks/analytics/clickhouse"
	"fanfare/sinks/analytics/sqlite"
)

// waiter waits for services that may be starting themselves, up to --start-timeout after the start of this process.
func (w *wiring) waiter() services.Waiter {
	return services.Waiter{Log: w.log, Timeout: w.cfg.StartTimeout, Began: w.began}
}

// reach connects to every service that has an address and is needed, and waits for those that are not ready. Only at
// the start does a service that cannot be used end the process. Once the process runs, it waits without end for
// services that are away.
func (w *wiring) reach(ctx context.Context, needs ...need) error {
	errs := make([]error, len(needs))
	var wg sync.WaitGroup
	for i, n := range needs {
		if flag := w.flagOf(n); flag != "" {
			wg.Go(func() {
				errs[i] = w.waiter().For(ctx, flag, func(ctx context.Context) *services.Problem { return w.reachOne(ctx, n) })
			})
		}
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("interrupted while starting: %w", err)
	}
	return errors.Join(errs...)
}

// retried calls do until it succeeds, while its error may pass and the time for the start is not over. It is for steps
// of the start that need more of a service than an answer, such as a migration. A step may take longer than that time.
func (w *wiring) retried(ctx context.Context, flag string, mayPass func(error) bool, do func(context.Context) error) error {
	var last error
	err := w.waiter().For(ctx, flag, func(ctx context.Context) *services.Problem {
		if last = do(ctx); last == nil {
			return nil
		}
		p := services.Permanent(services.OneLine(last.Error()), "see the log of the service")
		if mayPass(last) {
			p.Wait = services.WaitLong
		}
		return p
	})
	if last != nil {
		return fmt.Errorf("%s: %w", flag, last)
	}
	return err
}

// flagOf returns the flag with the address of a service, "" if the service is embedded.
func (w *wiring) flagOf(n need) string {
	switch {
	case n == needKafka && !w.cfg.embeddedBroker():
		return "--kafka"
	case n == needRedis && w.cfg.Redis != "":
		return "--redis"
	case n == needStore && w.cfg.Store != "":
		return "--store"
	case n == needAnalytics && w.cfg.ClickHouse != "":
		return "--clickhouse"
	}
	return ""
}

// reachOne connects to one service and closes the connection again.
func (w *wiring) reachOne(ctx context.Context, n need) *services.Problem {
	at := w.cfg.services()
	switch n {
	case needKafka:
		cl, brokers, p := services.OpenKafka(ctx, at.Kafka)
		if p == nil {
			w.brokers = brokers
			cl.Close()
		}
		return p
	case needRedis:
		rdb, p := services.OpenRedis(ctx, at.Redis)
		if p == nil {
			_ = rdb.Close()
		}
		return p
	case needStore:
		conn, p := services.OpenPostgres(ctx, at.Postgres)
		if p == nil {
			_ = conn.Close(ctx)
		}
		return p
	default:
		conn, p := services.OpenClickHouse(ctx, at.ClickHouse)
		if p == nil {
			_ = conn.Close()
		}
		return p
	}
}

// openStore opens the store and brings its tables up to date. It also finds the key that signs ids: given by --id-key,
// else made at the first start of the installation and kept in the store.
func (w *wiring) openStore(ctx context.Context) error {
	cfg := store.Config{DSN: w.cfg.storeDSN(), Schema: w.cfg.schemaName(), Logger: w.log}
	return w.retried(ctx, "--store", services.PostgresMayPass, func(ctx context.Context) error {
		if err := store.Migrate(ctx, cfg); err != nil {
			return err
		}
		return w.openMigratedStore(ctx, cfg)
	})
}

// openMigratedStore is openStore without a migration.
func (w *wiring) openMigratedStore(ctx context.Context, cfg store.Config) (err error) {
	text := w.cfg.IDKey
	if text == "" {
		if text, err = store.IDKey(ctx, cfg); err != nil {
			return err
		}
	}
	if w.keys, err = parseIDKey(text); err != nil {
		return err
	}
	cfg.Keys = w.keys
	if w.store, err = store.Open(ctx, cfg); err != nil {
		return err
	}
	w.onClose(func() { _ = w.store.Close() })
	return nil
}

// openServices starts the embedded services and connects to the others.
func (w *wiring) openServices() error {
	at := w.cfg.services()
	ownKafka, ownRedis := w.cfg.embeddedBroker(), at.Redis == "" && w.cfg.needs(needRedis)
	if ownKafka || ownRedis {
		login, err := embedded.OpenLogin(w.cfg.Data)
		if err != nil {
			return fmt.Errorf("--data: %w", err)
		}
		s, err := embedded.Start(embedded.Config{
			Dir: w.cfg.Data, Logger: w.log, Kafka: ownKafka, Redis: ownRedis, Login: login, Public: publicTopics(w.names),
		})
		if err != nil {
			return err
		}
		w.services = s
		w.onClose(s.Stop)
		if ownKafka {
			at.Kafka.Brokers, at.Kafka.User, at.Kafka.Password, at.Kafka.SASL = []string{s.Kafka}, login.Kafka.User, login.Kafka.Password, "plain"
		}
		if ownRedis {
			at.Redis = (&url.URL{Scheme: "redis", User: url.UserPassword("", login.Redis), Host: s.Redis}).String()
		}
	}
	if err := w.nameCluster(at.Kafka); err != nil {
		return err
	}
	if at.Redis == "" {
		return nil
	}
	opts, err := services.RedisOptions(at.Redis)
	if err != nil {
		return err
	}
	opts.ContextTimeoutEnabled = true // callers decide how long they wait for an answer
	w.redis = redis.NewUniversalClient(opts)
	w.onClose(func() { _ = w.redis.Close() })
	return nil
}

// publicTopics returns the names of the topics for downstream consumers.
func publicTopics(names schemas.Names) []string {
	var public []string
	for _, t := range names.Fixed() {
		if t.Public {
			public = append(public, t.Name)
		}
	}
	return public
}

// nameCluster sets w.cluster: where Kafka is and how clients connect to it.
func (w *wiring) nameCluster(kafka services.Kafka) error {
	opts, err := kafka.ClientOptions()
	if err != nil {
		return err
	}
	w.cluster = stream.Cluster{Brokers: kafka.Brokers, Names: w.names, Logger: w.log, Registry: w.reg, Options: opts}
	return nil
}

// openAnalytics opens the database of the statistics and brings its tables up to date.
func (w *wiring) openAnalytics(ctx context.Context) error {
	if w.cfg.ClickHouse != "" {
		return w.retried(ctx, "--clickhouse", services.ClickHouseMayPass, func(ctx context.Context) error {
			s, err := clickhouse.Open(ctx, clickhouse.Config{DSN: w.cfg.ClickHouse, Database: w.cfg.schemaName()})
			if err != nil {
				return err
			}
			w.analytics = s
			w.onClose(func() { _ = s.Close() })
			return nil
		})
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(w.cfg.Data, "analytics.db")})
	if err != nil {
		return fmt.Errorf("statistics: %w", err)
	}
	w.analytics = s
	w.onClose(func() { _ = s.Close() })
	return nil
}
