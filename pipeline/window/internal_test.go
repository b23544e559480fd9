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

func stateOf(in intent, offset int64) offsetState {
	for _, run := range in.states {
		if run.from <= offset && offset < run.to {
			return run.state
		}
	}
	return untouched
}

// FuzzIntent: any metadata of a commit is an intent, none, or an error. The states of an intent are above the committed
// offset, in ascending order and without overlap, and what encode writes is read back the same.
func FuzzIntent(f *testing.F) {
	for _, s := range []string{
		"", "not ours", "fanfare1:7", "fanfare1:2", "fanfare2:9", "fanfare1:07", "fanfare1:9:settled:", "fanfare1:9:settled:BQ", "fanfare1:9:settled:____",
		"kgo-0123456789abcdef0123456789abcdef", "fanfare1:9223372036854775807",
	} {
		f.Add(s, int64(5))
	}
	in := intent{head: 40, states: []stateRun{{5, 9, doubtful}, {12, 13, settled}}}
	written, _ := in.encode(5)
	f.Add(written, int64(5))
	f.Fuzz(func(t *testing.T, metadata string, base int64) {
		if base < 0 || base > 1<<50 || len(metadata) > 4096 { // Kafka keeps no more
			return
		}
		got, err := parseIntent(metadata, base)
		if err != nil {
			return
		}
		if got.head < base {
			t.Fatalf("%q: a head of %d below the committed %d", metadata, got.head, base)
		}
		at := base
		for _, run := range got.states {
			if run.from < at || run.to <= run.from {
				t.Fatalf("%q: the states are %+v", metadata, got.states)
			}
			at = run.to
		}
		again, complete := got.encode(base)
		back, err := parseIntent(again, base)
		if err != nil {
			t.Fatalf("%q was written as %q: %v", metadata, again, err)
		}
		for offset := base; complete && offset < min(got.end(), base+200); offset++ {
			if a, b := stateOf(got, offset), stateOf(back, offset); a != b {
				t.Fatalf("%q: the state of %d is %v, and %v after it was written", metadata, offset, a, b)
			}
		}
		if !complete && back.head < got.end() {
			t.Fatalf("%q: states were left out, and %d is below %d", metadata, back.head, got.end())
		}
	})
}
