package embedded_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/deploy/embedded"
)

// start locks dir and starts both services on it. stop stops them and unlocks dir.
func start(t *testing.T, dir string) (s *embedded.Services, stop func()) {
	t.Helper()
	locked, err := embedded.Lock(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	s, err = embedded.Start(embedded.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), Kafka: true, Redis: true})
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			s.Stop()
			locked.Unlock()
		})
	}
	t.Cleanup(stop)
	return s, stop
}

// A second start on the same directory continues where the first one stopped.
func TestDataOutlivesTheProcess(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	first, stop := start(t, dir)
	cl, err := kgo.NewClient(kgo.SeedBrokers(first.Kafka))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("kept")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	stop()

	second, _ := start(t, dir)
	cl, err = kgo.NewClient(kgo.SeedBrokers(second.Kafka), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	fetches := cl.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		t.Fatal(err)
	}
	if got := string(fetches.Records()[0].Value); got != "kept" {
		t.Errorf("got %q, want kept", got)
	}
}

// While one process holds the lock, another process gets an error with the holder's pid and command, and changes
// nothing.
func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	_, stop := start(t, dir)
	_, err := embedded.Lock(dir, "second")
	if inUse, ok := errors.AsType[*embedded.InUseError](err); !ok || !errors.Is(err, embedded.ErrInUse) || inUse.PID != os.Getpid() || inUse.Command != "test" {
		t.Errorf("got %v, want ErrInUse with pid %d and command test", err, os.Getpid())
	}
	if e, err := embedded.ReadEndpoints(dir); err != nil || e.Kafka == "" || e.PID != os.Getpid() {
		t.Errorf("endpoints: got %+v, %v", e, err)
	}
	if h, err := embedded.ReadHolder(dir); err != nil || h.Command != "test" {
		t.Errorf("holder: got %+v, %v, want the first one", h, err)
	}
	stop()
	again, err := embedded.Lock(dir, "second")
	if err != nil {
		t.Fatalf("after the first process stopped: got %v, want the lock", err)
	}
	again.Unlock()
}

// kfake acknowledges a batch that it could not write. Failed must report it.
func TestFailedWriteIsReported(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s, _ := start(t, dir)
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Kafka))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	// A file in the place of the folder of partitions: even root can neither create nor open anything below it.
	parts := filepath.Join(dir, "kafka", "partitions")
	if err := os.RemoveAll(parts); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(parts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr()
	select {
	case err := <-s.Failed():
		t.Logf("reported: %v", err)
	case <-time.After(5 * time.Second):
		t.Error("a failed write was not reported")
	}
}

func TestFreeBytes(t *testing.T) {
	if n, err := embedded.FreeBytes(t.TempDir()); err != nil || n == 0 {
		t.Errorf("got %d, %v", n, err)
	}
}
