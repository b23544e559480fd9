package audience_test

import (
	"fmt"
	"testing"

	"fanfare/schemas/audience"
)

// A filter never misses a text that was added, in whole or in part, and excludes most numbers that were not added.
func TestFilter(t *testing.T) {
	for _, n := range []int{0, 1, 10, 1000, audience.BlobSize} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			var f audience.Filter
			texts := func(i int) []string {
				return []string{fmt.Sprintf("+39%09d", i*7919%1_000_000_000), fmt.Sprintf("anna%d rossi", i), fmt.Sprintf("a.rossi%d@example.com", i*31)}
			}
			for i := range n {
				for _, text := range texts(i) {
					f.Add([]byte(text))
				}
			}
			filter := f.Flush()
			if most := min(64+32*n, 32<<10); len(filter) > most {
				t.Errorf("the filter of %d recipients has %d bytes, want at most %d", n, len(filter), most)
			}
			for i := range n {
				for _, text := range texts(i) {
					for from := 0; from < len(text); from += 2 {
						if part := text[from:min(len(text), from+1+i%len(text))]; !audience.MayHold(filter, part) {
							t.Fatalf("the filter misses %q of %q", part, text)
						}
					}
				}
			}
			found := 0
			for i := range 1000 {
				if audience.MayHold(filter, fmt.Sprintf("+4479%08d", i*99_991)) {
					found++
				}
			}
			if n > 0 && found > 50 {
				t.Errorf("the filter holds %d of 1,000 numbers that were not added, want at most 50", found)
			}
			if again := f.Flush(); n > 0 && audience.MayHold(again, "rossi") {
				t.Error("after Flush the filter still holds a text")
			}
		})
	}
	for _, damaged := range [][]byte{nil, {}, {1, 2, 3}} {
		if !audience.MayHold(damaged, "+393331234567") {
			t.Errorf("a filter of %d bytes excludes a text, want none", len(damaged))
		}
	}
}
