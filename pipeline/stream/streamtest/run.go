package streamtest

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// patience bounds each wait of a test: long enough for a busy machine, so that no verdict depends on speed.
const patience = 30 * time.Second

// Run runs f until the test ends or the returned stop is called, which returns f's error.
func Run(t testing.TB, f func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var (
		once sync.Once
		err  error
	)
	stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(patience):
				buf := make([]byte, 1<<20)
				err = fmt.Errorf("did not stop within %s:\n%s", patience, buf[:runtime.Stack(buf, true)])
			}
		})
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return stop
}

// Ready waits until v has read its topics to their ends.
func Ready(t testing.TB, v interface{ Ready() <-chan struct{} }) {
	t.Helper()
	select {
	case <-v.Ready():
	case <-time.After(patience):
		t.Fatalf("not ready within %s", patience)
	}
}

// Eventually waits until ok returns true. If that takes too long, it fails the test with want.
func Eventually(t testing.TB, want string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, want)
		}
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // a test polls
	}
}
