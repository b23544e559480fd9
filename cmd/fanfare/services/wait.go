package services

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"fanfare/pipeline/stream"
)

// How often a start tries a service again.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// briefly is how long a start waits for a [WaitBriefly] problem to pass.
const briefly = 4 * time.Second

// A Waiter waits, while a process starts, for services that are starting too. It logs when it begins to wait for a
// service, when the problem changes, and when the service is ready: one line each.
type Waiter struct {
	Log *slog.Logger
	// Timeout is how long to wait for a service, from Began on.
	Timeout time.Duration
	Began   time.Time
}

// For calls try until it returns no problem. It gives up at once if waiting does not help, and else after the time-out.
// flag is the flag with the address of the service, such as --kafka: it begins the error.
func (w Waiter) For(ctx context.Context, flag string, try func(context.Context) *Problem) error {
	backoff := stream.NewBackoff(firstRetry, lastRetry)
	log := w.Log.With("service", flag)
	began := time.Now()
	said := ""
	for {
		p := try(ctx)
		waited := time.Since(began)
		switch {
		case p == nil:
			if said != "" {
				log.InfoContext(ctx, "service is ready", "waited_ms", waited.Milliseconds())
			}
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("interrupted while waiting for %s (%w): %w", flag, p, context.Cause(ctx))
		case p.Wait == WaitNot, p.Wait == WaitBriefly && waited >= min(briefly, w.Timeout):
			return fmt.Errorf("%s: %w", flag, p)
		case time.Since(w.Began) >= w.Timeout:
			return fmt.Errorf("%s: %w (waited %s, see --start-timeout)", flag, p, time.Since(w.Began).Round(100*time.Millisecond))
		}
		if said != p.Found {
			said = p.Found
			log.WarnContext(ctx, "service is not ready, waiting", "found", p.Found, "fix", p.Fix, "start_timeout_ms", w.Timeout.Milliseconds())
		}
		if !backoff.Wait(ctx) {
			return fmt.Errorf("interrupted while waiting for %s (%w): %w", flag, p, context.Cause(ctx))
		}
	}
}
