package problem

import (
	"slices"
	"strings"
)

// Nearest returns at most n of the names that the client may have meant by word, the nearest first: names that contain
// the word or that the word contains, and names that differ from it in few letters. Case does not matter.
func Nearest(word string, names []string, n int) []string {
	type candidate struct {
		name  string
		apart int
	}
	word = strings.ToLower(Truncate(word, 60))
	var found []candidate
	for _, name := range names {
		other := strings.ToLower(name)
		apart := edits(word, other)
		if word != "" && other != "" && (strings.Contains(other, word) || strings.Contains(word, other)) {
			apart = min(apart, 1)
		}
		if apart <= max(2, len(word)/3) {
			found = append(found, candidate{name, apart})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return a.apart - b.apart })
	out := make([]string, 0, n)
	for _, c := range found[:min(n, len(found))] {
		out = append(out, c.name)
	}
	return out
}
