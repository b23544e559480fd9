package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
)

// A group is a set of parts that stop together.
type group struct {
	name   string
	cancel context.CancelFunc
	parts  *errgroup.Group
}

// stop ends the group and waits for it.
func (g *group) stop(ctx context.Context) error {
	g.cancel()
	done := make(chan error, 1)
	go func() { done <- g.parts.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s did not stop within %s", g.name, stopLimit)
	}
}

// start runs the roles of this process, those that stop last first. It returns the groups in the order in which they
// stop.
func (w *wiring) start(ctx context.Context, fail func(error)) ([]*group, error) {
	groups := make([]*group, len(phases))
	for i, phase := range slices.Backward(phases) {
		groupCtx, cancel := context.WithCancel(ctx)
		g := &group{name: phase, cancel: cancel, parts: &errgroup.Group{}}
		groups[i] = g
		part := func(name string, run runner) {
			g.parts.Go(func() error {
				err := run(groupCtx)
				switch {
				case groupCtx.Err() == nil && err == nil:
					fail(fmt.Errorf("%s ended although it was not stopped", name))
				case groupCtx.Err() == nil:
					fail(fmt.Errorf("%s: %w", name, err))
				case err != nil && !errors.Is(err, context.Canceled):
					w.log.WarnContext(groupCtx, "stopped with an error", "part", name, "err", err)
				}
				return nil
			})
		}
		if phase == phaseControl {
			part("view", w.view.Run)
			if w.board != nil {
				part("route health", w.board.Run)
			}
			if w.cfg.needs(needStore) {
				part("collect", w.collect)
			}
		}
		if phase == phaseIntake && w.cfg.has("api") {
			part("imports", w.store.RunImports)
			part("jobs", w.runJobs)
			part("confirmations", w.runConfirmations)
		}
		for _, r := range roleTable {
			if r.phase != phase || r.build == nil || !w.cfg.has(r.name) {
				continue
			}
			run, err := r.build(w)
			if err != nil {
				for _, g := range groups[i:] {
					g.cancel()
				}
				return nil, fmt.Errorf("%s: %w", r.name, err)
			}
			part(r.name, run)
		}
	}
	return groups, nil
}
