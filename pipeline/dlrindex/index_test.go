package dlrindex_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"fanfare/pipeline/dlrindex"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const (
	ada  = "+393400000001"
	zoe  = "+393400000002"
	life = time.Hour
)

func newTable(t testing.TB) (*dlrindex.Index, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	t.Cleanup(func() { _ = rdb.Close() })
	names, err := schemas.NewNames(schemas.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	table, err := dlrindex.New(rdb, names)
	if err != nil {
		t.Fatal(err)
	}
	return table, server
}

func submission(n int) schemas.ID {
	var id schemas.ID
	id[9], id[15] = 1, byte(n)
	return id
}

func entry(id, to string, n int) dlrindex.Entry {
	return dlrindex.Entry{Route: "sim", ProviderID: id, To: to, Submission: submission(n), Life: life}
}

func sighting(t testing.TB, id, to string) dlrindex.Sighting {
	t.Helper()
	b, err := proto.Marshal(&fanfarev1.Receipt{Route: "sim", ProviderId: id, To: to, Status: schemas.ReceiptStatusDelivered})
	if err != nil {
		t.Fatal(err)
	}
	return dlrindex.Sighting{Route: "sim", IDs: dlrindex.Spellings(id, nil, to != ""), To: to, Receipt: b, Life: life}
}

func find(t testing.TB, table *dlrindex.Index, s ...dlrindex.Sighting) []schemas.ID {
	t.Helper()
	found, err := table.Find(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]schemas.ID, len(found))
	for i, f := range found {
		ids[i] = f.Submission
	}
	return ids
}

// put puts entries and returns the provider ids of the receipts that were parked for each.
func put(t testing.TB, table *dlrindex.Index, entries ...dlrindex.Entry) [][]string {
	t.Helper()
	parked, err := table.Put(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	out := make([][]string, len(entries))
	for i, rs := range parked {
		for _, r := range rs {
			if string(r.GetSubmissionId()) != string(entries[i].Submission[:]) {
				t.Errorf("parked receipt has submission %x, want %x", r.GetSubmissionId(), entries[i].Submission)
			}
			out[i] = append(out[i], r.GetProviderId())
		}
	}
	return out
}

func TestPutThenFind(t *testing.T) {
	table, _ := newTable(t)
	if got := put(t, table, entry("A1-x", ada, 1)); got[0] != nil {
		t.Errorf("got parked %v, want none", got)
	}
	put(t, table, entry("A1-x", ada, 1)) // a repetition changes nothing
	for _, tc := range []struct {
		name, id, to string
		want         schemas.ID
	}{
		{"by id and number", "A1-x", ada, submission(1)},
		{"by id alone", "A1-x", "", submission(1)},
		{"another's number", "A1-x", zoe, schemas.ID{}},
		{"another id", "a1-x", ada, schemas.ID{}},
	} {
		if got := find(t, table, sighting(t, tc.id, tc.to))[0]; got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

// TestEarlyReceipt: a receipt that comes before the answer to the hand-over waits, and is returned until it is cleared.
func TestEarlyReceipt(t *testing.T) {
	table, server := newTable(t)
	early := sighting(t, "7x", ada)
	for range 2 { // a second delivery is not parked again
		if got := find(t, table, early)[0]; !got.IsZero() {
			t.Fatalf("got %v, want none yet", got)
		}
	}
	find(t, table, sighting(t, "7x", ""))
	want := [][]string{{"7x", "7x"}}
	for range 2 { // if a sender ends before it has published them, the next sender gets them
		if d := cmp.Diff(want, put(t, table, entry("7x", ada, 1))); d != "" {
			t.Fatalf("parked (-want +got):\n%s", d)
		}
	}
	if err := table.Clear(t.Context(), []dlrindex.Entry{entry("7x", ada, 1)}); err != nil {
		t.Fatal(err)
	}
	if got := put(t, table, entry("7x", ada, 1)); got[0] != nil {
		t.Errorf("after clear: got parked %v, want none", got)
	}
	if got := find(t, table, early)[0]; got != submission(1) {
		t.Errorf("got %v, want the submission", got)
	}
	server.FastForward(life + time.Second)
	if keys := server.Keys(); len(keys) != 0 {
		t.Errorf("after its life: got keys %v", keys)
	}
}

// TestOneIDForMany: each connection of a carrier has its own counter, so several messages have the same id (4 binds:
// 50,000 submits, 12,500 ids). The phone number distinguishes them. Without one, the receipt waits, so that it does not
// go to the wrong message.
func TestOneIDForMany(t *testing.T) {
	table, _ := newTable(t)
	find(t, table, sighting(t, "1", ada), sighting(t, "1", zoe))
	if d := cmp.Diff([][]string{{"1"}}, put(t, table, entry("1", ada, 1))); d != "" {
		t.Errorf("parked for the first (-want +got):\n%s", d)
	}
	if err := table.Clear(t.Context(), []dlrindex.Entry{entry("1", ada, 1)}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([][]string{{"1"}}, put(t, table, entry("1", zoe, 2))); d != "" {
		t.Errorf("parked for the second, after the first was cleared (-want +got):\n%s", d)
	}
	got := find(t, table, sighting(t, "1", zoe), sighting(t, "1", ada), sighting(t, "1", ""))
	if d := cmp.Diff([]schemas.ID{submission(2), submission(1), {}}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestSpellings: the spellings that carriers use in the answer and in the receipt of one message (hexadecimal and
// decimal, leading zeros, case).
func TestSpellings(t *testing.T) {
	for _, tc := range []struct {
		answer, receipt string
		want            bool
	}{
		{"1a", "26", true},
		{"26", "1a", true},
		{"0000001A", "26", true},
		{"000026", "1a", true},
		{"0000000015", "00000f", true},
		{"00000f", "15", true},
		{"007", "7", true},
		{"000", "0", true},
		{"ABC", "abc", true},
		{"abc-1", "ABC-1", false},
		{"26", "27", false},
		{"5f3c2f1e-8d1b-4c4e-9d0e-2f6f0a9b8c7d", "5f3c2f1e-8d1b-4c4e-9d0e-2f6f0a9b8c7d", true},
	} {
		for _, early := range []bool{false, true} {
			table, _ := newTable(t)
			var found bool
			if early {
				find(t, table, sighting(t, tc.receipt, ada))
				found = len(put(t, table, entry(tc.answer, ada, 1))[0]) == 1
			} else {
				put(t, table, entry(tc.answer, ada, 1))
				found = find(t, table, sighting(t, tc.receipt, ada))[0] == submission(1)
			}
			if found != tc.want {
				t.Errorf("answer %s, receipt %s, early %v: got found %v, want %v", tc.answer, tc.receipt, early, found, tc.want)
			}
		}
	}
	if got := dlrindex.Spellings("26", []string{"0x1A"}, false); !cmp.Equal(got, []string{"26", "0x1A"}) {
		t.Errorf("without guessing: got %v", got)
	}
	// The carrier's own spelling wins over a guess.
	table, _ := newTable(t)
	put(t, table, entry("26", ada, 1), entry("1a", ada, 2))
	if got := find(t, table, sighting(t, "26", ada))[0]; got != submission(1) {
		t.Errorf("got %v, want that of the id as it came", got)
	}
}

// meanwhile calls a function once, right before the first script runs.
type meanwhile struct {
	once sync.Once
	do   func()
}

func (m *meanwhile) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (m *meanwhile) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (m *meanwhile) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "evalsha" {
			m.once.Do(m.do)
		}
		return next(ctx, cmds)
	}
}

// TestNothingIsLeftParked: a submission that becomes known while its receipt is being parked is found. No copy of the
// receipt stays parked under any spelling, where another message with that id would get it.
func TestNothingIsLeftParked(t *testing.T) {
	table, server := newTable(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	rdb.AddHook(&meanwhile{do: func() { put(t, table, entry("1a", ada, 1)) }})
	names, err := schemas.NewNames(schemas.DefaultPrefix)
	if err != nil {
		t.Fatal(err)
	}
	slow, err := dlrindex.New(rdb, names)
	if err != nil {
		t.Fatal(err)
	}
	if got := find(t, slow, sighting(t, "26", ada))[0]; got != submission(1) {
		t.Errorf("got %v, want the submission", got)
	}
	if d := cmp.Diff([][]string{nil}, put(t, table, entry("26", ada, 2))); d != "" {
		t.Errorf("parked for another (-want +got):\n%s", d)
	}
}

// TestGuessedSpellingsAreShortLived: only under its original spelling does a receipt stay parked for long.
func TestGuessedSpellingsAreShortLived(t *testing.T) {
	table, server := newTable(t)
	early := sighting(t, "26", ada)
	early.Life = 100 * time.Hour
	find(t, table, early)
	if n := len(server.Keys()); n != 3 { // 26, 1a, 38
		t.Fatalf("got keys %v, want 3", server.Keys())
	}
	server.FastForward(2 * time.Hour)
	if n := len(server.Keys()); n != 1 || !strings.Contains(server.Keys()[0], "/26}") {
		t.Errorf("after two hours: got keys %v, want that of 26", server.Keys())
	}
}

// TestNeverBothMissed: if Put and Find run at the same time, one of them always finds what the other has stored.
func TestNeverBothMissed(t *testing.T) {
	table, _ := newTable(t)
	for i := range 300 {
		id := fmt.Sprint(1000 + i)
		var wg sync.WaitGroup
		var found, parked bool
		wg.Go(func() { found = !find(t, table, sighting(t, id, ada))[0].IsZero() })
		wg.Go(func() { parked = len(put(t, table, entry(fmt.Sprintf("%x", 1000+i), ada, 1))[0]) > 0 })
		wg.Wait()
		if !found && !parked {
			t.Fatalf("round %d: the receipt is parked and no sender will look for it", i)
		}
	}
}

// TestForget: an entry expires when its submission is finished, unless another message has the same id by then.
func TestForget(t *testing.T) {
	table, server := newTable(t)
	put(t, table, entry("1", ada, 1), entry("2", ada, 2), entry("3", ada, 4), entry("3", zoe, 5))
	put(t, table, entry("2", ada, 3))
	var done []dlrindex.Entry
	for _, e := range []dlrindex.Entry{entry("1", ada, 1), entry("2", ada, 2), entry("3", ada, 4)} {
		e.Life = time.Minute
		done = append(done, e)
	}
	look := func(want ...schemas.ID) {
		t.Helper()
		got := find(t, table, sighting(t, "1", ada), sighting(t, "2", ada), sighting(t, "3", ada), sighting(t, "3", zoe))
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	if err := table.Forget(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	look(submission(1), submission(3), schemas.ID{}, submission(5)) // one of several entries expires at once
	server.FastForward(2 * time.Minute)
	look(schemas.ID{}, submission(3), schemas.ID{}, submission(5))
}

// TestParts: what is known of a long message does not depend on the order or the number of its receipts.
func TestParts(t *testing.T) {
	table, server := newTable(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		var parts []dlrindex.Part
		best := map[uint32]schemas.PartState{}
		for range rapid.IntRange(1, 12).Draw(rt, "receipts") {
			p := dlrindex.Part{
				Tenant: "tn_a", Submission: submission(n), Part: rapid.Uint32Range(1, 4).Draw(rt, "part"),
				State: schemas.PartState(rapid.IntRange(1, 2).Draw(rt, "state")), Life: life,
			}
			best[p.Part] = max(best[p.Part], p.State)
			parts = append(parts, p)
		}
		var want dlrindex.Parts
		for _, s := range best {
			want.Delivered++
			if s == schemas.PartRead {
				want.Read++
			}
		}
		server.FlushAll()
		for range 2 {
			parts = rapid.Permutation(parts).Draw(rt, "order")
			got, err := table.Join(t.Context(), parts)
			if err != nil {
				rt.Fatal(err)
			}
			if d := cmp.Diff(want, got[len(got)-1]); d != "" {
				rt.Fatalf("(-want +got):\n%s", d)
			}
		}
	})
}

// TestRedisAway: nothing passes for an answer.
func TestRedisAway(t *testing.T) {
	table, server := newTable(t)
	put(t, table, entry("1", ada, 1))
	server.SetError("LOADING")
	for name, do := range map[string]func(context.Context) error{
		"put": func(ctx context.Context) error {
			_, err := table.Put(ctx, []dlrindex.Entry{entry("1", ada, 1)})
			return err
		},
		"find": func(ctx context.Context) error {
			_, err := table.Find(ctx, []dlrindex.Sighting{sighting(t, "1", ada)})
			return err
		},
		"join": func(ctx context.Context) error {
			_, err := table.Join(ctx, []dlrindex.Part{{Part: 1, State: 1}})
			return err
		},
		"clear": func(ctx context.Context) error { return table.Clear(ctx, []dlrindex.Entry{entry("1", ada, 1)}) },
		"ready": func(ctx context.Context) error { _, err := table.Ready(ctx); return err },
		"lock":  func(ctx context.Context) error { _, err := table.Lock(ctx, "me", life); return err },
	} {
		if err := do(t.Context()); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	server.SetError("")
	if _, err := redis.NewClient(&redis.Options{Addr: server.Addr()}).ScriptFlush(t.Context()).Result(); err != nil {
		t.Fatal(err)
	}
	// A Redis that was restarted has no scripts
	if got := find(t, table, sighting(t, "1", ada))[0]; got != submission(1) {
		t.Errorf("after the scripts were lost: got %v, want the submission", got)
	}
}

func TestReadyAndLock(t *testing.T) {
	table, server := newTable(t)
	is := func(what string, got bool, err error, want bool) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: got %v %v, want %v", what, got, err, want)
		}
	}
	ready := func(what string, want bool) {
		t.Helper()
		got, err := table.Ready(t.Context())
		is("ready "+what, got, err, want)
	}
	lock := func(who string, want bool) {
		t.Helper()
		got, err := table.Lock(t.Context(), who, time.Minute)
		is(who+" locks", got, err, want)
	}
	hold := func(who string, want bool) {
		t.Helper()
		got, err := table.Hold(t.Context(), who, time.Minute)
		is(who+" holds", got, err, want)
	}
	filled := func(who string, want bool) {
		t.Helper()
		got, err := table.Filled(t.Context(), who)
		is(who+" has filled", got, err, want)
	}
	ready("when empty", false)
	lock("a", true)
	lock("b", false)
	hold("a", true)
	hold("b", false)
	server.FastForward(50 * time.Second)
	hold("a", true)
	server.FastForward(50 * time.Second)
	lock("b", false)
	server.FastForward(20 * time.Second)
	lock("b", true) // a let it lapse
	filled("a", false)
	ready("after a, who had lost the lock", false)
	filled("b", true)
	ready("after b", true)
	lock("a", true)
	server.FlushAll() // lost again, while a fills
	ready("when lost", false)
	hold("a", false)
	filled("a", false)
	ready("when lost while it was filled", false)
}

func BenchmarkFind(b *testing.B) {
	table, _ := newTable(b)
	var s []dlrindex.Sighting
	var e []dlrindex.Entry
	for i := range 500 {
		id := fmt.Sprint(100000 + i)
		e = append(e, entry(id, ada, i))
		s = append(s, sighting(b, id, ada))
	}
	put(b, table, e...)
	n := 0
	for b.Loop() {
		find(b, table, s...)
		n += len(s)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "receipts/s")
}

// TestPartsByID: where each part of a long text has a provider id of its own, each is found as that part; a receipt
// that came before is given out as that part's. Ids that do not tell the parts apart name the whole message.
func TestPartsByID(t *testing.T) {
	table, _ := newTable(t)
	find(t, table, sighting(t, "b", ada)) // comes before its entry
	parked, err := table.Put(t.Context(), entry("a", ada, 1).WithParts(nil, []string{"a", "b", "", "d"}))
	if err != nil {
		t.Fatal(err)
	}
	if len(parked) != 3 || len(parked[1]) != 1 || parked[1][0].GetPart() != 2 || parked[1][0].GetParts() != 4 {
		t.Errorf("got parked %v, want one of part 2 of 4", parked)
	}
	found, err := table.Find(t.Context(), []dlrindex.Sighting{sighting(t, "a", ada), sighting(t, "d", ada), sighting(t, "d", "")})
	want := []dlrindex.Found{
		{Submission: submission(1), Part: 1, Parts: 4}, {Submission: submission(1), Part: 4, Parts: 4}, {Submission: submission(1), Part: 4, Parts: 4},
	}
	if d := cmp.Diff(want, found); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for _, ids := range [][]string{nil, {"e", "e", "e"}} {
		if got := entry("e", ada, 2).WithParts(nil, ids); len(got) != 1 || got[0].Parts != 0 || got[0].ProviderID != "e" {
			t.Errorf("%q: got %+v, want one entry of the whole", ids, got)
		}
	}
}
