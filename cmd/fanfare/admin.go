package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

func (p *program) migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the tables of the store and of the statistics up to date",
		Long:  `Bring all tables up to date, forward only. fanfare serve does the same when it starts.`,
		Args:  exactArgs(),
	}
	connectionFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		return p.withStore(cmd.Context(), cfg, func(ctx context.Context, w *wiring) error {
			if err := w.reach(ctx, needAnalytics); err != nil {
				return err
			}
			if err := w.openAnalytics(ctx); err != nil {
				return err
			}
			_, err := fmt.Fprintln(p.stdout, "tables are up to date")
			return err
		})
	}
	return cmd
}

func (p *program) topicsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "Create the topics that are missing and verify the others",
		Long: `Create the topics that are missing with the partitions, retention and cleanup they must
have, verify those that exist, and print them all. fanfare serve does the same when it starts.`,
		Args: exactArgs(),
	}
	connectionFlags(cmd.Flags())
	dry := cmd.Flags().Bool("print", false, "only print the table")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		names, err := schemas.NewNames(cfg.Prefix)
		if err != nil {
			return err
		}
		if *dry {
			p.printTopics(append(names.Fixed(), names.Route(simRoute)...))
			return nil
		}
		if cfg.embeddedBroker() {
			return usageError{fmt.Errorf("fanfare topics: name the brokers with --kafka (an embedded broker is looked after by fanfare serve; --print shows the table)")}
		}
		return p.withStore(cmd.Context(), cfg, func(ctx context.Context, w *wiring) error {
			if err := w.reach(ctx, needKafka); err != nil {
				return err
			}
			if err := w.nameCluster(cfg.Kafka); err != nil {
				return err
			}
			topics, err := w.ensureTopics(ctx)
			if err != nil {
				return err
			}
			p.printTopics(topics)
			return nil
		})
	}
	return cmd
}

func (p *program) printTopics(topics []schemas.Topic) {
	for _, t := range topics {
		kept := t.Retention.String()
		if t.Compact {
			kept = "compacted"
		}
		fmt.Fprintf(p.stdout, "%-40s %2d partitions  %-10s key %s\n", t.Name, t.Partitions, kept, t.Key)
	}
}

// topicsLimit is how long Kafka has for all topics. It has answered already; what takes longer does not come.
const topicsLimit = 30 * time.Second

// reachable lets a client begin with brokers that were there a moment ago: one that is away must not keep us from starting.
func (w *wiring) reachable() []kgo.Opt {
	if len(w.brokers) == 0 {
		return nil
	}
	return []kgo.Opt{kgo.SeedBrokers(w.brokers...)}
}

// ensureTopics creates and verifies every topic: the fixed ones and those of each route.
func (w *wiring) ensureTopics(ctx context.Context) ([]schemas.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, topicsLimit)
	defer cancel()
	cl, err := w.cluster.Named("admin").Client(w.reachable()...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	topics := w.names.Fixed()
	routes := []string{simRoute}
	if w.store != nil {
		rows, err := w.store.Routes(ctx)
		if err != nil {
			return nil, fmt.Errorf("routes: %w", err)
		}
		for _, r := range rows {
			if r.Name != simRoute {
				routes = append(routes, r.Name)
			}
		}
	}
	for _, r := range routes {
		topics = append(topics, w.names.Route(r)...)
	}
	if err := stream.EnsureTopics(ctx, adm, int16(w.cfg.Replication), topics); err != nil { //nolint:gosec // 1 or 3, validated
		return nil, err
	}
	for _, r := range routes {
		for _, lane := range schemas.Lanes {
			if err := stream.EnsureOffsets(ctx, adm, w.names.SenderGroup(r, lane), w.names.Messages(r, lane)); err != nil {
				return nil, err
			}
		}
	}
	return topics, nil
}
