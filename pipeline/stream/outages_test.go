package stream_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"fanfare/pipeline/stream"
)

// A6: one line when a task begins to fail and one when it succeeds again, for each task.
func TestOutages(t *testing.T) {
	var log bytes.Buffer
	o := stream.NewOutages(slog.New(slog.NewTextHandler(&log, nil)))
	ctx := t.Context()
	for range 3 {
		o.OK(ctx, "append")
		for range 4 {
			o.Failed(ctx, "append", errors.New("no memory"))
			o.Failed(ctx, "commit", errors.New("no coordinator"))
		}
		o.OK(ctx, "append")
	}
	o.OK(ctx, "commit")
	for want, n := range map[string]int{
		"\"task failed; retrying\" task=append err=\"no memory\"": 3, "\"task succeeds again\" task=append failed_for_ms=": 3,
		"\"task failed; retrying\" task=commit": 1, "\"task succeeds again\" task=commit": 1, "\n": 8,
	} {
		if got := strings.Count(log.String(), want); got != n {
			t.Errorf("%s: got %d times, want %d:\n%s", want, got, n, &log)
		}
	}
}
