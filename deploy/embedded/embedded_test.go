package embedded_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/deploy/embedded"
)

func start(t *testing.T, dir string) *embedded.Services {
	t.Helper()
	s, err := embedded.Start(embedded.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), Kafka: true, Redis: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// A second start on the same directory goes on where the first stopped.
func TestDataOutlivesTheProcess(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	first := start(t, dir)
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
	first.Stop()

	second := start(t, dir)
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

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	start(t, dir)
	if _, err := embedded.Start(embedded.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), Kafka: true, Redis: true}); !errors.Is(err, embedded.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	if e, err := embedded.ReadEndpoints(dir); err != nil || e.Kafka == "" || e.PID != os.Getpid() {
		t.Errorf("endpoints: got %+v, %v", e, err)
	}
}

// kfake acknowledges a batch that it could not write; the process must learn of it.
func TestFailedWriteIsReported(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s := start(t, dir)
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Kafka))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	// A file where the partition's folder should be: it can be neither made nor opened, even by root.
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
