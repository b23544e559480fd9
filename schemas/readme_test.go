package schemas_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"fanfare/schemas"
)

// TestReadmeTables: the tables of README.md, from which people program in other languages, agree with the code.
func TestReadmeTables(t *testing.T) {
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	names, _ := schemas.NewNames(schemas.DefaultPrefix)
	var topics, kinds, codes []string
	for _, topic := range names.Fixed() {
		if !topic.Public {
			continue
		}
		kept := "the newest of each key"
		if !topic.Compact {
			kept = fmt.Sprintf("%d days", topic.Retention/(24*time.Hour))
		}
		topics = append(topics, fmt.Sprintf("| `%s` | `%s` | %d | %s |", topic.Name, topic.Key, topic.Partitions, kept))
	}
	for _, k := range schemas.Kinds {
		class, counts := int(k.Class), k.Bucket.String()
		if k.Class == schemas.ClassFact {
			class, counts = 15, "–"
		}
		kinds = append(kinds, fmt.Sprintf("| %d | `%s` | %d | %d | %s |", k.Kind, strings.TrimPrefix(k.Kind.String(), "KIND_"), class, k.Rank, counts))
	}
	for _, c := range schemas.Codes {
		counts, retried, billed := c.Bucket.String(), "", ""
		if c.Bucket == schemas.BucketFact {
			counts = "–"
		}
		if c.Retry != schemas.RetryNo {
			retried = "yes"
		}
		if c.Billed {
			billed = "yes"
		}
		codes = append(codes, fmt.Sprintf("| %d | `%s` | %s | %s | %s | %s |", c.Code, schemas.CodeName(c.Code), counts, retried, billed, c.Description))
	}
	for name, want := range map[string][]string{"topics": topics, "kinds": kinds, "codes": codes} {
		_, after, ok := strings.Cut(string(raw), "<!-- table: "+name+" -->\n")
		table, _, end := strings.Cut(after, "\n\n")
		if !ok || !end {
			t.Errorf("README.md has no table of %s", name)
			continue
		}
		var got []string
		for i, line := range strings.Split(table, "\n") {
			if i >= 2 { // the rows after the names of the columns
				got = append(got, line)
			}
		}
		if name == "topics" { // the last column is prose
			for i := range got {
				if cells := strings.SplitAfter(got[i], "|"); len(cells) > 5 {
					got[i] = strings.Join(cells[:5], "")
				}
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("table of %s in README.md (-code +README):\n%s\nit should read:\n%s", name, d, strings.Join(want, "\n"))
		}
	}
}
