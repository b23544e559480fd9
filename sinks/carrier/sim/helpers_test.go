package sim

import (
	"context"
	"testing"

	"fanfare/schemas"
)

func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("a key of the simulator's tests"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// start opens a carrier and runs it until the test ends, or stop is called.
func start(t testing.TB, cfg Config) *Carrier {
	t.Helper()
	c, _ := startStop(t, cfg)
	return c
}

func startStop(t testing.TB, cfg Config) (c *Carrier, stop func()) {
	t.Helper()
	if cfg.Keys == nil {
		cfg.Keys = testKeys(t)
	}
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	t.Cleanup(stop)
	return c, stop
}
