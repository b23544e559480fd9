package window_test

import (
	"sync"
	"testing"
	"time"

	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
)

// doubter is a releaser that reports uncertain items and chosen items as doubted, and keeps them.
type doubter struct {
	e      *env
	name   string
	choose func(*window.Item) bool

	mu   sync.Mutex
	kept []*window.Item
}

func (d *doubter) Release(items []*window.Item) {
	for _, it := range items {
		if it.Uncertain() || d.choose != nil && d.choose(it) {
			if !it.Uncertain() {
				if !it.Begin() {
					continue
				}
				d.e.handOver(d.name, it.Record)
			}
			if it.Doubt(d.e.outcome(it.Record, "ambiguous")) {
				d.mu.Lock()
				d.kept = append(d.kept, it)
				d.mu.Unlock()
			}
			continue
		}
		if it.Begin() {
			d.e.handOver(d.name, it.Record)
			it.Settle(d.e.outcome(it.Record, "sent"))
		}
	}
}

func (d *doubter) doubted() []*window.Item {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*window.Item(nil), d.kept...)
}

// Rule 9: a doubted record holds the base, but takes no place of the window: more than a window's size is handed over
// behind it. Its outcome ends the doubt.
func TestRule9ADoubtedRecordStaysOpen(t *testing.T) {
	t.Parallel()
	const n, size = 200, 10
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, n)
	d := &doubter{e: e, name: "a", choose: func(it *window.Item) bool { return it.Record.Offset >= 5 && it.Record.Offset < 5+2*size }}
	cfg := e.config()
	cfg.Size = func() int { return size }
	streamtest.Run(t, e.window(t, cfg, d).Run)
	e.awaitOutcomes(t, n, 20*time.Second)
	streamtest.Eventually(t, "base 5", func() bool { base, _ := e.intent(t, 0); return base == 5 })
	for _, it := range d.doubted() {
		if it.Begin() {
			t.Errorf("%s begins though it is doubted", source(it.Record))
		}
		if !it.BeginAgain() {
			t.Errorf("%s may not be handed over again, though it is ours", source(it.Record))
		}
		it.Settle(e.outcome(it.Record, "sent"))
	}
	streamtest.Eventually(t, "the base at the end", func() bool { base, _ := e.intent(t, 0); return base == n })
	if got := e.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
}

// Rule 9: a doubt survives its owner. After a crash and after an orderly stop only this record is uncertain for the
// next owner, which may end the doubt either way.
func TestRule9ADoubtSurvivesItsOwner(t *testing.T) {
	for _, crash := range []bool{true, false} {
		t.Run(map[bool]string{true: "crash", false: "stop"}[crash], func(t *testing.T) {
			t.Parallel()
			const n = 60
			e := newEnv(t, 1)
			fill(t, e.Broker, e.in, 1, n)
			k := &streamtest.Killer{}
			first := &doubter{e: e, name: "a", choose: func(it *window.Item) bool { return it.Record.Offset%20 == 7 }}
			cfg := e.config()
			cfg.SessionTimeout, cfg.GuardMargin = time.Second, 300*time.Millisecond
			cfg.Cluster.Options = append(cfg.Cluster.Options, k.Option())
			stop := streamtest.Run(t, e.window(t, cfg, first).Run)
			e.awaitOutcomes(t, n, 20*time.Second)
			streamtest.Eventually(t, "base 7", func() bool { base, _ := e.intent(t, 0); return base == 7 })
			if crash {
				k.Kill()
			}
			if err := stop(); err != nil && !crash {
				t.Fatal(err)
			}
			for _, it := range first.doubted() {
				if it.BeginAgain() || it.Clear() {
					t.Errorf("%s may be handed over by an owner that has stopped", source(it.Record))
				}
			}
			second := &doubter{e: e, name: "b"}
			streamtest.Run(t, e.window(t, e.config(), second).Run)
			streamtest.Eventually(t, "the doubts to be found", func() bool { return len(second.doubted()) == n/20 })
			for i, it := range second.doubted() {
				if i > 0 { // the carrier has them
					it.Settle(e.outcome(it.Record, "sent"))
					continue
				}
				e.mu.Lock()
				delete(e.handed, submission(it.Record)) // the carrier does not have it
				e.mu.Unlock()
				if it.Begin() {
					t.Errorf("%s begins before it is cleared", source(it.Record))
				}
				streamtest.Eventually(t, "ownership to be proved", it.BeginAgain)
				if !it.Clear() || it.Uncertain() || !it.Begin() {
					t.Errorf("%s does not begin after it was cleared", source(it.Record))
				}
				e.handOver("b", it.Record)
				it.Settle(e.outcome(it.Record, "sent"))
			}
			streamtest.Eventually(t, "the base at the end", func() bool { base, _ := e.intent(t, 0); return base == n })
			if got := e.check(t, n); got != 0 || e.handedOver() != n {
				t.Errorf("got %d in doubt and %d handed over, want 0 and %d", got, e.handedOver(), n)
			}
		})
	}
}
