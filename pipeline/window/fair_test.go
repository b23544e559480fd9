package window_test

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
)

// declares reports whether a commit of base declares an offset and does not call it settled.
func declares(t testing.TB, metadata string, base, offset int64) bool {
	t.Helper()
	_, text, _ := strings.Cut(metadata, ":settled:")
	runs, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Errorf("metadata %q: %v", metadata, err)
	}
	for at := base; len(runs) > 0; {
		v, n := binary.Uvarint(runs)
		runs = runs[n:]
		if at += int64(v >> 2); offset < at {
			switch v & 3 {
			case 0: // the states do not name it: the head decides
				return offset < head(t, metadata)
			case 2: // may be handed over
				return true
			}
			return false
		}
	}
	return offset < head(t, metadata)
}

// Rule 1 with tenants: a record that goes ahead of others in its partition is declared by itself before it is released.
func TestRule1TenantsTakeTurns(t *testing.T) {
	t.Parallel()
	const n, size = 600, 12
	e := newEnv(t, 2)
	e.tenant = blocks
	fill(t, e.Broker, e.in, 2, n)
	d := &fakeSender{env: e, name: "a"}
	cfg := e.config()
	cfg.Size = func() int { return size }
	var early int
	streamtest.Run(t, e.window(t, cfg, window.ReleaserFunc(func(items []*window.Item) {
		have := committed(t, e.Broker, e.group, e.in)
		for _, it := range items {
			c := have[it.Record.Partition]
			if !declares(t, c.Metadata, c.At, it.Record.Offset) {
				t.Errorf("released %s; committed is only %d %q", source(it.Record), c.At, c.Metadata)
			}
			if it.Record.Offset >= head(t, c.Metadata) {
				early++
			}
		}
		d.Release(items)
	})).Run)
	e.awaitOutcomes(t, n, 30*time.Second)
	if got := e.check(t, n); got != 0 || e.handedOver() != n {
		t.Errorf("got %d in doubt and %d handed over, want 0 and %d", got, e.handedOver(), n)
	}
	if early == 0 {
		t.Error("got no record ahead of the head: the test shows nothing")
	}
}

// If a tenant's few records lie behind thousands of another tenant's, then, once they are polled, each waits for about
// one record of the other tenant.
func TestATenantDoesNotWaitBehindAnothersBacklog(t *testing.T) {
	t.Parallel()
	const flood, few, size = 3000, 5, 20
	e := newEnv(t, 1)
	e.tenant = func(r *kgo.Record) string {
		switch {
		case r.Offset < flood:
			return "flood"
		case r.Offset < flood+few:
			return "b"
		}
		return "c"
	}
	fill(t, e.Broker, e.in, 1, flood+2*few)
	cfg := e.config()
	cfg.Size = func() int { return size }
	var (
		mu    sync.Mutex
		order []string
		held  []*window.Item
		open  bool
	)
	settle := func(items []*window.Item) {
		for _, it := range items {
			if it.Begin() {
				e.handOver("a", it.Record)
				order = append(order, e.tenant(it.Record))
				it.Settle(e.outcome(it.Record, "sent"))
			}
		}
	}
	streamtest.Run(t, e.window(t, cfg, window.ReleaserFunc(func(items []*window.Item) {
		mu.Lock()
		defer mu.Unlock()
		if open {
			settle(items)
		} else {
			held = append(held, items...)
		}
	})).Run)
	streamtest.Eventually(t, "everything to be polled", func() bool {
		return e.Metric(t, "fanfare_window_backlog") == 0 && e.Metric(t, "fanfare_window_queued") >= flood+2*few-size
	})
	mu.Lock()
	open = true
	settle(held)
	mu.Unlock()
	e.awaitOutcomes(t, flood+2*few, 30*time.Second)
	mu.Lock()
	defer mu.Unlock()
	last := 0
	for i, tenant := range order {
		if tenant != "flood" {
			last = i
		}
	}
	// The first 20 were declared before the others were polled; then each takes its turn.
	if most := size + 3*few + size; last >= most {
		t.Errorf("the last record of the others was number %d to be handed over, want at most %d", last, most)
	}
	if got := e.check(t, flood+2*few); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
}
