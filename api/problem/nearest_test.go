package problem_test

import (
	"slices"
	"testing"

	"fanfare/api/problem"
)

func TestNearest(t *testing.T) {
	names := []string{"welcome", "order_shipped", "order_delayed", "birthday"}
	for word, want := range map[string][]string{
		"Welcom":        {"welcome"},
		"order":         {"order_shipped", "order_delayed"},
		"order_shiped":  {"order_shipped"}, //nolint:misspell // on purpose
		"anything else": {},
		"":              {},
	} {
		if got := problem.Nearest(word, names, 2); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}
