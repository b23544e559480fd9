package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"fanfare/deploy/embedded"
	"fanfare/pipeline/callback"
	"fanfare/pipeline/dlrindex"
	"fanfare/pipeline/expander"
	routehealth "fanfare/pipeline/health"
	"fanfare/pipeline/inbound"
	"fanfare/pipeline/inbound/recent"
	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/relay"
	"fanfare/pipeline/scheduler"
	"fanfare/pipeline/sender"
	"fanfare/pipeline/tracker"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics/feed"
	"fanfare/sinks/webhook"
)

// A role is a part of the product that can run in a process of its own.
type role struct {
	name string
	// phase in which it stops.
	phase string
	// needs says what must be open before build is called.
	needs []need
	// build returns what runs until its context ends. Nil: the role is served over HTTP, see http.go.
	build func(*wiring) (runner, error)
}

type runner func(context.Context) error

// need is a service that a role uses. Every role uses Kafka.
type need string

const (
	needKafka     need = "kafka"
	needStore     need = "store"
	needRedis     need = "redis"
	needAnalytics need = "analytics"
)

// Phases of a stop, in order. First stop the roles that accept work, then those that deal it, make messages of it, hand
// them over, read receipts and store statistics. Last stop the relay and the control-plane view, which all the others
// use.
const (
	phaseIntake  = "intake"
	phaseDeal    = "dealing"
	phaseExpand  = "expanding"
	phaseSend    = "sending"
	phaseTrack   = "tracking"
	phaseRecord  = "recording"
	phaseControl = "control"
)

var phases = []string{phaseIntake, phaseDeal, phaseExpand, phaseSend, phaseTrack, phaseRecord, phaseControl}

// roleTable lists all roles.
var roleTable = []role{
	{"api", phaseIntake, []need{needStore, needAnalytics}, nil},
	{"scheduler", phaseDeal, []need{needStore}, buildScheduler},
	{"expander", phaseExpand, []need{needStore}, buildExpander},
	{"sender", phaseSend, []need{needRedis}, buildSender},
	{"tracker", phaseTrack, []need{needRedis}, buildTracker},
	{"inbound", phaseTrack, []need{needStore, needRedis}, buildInbound},
	{"analytics", phaseRecord, []need{needStore, needAnalytics}, buildAnalytics},
	{"webhook", phaseRecord, []need{needStore}, buildWebhook},
	{roleEdge, phaseIntake, nil, buildEdge},
	{"relay", phaseControl, []need{needStore}, buildRelay},
}

// roleNames returns the names that --roles accepts. They are not taken from the table, because the table depends on the
// settings, which are checked with these names.
func roleNames() []string {
	return []string{"api", "relay", "scheduler", "expander", "sender", "tracker", "inbound", "analytics", "webhook", "edge"}
}

// needs reports whether a role of this process needs n.
func (c Config) needs(n need) bool {
	for _, r := range roleTable {
		for _, have := range r.needs {
			if have == n && c.has(r.name) {
				return true
			}
		}
	}
	return false
}

func buildRelay(w *wiring) (runner, error) {
	r, err := relay.New(relay.Config{Cluster: w.cluster}, w.store)
	if err != nil {
		return nil, err
	}
	return r.Run, nil
}

func buildScheduler(w *wiring) (runner, error) {
	s, err := scheduler.New(scheduler.Config{
		Cluster: w.cluster, Keys: w.keys, View: w.view, Audience: w.store, Store: w.store, Domains: w.store, MayDeal: w.mayDeal, Health: w.board.RouteHealth,
		Traces: w.traces,
	})
	if err != nil {
		return nil, err
	}
	return s.Run, nil
}

// mayDeal returns why nothing may be dealt: an embedded broker that runs out of disk loses what it has acknowledged.
func (w *wiring) mayDeal() error {
	if !w.cfg.embeddedBroker() {
		return nil
	}
	free, err := embedded.FreeBytes(w.cfg.Data)
	if err != nil {
		return err
	}
	if free < embedded.LeastFree {
		return fmt.Errorf("%s has %d MB free, %d MB are needed: nothing is dealt until there is room", w.cfg.Data, free>>20, embedded.LeastFree>>20)
	}
	return nil
}

func buildExpander(w *wiring) (runner, error) {
	e, err := expander.New(expander.Config{Cluster: w.cluster, Traces: w.traces}, expander.Deps{Keys: w.keys, Campaigns: w.view, Audience: w.store})
	if err != nil {
		return nil, err
	}
	return e.Run, nil
}

func buildSender(w *wiring) (runner, error) {
	limits, err := ratelimit.New(w.redis, ratelimit.Config{
		Names: w.names, Instance: strconv.FormatUint(rand.Uint64(), 36), Logger: w.log, Registry: w.reg,
	})
	if err != nil {
		return nil, err
	}
	table, err := dlrindex.New(w.redis, w.names)
	if err != nil {
		return nil, err
	}
	supervisor, err := sender.New(sender.Config{Cluster: w.cluster, Keys: w.keys, Replication: int16(w.cfg.Replication), Traces: w.traces}, sender.Deps{ //nolint:gosec // 1 or 3, validated
		View: w.view, Tokens: limits, Rendezvous: table, Connect: w.connect,
	})
	if err != nil {
		return nil, err
	}
	reporter := w.reporter("sender", supervisor.Health)
	return func(ctx context.Context) error {
		// The carrier ends after the senders, so that they get the answers they still wait for.
		return w.withSimulator(ctx, func(ctx context.Context) error { return together(ctx, supervisor.Run, reporter.Run) })
	}, nil
}

// reporter returns the runner that reports the health of the routes, as one role of this process knows it.
func (w *wiring) reporter(role string, reports func(time.Time) []*fanfarev1.RouteHealth) *routehealth.Reporter {
	return &routehealth.Reporter{
		Process: role + "-" + strconv.FormatUint(rand.Uint64(), 36), Cluster: w.cluster, Source: role, Reports: reports,
	}
}

// together runs the parts of a role until ctx ends or one of them fails.
func together(ctx context.Context, parts ...runner) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range parts {
		group.Go(func() error { return run(ctx) })
	}
	return group.Wait()
}

func buildTracker(w *wiring) (runner, error) {
	table, err := dlrindex.New(w.redis, w.names)
	if err != nil {
		return nil, err
	}
	t, err := tracker.New(tracker.Config{Cluster: w.cluster, Traces: w.traces}, tracker.Deps{
		Keys: w.keys, Campaigns: w.view, Index: table, Indexed: w.indexed(),
	})
	if err != nil {
		return nil, err
	}
	c, err := callback.New(callback.Config{Cluster: w.cluster}, w.webhooks())
	if err != nil {
		return nil, err
	}
	reporter := w.reporter("tracker", t.Health)
	return func(ctx context.Context) error { return together(ctx, c.Run, t.Run, reporter.Run) }, nil
}

func buildInbound(w *wiring) (runner, error) {
	index, err := recent.New(w.redis, w.keys, w.cfg.Prefix)
	if err != nil {
		return nil, err
	}
	s, err := inbound.New(inbound.Config{Cluster: w.cluster}, inbound.Deps{Keys: w.keys, Campaigns: w.view, Audience: w.store, Store: w.store, Recent: index})
	if err != nil {
		return nil, err
	}
	return s.Run, nil
}

func buildAnalytics(w *wiring) (runner, error) {
	interval := 200 * time.Millisecond
	if w.cfg.ClickHouse != "" {
		interval = time.Second // each flush is an insert per partition, and each insert is a part in every table
	}
	f, err := feed.New(feed.Config{
		Cluster: w.cluster, Store: w.analytics, Campaigns: w.view, Interval: interval, Lookup: w.store.CampaignRecord,
	})
	if err != nil {
		return nil, err
	}
	return f.Run, nil
}

func buildWebhook(w *wiring) (runner, error) {
	hooks, err := webhook.New(webhook.Config{Cluster: w.cluster, Allow: w.cfg.webhookAllow()}, w.store, w.view)
	if err != nil {
		return nil, err
	}
	return hooks.Run, nil
}

// noLinger returns a producer that sends each record at once: a request waits for it.
func (w *wiring) noLinger(name string) (*kgo.Client, error) {
	cl, err := w.cluster.Named(name).Client(kgo.ProducerLinger(0))
	if err != nil {
		return nil, err
	}
	w.onClose(cl.Close)
	return cl, nil
}
