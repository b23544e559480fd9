package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/carrier/sim"
)

// Names of the simulated carrier, which is every tenant's default route.
const (
	simRoute     = "sim"
	simConnector = "sim"
	// The record of the simulated carrier under --data, and that of the phones behind it.
	simTruth       = "carrier-sim.ndjson"
	handsetsRecord = "carrier-sim-handsets.ndjson"
)

// ensureRoute creates the route of the simulated carrier, and gives it the limits of the flags.
func (w *wiring) ensureRoute(ctx context.Context) error {
	want := store.Route{
		Name: simRoute, Connector: simConnector, Rate: uint32(w.cfg.SimRate), P99: w.cfg.simP99(), ReceiptWindow: w.cfg.ReceiptWindow, Enabled: true,
		Channels: []schemas.Channel{schemas.ChannelSMS, schemas.ChannelRCS, schemas.ChannelWhatsApp, schemas.ChannelVoice},
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

// simP99 is the time within which the simulated carrier answers 99 of 100 hand-overs with any of its profiles. It is
// assumed of a carrier that several processes share, because only that carrier knows its profile.
const simP99 = 300 * time.Millisecond

// leastP99 is assumed of a carrier that answers at once: in the record of a route 0 means that nothing is known.
const leastP99 = time.Millisecond

// simP99 returns the 99th percentile of the answer time of the simulated carrier.
func (c Config) simP99() time.Duration {
	profile, err := sim.ProfileNamed(c.SimProfile)
	if err != nil || c.CarrierSim != "" {
		return simP99
	}
	return max(profile.Answer.P99, leastP99)
}

// withSimulator runs the simulated carrier of this process while run runs, unless several processes share one.
func (w *wiring) withSimulator(ctx context.Context, run runner) error {
	if w.cfg.CarrierSim != "" {
		return run(ctx)
	}
	profile, err := sim.ProfileNamed(w.cfg.SimProfile)
	if err != nil {
		return fmt.Errorf("--sim-profile: %w", err)
	}
	simulated, err := sim.Open(sim.Config{
		Keys: w.keys, Profile: profile, Seed: w.cfg.SimSeed, Truth: filepath.Join(w.cfg.Data, simTruth), Logger: w.log,
	})
	if err != nil {
		return err
	}
	w.simulated.Store(simulated)
	carrier := simulated.Run
	if w.cfg.SimHandsets {
		if carrier, err = w.withHandsets(simulated); err != nil {
			return errors.Join(err, simulated.Close())
		}
	}
	return errors.Join(alongside(ctx, carrier, run), simulated.Close())
}

// habits returns the habits of the demonstration, with the share of answering phones from the settings.
func (c Config) habits() sim.Habits {
	h := sim.DefaultHabits
	h.Stop, h.Answer = float64(c.SimReplies)/300, float64(c.SimReplies)/150
	return h
}

// withHandsets runs the phones behind the simulated carrier beside it.
func (w *wiring) withHandsets(simulated *sim.Carrier) (runner, error) {
	phones, err := sim.OpenHandsets(sim.HandsetsConfig{
		Truth: filepath.Join(w.cfg.Data, simTruth), Record: filepath.Join(w.cfg.Data, handsetsRecord), Habits: w.cfg.habits(), Seed: w.cfg.SimSeed,
		Links: w.linkURL(), Edge: w.edge.Addr().String(), Write: simulated.Write, Logger: w.log,
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return simulated.Run(ctx) })
		group.Go(func() error { return phones.Run(ctx) })
		return group.Wait()
	}, nil
}

// errCarrierEnded is returned when the carrier ends while the senders still run.
var errCarrierEnded = errors.New("the simulated carrier has ended")

// alongside runs run while carrier runs. At a stop the carrier ends after run, so that the senders get the answers they
// wait for. If the carrier ends first, alongside ends run, too: each hand-over would wait in vain for an answer.
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
