package analyticstest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Run runs the whole suite. place prepares an empty store and returns a function that opens it. Called again after the
// store was closed, the function opens the same store again.
func Run(t *testing.T, place func(t *testing.T) (open func() analytics.Store)) {
	t.Helper()
	one := func(t *testing.T) analytics.Store {
		t.Helper()
		s := place(t)()
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		return s
	}
	for _, seed := range []uint64{1, rand.Uint64()} {
		t.Run(fmt.Sprintf("History/seed=%d", seed), func(t *testing.T) { RunHistory(t, place, seed) })
	}
	t.Run("NothingKnown", func(t *testing.T) { testNothingKnown(t, one(t)) })
	t.Run("BatchTwice", func(t *testing.T) { testBatchTwice(t, one(t)) })
	t.Run("BatchWithoutIdentity", func(t *testing.T) { testBatchWithoutIdentity(t, one(t)) })
	t.Run("AnotherTopic", func(t *testing.T) { testAnotherTopic(t, one(t)) })
	t.Run("ManyRuns", func(t *testing.T) { testManyRuns(t, one(t)) })
	t.Run("ManyCampaigns", func(t *testing.T) { testManyCampaigns(t, one(t)) })
	t.Run("ReadersWhileAppending", func(t *testing.T) { testReadersWhileAppending(t, one(t)) })
	t.Run("AsOf", func(t *testing.T) { testAsOf(t, place(t)) })
	t.Run("RefusedBatch", func(t *testing.T) { testRefusedBatch(t, one(t)) })
	t.Run("Erase", func(t *testing.T) { testErase(t, one(t)) })
	t.Run("Positions", func(t *testing.T) { testPositions(t, place(t)) })
}

// NewCampaign returns a campaign.
func NewCampaign(tenant string, number uint64, month time.Time) *analytics.Campaign {
	return &analytics.Campaign{Tenant: tenant, ID: schemas.CampaignID(number), Month: analytics.MonthOf(month)}
}

func mustAppend(t *testing.T, s analytics.Store, batches ...analytics.Batch) {
	t.Helper()
	if err := s.Append(t.Context(), batches...); err != nil {
		t.Fatalf("append: %v", err)
	}
}

// RunHistory runs the part of the suite that compares a random history with the model.
func RunHistory(t *testing.T, place func(t *testing.T) (open func() analytics.Store), seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	feb := time.Date(2026, 2, 11, 0, 0, 0, 0, time.UTC)
	// The third and the last have the same id, which never happens, so that only the tenant tells them apart.
	campaigns := []*analytics.Campaign{
		NewCampaign("tn_a", 10_001, feb), NewCampaign("tn_a", 10_002, start), NewCampaign("tn_a", 10_003, start),
		NewCampaign("tn_b", 10_004, start), NewCampaign("tn_b", 10_003, start),
	}
	var events []analytics.Event
	for i, c := range campaigns {
		events = append(events, History(rng, c, []int{100, 200, 30, 40, 60}[i])...)
	}
	batches := Batches(rng, events, 3, 160)
	for i, c := range campaigns {
		own := slices.DeleteFunc(slices.Clone(events), func(e analytics.Event) bool { return e.Campaign != c })
		batches = interleave(rng, batches, DealBatches(rng, Deals(rng, c, own), int32(i)))
	}
	open := place(t)
	s := open()
	defer func() { s.Close() }()
	m := NewModel()
	reopened := false
	for i := 0; i < len(batches); {
		n := 1 + rng.IntN(min(4, len(batches)-i))
		mustAppend(t, s, batches[i:i+n]...)
		for _, b := range batches[i : i+n] {
			m.Append(b)
			m.AppendDeals(b)
		}
		i += n
		if rng.IntN(8) == 0 {
			c := campaigns[rng.IntN(len(campaigns))]
			Compare(t, s, m, c.Tenant, c.ID)
		}
		if i > len(batches)/2 && !reopened {
			reopened = true
			if err := s.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}
			s = open()
		}
	}
	ids := []string{}
	for _, c := range campaigns {
		ids = append(ids, c.ID)
	}
	// Every tenant asks for every campaign, including those of other tenants (P7).
	for _, tenant := range []string{"tn_a", "tn_b", "tn_c", ""} {
		for _, id := range ids {
			Compare(t, s, m, tenant, id)
		}
		CompareTenant(t, s, m, tenant, ids)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	s = open()
	Compare(t, s, m, "tn_a", ids[2])
	CompareTenant(t, s, m, "tn_a", ids)
}

// Compare sends every query about one campaign and fails if an answer differs from the model's.
func Compare(t *testing.T, s analytics.Store, m *Model, tenant, campaign string) {
	t.Helper()
	ctx := t.Context()
	check := func(what string, err error, want, got any, opts ...cmp.Option) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s of %s/%s: %v", what, tenant, campaign, err)
		}
		if diff := cmp.Diff(want, got, append(opts, cmpopts.EquateEmpty())...); diff != "" {
			t.Fatalf("%s of %s/%s (-want +got):\n%s", what, tenant, campaign, diff)
		}
	}
	stats, err := s.Stats(ctx, tenant, campaign)
	check("stats", err, m.Counts(tenant, campaign), stats.Counts)
	parts, err := s.StatsBy(ctx, tenant, campaign, analytics.Dimensions...)
	for _, by := range analytics.Dimensions {
		got := map[string][]analytics.Count{}
		for v, part := range parts[by] {
			got[v] = part.Counts
		}
		check(fmt.Sprintf("stats by dimension %d", by), err, m.CountsBy(tenant, campaign, by), got)
	}
	for _, chosen := range selections(stats, rand.IntN) {
		set, err := s.Select(ctx, tenant, campaign, chosen)
		if err != nil {
			t.Fatalf("select %x of %s/%s: %v", chosen, tenant, campaign, err)
		}
		check(fmt.Sprintf("selection %x", chosen), err, m.Select(tenant, campaign, chosen).ToArray(), set.ToArray())
		set.AddRange(0, 1<<20) // the caller may change the set; later answers must not show it
	}

	seqs := m.Seqs(tenant, campaign)
	asked := slices.Concat([]uint32{2, 777_777}, seqs)
	var members []analytics.Member
	for _, seq := range seqs {
		if member, ok := m.Member(tenant, campaign, seq); ok {
			members = append(members, member)
		}
	}
	slices.Reverse(asked) // in no order
	members = slices.DeleteFunc(members, func(x analytics.Member) bool { return !slices.Contains(asked, x.Seq) })
	got, err := s.Members(ctx, tenant, campaign, asked)
	check("members", err, members, got)
	for _, seq := range append(sample(seqs, 6), 2, 777_777) {
		history, err := s.History(ctx, tenant, campaign, seq)
		for i := range history {
			history[i].Offset = 0
		}
		check(fmt.Sprintf("history of %d", seq), err, m.History(tenant, campaign, seq), history)
		deals, err := s.Deals(ctx, tenant, campaign, seq)
		for i := range deals { // the campaign's month is that of its events
			deals[i].Campaign = nil
		}
		wantDeals := m.Deals(tenant, campaign, seq)
		for i := range wantDeals {
			wantDeals[i].Campaign = nil
		}
		check(fmt.Sprintf("deals of %d", seq), err, wantDeals, deals)
		page, err := s.Members(ctx, tenant, campaign, []uint32{seq})
		var want []analytics.Member
		if member, ok := m.Member(tenant, campaign, seq); ok {
			want = append(want, member)
		}
		check(fmt.Sprintf("member %d", seq), err, want, page)
	}
	for _, to := range []string{"+393330000000", oddNumber, "+1", "", fmt.Sprintf("+3933%08d", 4999), fmt.Sprintf("+3933%08d", 65536)} {
		found, err := s.FindRecipient(ctx, tenant, campaign, to)
		var want []uint32
		if to != "" {
			want = m.FindRecipient(tenant, campaign, to)
		}
		check("recipients with "+to, err, want, found)
	}
	cost, err := s.Cost(ctx, tenant, campaign)
	check("cost", err, m.Cost(tenant, campaign), cost[campaign])
	for _, span := range []analytics.Span{
		{}, {Step: time.Second, From: start.Add(20 * time.Minute), To: start.Add(40 * time.Minute)}, {Step: time.Minute}, {Step: time.Minute, ByRoute: true}, {Step: time.Hour, From: start.Add(time.Hour)},
	} {
		timeline, err := s.Timeline(ctx, tenant, campaign, span)
		check(fmt.Sprintf("timeline %+v", span), err, m.Timeline(tenant, campaign, span), timeline)
	}
	flying, err := s.InFlight(ctx, tenant, campaign)
	check("recipients in flight", err, m.InFlight(tenant, campaign), flying[campaign])
	links, err := s.Links(ctx, tenant, campaign)
	check("links", err, m.Links(tenant, campaign), links)
	compareSets(t, s, m, tenant, campaign)
}

// CompareTenant sends the queries about several campaigns of a tenant.
func CompareTenant(t *testing.T, s analytics.Store, m *Model, tenant string, campaigns []string) {
	t.Helper()
	many, err := s.StatsMany(t.Context(), tenant, append(campaigns, "camp_1"))
	if err != nil {
		t.Fatalf("statistics of many campaigns of %s: %v", tenant, err)
	}
	want, got := map[string][]analytics.Count{}, map[string][]analytics.Count{}
	for _, c := range campaigns {
		if counts := m.Counts(tenant, c); len(counts) > 0 {
			want[c] = counts
		}
	}
	for c, stats := range many {
		got[c] = stats.Counts
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("statistics of many campaigns of %s (-want +got):\n%s", tenant, diff)
	}
	costs, err := s.Cost(t.Context(), tenant, append(campaigns, "camp_1")...)
	if err != nil {
		t.Fatalf("cost of several campaigns of %s: %v", tenant, err)
	}
	wantCosts := map[string][]analytics.CostLine{}
	for _, c := range campaigns {
		if lines := m.Cost(tenant, c); len(lines) > 0 {
			wantCosts[c] = lines
		}
	}
	if diff := cmp.Diff(wantCosts, costs); diff != "" {
		t.Fatalf("cost of several campaigns of %s (-want +got):\n%s", tenant, diff)
	}
	for _, ref := range []string{"shared-ref", oddRef(4999), oddRef(65536), oddRef(0), "no such", ""} {
		for _, since := range []time.Time{{}, start, start.AddDate(0, 2, 0)} {
			found, err := s.ByCustomerRef(t.Context(), tenant, ref, since)
			if err != nil {
				t.Fatalf("messages of %s by reference: %v", tenant, err)
			}
			var want []analytics.Referred
			if ref != "" {
				want = m.ByCustomerRef(tenant, ref, since)
			}
			if diff := cmp.Diff(want, found, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("messages of %s with reference %q since %s (-want +got):\n%s", tenant, ref, since, diff)
			}
		}
	}
	numbers := []string{"+15005550000", ""}
	for i, c := range campaigns {
		seqs := m.Seqs(tenant, c)
		if len(seqs) == 0 {
			continue
		}
		member, ok := m.Member(tenant, c, seqs[(i*7)%len(seqs)])
		if ok && len(numbers) < 8 {
			numbers = append(numbers, member.To)
		}
	}
	for n := range len(numbers) + 1 {
		for _, since := range []time.Time{{}, start.AddDate(0, 2, 0)} {
			found, err := s.ByNumber(t.Context(), tenant, numbers[:n], since)
			if err != nil {
				t.Fatalf("messages of %s by number: %v", tenant, err)
			}
			asked := slices.DeleteFunc(slices.Clone(numbers[:n]), func(number string) bool { return number == "" })
			if diff := cmp.Diff(m.ByNumber(tenant, asked, since), found, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("messages of %s to %q since %s (-want +got):\n%s", tenant, numbers[:n], since, diff)
			}
		}
	}
}

// selections returns lists of precedences to select by: a few single ones, each bucket, all, and none.
func selections(stats analytics.Stats, intN func(int) int) [][]schemas.Precedence {
	out := [][]schemas.Precedence{nil, {schemas.PrecedenceOf(schemas.KindSent, 1, 77)}}
	var all []schemas.Precedence
	for _, c := range stats.Counts {
		all = append(all, c.Precedence)
		if c.Precedence >= schemas.PrecedenceFacts || intN(len(stats.Counts)) < 4 {
			out = append(out, []schemas.Precedence{c.Precedence})
		}
	}
	for b := range schemas.BucketFact {
		out = append(out, stats.Select(b))
	}
	return append(out, all)
}

func sample(seqs []uint32, n int) []uint32 {
	if len(seqs) <= n {
		return slices.Clone(seqs)
	}
	var out []uint32
	for i := range n {
		out = append(out, seqs[i*len(seqs)/n])
	}
	return out
}

func testNothingKnown(t *testing.T, s analytics.Store) {
	Compare(t, s, NewModel(), "tn_a", "camp_10001")
	CompareTenant(t, s, NewModel(), "tn_a", []string{"camp_10001", "no campaign at all"})
	mustAppend(t, s, analytics.Batch{Topic: Topic, First: 0, End: 10}) // offsets without events
	Compare(t, s, NewModel(), "tn_a", "camp_10001")
	if at, err := s.AsOf(t.Context()); err != nil || !at.IsZero() {
		t.Errorf("as of: got %v, %v, want no time", at, err)
	}
	members, err := s.Members(t.Context(), "tn_a", "camp_10001", nil)
	if err != nil || len(members) != 0 {
		t.Errorf("members without recipients: got %v, %v, want none", members, err)
	}
	many, err := s.StatsMany(t.Context(), "tn_a", nil)
	if err != nil || len(many) != 0 {
		t.Errorf("statistics of many campaigns of no campaign: got %v, %v, want none", many, err)
	}
}

// oneEach returns one event of a kind for each of n recipients from first on.
func oneEach(c *analytics.Campaign, kind schemas.Kind, first, n int, at time.Time) []analytics.Event {
	out := make([]analytics.Event, n)
	for i := range out {
		out[i] = analytics.Event{
			Campaign: c, Seq: uint32(first + i), Kind: kind, Code: codesOf[kind][0], Try: 1, Leg: 1, TimeMS: at.UnixMilli(),
			Channel: schemas.ChannelSMS, Route: "sim", Sender: "FANFARE", Country: "IT", Segments: 1, PriceMicros: 50_000, Currency: "EUR",
			MessageID: schemas.ID{5: 1, 7: byte((first + i) >> 8), 8: byte(first + i), 15: 7}, To: fmt.Sprintf("+3933%08d", first+i),
		}
	}
	return out
}

// number assigns offsets to events and returns them as a batch.
func number(partition int32, first int64, events []analytics.Event) analytics.Batch {
	for i := range events {
		events[i].Offset = first + int64(i)
	}
	return analytics.Batch{Topic: Topic, Partition: partition, First: first, End: first + int64(len(events)), Events: events}
}

// A repeated batch changes nothing, not even the timeline, whether it is repeated at once or after others.
func testBatchTwice(t *testing.T, s analytics.Store) {
	c := NewCampaign("tn_a", 10_001, start)
	m := NewModel()
	a := number(0, 0, oneEach(c, schemas.KindSent, 0, 100, start))
	b := number(0, 100, oneEach(c, schemas.KindDelivered, 50, 100, start.Add(time.Minute)))
	d := number(1, 0, oneEach(c, schemas.KindRead, 20, 10, start.Add(time.Hour)))
	for _, batch := range []analytics.Batch{a, a, b, a, d, b, d, a} {
		mustAppend(t, s, batch)
		m.Append(batch)
		Compare(t, s, m, c.Tenant, c.ID)
	}
}

// A batch without an identity that is repeated counts again in the timeline, and nowhere else.
func testBatchWithoutIdentity(t *testing.T, s analytics.Store) {
	c := NewCampaign("tn_a", 10_001, start)
	m := NewModel()
	for range 2 {
		b := number(0, 0, oneEach(c, schemas.KindSent, 0, 10, start))
		b.Topic = analytics.TopicID{}
		mustAppend(t, s, b)
		m.Append(b)
		Compare(t, s, m, c.Tenant, c.ID)
	}
}

// A topic that was deleted and created again has another id, so its offsets name other records.
func testAnotherTopic(t *testing.T, s analytics.Store) {
	c := NewCampaign("tn_a", 10_001, start)
	m := NewModel()
	for i := range 3 {
		b := number(0, 0, oneEach(c, schemas.KindSent, i*10, 10, start))
		b.Topic = analytics.TopicID{9, byte(i)}
		mustAppend(t, s, b)
		m.Append(b)
	}
	Compare(t, s, m, c.Tenant, c.ID)
}

// Many small batches with neighbouring recipients, so that the store merges what it keeps in parts.
func testManyRuns(t *testing.T, s analytics.Store) {
	c := NewCampaign("tn_a", 10_001, start)
	m := NewModel()
	rng := rand.New(rand.NewPCG(3, 3))
	offset := int64(0)
	for i := range 90 {
		kind := []schemas.Kind{schemas.KindSent, schemas.KindDelivered, schemas.KindBuffered}[i%3]
		b := number(0, offset, oneEach(c, kind, rng.IntN(300), 1+rng.IntN(7), start.Add(time.Duration(i)*time.Second)))
		offset = b.End
		mustAppend(t, s, b)
		m.Append(b)
	}
	Compare(t, s, m, c.Tenant, c.ID)
}

// Many campaigns in one batch, each with few events.
func testManyCampaigns(t *testing.T, s analytics.Store) {
	m := NewModel()
	var ids []string
	for round := range int64(3) {
		var events []analytics.Event
		for i := range 150 {
			c := NewCampaign("tn_a", uint64(20_000+i), start)
			if round == 0 {
				ids = append(ids, c.ID)
			}
			kind := []schemas.Kind{schemas.KindSent, schemas.KindDelivered, schemas.KindClicked}[round]
			events = append(events, oneEach(c, kind, i, 2, start)...)
		}
		b := number(0, round*1000, events)
		mustAppend(t, s, b)
		m.Append(b)
	}
	CompareTenant(t, s, m, "tn_a", ids)
	for i := 0; i < len(ids); i += 37 {
		Compare(t, s, m, "tn_a", ids[i])
	}
}

// A reader sees whole batches only, and no answer is older than an earlier one.
func testReadersWhileAppending(t *testing.T, s analytics.Store) {
	c := NewCampaign("tn_a", 10_001, start)
	const batches, size = 40, 50
	done := make(chan struct{})
	failures := make(chan error, 3)
	for range cap(failures) {
		go func() {
			failures <- func() error {
				var before uint64
				for {
					select {
					case <-done:
						return nil
					default:
					}
					stats, err := s.Stats(t.Context(), c.Tenant, c.ID)
					if err != nil {
						return err
					}
					f := stats.Figures(batches * size)
					if f.Awaiting != 0 || f.Delivered%size != 0 || f.Sent < before || f.Sent+f.Pending != f.Total {
						return fmt.Errorf("got %d awaiting, %d delivered, %d sent, %d pending after %d sent: want whole batches of %d, and more of them", f.Awaiting, f.Delivered, f.Sent, f.Pending, before, size)
					}
					before = f.Sent
					set, err := s.Select(t.Context(), c.Tenant, c.ID, stats.Select(schemas.BucketDelivered))
					if err != nil {
						return err
					}
					if n := set.GetCardinality(); n < before || n%size != 0 {
						return fmt.Errorf("got %d selected, want at least the %d counted before and whole batches of %d", n, before, size)
					}
					seq := max(uint32(before), 1) - 1
					members, err := s.Members(t.Context(), c.Tenant, c.ID, []uint32{seq})
					if err != nil {
						return err
					}
					if before > 0 && (len(members) != 1 || members[0].State.Bucket() != schemas.BucketDelivered) {
						return fmt.Errorf("got %+v for member %d, want a delivered one: it was counted before", members, seq)
					}
				}
			}()
		}()
	}
	for i := range batches {
		events := oneEach(c, schemas.KindSent, i*size, size, start)
		events = append(events, oneEach(c, schemas.KindDelivered, i*size, size, start.Add(time.Second))...)
		mustAppend(t, s, number(0, int64(i*2*size), events))
	}
	close(done)
	for range cap(failures) {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	stats, err := s.Stats(t.Context(), c.Tenant, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := stats.Figures(0).Delivered; got != batches*size {
		t.Errorf("got %d delivered, want %d", got, batches*size)
	}
}

// AsOf is the least time of the partitions of the newest topic, and survives a restart.
func testAsOf(t *testing.T, open func() analytics.Store) {
	s := open()
	defer func() { s.Close() }()
	old := analytics.TopicID{7}
	mark := func(topic analytics.TopicID, marks ...analytics.Mark) {
		t.Helper()
		if err := s.Mark(t.Context(), topic, marks); err != nil {
			t.Fatalf("mark: %v", err)
		}
	}
	check := func(want time.Time) {
		t.Helper()
		got, err := s.AsOf(t.Context())
		if err != nil || !got.Equal(want) {
			t.Fatalf("as of: got %v, %v, want %v", got, err, want)
		}
		stats, err := s.Stats(t.Context(), "tn_a", "camp_10001")
		if err != nil || !stats.AsOf.Equal(want) {
			t.Fatalf("as of in stats: got %v, %v, want %v", stats.AsOf, err, want)
		}
	}
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	mark(old, analytics.Mark{Partition: 0, End: 5, AsOf: at(1)}, analytics.Mark{Partition: 1, End: 7, AsOf: at(3)})
	check(at(1))
	mark(old, analytics.Mark{Partition: 0, End: 6, AsOf: at(4)})
	check(at(3))
	mark(Topic, analytics.Mark{Partition: 0, End: 1, AsOf: at(10)}, analytics.Mark{Partition: 1})
	check(time.Time{}) // one partition has no time yet
	mark(Topic, analytics.Mark{Partition: 1, End: 1, AsOf: at(9)})
	check(at(9))
	mark(Topic, analytics.Mark{Partition: 0}, analytics.Mark{Partition: 1})
	check(at(9))
	mark(Topic, analytics.Mark{Partition: 1, End: 1, AsOf: at(2)}) // a late mark of an earlier owner
	check(at(9))
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	s = open()
	check(at(9))
}

// A batch with a row that no store can take is refused as a whole, with ErrData.
func testRefusedBatch(t *testing.T, s analytics.Store) {
	c := NewCampaign("tn_a", 10_001, start)
	fresh := func() analytics.Batch {
		return number(0, 0, oneEach(c, schemas.KindSent, 0, 3, start))
	}
	for name, spoil := range map[string]func(*analytics.Event){
		"kind":       func(e *analytics.Event) { e.Kind = 99 },
		"past":       func(e *analytics.Event) { e.TimeMS = -1 },
		"far future": func(e *analytics.Event) { e.TimeMS = analytics.MaxTimeMS + 1 },
		"campaign":   func(e *analytics.Event) { e.Campaign = nil },
		"tenant":     func(e *analytics.Event) { e.Campaign = &analytics.Campaign{ID: c.ID, Month: c.Month} },
		"month":      func(e *analytics.Event) { e.Campaign = &analytics.Campaign{Tenant: c.Tenant, ID: c.ID} },
	} {
		b := fresh()
		spoil(&b.Events[1])
		if err := s.Append(t.Context(), b); !errors.Is(err, analytics.ErrData) {
			t.Fatalf("append a wrong %s: got %v, want %v", name, err, analytics.ErrData)
		}
		Compare(t, s, NewModel(), c.Tenant, c.ID)
	}
	m := NewModel()
	b := fresh()
	b.Events[0].TimeMS, b.Events[2].TimeMS = 0, analytics.MaxTimeMS
	b.Events = slices.Delete(b.Events, 1, 2)
	mustAppend(t, s, b)
	m.Append(b)
	stats, err := s.Stats(t.Context(), c.Tenant, c.ID)
	if diff := cmp.Diff(m.Counts(c.Tenant, c.ID), stats.Counts); err != nil || diff != "" {
		t.Fatalf("stats after refused batches: %v (-want +got):\n%s", err, diff)
	}
}

// A store that keeps positions writes them together with the data.
func testPositions(t *testing.T, open func() analytics.Store) {
	s := open()
	defer func() { s.Close() }()
	p, ok := s.(analytics.Positioner)
	if !ok {
		return // this store keeps no positions
	}
	check := func(want map[int32]int64) {
		t.Helper()
		got, err := p.Positions(t.Context(), Topic)
		if err != nil {
			t.Fatalf("positions: %v", err)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("positions: got %v, want %v", got, want)
		}
	}
	check(map[int32]int64{})
	c := NewCampaign("tn_a", 10_001, start)
	m := NewModel()
	take := func(b analytics.Batch) {
		t.Helper()
		mustAppend(t, s, b)
		m.Append(b)
	}
	take(number(0, 0, oneEach(c, schemas.KindSent, 0, 10, start)))
	take(number(2, 100, oneEach(c, schemas.KindSent, 10, 10, start)))
	mustAppend(t, s, analytics.Batch{Topic: Topic, Partition: 0, First: 10, End: 12})
	check(map[int32]int64{0: 12, 2: 110})
	// Other bounds, as after lost commits: what is stored already is not taken again.
	take(number(2, 105, append(oneEach(c, schemas.KindSent, 15, 5, start), oneEach(c, schemas.KindDelivered, 0, 5, start)...)))
	Compare(t, s, m, c.Tenant, c.ID)
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	s = open()
	p, _ = s.(analytics.Positioner)
	check(map[int32]int64{0: 12, 2: 115})
	if err := p.Rewind(t.Context(), Topic, 2, 110); err != nil {
		t.Fatalf("rewind: %v", err)
	}
	check(map[int32]int64{0: 12, 2: 110})
	again := number(2, 110, oneEach(c, schemas.KindRead, 0, 5, start.Add(time.Hour)))
	mustAppend(t, s, again)
	again.Topic = analytics.TopicID{8} // the model has no Rewind
	m.Append(again)
	Compare(t, s, m, c.Tenant, c.ID)
}
