package window_test

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

	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
)

func TestWindowHandsEverythingOverOnce(t *testing.T) {
	t.Parallel()
	const n = 3000
	e := newEnv(t, 6)
	fill(t, e.Broker, e.in, 6, n)
	d, stop := e.sender(t, "a", func(_ *window.Config, d *fakeSender) { d.answer = jitter(5 * time.Millisecond) })
	e.awaitOutcomes(t, n, 30*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := e.check(t, n); got != 0 {
		t.Errorf("in doubt: got %d, want 0", got)
	}
	if got := e.handedOver(); got != n {
		t.Errorf("handed over: got %d, want %d", got, n)
	}
	if got := d.count(&d.uncertain); got != 0 {
		t.Errorf("uncertain: got %d, want 0", got)
	}
	for p := range int32(6) {
		if base, _ := e.intent(t, p); base < n/6 {
			t.Errorf("partition %d: committed %d, want at least %d", p, base, n/6)
		}
	}
}

// byTenant runs f with windows that follow the order of the log, and with windows in which tenants take turns.
func byTenant(t *testing.T, f func(t *testing.T, tenant func(*kgo.Record) string)) {
	t.Run("in order", func(t *testing.T) { t.Parallel(); f(t, nil) })
	t.Run("tenants in turn", func(t *testing.T) { t.Parallel(); f(t, blocks) })
}

// Senders are killed and started again while they work.
func TestWindowsThroughKills(t *testing.T) { byTenant(t, windowsThroughKills) }

func windowsThroughKills(t *testing.T, tenant func(*kgo.Record) string) {
	const n, kills, size = 6000, 4, 60
	e := newEnv(t, 6)
	e.tenant = tenant
	fill(t, e.Broker, e.in, 6, n)
	start := func(name string) (*streamtest.Killer, func() error, *fakeSender) {
		k := &streamtest.Killer{}
		d, stop := e.sender(t, name, func(cfg *window.Config, d *fakeSender) {
			cfg.Cluster.Options = append(cfg.Cluster.Options, k.Option())
			cfg.SessionTimeout, cfg.GuardMargin, cfg.DrainTimeout = time.Second, 300*time.Millisecond, 300*time.Millisecond
			cfg.Size = func() int { return size }
			d.answer = jitter(30 * time.Millisecond)
		})
		return k, stop, d
	}
	start("stays")
	victim, stop, d := start("victim")
	for range kills {
		before := e.handedOver()
		streamtest.Eventually(t, "work to go on", func() bool {
			return d.count(&d.released) > 0 && e.handedOver() > before+n/(2*kills) || e.handedOver() == n
		})
		e.stable(t, 2)
		victim.Kill()
		_ = stop()
		victim, stop, d = start("victim")
	}
	e.awaitOutcomes(t, n, 60*time.Second)
	doubtful := e.check(t, n)
	t.Logf("%d kills: %d in doubt, %.0f per kill", kills, doubtful, float64(doubtful)/kills)
	if doubtful > kills*size {
		t.Errorf("in doubt: got %d, want at most %d a kill", doubtful, size)
	}
}

// All rules together, at random: senders start, stop, die, sleep and wake while records arrive, some of them twice and
// some in transactions that abort. No record is handed over twice, every record is settled or reported as uncertain,
// and each sender that died or slept leaves at most a window of uncertain records.
func TestWindowsUnderChance(t *testing.T) { byTenant(t, windowsUnderChance) }

func windowsUnderChance(t *testing.T, tenant func(*kgo.Record) string) {
	const n, partitions, size = 4000, 6, 40
	seed := uint64(time.Now().UnixNano())
	if v, err := strconv.ParseUint(os.Getenv("FANFARE_TEST_SEED"), 10, 64); err == nil {
		seed = v
	}
	t.Logf("FANFARE_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	e := newEnv(t, partitions)
	e.tenant = tenant

	type process struct {
		k    *streamtest.Killer
		f    *streamtest.Freezer
		d    *fakeSender
		stop func() error
	}
	started := 0
	start := func() *process {
		p := &process{k: &streamtest.Killer{}, f: &streamtest.Freezer{}}
		started++
		p.d, p.stop = e.sender(t, fmt.Sprintf("sender%d", started), func(cfg *window.Config, d *fakeSender) {
			cfg.Cluster.Options = []kgo.Opt{p.f.Around(p.k.Dial)}
			cfg.SessionTimeout, cfg.GuardMargin, cfg.DrainTimeout = time.Second, 300*time.Millisecond, 500*time.Millisecond
			cfg.Size = func() int { return size }
			d.answer, d.wait = jitter(40*time.Millisecond), jitter(10*time.Millisecond)
			d.judge = func(*window.Item) string { p.f.Wait(); return "" }
		})
		return p
	}
	fed := make(chan error, 1)
	feedSeed := rng.Uint64()
	go func() { fed <- e.feed(t, feedSeed, n, partitions) }()
	running := []*process{start(), start()}
	disturbed := 0
	pick := func() (p *process) {
		i := rng.IntN(len(running))
		p = running[i]
		running = slices.Delete(running, i, i+1)
		return p
	}
	works := func(p *process) {
		// Otherwise no work is left: uncertain records are never handed over.
		streamtest.Eventually(t, "the chosen sender to work", func() bool { return p.d.count(&p.d.released) > 0 || len(e.outcomes(t)) >= n })
	}
	for e.handedOver() < n*9/10 {
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
			e.stable(t, len(running)+1)
			disturbed++
			p.k.Kill()
			_ = p.stop()
			running = append(running, start())
		default: // it sleeps past the end of its session and wakes while others run
			p := pick()
			works(p)
			e.stable(t, len(running)+1)
			disturbed++
			p.f.Freeze()
			if len(running) == 0 {
				running = append(running, start())
			}
			time.Sleep(1500 * time.Millisecond)
			p.f.Thaw()
			running = append(running, p)
		}
	}
	if err := <-fed; err != nil {
		t.Fatal(err)
	}
	e.awaitSubmissions(t, n, 60*time.Second)
	for _, p := range running {
		if err := p.stop(); err != nil {
			t.Error(err)
		}
	}
	doubtful := e.check(t, n)
	t.Logf("%d senders, %d died or slept, %d in doubt", started, disturbed, doubtful)
	if doubtful > disturbed*size {
		t.Errorf("in doubt: got %d, want at most %d for each of %d", doubtful, size, disturbed)
	}
}

// feed writes n messages in transactions; some abort and are written again, some are written twice.
func (e *env) feed(t *testing.T, seed uint64, n int, partitions int32) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	cl, err := e.Named("feed").Client(kgo.TransactionalID(e.Names.TransactionalID("feed", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
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
			recs = append(recs, e.message(t, int32(s)%partitions, uint32(s)))
			if twin := s - rng.IntN(300); twin >= 0 && rng.IntN(20) == 0 {
				recs = append(recs, e.message(t, int32(twin)%partitions, uint32(twin)))
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
