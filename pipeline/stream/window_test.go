package stream_test

import (
	"testing"
	"time"

	"fanfare/pipeline/stream"
)

func TestWindowHandsEverythingOverOnce(t *testing.T) {
	t.Parallel()
	const n = 3000
	o := newOffice(t, 6)
	o.fill(t, o.in, 6, n)
	d, stop := o.sender(t, "a", func(_ *stream.WindowConfig, d *desk) { d.answer = jitter(5 * time.Millisecond) })
	o.awaitOutcomes(t, n, 30*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := o.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
	if got := o.handedOver(); got != n {
		t.Errorf("handed over: got %d, want %d", got, n)
	}
	if got := d.count(&d.uncertain); got != 0 {
		t.Errorf("uncertain: got %d, want 0", got)
	}
	for p := range int32(6) {
		if base, _ := o.intent(t, p); base < n/6 {
			t.Errorf("partition %d: committed %d, want at least %d", p, base, n/6)
		}
	}
}

// Three senders, killed and started again while they work.
func TestWindowsThroughKills(t *testing.T) {
	t.Parallel()
	const n, kills, size = 6000, 4, 60
	o := newOffice(t, 6)
	o.fill(t, o.in, 6, n)
	start := func(name string) (*killer, func() error) {
		k := &killer{}
		_, stop := o.sender(t, name, func(cfg *stream.WindowConfig, d *desk) {
			cfg.Cluster.Options = append(cfg.Cluster.Options, k.option())
			cfg.SessionTimeout, cfg.GuardMargin, cfg.DrainTimeout = time.Second, 300*time.Millisecond, 300*time.Millisecond
			cfg.Size = func() int { return size }
			d.answer = jitter(30 * time.Millisecond)
		})
		return k, stop
	}
	start("stays")
	victim, stop := start("victim")
	for range kills {
		before := o.handedOver()
		eventually(t, 20*time.Second, "work to go on", func() bool { return o.handedOver() > before+n/(2*kills) || o.handedOver() == n })
		victim.kill()
		_ = stop()
		victim, stop = start("victim")
	}
	o.awaitOutcomes(t, n, 60*time.Second)
	doubtful := o.check(t, n)
	t.Logf("%d kills: %d in doubt, %.0f per kill", kills, doubtful, float64(doubtful)/kills)
	if doubtful > kills*size {
		t.Errorf("in doubt: got %d, want at most %d a kill", doubtful, size)
	}
}
