package edge

import (
	"net/http"
	"testing"

	"fanfare/deploy/testinfra/peers"
	"fanfare/schemas"
)

// programsAsPeople is how many of the two thousand programs may count as people: a reader of feeds has no word in its
// user agent that no browser could have.
const programsAsPeople = 1

// TestIntegrationAgents holds the rules for user agents against npm isbot: no browser of a person counts as a program,
// and a program, even with all headers of a browser, does not count as a person.
func TestIntegrationAgents(t *testing.T) {
	bots, people := peers.Agents(t)
	if len(bots) < 1000 || len(people) < 50 {
		t.Fatalf("got %d programs and %d browsers, want the lists of the modules", len(bots), len(people))
	}
	open := func(agent string) class {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://go.example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("User-Agent", agent)
		r.Header.Set("Accept-Language", "it-IT,it;q=0.9")
		return classify(r)
	}
	for _, agent := range people {
		if got := open(agent); got.code != schemas.CodeUnspecified {
			t.Errorf("%s: got %s by rule %s, want a person", agent, schemas.ClickClass(got.code), got.rule)
		}
	}
	missed := 0
	for _, agent := range bots {
		if got := open(agent); got.code == schemas.CodeUnspecified {
			missed++
			t.Logf("a program counts as a person: %s", agent)
		}
	}
	if missed > programsAsPeople {
		t.Errorf("%d of %d programs count as people, want at most %d", missed, len(bots), programsAsPeople)
	}
	t.Logf("%d of %d programs count as people; %d browsers do", missed, len(bots), len(people))
}
