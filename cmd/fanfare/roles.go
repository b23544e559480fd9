package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/deploy/embedded"
	"fanfare/pipeline/expander"
	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/relay"
	"fanfare/pipeline/scheduler"
	"fanfare/pipeline/sender"
	"fanfare/pipeline/stream/rendezvous"
	"fanfare/pipeline/tracker"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics/feed"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

// A role is a part of the product that runs by itself.
type role struct {
	name string
	// phase in which it stops.
	phase string
	// needs are what must be open before build is called.
	needs []need
	// build wires it; what it returns runs until its context ends. Nil: it is served over HTTP, see http.go.
	build func(*wiring) (runner, error)
}

type runner func(context.Context) error

// need is something that a role stands on. Everything stands on Kafka.
type need string

const (
	needKafka     need = "kafka"
	needStore     need = "store"
	needRedis     need = "redis"
	needAnalytics need = "analytics"
)

// Phases of a stop, in order: who takes work in, who deals, who makes messages, who hands over, who hears of it, who writes it
// down, and who publishes and knows what campaigns are doing, which all the others ask to the end.
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

// roleTable is the product on one screen.
var roleTable = []role{
	{"api", phaseIntake, []need{needStore, needAnalytics}, nil},
	{"scheduler", phaseDeal, []need{needStore}, buildScheduler},
	{"expander", phaseExpand, []need{needStore}, buildExpander},
	{"sender", phaseSend, []need{needRedis}, buildSender},
	{"tracker", phaseTrack, []need{needRedis}, buildTracker},
	{"analytics", phaseRecord, []need{needStore, needAnalytics}, buildAnalytics},
	{"relay", phaseControl, []need{needStore}, buildRelay},
}

// roleNames are the names that --roles knows. They stand apart from the table, which refers to them through the settings.
func roleNames() []string {
	return []string{"api", "relay", "scheduler", "expander", "sender", "tracker", "analytics"}
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
		Cluster: w.cluster, Keys: w.keys, View: w.view, Audience: w.store, Store: w.store, MayDeal: w.mayDeal,
	})
	if err != nil {
		return nil, err
	}
	return s.Run, nil
}

// mayDeal says why nothing may be dealt: an embedded broker that runs out of disk would lose what it acknowledges.
func (w *wiring) mayDeal() error {
	if !w.cfg.embeddedBroker() {
		return nil
	}
	free, err := embedded.FreeBytes(w.cfg.Data)
	if err != nil {
		return err
	}
	if free < leastFree {
		return fmt.Errorf("%s has %d MB free, %d MB are needed: nothing more is sent until there is room", w.cfg.Data, free>>20, leastFree>>20)
	}
	return nil
}

func buildExpander(w *wiring) (runner, error) {
	e, err := expander.New(expander.Config{Cluster: w.cluster}, expander.Deps{Keys: w.keys, Campaigns: w.view, Audience: w.store})
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
	table, err := rendezvous.New(w.redis, w.names)
	if err != nil {
		return nil, err
	}
	simulator := &simulator{w: w}
	fleet, err := sender.New(sender.Config{Cluster: w.cluster, Keys: w.keys, Replication: int16(w.cfg.Replication)}, sender.Deps{ //nolint:gosec // 1 or 3, validated
		View: w.view, Tokens: limits, Rendezvous: table, Connect: simulator.connect,
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		// The carrier outlives the senders: what they still wait for is answered.
		return simulator.around(ctx, fleet.Run)
	}, nil
}

// simulator is the simulated carrier as this process uses it: its own, or one that several processes share.
type simulator struct {
	w       *wiring
	carrier *sim.Carrier // nil when shared
}

// around runs the carrier for as long as run takes.
func (s *simulator) around(ctx context.Context, run runner) error {
	if s.w.cfg.CarrierSim != "" {
		return run(ctx)
	}
	if err := ensureDataDir(s.w.cfg.Data); err != nil {
		return err
	}
	profile, err := sim.ProfileNamed(s.w.cfg.SimProfile)
	if err != nil {
		return fmt.Errorf("--sim-profile: %w", err)
	}
	if err := ensureDataDir(s.w.cfg.Data); err != nil {
		return err
	}
	s.carrier, err = sim.Open(sim.Config{
		Keys: s.w.keys, Profile: profile, Seed: s.w.cfg.SimSeed, Truth: filepath.Join(s.w.cfg.Data, "carrier-sim.ndjson"), Logger: s.w.log,
	})
	if err != nil {
		return err
	}
	return errors.Join(alongside(ctx, s.carrier.Run, run), s.carrier.Close())
}

// errCarrierEnded is the error of a carrier that ends by itself.
var errCarrierEnded = errors.New("the simulated carrier has ended")

// alongside runs run while carrier runs. The carrier ends after run, so that what run still waits for is answered; when it
// ends before, run is ended too: whoever hands over to nobody would wait for each answer until it is late.
func alongside(ctx context.Context, carrier, run runner) error {
	carrierCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	runCtx, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() {
		err := carrier(carrierCtx)
		if carrierCtx.Err() == nil {
			err = errors.Join(errCarrierEnded, err)
			end()
		}
		done <- err
	}()
	err := run(runCtx)
	stop()
	return errors.Join(err, <-done)
}

// connect opens the line of a route. Only the simulator is there yet.
func (s *simulator) connect(ctx context.Context, route *fanfarev1.Route) (sender.Line, error) {
	if route.GetConnector() != simConnector {
		return sender.Line{}, fmt.Errorf("%w: connector %q", sender.ErrNotServed, route.GetConnector())
	}
	opts := sim.Options{Account: route.GetName()}
	var c carrier.Connector
	if s.carrier != nil {
		c = s.carrier.Connector(opts)
	} else {
		client, err := sim.Dial(ctx, s.w.cfg.CarrierSim, opts)
		if err != nil {
			return sender.Line{}, err
		}
		c = client
	}
	return sender.Line{Live: c, Test: c}, nil
}

func buildTracker(w *wiring) (runner, error) {
	table, err := rendezvous.New(w.redis, w.names)
	if err != nil {
		return nil, err
	}
	t, err := tracker.New(tracker.Config{Cluster: w.cluster}, tracker.Deps{
		Keys: w.keys, Campaigns: w.view, Rendezvous: table,
		Meets: func(r *fanfarev1.Route) bool { return r.GetConnector() != simConnector }, // the simulator echoes our ids
	})
	if err != nil {
		return nil, err
	}
	return t.Run, nil
}

func buildAnalytics(w *wiring) (runner, error) {
	interval := 200 * time.Millisecond
	if w.cfg.ClickHouse != "" {
		interval = time.Second // each flush is an insert per partition and a part per table
	}
	f, err := feed.New(feed.Config{
		Cluster: w.cluster, Store: w.analytics, Campaigns: w.view, Interval: interval, Lookup: w.store.CampaignRecord,
	})
	if err != nil {
		return nil, err
	}
	return f.Run, nil
}

// noLinger is a producer that answers as soon as Kafka does.
func (w *wiring) noLinger(name string) (*kgo.Client, error) {
	cl, err := w.cluster.Named(name).Client(kgo.ProducerLinger(0))
	if err != nil {
		return nil, err
	}
	w.onClose(cl.Close)
	return cl, nil
}
