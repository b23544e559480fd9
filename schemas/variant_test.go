package schemas_test

import (
	"math"
	"testing"

	"fanfare/schemas"
)

// R38: recipients are distributed to the variants by weight, each always to the same variant.
func TestVariantOf(t *testing.T) {
	const people = 100_000
	for _, weights := range [][]uint32{{1}, {1, 1}, {90, 10}, {1, 0, 3}, {5, 3, 2}} {
		var sum float64
		for _, w := range weights {
			sum += float64(w)
		}
		got := make([]int, len(weights)+1)
		for seq := range uint32(people) {
			v := schemas.VariantOf(10001, seq, weights)
			if again := schemas.VariantOf(10001, seq, weights); again != v {
				t.Fatalf("seq %d: got %d, then %d", seq, v, again)
			}
			got[v]++
		}
		if got[0] != 0 {
			t.Errorf("%v: %d recipients have no variant", weights, got[0])
		}
		for i, w := range weights {
			want := people * float64(w) / sum
			if off := math.Abs(float64(got[i+1]) - want); off > 5*math.Sqrt(want+1) { // five standard deviations
				t.Errorf("%v: got %d of variant %d, want about %.0f", weights, got[i+1], i+1, want)
			}
		}
	}
	if got := schemas.VariantOf(1, 1, nil); got != 0 {
		t.Errorf("got variant %d without weights, want 0", got)
	}
}
