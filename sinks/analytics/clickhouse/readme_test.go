package clickhouse_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/clickhouse"
)

// The queries of schemas/README.md run on the tables unchanged, and return what the text says.
func TestReadmeQueries(t *testing.T) {
	raw, err := os.ReadFile("../../../schemas/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(raw), "<!-- queries -->\n```sql\n")
	block, _, end := strings.Cut(after, "```")
	if !ok || !end {
		t.Fatal("README.md has no queries")
	}
	queries := strings.Split(strings.TrimSpace(block), "\n\n")
	if len(queries) != 5 {
		t.Fatalf("got %d queries, want 5", len(queries))
	}

	server, database := dsn(t)
	s, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: server, Database: database})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := analyticstest.NewCampaign("tn_a", 10_001, time.Now())
	const second = 1000
	at := time.Now().UnixMilli()
	b := analytics.Batch{Topic: analyticstest.Topic}
	add := func(seq uint32, kind schemas.Kind, code schemas.Code, country, route, rawCode string, ms int64) {
		b.Events = append(b.Events, analytics.Event{
			Campaign: c, Offset: b.End, Seq: seq, Kind: kind, Code: code, Try: 1, Leg: 1, Channel: schemas.ChannelSMS, Country: country, Route: route,
			RawCode: rawCode, TimeMS: at + ms,
		})
		b.End++
	}
	for seq := range uint32(4) {
		add(seq, schemas.KindSent, schemas.CodeAwaitingDLR, "IT", "sim", "", 0)
	}
	for seq := range uint32(3) {
		add(seq, schemas.KindDelivered, schemas.CodeDelivered, "", "sim", "DELIVRD", int64(seq+1)*second)
	}
	add(0, schemas.KindDelivered, schemas.CodeDelivered, "", "sim", "DELIVRD", second) // twice
	add(3, schemas.KindUndelivered, schemas.CodeAbsentSubscriber, "", "sim", "27", 2*second)
	add(4, schemas.KindNotSent, schemas.CodeInvalidNumber, "FR", "sim", "", 0)
	if err := s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}

	conn := connect(t, server, database)
	for i, want := range []string{
		"delivered|DELIVERED|3 notSent|INVALID_NUMBER|1 undelivered|ABSENT_SUBSCRIBER|1",
		fmt.Sprintf("%d|1 %d|0 %d|1 %d|3", 1<<28|1<<16|415, 2<<28|1<<16|20, 3<<28|1<<16|301, 4<<28|1<<16|10),
		"IT|3|4|0.75 FR|0|0|0", // the same as the field deliveryRate (R120)
		"sim|ABSENT_SUBSCRIBER|27|1 sim|INVALID_NUMBER||1",
		"sim|3|2|3",
	} {
		got := strings.Join(answer(t, conn, strings.TrimSuffix(queries[i], ";"), c.Tenant, c.ID), " ")
		if got != want {
			t.Errorf("query %d: got %s, want %s", i+1, got, want)
		}
	}
}
