package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"fanfare/deploy/embedded"
	"fanfare/pipeline/view"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/feed"
	"fanfare/sinks/analytics/sqlite"
)

func (p *program) rebuildCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Count the statistics again from the log, and compare them with those that are kept",
		Long: `Read everything that the topics deliveries and chunks hold into a new database, while traffic
goes on, and compare each campaign with the statistics that are kept. Campaigns that are sending
differ while events arrive; the command says which.

The new database is DATA/statistics-rebuilt.db, in SQLite. With --keep it stays there; without it
is deleted after the comparison. Events are kept on the topics for 35 days, so campaigns that are
older have fewer figures there, or none. Campaigns that settled a week ago are not compared.

Works with the flags of a process, while Fanfare runs or not.`,
		Args: exactArgs(),
	}
	connectionFlags(cmd.Flags())
	campaign := cmd.Flags().String("campaign", "", "id of the only campaign to compare (default: all)")
	keep := cmd.Flags().Bool("keep", false, "keep the new database")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.wired(cmd, func(w *wiring) error { return w.rebuild(cmd.Context(), p.stdout, *campaign, *keep) })
	}
	return cmd
}

// rebuiltFile is the new database of the statistics.
const rebuiltFile = "statistics-rebuilt.db"

// errDiffers is returned when a campaign has other figures than the log says.
var errDiffers = errors.New("the statistics differ from the log")

// rebuild fills a new database from the log, and compares it with the one that is kept.
func (w *wiring) rebuild(ctx context.Context, out io.Writer, campaign string, keep bool) error {
	if err := w.openBeside(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(w.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	path := filepath.Join(w.cfg.Data, rebuiltFile)
	if err := removeDatabase(path); err != nil {
		return err
	}
	fresh, err := sqlite.Open(ctx, sqlite.Config{Path: path})
	if err != nil {
		return fmt.Errorf("new database: %w", err)
	}
	defer func() {
		_ = fresh.Close()
		if !keep {
			_ = removeDatabase(path)
		}
	}()
	if w.view, err = view.New(view.Config{Cluster: w.cluster, Keys: w.keys}); err != nil {
		return err
	}
	var counted feed.Rebuilt
	group, running := errgroup.WithContext(ctx)
	viewCtx, stopView := context.WithCancel(running)
	group.Go(func() error { return w.view.Run(viewCtx) })
	group.Go(func() (err error) {
		defer stopView()
		counted, err = feed.Rebuild(running, feed.Config{Cluster: w.cluster, Store: fresh, Campaigns: w.view, Lookup: w.store.CampaignRecord})
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(out, "Read %s events and %s deals", thousands(counted.Events), thousands(counted.Deals))
	if counted.Refused > 0 {
		fmt.Fprintf(out, "; %s records cannot be stored and are in the dead letters", thousands(counted.Refused))
	}
	fmt.Fprintln(out, ".")
	return w.compare(ctx, out, fresh, campaign)
}

// openBeside opens the services that a rebuild reads, also while another process uses the data directory.
func (w *wiring) openBeside(ctx context.Context) error {
	if err := w.reach(ctx, needKafka, needStore, needAnalytics); err != nil {
		return err
	}
	if !w.cfg.embeddedBroker() {
		if err := w.openStore(ctx); err != nil {
			return err
		}
		if err := w.nameCluster(w.cfg.services().Kafka); err != nil {
			return err
		}
		return w.openAnalytics(ctx)
	}
	locked, err := embedded.Lock(w.cfg.Data, "rebuild")
	inUse, held := errors.AsType[*embedded.InUseError](err)
	switch {
	case err == nil: // nothing runs: this process runs the broker
		w.data = locked
		w.onClose(locked.Unlock)
		if err := w.openStore(ctx); err != nil {
			return err
		}
		if err := w.openServices(); err != nil {
			return err
		}
	case held && isServer(inUse.Command):
		if err := w.shareData(ctx, "rebuild"); err != nil {
			return err
		}
		at, err := embedded.ReadEndpoints(w.cfg.Data)
		if err != nil {
			return fmt.Errorf("--data: %w", err)
		}
		login, err := embedded.ReadLogin(w.cfg.Data)
		if err != nil {
			return fmt.Errorf("--data: %w", err)
		}
		kafka := w.cfg.services().Kafka
		kafka.Brokers, kafka.User, kafka.Password, kafka.SASL = []string{at.Kafka}, login.Kafka.User, login.Kafka.Password, "plain"
		if err := w.nameCluster(kafka); err != nil {
			return err
		}
	default:
		return fmt.Errorf("--data: %w", err)
	}
	return w.openAnalytics(ctx)
}

// removeDatabase removes a SQLite file and what belongs to it.
func removeDatabase(path string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the earlier new database: %w", err)
		}
	}
	return nil
}

// compare prints which campaigns have other figures in the new database than in the one that is kept.
func (w *wiring) compare(ctx context.Context, out io.Writer, fresh analytics.Store, only string) error {
	campaigns := w.view.Campaigns()
	slices.SortFunc(campaigns, func(a, b *fanfarev1.Campaign) int { return cmp.Compare(a.GetNumber(), b.GetNumber()) })
	same, differ, found := 0, 0, false
	for _, c := range campaigns {
		if only != "" && c.GetId() != only {
			continue
		}
		found = true
		equal, err := sameFigures(ctx, w.analytics, fresh, c.GetTenant(), c.GetId())
		if err != nil {
			return err
		}
		if equal {
			same++
			continue
		}
		differ++
		fmt.Fprintf(out, "%s differs.\n", c.GetId())
	}
	switch {
	case only != "" && !found:
		return fmt.Errorf("there is no campaign %q", only)
	case differ > 0:
		return fmt.Errorf("%w: %d campaigns differ, %d are identical; one that is sending is compared again when it is completed", errDiffers, differ, same)
	}
	_, err := fmt.Fprintf(out, "Identical: %s campaigns.\n", thousands(same))
	return err
}

// sameFigures reports whether two stores count a campaign alike: its states and facts, and its cost.
func sameFigures(ctx context.Context, a, b analytics.Store, tenant, campaign string) (bool, error) {
	one, err := a.Stats(ctx, tenant, campaign)
	if err != nil {
		return false, err
	}
	two, err := b.Stats(ctx, tenant, campaign)
	if err != nil {
		return false, err
	}
	costs, err := a.Cost(ctx, tenant, campaign)
	if err != nil {
		return false, err
	}
	again, err := b.Cost(ctx, tenant, campaign)
	if err != nil {
		return false, err
	}
	return slices.Equal(one.Counts, two.Counts) && reflect.DeepEqual(costs[campaign], again[campaign]), nil
}
