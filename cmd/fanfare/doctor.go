package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"fanfare/api/store"
	"fanfare/deploy/embedded"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

func (p *program) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything that Fanfare stands on, and say how to mend it",
		Long: `Check Kafka, Redis, ClickHouse, the store and this machine as fanfare serve would use
them with the same flags. Nothing is changed. Exit code 0: all is well.`,
		Args: exactArgs(),
	}
	serveFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		log, err := p.logger(cfg)
		if err != nil {
			return err
		}
		bad := 0
		for _, f := range examine(cmd.Context(), cfg, newWiring(cfg, log)) {
			word := "ok  "
			if f.fix != "" {
				word = "BAD "
				bad++
			}
			fmt.Fprintf(p.stdout, "%s %-11s %s\n", word, f.what, f.found)
			if f.fix != "" {
				fmt.Fprintf(p.stdout, "     %-11s -> %s\n", "", f.fix)
			}
		}
		if bad > 0 {
			fmt.Fprintf(p.stdout, "%d of these must be mended before fanfare serve works.\n", bad)
			return errReported
		}
		return nil
	}
	return cmd
}

// A finding is one line of the doctor. With a fix it is something to be mended.
type finding struct{ what, found, fix string }

// patience with each service.
const doctorPatience = 5 * time.Second

// leastFree is how much room the embedded broker must have: below it nothing is dealt (see mayDeal).
const leastFree = 512 << 20

// maxSkew between clocks: receipts and schedules are compared by them.
const maxSkew = 2 * time.Second

// examine looks at everything in turn; one that is ill does not hide the next.
func examine(ctx context.Context, cfg Config, w *wiring) []finding {
	var all []finding
	all = append(all, examineDisk(cfg)...)
	all = append(all, examineStore(ctx, cfg)...)
	all = append(all, examineKafka(ctx, cfg, w)...)
	all = append(all, examineRedis(ctx, cfg)...)
	return append(all, examineAnalytics(ctx, cfg)...)
}

func examineDisk(cfg Config) []finding {
	if !cfg.embeddedBroker() && cfg.Redis != "" && cfg.Store != "" && cfg.ClickHouse != "" {
		return nil // nothing is kept here
	}
	if err := ensureDataDir(cfg.Data); err != nil {
		return []finding{{"data", err.Error(), "give another directory with --data, or make this one writable"}}
	}
	free, err := embedded.FreeBytes(cfg.Data)
	if err != nil {
		return []finding{{"data", err.Error(), "give another directory with --data"}}
	}
	f := finding{what: "data", found: fmt.Sprintf("%s, %d MB free", cfg.Data, free>>20)}
	if free < leastFree {
		f.fix = fmt.Sprintf("free at least %d MB: below that nothing is sent, so that nothing is lost", leastFree>>20)
	}
	return []finding{f}
}

func examineStore(ctx context.Context, cfg Config) []finding {
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	where := "SQLite " + cfg.storeDSN()
	if cfg.Store != "" {
		where = "Postgres, schema " + cfg.schemaName()
	}
	s, err := store.Open(ctx, store.Config{DSN: cfg.storeDSN(), Schema: cfg.schemaName()})
	switch {
	case errors.Is(err, store.ErrSchema):
		return []finding{{"store", where + ": not migrated", "run fanfare migrate with the same flags (fanfare serve does it by itself)"}}
	case err != nil:
		return []finding{{"store", fmt.Sprintf("%s: %v", where, err), "check that the address after --store is right, that Postgres runs, and that the user may create a schema"}}
	}
	defer func() { _ = s.Close() }()
	if err := s.Ping(ctx); err != nil {
		return []finding{{"store", fmt.Sprintf("%s: %v", where, err), "check the logs of the database"}}
	}
	return []finding{{"store", where, ""}}
}

func examineKafka(ctx context.Context, cfg Config, w *wiring) []finding {
	if cfg.embeddedBroker() {
		return []finding{{"kafka", "embedded in fanfare serve", ""}}
	}
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	where := strings.Join(cfg.Kafka, ",")
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Kafka...), kgo.ClientID("fanfare-doctor"), kgo.RequestRetries(1))
	if err != nil {
		return []finding{{"kafka", err.Error(), "check the addresses after --kafka"}}
	}
	defer cl.Close()
	if err := cl.Ping(ctx); err != nil {
		return []finding{{"kafka", fmt.Sprintf("%s does not answer: %v", where, err), "check that Kafka runs, that the address after --kafka can be reached from here, and that its advertised.listeners name an address that can be too"}}
	}
	var all []finding
	adm := kadm.NewClient(cl)
	meta, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return []finding{{"kafka", err.Error(), "the user needs the right to describe the cluster"}}
	}
	all = append(all, finding{"kafka", fmt.Sprintf("%s, %d broker(s), version %s", where, len(meta.Brokers), brokerVersion(ctx, cl)), ""})
	if v, ok := oldBroker(ctx, cl); ok {
		all = append(all, finding{"kafka", "the broker is older than 3.0: " + v, "use Kafka 3.0 or newer: transactions and offset metadata are relied on"})
	}
	if len(meta.Brokers) < cfg.Replication {
		all = append(all, finding{"kafka", fmt.Sprintf("--replication %d with %d broker(s)", cfg.Replication, len(meta.Brokers)), "add brokers or lower --replication"})
	}
	topics := w.names.Fixed()
	found, err := adm.ListTopics(ctx)
	if err != nil {
		return append(all, finding{"topics", err.Error(), "the user needs the right to describe topics named " + cfg.Prefix + "*"})
	}
	missing := 0
	var existing []schemas.Topic
	for _, t := range topics {
		if found.Has(t.Name) {
			existing = append(existing, t)
		} else {
			missing++
		}
	}
	if missing > 0 {
		all = append(all, finding{"topics", fmt.Sprintf("%d of %d are not there yet; fanfare serve or fanfare topics creates them", missing, len(topics)), ""})
	}
	if len(existing) > 0 {
		if err := stream.EnsureTopics(ctx, adm, int16(cfg.Replication), existing); err != nil { //nolint:gosec // 1 to 9, validated
			all = append(all, finding{"topics", err.Error(), "see above; settings that differ on purpose belong into the topic table"})
		} else {
			all = append(all, finding{"topics", fmt.Sprintf("%d as they must be", len(existing)), ""})
		}
	}
	return all
}

// brokerVersion guesses the version from what the broker can do.
func brokerVersion(ctx context.Context, cl *kgo.Client) string {
	v, err := versions(ctx, cl)
	if err != nil {
		return "unknown"
	}
	return v.VersionGuess()
}

// oldBroker reports a broker below 3.0, by what it can do: InitProducerID and TxnOffsetCommit as of KIP-447 and KIP-588.
func oldBroker(ctx context.Context, cl *kgo.Client) (string, bool) {
	v, err := versions(ctx, cl)
	if err != nil {
		return "", false
	}
	have, ok := v.LookupMaxKeyVersion(int16(kmsg.InitProducerID))
	want, _ := kversion.V3_0_0().LookupMaxKeyVersion(int16(kmsg.InitProducerID))
	return v.VersionGuess(), !ok || have < want
}

func versions(ctx context.Context, cl *kgo.Client) (*kversion.Versions, error) {
	resp, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("api versions: %w", err)
	}
	return kversion.FromApiVersionsResponse(resp), nil
}

func examineRedis(ctx context.Context, cfg Config) []finding {
	if cfg.Redis == "" {
		return []finding{{"redis", "embedded in fanfare serve", ""}}
	}
	ctx, cancel := context.WithTimeout(ctx, doctorPatience)
	defer cancel()
	opts, err := redisOptions(cfg.Redis)
	if err != nil {
		return []finding{{"redis", err.Error(), "want host:port or redis://user:password@host:port/0"}}
	}
	rdb := redis.NewUniversalClient(opts)
	defer rdb.Close()
	const reach = "check that Redis runs and that the address after --redis can be reached from here"
	now, err := rdb.Time(ctx).Result()
	if err != nil {
		return []finding{{"redis", fmt.Sprintf("does not answer: %v", err), reach}}
	}
	if err := rdb.Eval(ctx, "return redis.call('TIME')", nil).Err(); err != nil {
		return []finding{{"redis", fmt.Sprintf("refuses scripts: %v", err), "allow EVAL and EVALSHA: limits are kept by a script"}}
	}
	all := []finding{{"redis", "answers, runs scripts", ""}}
	if skew := time.Since(now).Abs(); skew > maxSkew {
		all = append(all, finding{"redis", fmt.Sprintf("its clock is %s away from this machine's", skew.Round(time.Millisecond)), "synchronise the clocks (NTP) of both machines"})
	}
	if policy, err := rdb.ConfigGet(ctx, "maxmemory-policy").Result(); err == nil {
		if v := policy["maxmemory-policy"]; strings.HasPrefix(v, "allkeys") {
			all = append(all, finding{"redis", "maxmemory-policy is " + v, "set maxmemory-policy noeviction: an evicted bucket fills at once and a limit is broken"})
		}
	}
	return all
}

func examineAnalytics(_ context.Context, cfg Config) []finding {
	if cfg.ClickHouse == "" {
		return []finding{{"statistics", "SQLite under " + cfg.Data, ""}}
	}
	return []finding{{"clickhouse", "not in this build", "leave --clickhouse out: statistics are kept in SQLite"}}
}
