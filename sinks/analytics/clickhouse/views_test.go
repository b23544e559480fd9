package clickhouse_test

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"

	"fanfare/schemas"
	tables "fanfare/schemas/clickhouse"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/clickhouse"
)

// connect returns a connection to the database of a test.
func connect(t *testing.T, server, database string) chgo.Conn {
	t.Helper()
	opts, err := chgo.ParseDSN(server)
	if err != nil {
		t.Fatal(err)
	}
	opts.Auth.Database = database
	conn, err := chgo.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// answer returns the rows of a query about a campaign as lines, a vertical bar between columns.
func answer(t *testing.T, conn chgo.Conn, query, tenant, campaign string) (out []string) {
	t.Helper()
	rows, err := conn.Query(t.Context(), query, chgo.Named("tenant", tenant), chgo.Named("campaign", campaign))
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var row []any
		for _, column := range rows.ColumnTypes() {
			row = append(row, reflect.New(column.ScanType()).Interface())
		}
		if err := rows.Scan(row...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		var words []string
		for _, v := range row {
			words = append(words, fmt.Sprint(reflect.ValueOf(v).Elem().Interface()))
		}
		out = append(out, strings.Join(words, "|"))
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

// The views return the same figures as the API, for a random history with duplicated and shuffled rows. The conformance
// suite compares the store's answers with a model. schemas/README.md lists every view.
func TestViewsOfQuestions(t *testing.T) {
	server, database := dsn(t)
	s, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: server, Database: database})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	month := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	campaigns := []*analytics.Campaign{
		analyticstest.NewCampaign("tn_a", 10_001, month), analyticstest.NewCampaign("tn_a", 10_002, month), analyticstest.NewCampaign("tn_b", 10_001, month),
	}
	var events []analytics.Event
	for _, c := range campaigns {
		events = append(events, analyticstest.History(rng, c, 150)...)
	}
	for _, b := range analyticstest.Batches(rng, events, 3, 160) {
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		b.Topic = analytics.TopicID{} // without a token, so the rows are stored twice
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	conn := connect(t, server, database)
	for _, c := range campaigns {
		compare := func(what string, want []string, query string) {
			t.Helper()
			got := answer(t, conn, query, c.Tenant, c.ID)
			slices.Sort(want)
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s of %s/%s (-store +view):\n%s", what, c.Tenant, c.ID, diff)
			}
		}
		const of = "(tenant = {tenant:String}, campaign = {campaign:String})"
		stats, err := s.Stats(t.Context(), c.Tenant, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		f := stats.Figures(0)
		compare("figures", []string{fmt.Sprint(f.Total, "|", f.Returned, "|", f.Ambiguous, "|", f.NotSent, "|", f.Skipped, "|", f.Sent, "|", f.Awaiting, "|", f.Undelivered, "|",
			f.Delivered, "|", f.Read, "|", f.Clickers, "|", f.DeliveryRate, "|", f.FailureRate, "|", f.ClickRate)},
			`SELECT known, waiting, ambiguous, not_sent, skipped, sent, awaiting, undelivered, delivered, was_read, clicked, delivery_rate, failure_rate, click_rate
			FROM campaign_figures(tenant = {tenant:String}) WHERE campaign_id = {campaign:String}`)

		var statuses []string
		for _, branch := range f.Tree {
			for _, leaf := range branch.Codes {
				statuses = append(statuses, fmt.Sprint(branch.Bucket, "|", schemas.CodeName(leaf.Code), "|", leaf.N))
			}
		}
		compare("statuses", statuses, "SELECT status, sub_status, recipients FROM campaign_statuses"+of)

		parts, err := s.StatsBy(t.Context(), c.Tenant, c.ID, analytics.Dimensions...)
		if err != nil {
			t.Fatal(err)
		}
		var breakdown []string
		for dimension, name := range map[analytics.Dimension]string{
			analytics.ByCountry: "country", analytics.ByVariant: "variant", analytics.ByChannel: "channel", analytics.ByRoute: "route", analytics.ByLeg: "leg",
		} {
			for value, part := range parts[dimension] {
				p := part.Figures(0)
				if p.Total > 0 {
					breakdown = append(breakdown, fmt.Sprint(name, "|", value, "|", p.Total, "|", p.Sent, "|", p.Delivered, "|", p.Undelivered, "|", p.NotSent, "|", p.Clickers, "|", p.DeliveryRate))
				}
			}
		}
		compare("breakdown", breakdown, "SELECT dimension, value, recipients, sent, delivered, undelivered, not_sent, clicked, delivery_rate FROM campaign_breakdown"+of)

		cost, err := s.Cost(t.Context(), c.Tenant, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, l := range cost[c.ID] {
			channel := ""
			if l.Channel != schemas.ChannelUnspecified {
				channel = schemas.ChannelName(l.Channel)
			}
			lines = append(lines, fmt.Sprint(l.Country, "|", channel, "|", l.Route, "|", l.Variant, "|", l.Leg, "|", l.Currency, "|", l.Messages, "|", l.Segments, "|", float64(l.Micros)/1e6))
		}
		compare("cost", lines, "SELECT country, channel, route, variant, leg, currency, messages, segments, amount FROM campaign_cost"+of)

		links, err := s.Links(t.Context(), c.Tenant, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		var clicked []string
		for _, l := range links {
			clicked = append(clicked, fmt.Sprint(l.ID, "|", l.Clickers, "|", l.Bots))
		}
		compare("links", clicked, "SELECT link_id, people, others FROM campaign_links"+of)

		seqs := make([]uint32, 2_000)
		for i := range seqs {
			seqs[i] = uint32(i)
		}
		all, err := s.Members(t.Context(), c.Tenant, c.ID, seqs)
		if err != nil {
			t.Fatal(err)
		}
		var members []string
		for _, m := range all {
			if m.State > 0 {
				members = append(members, fmt.Sprint(m.Seq, "|", m.State.Bucket(), "|", m.RawCode, "|", m.To, "|", m.Country, "|", m.Variant, "|", m.Attempts, "|", m.ContactID, "|", m.CustomerRef))
			}
		}
		compare("members", members, "SELECT seq, status, carrier_code, number, of_country, of_variant, attempts, contact, reference FROM campaign_members"+of+
			" WHERE seq < 2000")
	}

	// Each view runs, and the table of schemas/README.md has it.
	files, err := fs.Glob(tables.Files, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	views := map[string]bool{}
	for _, name := range files {
		raw, err := tables.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^CREATE (?:OR REPLACE )?VIEW (?:IF NOT EXISTS )?(\w+)`).FindAllStringSubmatch(string(raw), -1) {
			views[m[1]] = true
		}
	}
	readme, err := os.ReadFile("../../../schemas/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, view := range slices.Sorted(maps.Keys(views)) {
		parameters := "(tenant = {tenant:String}, campaign = {campaign:String})"
		if view == "campaign_figures" {
			parameters = "(tenant = {tenant:String})"
		}
		if len(answer(t, conn, "SELECT * FROM "+view+parameters, "tn_a", campaigns[0].ID)) == 0 {
			t.Errorf("%s has no rows", view)
		}
		if len(answer(t, conn, "SELECT * FROM "+view+parameters, "tn_c", campaigns[0].ID)) != 0 {
			t.Errorf("%s shows rows of another tenant", view)
		}
		if !strings.Contains(string(readme), "| `"+view+"` |") {
			t.Errorf("schemas/README.md has no line for the view %s", view)
		}
	}
	if len(views) < 9 {
		t.Errorf("got views %v, want 9 of them", views)
	}
}
