package feed

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/sqlite"
)

// If a store keeps positions and was lost, the feed fills it from the log, whatever the group has committed. If the
// store was restored from a copy, the feed continues at the position of the copy.
func TestLostStoreIsFilledAgain(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	campaigns, records := w.history(30)
	s := newStore(t)
	r := w.start(t, s, nil, nil)
	w.produce(t, records...)
	caughtUp(t, s)
	if err := r.end(t); err != nil {
		t.Fatal(err)
	}
	lag, err := w.adm.FetchOffsets(t.Context(), w.Names.Group(Stage))
	if err != nil {
		t.Fatal(err)
	}
	committed := int64(0)
	lag.Each(func(o kadm.OffsetResponse) { committed += o.At })
	if committed != int64(len(records)) {
		t.Errorf("the group has committed %d records, want %d", committed, len(records))
	}
	fresh := newStore(t)
	w.start(t, fresh, nil, nil)
	caughtUp(t, fresh)
	compareAll(t, fresh, w.model(t), campaigns)
}

// A log that ends below the stored position has lost records. The feed reports this, and stores the records that are
// written from there on.
func TestLogShorterThanStore(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	campaigns, records := w.history(20)
	w.produce(t, records[:50]...)
	topics, err := w.adm.ListTopics(t.Context(), w.Names.Deliveries())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "analytics.db")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for p := range int32(6) {
		if err := s.Append(t.Context(), analytics.Batch{Topic: analytics.TopicID(topics[w.Names.Deliveries()].ID), Partition: p, First: 0, End: 1000}); err != nil {
			t.Fatal(err)
		}
	}
	r := w.start(t, s, nil, nil)
	caughtUp(t, s)
	w.produce(t, records[50:]...)
	caughtUp(t, s)
	if got := counted(r.events.metrics.gaps); got != 6 {
		t.Errorf("got %v gaps, want 6", got)
	}
	// All records except the first 50 are stored: the timelines have as many events.
	var n uint64
	for _, c := range campaigns {
		points, err := s.Timeline(t.Context(), c.Tenant, c.ID, analytics.Span{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range points {
			n += p.N
		}
	}
	if want := uint64(len(records) - 50); n != want {
		t.Errorf("got %d events, want %d", n, want)
	}
}

// If the beginning of a declared batch was deleted from the log, the rest is stored under another token, and the feed
// reports it.
func TestDeclaredBatchWhoseStartIsGone(t *testing.T) {
	t.Parallel()
	w := newEnv(t)
	campaigns, records := w.history(20)
	s := newTokenStore(t)
	w.produce(t, records...)
	r := w.start(t, s, nil, func(r *running) func(string) error {
		return func(step string) error {
			if step == "declared" {
				r.cut()
				return errCut
			}
			return nil
		}
	})
	if err := <-r.done; !errors.Is(err, errCut) {
		t.Fatalf("run: got %v, want it killed", err)
	} else {
		r.done <- err
	}
	deleted := kadm.Offsets{}
	for p := range int32(6) {
		deleted.AddOffset(w.Names.Deliveries(), p, 3, -1)
	}
	if _, err := w.adm.DeleteRecords(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	second := w.start(t, s, nil, nil)
	caughtUp(t, s)
	compareAll(t, s, w.model(t), campaigns)
	if got := counted(second.events.metrics.gaps); got == 0 {
		t.Error("got no gaps, want some")
	}
	for token := range s.tokens {
		if strings.Contains(token, "-0-0-") {
			t.Errorf("token %s begins where nothing is left", token)
		}
	}
}
