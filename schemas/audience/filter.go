package audience

import (
	"encoding/binary"
	"math/bits"
)

// Filter collects the texts of the entries of a blob and says later which texts no entry contains. It is a set of
// hashes of every 3 and every 6 bytes that follow each other. A search for a number or an e-mail address reads the
// filters of an audience, which are 16 KB a blob, instead of the blobs. The zero value is ready to use.
type Filter struct{ words []uint64 }

const (
	// filterBits is the logarithm of the most bits of a filter. A blob of 5,000 numbers has 35,000 different runs of 6
	// digits; with names and e-mail addresses it has about 100,000 runs, so that less than half of the bits are set.
	filterBits = 18
	// leastFilter is the fewest words of a filter.
	leastFilter = 8
	short, long = 3, 6
)

// Add adds a text. Case matters: the caller decides on one for texts and searches.
func (f *Filter) Add(text []byte) {
	if f.words == nil {
		f.words = make([]uint64, 1<<filterBits/64)
	}
	run := uint64(0)
	for i, c := range text {
		run = run<<8 | uint64(c)
		if i >= short-1 {
			h := hashShort(run)
			f.words[h/64] |= 1 << (h % 64)
		}
		if i >= long-1 {
			h := hashLong(run)
			f.words[h/64] |= 1 << (h % 64)
		}
	}
}

// Flush returns the filter of the texts added and starts a new one. It halves the filter while at most half of its bits
// are set, so that small blobs have small filters.
func (f *Filter) Flush() []byte {
	words := f.words
	for len(words) > leastFilter {
		half, set := len(words)/2, 0
		for i := range half {
			set += bits.OnesCount64(words[i] | words[half+i])
		}
		if set > half*64/2 {
			break
		}
		for i := range half {
			words[i] |= words[half+i]
		}
		words = words[:half]
	}
	out := make([]byte, 0, len(words)*8)
	for _, w := range words {
		out = binary.LittleEndian.AppendUint64(out, w)
	}
	clear(f.words)
	return out
}

// MayHold reports whether a text that was added to the filter may contain text. If it returns false, none does. An empty
// filter, or one that is damaged, may hold everything.
func MayHold(filter []byte, text string) bool {
	bit := uint64(len(filter)) * 8
	if bit == 0 || bit&(bit-1) != 0 {
		return true
	}
	holds := func(hash uint64) bool {
		hash &= bit - 1
		return filter[hash/8]&(1<<(hash%8)) != 0
	}
	run := uint64(0)
	for i := range len(text) {
		run = run<<8 | uint64(text[i])
		if i >= long-1 && !holds(hashLong(run)) || i >= short-1 && !holds(hashShort(run)) {
			return false
		}
	}
	return true
}

const odd = 0x9e3779b97f4a7c15 // 2^64 divided by the golden ratio

// hashShort returns the hash of the last bytes of run.
func hashShort(run uint64) uint64 {
	return (run&(1<<(8*short)-1) | 1<<63) * odd >> (64 - filterBits)
}

func hashLong(run uint64) uint64 { return (run & (1<<(8*long) - 1)) * odd >> (64 - filterBits) }
