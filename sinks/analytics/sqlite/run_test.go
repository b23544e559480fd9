package sqlite

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

func drawEvent(t *rapid.T, campaign *analytics.Campaign, number uint64) analytics.Event {
	e := analytics.Event{
		Campaign: campaign, TimeMS: rapid.Int64().Draw(t, "time"), Seq: rapid.Uint32Range(0, schemas.MaxSeq).Draw(t, "seq"),
		Kind: rapid.SampledFrom(schemas.Kinds).Draw(t, "kind").Kind, Code: schemas.Code(rapid.Int32().Draw(t, "code")),
		Channel: schemas.Channel(rapid.Int32Range(0, 4).Draw(t, "channel")), Try: rapid.Byte().Draw(t, "try"), Leg: rapid.Byte().Draw(t, "leg"),
		Variant: rapid.Byte().Draw(t, "variant"), Segments: rapid.Byte().Draw(t, "segments"), PriceMicros: rapid.Uint32().Draw(t, "price"),
		ContactID: rapid.Uint64().Draw(t, "contact"), Route: rapid.String().Draw(t, "route"), Sender: rapid.String().Draw(t, "sender"),
		Country: rapid.String().Draw(t, "country"), Currency: rapid.String().Draw(t, "currency"), RawCode: rapid.String().Draw(t, "raw code"),
		LinkID: rapid.String().Draw(t, "link"), ProviderID: rapid.String().Draw(t, "provider id"), CustomerRef: rapid.String().Draw(t, "reference"),
		To: rapid.OneOf(rapid.StringMatching(`\+[1-9][0-9]{0,20}`), rapid.StringMatching(`\+?0?[0-9]*`), rapid.String()).Draw(t, "to"),
	}
	if rapid.Bool().Draw(t, "plain id") {
		e.MessageID = plainID(number, e.Seq)
	}
	copy(e.MessageID[10:], rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "signature"))
	return e
}

// Reading a run returns the events that were written.
func TestRunRoundTrip(t *testing.T) {
	campaign := &analytics.Campaign{Tenant: "tn_a", ID: "camp_10001"}
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.Uint64Range(0, schemas.MaxCampaignNumber).Draw(t, "campaign number")
		events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) analytics.Event { return drawEvent(t, campaign, number) }), 1, 20).Draw(t, "events")
		var w runWriter
		for round := range 2 { // the writer is reused
			w.reset()
			shapes := map[shape]int{}
			for i := range events {
				s := shapeOf(&events[i], number)
				if _, ok := shapes[s]; !ok {
					shapes[s] = w.shape(&s)
				}
				w.add(&events[i], shapes[s], s.holds)
			}
			who, rest := w.finish()
			var got []analytics.Event
			err := readRun(who, rest, campaign, number, func(uint32) bool { return true }, func(e *analytics.Event) { got = append(got, *e) })
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if diff := cmp.Diff(events, got, cmpopts.IgnoreFields(analytics.Event{}, "Campaign")); diff != "" {
				t.Fatalf("round %d (-written +read):\n%s", round, diff)
			}
			// Reading one recipient skips the others.
			one := rapid.SampledFrom(events).Draw(t, "one").Seq
			n := 0
			if err := readRun(who, rest, campaign, number, func(seq uint32) bool { return seq == one }, func(e *analytics.Event) {
				n++
				if e.Seq != one {
					t.Fatalf("got seq %d, want only %d", e.Seq, one)
				}
			}); err != nil || n == 0 {
				t.Fatalf("got %d events of seq %d, %v, want some", n, one, err)
			}
		}
	})
}

// Reading a damaged run returns an error. It neither panics nor loops.
func TestRunDamaged(t *testing.T) {
	campaign := &analytics.Campaign{Tenant: "tn_a", ID: "camp_10001"}
	var w runWriter
	for i := range 50 {
		e := analytics.Event{Campaign: campaign, Seq: uint32(i), Kind: schemas.KindSent, To: "+393331234567", ProviderID: "abc", TimeMS: 1e12}
		s := shapeOf(&e, 10_001)
		if i == 0 {
			w.shape(&s)
		}
		w.add(&e, 0, s.holds)
	}
	who, rest := w.finish()
	read := func(who, rest []byte) error {
		return readRun(who, rest, campaign, 10_001, func(uint32) bool { return true }, func(*analytics.Event) {})
	}
	if err := read(who, rest); err != nil {
		t.Fatalf("whole: %v", err)
	}
	for i := range len(who) {
		if err := read(who[:i], rest); err == nil {
			t.Fatalf("who cut off at %d of %d: got no error", i, len(who))
		}
	}
	for i := range len(rest) {
		if err := read(who, rest[:i]); err == nil {
			t.Fatalf("rest cut off at %d of %d: got no error", i, len(rest))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		bad := append([]byte(nil), who...)
		for range rapid.IntRange(1, 4).Draw(t, "flips") {
			bad[rapid.IntRange(0, len(bad)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		}
		_ = read(bad, rest)
	})
}

// Erasures that wait for each other share one rewrite of the file.
func TestErasuresShareRewrite(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "stats.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := &analytics.Campaign{Tenant: "tn_a", ID: "camp_10001", Month: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	b := analytics.Batch{Topic: analytics.TopicID{1}, End: 2, Events: []analytics.Event{
		{Campaign: c, Seq: 1, Kind: schemas.KindSent, Try: 1, To: "+393471234567", TimeMS: 1},
		{Campaign: c, Seq: 2, Kind: schemas.KindSent, Try: 1, To: "+393471234568", TimeMS: 1},
	}}
	if err := s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	// Both have removed their person before either rewrites the file.
	for _, number := range []string{"+393471234567", "+393471234568"} {
		if erased, err := s.eraseEvents(t.Context(), "tn_a", []string{number}, nil); err != nil || len(erased) != 1 || s.rewritten {
			t.Fatalf("%s: got %v, %v, rewritten %v, want one campaign, and a file to rewrite", number, erased, err, s.rewritten)
		}
	}
	var before, after int
	version := func(n *int) {
		t.Helper()
		if err := s.conn.QueryRowContext(t.Context(), "PRAGMA schema_version").Scan(n); err != nil { // VACUUM raises it
			t.Fatal(err)
		}
	}
	version(&before)
	for range 2 {
		if err := s.rewrite(t.Context()); err != nil || !s.rewritten {
			t.Fatal(err)
		}
	}
	if version(&after); after != before+1 {
		t.Errorf("the file was rewritten %d times, want once", after-before)
	}
}

// The first erasure of a process and every erasure that removes something rewrite the file. Other erasures do not,
// because writers would have to wait.
func TestEraseRewritesWhenItMust(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "stats.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := &analytics.Campaign{Tenant: "tn_a", ID: "camp_10001", Month: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	b := analytics.Batch{Topic: analytics.TopicID{1}, End: 1, Events: []analytics.Event{{Campaign: c, Kind: schemas.KindSent, Try: 1, To: "+393471234567", TimeMS: 1}}}
	if err := s.Append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	freePages := func() (n int) {
		t.Helper()
		if err := s.conn.QueryRowContext(t.Context(), "PRAGMA freelist_count").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, step := range []struct {
		what, number string
		rewrites     bool
	}{{"the first of the process", "+390", true}, {"nothing removed", "+390", false}, {"somebody removed", "+393471234567", true}, {"nothing left", "+393471234567", false}} {
		for _, statement := range []string{"CREATE TABLE junk AS SELECT randomblob(100000) AS x", "DROP TABLE junk"} {
			if _, err := s.conn.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		if freePages() == 0 {
			t.Fatal("there is no free page to see")
		}
		if _, err := s.Erase(t.Context(), "tn_a", []string{step.number}, nil); err != nil {
			t.Fatal(err)
		}
		if got := freePages() == 0; got != step.rewrites {
			t.Errorf("%s: rewritten %v, want %v", step.what, got, step.rewrites)
		}
	}
}
