package view

import (
	"math/bits"
	"sync/atomic"
)

// optOuts is a set of 64-bit hashes for one writer and many readers, who never wait. A number costs 8 bytes of a table
// that is 64 to 80 % full, about 11 bytes in all: ten million numbers are 110 MB. It is split by the first bits of the
// hash, so that a growing table makes the writer copy only a 256th of all numbers at a time.
type optOuts struct {
	shards [256]optOutShard
}

type optOutShard struct {
	table atomic.Pointer[optOutTable]
	live  int // number of hashes; only the writer uses it
	used  int // number of used places: hashes and removed hashes; only the writer uses it
}

type optOutTable struct{ slots []atomic.Uint64 }

// Values of a place that are not a hash. A real hash with such a value is changed to another.
const (
	placeFree = 0 // the place is free, and every search ends here
	placeGone = 1
)

func placeable(h uint64) uint64 {
	if h <= placeGone {
		return h + 2
	}
	return h
}

// at returns where the search for h begins. The hash is uniform, so its bits need no mixing; the first eight chose the
// shard.
func (t *optOutTable) at(h uint64) int {
	hi, _ := bits.Mul64(h<<8, uint64(len(t.slots)))
	return int(hi)
}

func (s *optOuts) has(h uint64) bool {
	h = placeable(h)
	t := s.shards[h>>56].table.Load()
	if t == nil {
		return false
	}
	for i := t.at(h); ; i++ {
		if i == len(t.slots) {
			i = 0
		}
		switch t.slots[i].Load() {
		case h:
			return true
		case placeFree:
			return false
		}
	}
}

// add adds h and reports whether it was new.
func (s *optOuts) add(h uint64) bool {
	h = placeable(h)
	shard := &s.shards[h>>56]
	if s.has(h) {
		return false
	}
	t := shard.table.Load()
	if t == nil || (shard.used+1)*5 > len(t.slots)*4 {
		t = shard.rebuild()
	}
	t.put(h)
	shard.live++
	shard.used++
	return true
}

// remove removes h and reports whether it was there.
func (s *optOuts) remove(h uint64) bool {
	h = placeable(h)
	shard := &s.shards[h>>56]
	t := shard.table.Load()
	if t == nil {
		return false
	}
	for i := t.at(h); ; i++ {
		if i == len(t.slots) {
			i = 0
		}
		switch t.slots[i].Load() {
		case h:
			t.slots[i].Store(placeGone)
			shard.live--
			return true
		case placeFree:
			return false
		}
	}
}

func (t *optOutTable) put(h uint64) {
	for i := t.at(h); ; i++ {
		if i == len(t.slots) {
			i = 0
		}
		if t.slots[i].Load() == placeFree {
			t.slots[i].Store(h)
			return
		}
	}
}

// rebuild makes a table with free places and without removed hashes. Readers use the old table meanwhile.
func (shard *optOutShard) rebuild() *optOutTable {
	t := &optOutTable{slots: make([]atomic.Uint64, max(8, (shard.live+1)*25/16))} // 64 % full
	if old := shard.table.Load(); old != nil {
		for i := range old.slots {
			if h := old.slots[i].Load(); h > placeGone {
				t.put(h)
			}
		}
	}
	shard.used = shard.live
	shard.table.Store(t)
	return t
}

func (s *optOuts) len() (n int) {
	for i := range s.shards {
		n += s.shards[i].live
	}
	return n
}
