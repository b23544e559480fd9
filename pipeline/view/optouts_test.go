package view

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// The set gives the same results as a map after any additions and removals, including hashes that equal the marker of a
// free place.
func TestOptOutsAreASet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s optOuts
	want := map[uint64]bool{}
	pool := make([]uint64, 3000)
	for i := range pool {
		pool[i] = rng.Uint64()
		if i < 600 {
			pool[i] = pool[i]>>8 | 7<<56 // many in one shard
		}
	}
	pool[0], pool[1] = 0, 1
	for range 60_000 {
		h := pool[rng.IntN(len(pool))]
		if rng.IntN(3) > 0 {
			if got := s.add(h); got == want[h] {
				t.Fatalf("add %x: got new %t, want %t", h, got, !want[h])
			}
			want[h] = true
		} else {
			if got := s.remove(h); got != want[h] {
				t.Fatalf("remove %x: got %t, want %t", h, got, want[h])
			}
			delete(want, h)
		}
	}
	for _, h := range pool {
		if got := s.has(h); got != want[h] {
			t.Errorf("has %x: got %t, want %t", h, got, want[h])
		}
	}
	if s.len() != len(want) {
		t.Errorf("len: got %d, want %d", s.len(), len(want))
	}
}

// Readers find a number that is in the set at any time, also while the table grows.
func TestOptOutsAreReadWhileWritten(t *testing.T) {
	var s optOuts
	for h := range uint64(100) {
		s.add(h*0x9e3779b97f4a7c15 + 5)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for h := range uint64(100) {
					if !s.has(h*0x9e3779b97f4a7c15 + 5) {
						t.Error("a number that is in was not seen")
						return
					}
				}
			}
		})
	}
	for h := uint64(100); h < 50_000; h++ {
		s.add(h*0x9e3779b97f4a7c15 + 5)
		if h%3 == 0 {
			s.remove(h*0x9e3779b97f4a7c15 + 5)
		}
	}
	close(stop)
	wg.Wait()
}

// Measures the memory of a number, and the time of a lookup that finds nothing, in a set of a million numbers.
func BenchmarkOptOuts(b *testing.B) {
	rng := rand.New(rand.NewPCG(3, 4))
	var s optOuts
	slots := 0
	for range 1_000_000 {
		s.add(rng.Uint64())
	}
	for i := range s.shards {
		slots += len(s.shards[i].table.Load().slots)
	}
	probes := make([]uint64, 1<<16)
	for i := range probes {
		probes[i] = rng.Uint64()
	}
	i := 0
	for b.Loop() {
		s.has(probes[i&(1<<16-1)])
		i++
	}
	b.ReportMetric(float64(slots*8)/1e6, "bytes/number")
}
