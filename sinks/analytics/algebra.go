package analytics

import (
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// Algebra holds the sets of one campaign, or of a part of its audience: the recipients that ever reached each
// precedence, facts included. Its methods do not modify the sets.
type Algebra map[schemas.Precedence]*roaring.Bitmap

// descending returns the states in descending order and the facts in ascending order.
func (a Algebra) descending() (states, facts []schemas.Precedence) {
	all := slices.Sorted(maps.Keys(a))
	i, _ := slices.BinarySearch(all, schemas.PrecedenceFacts)
	states, facts = all[:i], all[i:]
	slices.Reverse(states)
	return states, facts
}

// Count returns how many recipients are in each state and how many have each fact, in order of precedence.
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

// Select returns the recipients whose state is one of the given precedences, and those that have one of the given
// facts.
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

// Disjoint returns the recipients in each state, and the recipients of each fact. The sets of states are disjoint.
func (a Algebra) Disjoint() Algebra {
	states, facts := a.descending()
	out := make(Algebra, len(a))
	above := roaring.New()
	for _, p := range states {
		out[p] = roaring.AndNot(a[p], above)
		above.Or(a[p])
	}
	for _, p := range facts {
		out[p] = a[p]
	}
	return out
}

// CountWithin counts the members of disjoint sets. The result equals Within(members).Count() of the sets from which the
// disjoint sets were made.
func (a Algebra) CountWithin(members *roaring.Bitmap) []Count {
	out := make([]Count, 0, len(a))
	var clickers *roaring.Bitmap
	if clicked := a[FactClicked]; clicked != nil {
		clickers = roaring.And(clicked, members)
	}
	for _, p := range slices.Sorted(maps.Keys(a)) {
		c := Count{Precedence: p, N: a[p].AndCardinality(members)}
		if c.N == 0 {
			continue
		}
		if clickers != nil && p < schemas.PrecedenceFacts {
			c.Clickers = a[p].AndCardinality(clickers)
		}
		out = append(out, c)
	}
	return out
}

// Within returns the sets restricted to members.
func (a Algebra) Within(members *roaring.Bitmap) Algebra {
	out := make(Algebra, len(a))
	for p, set := range a {
		if both := roaring.And(set, members); !both.IsEmpty() {
			out[p] = both
		}
	}
	return out
}

// MergeCounts adds the counts of disjoint parts of an audience.
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
