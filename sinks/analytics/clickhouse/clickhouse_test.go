package clickhouse_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"fanfare/deploy/testinfra"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/clickhouse"
)

// dsn returns the address of the test ClickHouse and the name of a database that is dropped when the test ends.
func dsn(t testing.TB) (dsn, database string) {
	t.Helper()
	dsn = testinfra.Need(t, testinfra.ClickHouse)[testinfra.ClickHouse]
	database = "test_" + strings.ToLower(rand.Text()[:12])
	t.Cleanup(func() { exec(t, dsn, "DROP DATABASE IF EXISTS "+database+" SYNC") })
	return dsn, database
}

// exec executes a statement over a connection of its own.
func exec(t testing.TB, dsn, statement string) {
	t.Helper()
	opts, err := chgo.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := chgo.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// It also runs during cleanup, when the test's context has ended.
	if err := conn.Exec(context.Background(), statement); err != nil {
		t.Errorf("%s: %v", statement, err)
	}
}

func place(t *testing.T) func() analytics.Store {
	server, database := dsn(t)
	return func() analytics.Store {
		s, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: server, Database: database})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestConformance(t *testing.T) {
	analyticstest.Run(t, place)
}

// The dictionaries of a block need keys of one, two and four bytes.
func TestManyWords(t *testing.T) {
	open := place(t)
	s := open()
	defer s.Close()
	c := analyticstest.NewCampaign("tn_a", 10_001, time.Now())
	const n = 70_000
	b := analytics.Batch{Topic: analyticstest.Topic, End: n}
	for i := range n {
		b.Events = append(b.Events, analytics.Event{
			Campaign: c, Offset: int64(i), Seq: uint32(i), Kind: schemas.KindSent, Try: 1, RawCode: fmt.Sprintf("code %d", i), Sender: fmt.Sprint(i % 300), TimeMS: 1,
		})
	}
	if err := s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint32{0, 255, 256, 300, 65_535, 65_536, n - 1} {
		got, err := s.History(t.Context(), c.Tenant, c.ID, seq)
		if err != nil || len(got) != 1 || got[0].RawCode != fmt.Sprintf("code %d", seq) || got[0].Sender != fmt.Sprint(seq%300) {
			t.Errorf("seq %d: got %+v, %v, want its own words", seq, got, err)
		}
	}
}

// An error that the rows cause is distinguished from a temporary one, and the next insert works.
func TestRefusedByTheServer(t *testing.T) {
	server, database := dsn(t)
	s, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: server, Database: database})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	exec(t, server, "ALTER TABLE "+database+".events ADD CONSTRAINT unlucky CHECK seq != 13")
	c := analyticstest.NewCampaign("tn_a", 10_001, time.Now())
	event := func(seq uint32) analytics.Event {
		return analytics.Event{Campaign: c, Offset: int64(seq), Seq: seq, Kind: schemas.KindSent, Try: 1}
	}
	bad := analytics.Batch{Topic: analyticstest.Topic, First: 0, End: 20, Events: []analytics.Event{event(12), event(13)}}
	good := analytics.Batch{Topic: analyticstest.Topic, First: 20, End: 40, Events: []analytics.Event{event(21), event(22)}}
	if err := s.Append(t.Context(), bad); !errors.Is(err, analytics.ErrData) {
		t.Errorf("a row that breaks a constraint: got %v, want %v", err, analytics.ErrData)
	}
	if err := s.Append(t.Context(), good); err != nil {
		t.Errorf("the batch after it: %v", err)
	}
	stats, err := s.Stats(t.Context(), c.Tenant, c.ID)
	if err != nil || stats.Figures(0).Sent != 2 {
		t.Errorf("got %+v, %v, want the two of the good batch", stats, err)
	}
	exec(t, server, "DROP TABLE "+database+".timeline_mv SYNC")
	exec(t, server, "DROP TABLE "+database+".events SYNC")
	if err := s.Append(t.Context(), good); err == nil || errors.Is(err, analytics.ErrData) {
		t.Errorf("no table: got %v, want an error that may pass", err)
	}
}

// Several processes start at the same time and create the same database.
func TestOpenAtOnce(t *testing.T) {
	open := place(t)
	opened := make(chan analytics.Store, 4)
	for range cap(opened) {
		go func() { opened <- open() }()
	}
	for range cap(opened) {
		s := <-opened
		if err := s.Append(t.Context(), analytics.Batch{}); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}

// An append whose context ends returns at once and leaves the store usable.
func TestAppendCancelled(t *testing.T) {
	s := place(t)()
	defer s.Close()
	c := analyticstest.NewCampaign("tn_a", 10_001, time.Now())
	b := analytics.Batch{Topic: analyticstest.Topic, End: 1, Events: []analytics.Event{{Campaign: c, Kind: schemas.KindSent, Try: 1}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Append(ctx, b); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	for range 2 {
		if err := s.Append(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	points, err := s.Timeline(t.Context(), c.Tenant, c.ID, analytics.Span{Step: time.Minute})
	if err != nil || len(points) != 1 || points[0].N != 1 {
		t.Errorf("got %+v, %v, want one event", points, err)
	}
}
