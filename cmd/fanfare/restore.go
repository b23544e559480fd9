package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/api/store"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

func (p *program) restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "After the store was put back from an older copy: make it agree with Kafka",
		Long: `Make a store that was put back from an older copy agree with Kafka, which outranks it: Kafka
says what was sent. Stop every process of Fanfare first, put the store back, run this, and
start again. It says what it will do and asks before it does it.

Campaigns that have gone further in Kafka than in the copy are moved there: settled ones are
billed and settled, paused and aborted ones are that. One that was confirmed since the copy is
aborted, because its audience is lost. Campaigns that the copy does not know are deleted from
Kafka. Numbers that were given since the copy are not given again, and everything is published
again. A campaign that is set aside because a record in the topic cursors cannot be read is read
from the log again.

What the copy has forgotten and Kafka does not know has to be done again: keys that were
revoked, credit that was added or spent by single sends, imports, opt-outs.`,
		Args: exactArgs(),
	}
	connectionFlags(cmd.Flags())
	yes := cmd.Flags().Bool("yes", false, "do it without asking")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.wired(cmd, func(w *wiring) error {
			return w.restore(cmd.Context(), p.stdout, func() (bool, error) {
				if *yes {
					return true, nil
				}
				return confirmed(p.stdout, os.Stdin)
			})
		})
	}
	return cmd
}

// confirmed asks on the terminal.
func confirmed(out io.Writer, in *os.File) (bool, error) {
	noTerminal := fmt.Errorf("nothing was changed: there is no terminal to ask on; repeat it with --yes")
	if !isTerminal(in) {
		return false, noTerminal
	}
	fmt.Fprint(out, "Do it? Type yes: ")
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return false, noTerminal
	}
	return strings.TrimSpace(answer) == "yes", nil
}

// restore prints what it will do, asks for confirmation, and does it.
func (w *wiring) restore(ctx context.Context, out io.Writer, ask func() (bool, error)) error {
	if w.cfg.keptInData() || w.cfg.embeddedBroker() {
		if err := w.lockData(ctx, "restore"); err != nil {
			return err
		}
	}
	if err := w.reach(ctx, needStore, needKafka); err != nil {
		return err
	}
	if err := w.openStore(ctx); err != nil {
		return err
	}
	if err := w.openServices(); err != nil {
		return err
	}
	cl, err := w.cluster.Named("restore").Client(kgo.ProducerLinger(0))
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := w.checkStopped(ctx, kadm.NewClient(cl)); err != nil {
		return err
	}
	log, err := w.readLog(ctx)
	if err != nil {
		return fmt.Errorf("read what Kafka knows: %w", err)
	}
	plan, err := w.store.PlanRestore(ctx, log.campaigns)
	if err != nil {
		return err
	}
	printRestore(out, plan, log)
	if ok, err := ask(); err != nil || !ok {
		if err == nil {
			fmt.Fprintln(out, "Nothing was changed.")
		}
		return err
	}
	// The topics first: if the command ends in between, it may be repeated.
	if err := cl.ProduceSync(ctx, w.restoreRecords(plan, log)...).FirstErr(); err != nil {
		return fmt.Errorf("write to Kafka: %w", err)
	}
	if _, err := w.store.Restore(ctx, log.campaigns); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "Done. Start the processes, relay first. Then look at FanfareUnknownDeliveryEvents and FanfareNothingDealt, and do again what the copy forgot:\nkeys revoked since, credit, imports, opt-outs.")
	return err
}

// checkStopped returns an error if a process of Fanfare uses the store or the topics.
func (w *wiring) checkStopped(ctx context.Context, adm *kadm.Client) error {
	release, ok, err := w.store.Lead(ctx)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("a relay of Fanfare runs: stop every process first")
	}
	w.onClose(release)
	groups, err := adm.DescribeGroups(ctx, w.names.Group("scheduler"), w.names.Group("expander"), w.names.Group("tracker"), w.names.Group("inbound"), w.names.Group("recent"))
	if err != nil {
		return fmt.Errorf("groups of Kafka: %w", err)
	}
	for _, g := range groups {
		if len(g.Members) > 0 {
			return fmt.Errorf("the group %s has members: stop every process of Fanfare first, and wait until its session has ended (10 s)", g.Group)
		}
	}
	return nil
}

// restoreLog is what the topics say about campaigns.
type restoreLog struct {
	campaigns  map[string]store.LogCampaign
	unreadable map[string]bool // keys of cursors, or of their sets
}

// readLog reads the topics campaigns and cursors.
func (w *wiring) readLog(ctx context.Context) (restoreLog, error) {
	log := restoreLog{campaigns: map[string]store.LogCampaign{}, unreadable: map[string]bool{}}
	tail, err := stream.NewTail(stream.TailConfig{
		Cluster: w.cluster.Named("restore.read"), Topics: []string{w.names.Campaigns(), w.names.Cursors()}, Every: 100 * time.Millisecond,
	}, func(records []*kgo.Record) {
		for _, r := range records {
			log.apply(w.names, r)
		}
	})
	if err != nil {
		return log, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	group, tailing := errgroup.WithContext(ctx)
	group.Go(func() error { return tail.Run(tailing) })
	group.Go(func() error {
		defer cancel()
		select {
		case <-tail.Ready():
			return nil
		case <-tailing.Done():
			return tailing.Err()
		}
	})
	return log, group.Wait()
}

func (l *restoreLog) apply(names schemas.Names, r *kgo.Record) {
	key := string(r.Key)
	if r.Topic == names.Campaigns() {
		c := l.campaigns[key]
		c.Record = nil
		if m := (&fanfarev1.Campaign{}); r.Value != nil && proto.Unmarshal(r.Value, m) == nil {
			c.Record = m
		}
		l.campaigns[key] = c
		return
	}
	delete(l.unreadable, key)
	of, _, sets := strings.Cut(key, "/sets/")
	switch {
	case r.Value == nil:
	case sets:
		if proto.Unmarshal(r.Value, &fanfarev1.CursorSets{}) != nil {
			l.unreadable[key] = true
		}
	case strings.Contains(key, "/"):
		m := &fanfarev1.Cursor{}
		if proto.Unmarshal(r.Value, m) != nil || schemas.CampaignKey(m.GetTenant(), m.GetCampaignId()) != of {
			l.unreadable[key] = true
			return
		}
		c := l.campaigns[of]
		c.Settled, c.Captured = m.GetSettled(), m.GetCapturedMicros()
		l.campaigns[of] = c
	}
}

// restoreRecords deletes the campaigns that the store does not know, and the records of cursors that cannot be read.
// Without offsets the scheduler reads all deliveries again, and so restores the state of those campaigns.
func (w *wiring) restoreRecords(plan store.RestorePlan, log restoreLog) []*kgo.Record {
	var out []*kgo.Record
	for _, key := range plan.Unknown {
		out = append(out, &kgo.Record{Topic: w.names.Campaigns(), Key: []byte(key)})
	}
	for key := range log.unreadable {
		of, _, _ := strings.Cut(key, "/sets/")
		out = append(out, &kgo.Record{Topic: w.names.Cursors(), Key: []byte(key)}, &kgo.Record{Topic: w.names.Cursors(), Key: []byte(of)})
	}
	if len(log.unreadable) > 0 {
		out = append(out, &kgo.Record{Topic: w.names.Cursors(), Key: []byte("offsets")})
	}
	return out
}

func printRestore(out io.Writer, plan store.RestorePlan, log restoreLog) {
	fmt.Fprintf(out, "Kafka knows %d campaigns. This will be done:\n", len(log.campaigns))
	for _, c := range plan.Campaigns {
		state := schemas.StateName(c.To)
		if c.Settled {
			state += ", settled"
		}
		if c.Reason != "" {
			state += " (" + c.Reason + ")"
		}
		fmt.Fprintf(out, "  %s of %s: %s -> %s\n", c.ID, c.Tenant, schemas.StateName(c.From), state)
	}
	for _, key := range plan.Unknown {
		fmt.Fprintf(out, "  %s: the store does not know it; it is deleted from Kafka, and its owner has to be told\n", key)
	}
	for key := range log.unreadable {
		fmt.Fprintf(out, "  %s: the record in cursors cannot be read; it is read from the log again\n", key)
	}
	fmt.Fprintln(out, "  numbers and versions go on 1,000,000 higher; everything is published again; single sends begin new campaigns")
}
