package stream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

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
	start := func(name string) (*killer, func() error, *desk) {
		k := &killer{}
		d, stop := o.sender(t, name, func(cfg *stream.WindowConfig, d *desk) {
			cfg.Cluster.Options = append(cfg.Cluster.Options, k.option())
			cfg.SessionTimeout, cfg.GuardMargin, cfg.DrainTimeout = time.Second, 300*time.Millisecond, 300*time.Millisecond
			cfg.Size = func() int { return size }
			d.answer = jitter(30 * time.Millisecond)
		})
		return k, stop, d
	}
	start("stays")
	victim, stop, d := start("victim")
	for range kills {
		before := o.handedOver()
		eventually(t, 20*time.Second, "work to go on", func() bool {
			return d.count(&d.released) > 0 && o.handedOver() > before+n/(2*kills) || o.handedOver() == n
		})
		o.stable(t, 2)
		victim.kill()
		_ = stop()
		victim, stop, d = start("victim")
	}
	o.awaitOutcomes(t, n, 60*time.Second)
	doubtful := o.check(t, n)
	t.Logf("%d kills: %d in doubt, %.0f per kill", kills, doubtful, float64(doubtful)/kills)
	if doubtful > kills*size {
		t.Errorf("in doubt: got %d, want at most %d a kill", doubtful, size)
	}
}

// What all rules are for, under chance: senders start, stop, die, sleep and wake while records come in, some of them twice,
// some in transactions that abort. Nothing is handed over twice, everything is settled or reported as uncertain, and no more
// is uncertain than a window for each that died or slept.
func TestWindowsUnderChance(t *testing.T) {
	t.Parallel()
	const n, partitions, size = 4000, 6, 40
	seed := uint64(time.Now().UnixNano())
	if v, err := strconv.ParseUint(os.Getenv("FANFARE_TEST_SEED"), 10, 64); err == nil {
		seed = v
	}
	t.Logf("FANFARE_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	o := newOffice(t, partitions)

	type process struct {
		k    *killer
		f    *freezer
		d    *desk
		stop func() error
	}
	started := 0
	start := func() *process {
		p := &process{k: &killer{}, f: &freezer{}}
		started++
		p.d, p.stop = o.sender(t, fmt.Sprintf("sender%d", started), func(cfg *stream.WindowConfig, d *desk) {
			cfg.Cluster.Options = []kgo.Opt{p.f.around(p.k.dial)}
			cfg.SessionTimeout, cfg.GuardMargin, cfg.DrainTimeout = time.Second, 300*time.Millisecond, 500*time.Millisecond
			cfg.Size = func() int { return size }
			d.answer, d.wait = jitter(40*time.Millisecond), jitter(10*time.Millisecond)
			d.judge = func(*stream.Item) string { p.f.wait(); return "" }
		})
		return p
	}
	fed := make(chan error, 1)
	feedSeed := rng.Uint64()
	go func() { fed <- o.feed(t, feedSeed, n, partitions) }()
	running := []*process{start(), start()}
	disturbed := 0
	pick := func() (p *process) {
		i := rng.IntN(len(running))
		p = running[i]
		running = slices.Delete(running, i, i+1)
		return p
	}
	works := func(p *process) {
		// Or there is nothing left to do: what is in doubt is never handed over.
		eventually(t, 30*time.Second, "the chosen to work", func() bool { return p.d.count(&p.d.released) > 0 || len(o.outcomes(t)) >= n })
	}
	for o.handedOver() < n*9/10 {
		time.Sleep(time.Duration(100+rng.IntN(200)) * time.Millisecond)
		switch what := rng.IntN(10); {
		case what < 3 && len(running) < 4:
			running = append(running, start())
		case what < 5 && len(running) > 1: // stops
			if err := pick().stop(); err != nil {
				t.Fatal(err)
			}
		case what < 8: // dies
			p := pick()
			works(p)
			o.stable(t, len(running)+1)
			disturbed++
			p.k.kill()
			_ = p.stop()
			running = append(running, start())
		default: // sleeps past its session, and wakes among the others
			p := pick()
			works(p)
			o.stable(t, len(running)+1)
			disturbed++
			p.f.freeze()
			if len(running) == 0 {
				running = append(running, start())
			}
			time.Sleep(1500 * time.Millisecond)
			p.f.thaw()
			running = append(running, p)
		}
	}
	if err := <-fed; err != nil {
		t.Fatal(err)
	}
	o.awaitSubmissions(t, n, 60*time.Second)
	for _, p := range running {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	}
	doubtful := o.check(t, n)
	t.Logf("%d senders, %d died or slept, %d in doubt", started, disturbed, doubtful)
	if doubtful > disturbed*size {
		t.Errorf("in doubt: got %d, want at most %d for each of %d", doubtful, size, disturbed)
	}
}

// feed writes n messages in transactions; some abort and are written again, some are written twice.
func (o *office) feed(t *testing.T, seed uint64, n int, partitions int32) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	cl, err := o.Named("feed").Client(kgo.TransactionalID(o.Names.TransactionalID("feed", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for seq := 0; seq < n; {
		size := min(20+rng.IntN(100), n-seq)
		if err := cl.BeginTransaction(); err != nil {
			return err
		}
		var recs []*kgo.Record
		for s := seq; s < seq+size; s++ {
			recs = append(recs, o.message(t, int32(s)%partitions, uint32(s)))
			if twin := s - rng.IntN(300); twin >= 0 && rng.IntN(20) == 0 {
				recs = append(recs, o.message(t, int32(twin)%partitions, uint32(twin)))
			}
		}
		if err := cl.ProduceSync(context.Background(), recs...).FirstErr(); err != nil {
			return err
		}
		commit := rng.IntN(4) > 0
		if err := cl.EndTransaction(context.Background(), kgo.TransactionEndTry(commit)); err != nil {
			return err
		}
		if commit {
			seq += size
		}
		time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
	}
	return nil
}
