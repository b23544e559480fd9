package analytics

import (
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// Algebra is the sets of one campaign, or of one stretch of its audience: who ever reached each precedence, facts included.
// Its methods change none of the sets.
type Algebra map[schemas.Precedence]*roaring.Bitmap

// descending returns the states, greatest first, and the facts, least first.
func (a Algebra) descending() (states, facts []schemas.Precedence) {
	all := slices.Sorted(maps.Keys(a))
	i, _ := slices.BinarySearch(all, schemas.PrecedenceFacts)
	states, facts = all[:i], all[i:]
	slices.Reverse(states)
	return states, facts
}

// Count returns how many are in each state, and of how many each fact is known, in order of precedence.
func (a Algebra) Count() []Count {
	states, facts := a.descending()
	clicked := a[FactClicked]
	out := make([]Count, 0, len(a))
	above := roaring.New()
	var size, clickers uint64
	for _, p := range states {
		above.Or(a[p])
		c := Count{Precedence: p, N: above.GetCardinality() - size}
		size += c.N
		if clicked != nil {
			c.Clickers = above.AndCardinality(clicked) - clickers
			clickers += c.Clickers
		}
		if c.N > 0 {
			out = append(out, c)
		}
	}
	slices.Reverse(out)
	for _, p := range facts {
		if n := a[p].GetCardinality(); n > 0 {
			out = append(out, Count{Precedence: p, N: n})
		}
	}
	return out
}

// Select returns those whose state is one of the given ones, and those of whom one of the given facts is known.
func (a Algebra) Select(precedences []schemas.Precedence) *roaring.Bitmap {
	states, facts := a.descending()
	wanted := make(map[schemas.Precedence]bool, len(precedences))
	for _, p := range precedences {
		wanted[p] = true
	}
	out, above := roaring.New(), roaring.New()
	for _, p := range states {
		if wanted[p] {
			out.Or(roaring.AndNot(a[p], above))
		}
		above.Or(a[p])
	}
	for _, p := range facts {
		if wanted[p] {
			out.Or(a[p])
		}
	}
	return out
}

// Within returns the same sets with only those who are in members.
func (a Algebra) Within(members *roaring.Bitmap) Algebra {
	out := make(Algebra, len(a))
	for p, set := range a {
		if both := roaring.And(set, members); !both.IsEmpty() {
			out[p] = both
		}
	}
	return out
}

// MergeCounts adds up counts of disjoint stretches of an audience.
func MergeCounts(counts ...[]Count) []Count {
	sums := map[schemas.Precedence]Count{}
	for _, list := range counts {
		for _, c := range list {
			s := sums[c.Precedence]
			sums[c.Precedence] = Count{c.Precedence, s.N + c.N, s.Clickers + c.Clickers}
		}
	}
	out := make([]Count, 0, len(sums))
	for _, p := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, sums[p])
	}
	return out
}
