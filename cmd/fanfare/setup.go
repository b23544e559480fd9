package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/deploy/embedded"
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
		return p.wired(cmd, func(w *wiring) error {
			if err := w.migrate(cmd.Context(), commandName(cmd)); err != nil {
				return err
			}
			_, err := fmt.Fprintln(p.stdout, "tables are up to date")
			return err
		})
	}
	return cmd
}

// migrate brings the tables of the store and of the statistics up to date.
func (w *wiring) migrate(ctx context.Context, command string) error {
	if w.cfg.Store == "" || w.cfg.ClickHouse == "" {
		if err := w.lockData(ctx, command); err != nil {
			return err
		}
	}
	if err := w.reach(ctx, needStore, needAnalytics); err != nil {
		return err
	}
	if err := w.openStore(ctx); err != nil {
		return err
	}
	return w.openAnalytics(ctx)
}

func (p *program) topicsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "List the topics, and say how a consumer logs in; with --kafka, create missing topics first",
		Long: `List the topics, and say how a consumer of the public ones connects.

With --kafka it first creates the missing topics with the partitions, retention and cleanup
policy they must have, and verifies the existing ones. fanfare serve does the same when it
starts, and it alone creates the topics of an embedded broker.`,
		Args: exactArgs(),
	}
	connectionFlags(cmd.Flags())
	dry := cmd.Flags().Bool("print", false, "only print the table of topics")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := p.config(cmd)
		if err != nil {
			return err
		}
		names, err := schemas.NewNames(cfg.Prefix)
		if err != nil {
			return err
		}
		switch {
		case *dry:
			p.printTopics(append(names.Fixed(), names.Route(simRoute)...))
			return nil
		case cfg.embeddedBroker():
			return p.withStore(cmd.Context(), cfg, commandName(cmd), func(ctx context.Context, w *wiring) error {
				topics, _, err := w.allTopics(ctx)
				if err != nil {
					return err
				}
				p.printTopics(topics)
				p.explainEmbedded(cfg.Data, publicTopics(names))
				return nil
			})
		}
		return p.withStore(cmd.Context(), cfg, commandName(cmd), func(ctx context.Context, w *wiring) error {
			if err := w.reach(ctx, needKafka); err != nil {
				return err
			}
			if err := w.nameCluster(cfg.services().Kafka); err != nil {
				return err
			}
			topics, err := w.ensureTopics(ctx)
			if err != nil {
				return err
			}
			p.printTopics(topics)
			p.explainKafka(cfg, publicTopics(names))
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
		public := ""
		if t.Public {
			public = "  public"
		}
		fmt.Fprintf(p.stdout, "%-40s %2d partitions  %-10s key %s%s\n", t.Name, t.Partitions, kept, t.Key, public)
	}
}

// explainEmbedded says how a consumer connects to the embedded broker. It does not print the password: terminals are
// logged.
func (p *program) explainEmbedded(dir string, public []string) {
	fmt.Fprintf(p.stdout, "\nA consumer may read %s.\n", listed(public))
	path := filepath.Join(dir, "consumer.json")
	if c, err := embedded.ReadConnection(dir); err == nil {
		fmt.Fprintf(p.stdout, "It connects to %s and logs in by SASL/%s as user %q with the password in %s:\n", c.Brokers, c.SASLMechanism, c.User, path)
	} else {
		fmt.Fprintf(p.stdout, "While fanfare serve runs, %s has the address and the login (SASL/PLAIN, user consumer):\n", path)
	}
	fmt.Fprintf(p.stdout, "  python account.py --connection %s    (schemas/examples/python)\n", path)
}

// explainKafka says which rights a consumer needs on real brokers.
func (p *program) explainKafka(cfg Config, public []string) {
	fmt.Fprintf(p.stdout, "\nA consumer may read %s. On brokers that check rights, give its user these:\n", listed(public))
	for _, t := range public {
		fmt.Fprintf(p.stdout, "  kafka-acls.sh --bootstrap-server %s --add --allow-principal User:NAME --operation Read --operation Describe --topic %s\n", cfg.Kafka[0], t)
	}
	fmt.Fprintf(p.stdout, "  kafka-acls.sh --bootstrap-server %s --add --allow-principal User:NAME --operation Read --group GROUP\n", cfg.Kafka[0])
}

// leastTopicsTime is how long creating and verifying all topics may take even if the time for the start is nearly over.
const leastTopicsTime = 15 * time.Second

// reachable returns the option by which a client begins with brokers that could be reached a moment ago, so that one
// broker that is down does not stop a start.
func (w *wiring) reachable() []kgo.Opt {
	if len(w.brokers) == 0 {
		return nil
	}
	return []kgo.Opt{kgo.SeedBrokers(w.brokers...)}
}

// ensureTopics creates and verifies all topics: the fixed ones and those of each route.
func (w *wiring) ensureTopics(ctx context.Context) ([]schemas.Topic, error) {
	ctx, cancel := context.WithTimeout(ctx, max(leastTopicsTime, w.cfg.StartTimeout-time.Since(w.began)))
	defer cancel()
	topics, starts, err := w.allTopics(ctx)
	if err != nil {
		return nil, err
	}
	err = w.cluster.Named("admin").Prepare(ctx, int16(w.cfg.Replication), topics, starts, w.reachable()...) //nolint:gosec // 1 or 3, validated
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return topics, nil
}

// allTopics returns the topics of the installation, and where the senders of each route start.
func (w *wiring) allTopics(ctx context.Context) ([]schemas.Topic, []stream.Start, error) {
	topics := w.names.Fixed()
	routes := []string{simRoute}
	if w.store != nil {
		rows, err := w.store.Routes(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("routes: %w", err)
		}
		for _, r := range rows {
			if r.Name != simRoute {
				routes = append(routes, r.Name)
			}
		}
	}
	var starts []stream.Start
	for _, r := range routes {
		topics = append(topics, w.names.Route(r)...)
		starts = append(starts, stream.SenderStarts(w.names, r)...)
	}
	return topics, starts, nil
}

// listed writes words as a sentence lists them: a, b and c.
func listed(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
