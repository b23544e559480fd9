package window

import (
	"log/slog"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// testWindow returns a window of 10 that is not run.
func testWindow(t *testing.T) *Window {
	t.Helper()
	w, err := New(Config{
		Cluster: stream.Cluster{Brokers: []string{"127.0.0.1:1"}, Logger: slog.New(slog.DiscardHandler)}, Topic: "messages", Group: "sender",
		Size: func() int { return 10 }, Identity: func(*kgo.Record) (schemas.ID, error) { return schemas.ID{}, nil },
	}, ReleaserFunc(func([]*Item) {}))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A partition that is suspended, reset or given up while its commit is on its way stays in that state when the commit
// is refused. Otherwise the next accepted commit would start it again without the withdrawn items.
func TestARefusalDoesNotStartWhatIsStoppedForMore(t *testing.T) {
	w := testWindow(t)
	for why, want := range map[stop]stop{
		stopNone: stopRefused, stopProbing: stopRefused, stopSuspended: stopSuspended, stopReset: stopReset, stopLeaving: stopLeaving,
	} {
		p := newPart(w, 0, "member", 0, -1, intent{}, newSeen(), nil)
		if why != stopNone {
			p.stop(why)
		}
		w.refused(p, kerr.RebalanceInProgress)
		if p.why != want {
			t.Errorf("a part stopped for %d was refused a commit: got %d, want %d", why, p.why, want)
		}
	}
}

// A suspended partition takes no places of the window or the queue from the others.
func TestASuspendedPartitionHoldsUpNoOther(t *testing.T) {
	w := testWindow(t)
	fill := func(p *part, n int) {
		for i := range int64(n) {
			p.items = append(p.items, &Item{Record: &kgo.Record{Partition: p.id, Offset: i}, p: p})
		}
		w.order = append(w.order, p)
	}
	held, other := newPart(w, 0, "member", 0, -1, intent{}, newSeen(), nil), newPart(w, 1, "member", 0, -1, intent{}, newSeen(), nil)
	fill(held, queueMost+10)
	held.declared = 10 // all of the window
	fill(other, 3)
	if got := w.plan(false).fresh; got != 0 {
		t.Fatalf("declared beside a full window: got %d, want 0", got)
	}
	held.stop(stopSuspended)
	if got := w.plan(false).fresh; got != 3 {
		t.Errorf("declared beside a suspended partition: got %d, want 3", got)
	}
	if got := w.capacity(); got <= 0 {
		t.Errorf("room beside a suspended partition: got %d, want some", got)
	}
}
