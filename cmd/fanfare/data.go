package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"fanfare/api/store"
	"fanfare/cmd/fanfare/services"
	"fanfare/deploy/embedded"
	"fanfare/pipeline/stream"
)

// commandTime is how long a process waits for a command that holds the lock of the data directory. Commands hold it for
// milliseconds, while they bring the tables up to date.
const commandTime = 10 * time.Second

// lockData locks the data directory for as long as the process runs. If another process uses it, lockData fails and has
// changed nothing. It waits only for commands, such as `fanfare keys create`, which end by themselves.
func (w *wiring) lockData(ctx context.Context, command string) error {
	deadline := time.Now().Add(commandTime)
	for {
		data, err := embedded.Lock(w.cfg.Data, command)
		if err == nil {
			w.data = data
			w.onClose(data.Unlock)
			return nil
		}
		inUse, held := errors.AsType[*embedded.InUseError](err)
		switch {
		case !held:
			if p := services.DataProblem(w.cfg.Data); p != nil { // the same in words
				err = p
			}
			return fmt.Errorf("--data: %w", err)
		case isServer(inUse.Command) || time.Now().After(deadline) || !stream.Sleep(ctx, 20*time.Millisecond):
			return fmt.Errorf("--data: %w: stop that process first, or give another directory with --data", err)
		}
	}
}

// isServer reports whether a command runs until it is stopped.
func isServer(command string) bool { return command == "serve" || command == "demo" }

// shareData opens the SQLite store for a command. If no process uses the data directory, the command locks it while it
// brings the tables up to date. Otherwise the tables must already have this program's version, because the running
// process uses them.
func (w *wiring) shareData(ctx context.Context, command string) error {
	cfg := store.Config{DSN: w.cfg.storeDSN(), Schema: w.cfg.schemaName(), Logger: w.log}
	deadline := time.Now().Add(commandTime)
	for {
		data, err := embedded.Lock(w.cfg.Data, command)
		if err == nil {
			defer data.Unlock()
			return w.openStore(ctx)
		}
		inUse, held := errors.AsType[*embedded.InUseError](err)
		if !held {
			if p := services.DataProblem(w.cfg.Data); p != nil {
				err = p
			}
			return fmt.Errorf("--data: %w", err)
		}
		if err = w.openMigratedStore(ctx, cfg); err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrSchema) {
			return fmt.Errorf("--store: %w", err)
		}
		if time.Now().After(deadline) || !stream.Sleep(ctx, 50*time.Millisecond) {
			return fmt.Errorf("%w; %w: use the version of fanfare that runs there, or stop it first", err, inUse)
		}
	}
}
