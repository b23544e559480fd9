package plan

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fanfare/deploy/testinfra"
	"fanfare/schemas/billing"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/clickhouse"
	"fanfare/sinks/analytics/sqlite"
)

// The statistics show the cost that the ledger bills. For random histories, shuffled and with duplicates, the planner,
// whose amounts the ledger bills, the model of the statistics and the stores compute the same cost, in total, by
// variant and by country.
func TestCostShownIsCostBilled(t *testing.T) {
	stores := map[string]func(t *testing.T) analytics.Store{
		"SQLite": func(t *testing.T) analytics.Store {
			s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "analytics.db")})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
	}
	rounds := 30
	if os.Getenv(testinfra.ClickHouse.Env()) != "" {
		stores["ClickHouse"] = func(t *testing.T) analytics.Store {
			dsn := testinfra.Need(t, testinfra.ClickHouse)[testinfra.ClickHouse]
			s, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn, Database: "bill_" + strings.ToLower(rand.Text()[:12])})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			defer s.Close()
			m := analyticstest.NewModel()
			var spent uint64
			for round := range rounds {
				seed := mathrand.Uint64()
				rng := mathrand.New(mathrand.NewPCG(seed, 9))
				c := analyticstest.NewCampaign("tn_a", uint64(10_001+round), time.Now())
				events := analyticstest.History(rng, c, 1+rng.IntN(60))
				batches := analyticstest.Batches(rng, events, 2, 30)
				for i := range batches {
					batches[i].Topic[15] = byte(round) // another topic, whose offsets start at 0
				}
				if err := s.Append(t.Context(), batches...); err != nil {
					t.Fatal(err)
				}
				planner := New()
				for _, b := range batches {
					m.Append(b)
					for i := range b.Events {
						planner.Observe(eventOf(&b.Events[i], uint64(10_001+round)))
					}
				}
				var billed uint64
				if c := planner.campaigns[uint64(10_001+round)]; c != nil {
					billed = c.captured()
				}
				spent += billed
				shown, err := s.Cost(t.Context(), c.Tenant, c.ID)
				if err != nil {
					t.Fatal(err)
				}
				for what, lines := range map[string][]analytics.CostLine{"store": shown[c.ID], "model": m.Cost(c.Tenant, c.ID)} {
					if got := sum(lines, func(*analytics.CostLine) string { return "" })[""]; got != billed {
						t.Fatalf("seed %d: the %s shows %d, the ledger bills %d", seed, what, got, billed)
					}
				}
				for _, by := range []analytics.Dimension{analytics.ByVariant, analytics.ByCountry} {
					want := sum(m.Cost(c.Tenant, c.ID), func(l *analytics.CostLine) string { return l.Value(by) })
					got := sum(shown[c.ID], func(l *analytics.CostLine) string { return l.Value(by) })
					if fmt.Sprint(got) != fmt.Sprint(want) {
						t.Fatalf("seed %d, dimension %d: got %v, want %v", seed, by, got, want)
					}
				}
			}
			if spent == 0 {
				t.Error("no history cost anything")
			}
		})
	}
}

func sum(lines []analytics.CostLine, by func(*analytics.CostLine) string) map[string]uint64 {
	out := map[string]uint64{}
	for i := range lines {
		out[by(&lines[i])] += lines[i].Micros
	}
	return out
}

// eventOf is what the planner reads of an event.
func eventOf(e *analytics.Event, number uint64) *Event {
	return &Event{
		Campaign: number, Seq: e.Seq, Try: uint32(e.Try), Leg: max(uint32(e.Leg), 1), Kind: e.Kind, Code: e.Code, TimeMs: e.TimeMS, LoggedMs: e.TimeMS,
		PriceMicros: billing.Amount(uint64(e.Segments), uint64(e.PriceMicros)), Tenant: []byte(e.Campaign.Tenant), CampaignID: []byte(e.Campaign.ID),
	}
}
