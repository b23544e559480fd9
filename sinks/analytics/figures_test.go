package analytics_test

import (
	"fmt"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

func count(kind schemas.Kind, code schemas.Code, n uint64) analytics.Count {
	return analytics.Count{Precedence: schemas.PrecedenceOf(kind, 1, code), N: n}
}

// R120, R121, C7: the documented sample gives the documented rates.
func TestFiguresGolden(t *testing.T) {
	f := analytics.Stats{Counts: []analytics.Count{
		count(schemas.KindUndelivered, schemas.CodeAbsentSubscriber, 310),
		count(schemas.KindDelivered, schemas.CodeDelivered, 2890),
	}}.Figures(5000)
	got := []any{f.Total, f.Sent, f.Delivered, f.Failed, f.Pending, f.DeliveryRate, f.FailureRate, f.DeliveryRateOfTotal, f.FailureRateOfTotal}
	want := []any{uint64(5000), uint64(3200), uint64(2890), uint64(310), uint64(1800), 0.9031, 0.0969, 0.578, 0.062}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
}

// C7, C8: notSent counts as failed and in the denominator of the failure rate. Skipped counts in neither.
func TestFailureRateCountsRefused(t *testing.T) {
	f := analytics.Stats{Counts: []analytics.Count{
		count(schemas.KindNotSent, schemas.CodeInvalidNumber, 20),
		count(schemas.KindSkipped, schemas.CodeOptedOut, 40),
		count(schemas.KindUndelivered, schemas.CodeBarred, 10),
		count(schemas.KindDelivered, schemas.CodeDelivered, 30),
	}}.Figures(100)
	if f.Failed != 30 || f.FailureRate != 0.5 || f.DeliveryRate != 0.75 || f.FailureRateOfTotal != 0.3 {
		t.Errorf("got failed %d, rates %v %v %v, want 30, 0.5, 0.75, 0.3", f.Failed, f.FailureRate, f.DeliveryRate, f.FailureRateOfTotal)
	}
}

func TestFiguresOfNothing(t *testing.T) {
	if diff := cmp.Diff(analytics.Figures{}, (analytics.Stats{}).Figures(0)); diff != "" {
		t.Errorf("empty campaign (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(analytics.Figures{Total: 7, Pending: 7}, (analytics.Stats{}).Figures(7)); diff != "" {
		t.Errorf("nothing sent yet (-want +got):\n%s", diff)
	}
}

// R116 to R119: which kinds of events make up sent, delivered, failed and pending. Each kind has a different number of
// recipients, so a kind that is counted in the wrong field shows.
func TestFiguresParts(t *testing.T) {
	f := analytics.Stats{Counts: []analytics.Count{
		count(schemas.KindAmbiguous, schemas.CodeCrash, 1),
		count(schemas.KindReturned, schemas.CodePaused, 2),
		count(schemas.KindNotSent, schemas.CodeTooLong, 4),
		count(schemas.KindSkipped, schemas.CodeCancelled, 8),
		count(schemas.KindSent, 0, 16),
		count(schemas.KindBuffered, schemas.CodeEnroute, 32),
		count(schemas.KindBounced, schemas.CodeHandsetOff, 64),
		count(schemas.KindUnconfirmed, schemas.CodeNoDLR, 128),
		count(schemas.KindUndelivered, schemas.CodeBarred, 256),
		{Precedence: schemas.PrecedenceOf(schemas.KindDelivered, 1, schemas.CodeDelivered), N: 512, Clickers: 128},
		{Precedence: schemas.PrecedenceOf(schemas.KindRead, 1, schemas.CodeRead), N: 1024, Clickers: 256},
		count(schemas.KindClicked, 0, 400),
		count(schemas.KindClicked, schemas.CodeBot, 3),
		count(schemas.KindClicked, schemas.CodePreview, 2),
		count(schemas.KindClicked, schemas.CodeUnsure, 7),
		count(schemas.KindReplied, 0, 5),
		count(schemas.KindOptedOut, 0, 6),
	}}.Figures(3000)
	known := uint64(2047)
	want := analytics.Figures{
		Total: 3000, Pending: 3000 - known + 2, Returned: 2, Ambiguous: 1, NotSent: 4, Skipped: 8,
		Sent: 16 + 32 + 64 + 128 + 256 + 512 + 1024, Awaiting: 16 + 32 + 64 + 128, Unconfirmed: 128, Undelivered: 256,
		Delivered: 1536, Read: 1024, Failed: 260, Clickers: 400, DeliveredClickers: 384, Scanned: 3, Previewed: 2, Unsure: 7, Replied: 5, OptedOut: 6,
		DeliveryRate: 0.7559, FailureRate: 0.1277, DeliveryRateOfTotal: 0.512, FailureRateOfTotal: 0.0867, ClickRate: 0.25,
		Tree: []analytics.Branch{
			{Bucket: schemas.BucketPending, N: 2, Codes: []analytics.Leaf{{Code: schemas.CodePaused, N: 2}}},
			{Bucket: schemas.BucketAmbiguous, N: 1, Codes: []analytics.Leaf{{Code: schemas.CodeCrash, N: 1}}},
			{Bucket: schemas.BucketNotSent, N: 4, Codes: []analytics.Leaf{{Code: schemas.CodeTooLong, N: 4}}},
			{Bucket: schemas.BucketSkipped, N: 8, Codes: []analytics.Leaf{{Code: schemas.CodeCancelled, N: 8}}},
			{Bucket: schemas.BucketAwaiting, N: 240, Codes: []analytics.Leaf{
				{N: 16},
				{Code: schemas.CodeEnroute, N: 32},
				{Code: schemas.CodeNoDLR, N: 128},
				{Code: schemas.CodeHandsetOff, N: 64},
			}},
			{Bucket: schemas.BucketUndelivered, N: 256, Codes: []analytics.Leaf{{Code: schemas.CodeBarred, N: 256}}},
			{Bucket: schemas.BucketDelivered, N: 1536, Codes: []analytics.Leaf{
				{Code: schemas.CodeDelivered, N: 512},
				{Code: schemas.CodeRead, N: 1024},
			}},
		},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
}

// P2: the identities hold for any sets, also if the given total is too small.
func TestIdentities(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sets := analytics.Algebra{}
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			kind := rapid.SampledFrom(schemas.Kinds).Draw(t, "kind").Kind
			code := rapid.SampledFrom(schemas.Codes).Draw(t, "code").Code
			p := schemas.PrecedenceOf(kind, rapid.Uint32Range(1, 3).Draw(t, "try"), code)
			if sets[p] == nil {
				sets[p] = roaring.New()
			}
			sets[p].Add(rapid.Uint32Range(0, 20).Draw(t, "seq"))
		}
		stats := analytics.Stats{Counts: sets.Count()}
		total := rapid.Uint32Range(0, 40).Draw(t, "total")
		f := stats.Figures(total)
		if got, want := f.Pending+f.Ambiguous+f.NotSent+f.Skipped+f.Sent, f.Total; got != want {
			t.Fatalf("parts add up to %d, want the total %d", got, want)
		}
		if got, want := f.Awaiting+f.Undelivered+f.Delivered, f.Sent; got != want {
			t.Fatalf("parts of sent add up to %d, want %d", got, want)
		}
		if f.Total < uint64(total) || f.Pending < f.Returned {
			t.Fatalf("got total %d, pending %d, want at least %d and %d", f.Total, f.Pending, total, f.Returned)
		}
		var leaves uint64
		everybody := roaring.New()
		for _, b := range f.Tree {
			var n uint64
			for _, leaf := range b.Codes {
				n += leaf.N
				chosen := sets.Select(stats.Select(b.Bucket, leaf.Code))
				if chosen.GetCardinality() != leaf.N {
					t.Fatalf("%s code %d: selected %d, counted %d", b.Bucket, leaf.Code, chosen.GetCardinality(), leaf.N)
				}
				if everybody.AndCardinality(chosen) != 0 {
					t.Fatalf("%s code %d holds somebody who is elsewhere too", b.Bucket, leaf.Code)
				}
				everybody.Or(chosen)
			}
			if n != b.N {
				t.Fatalf("%s: codes add up to %d, want %d", b.Bucket, n, b.N)
			}
			leaves += n
		}
		if want := f.Total - f.Pending + f.Returned; leaves != want {
			t.Fatalf("the tree holds %d, want %d", leaves, want)
		}
	})
}

// The set algebra agrees with taking each recipient's greatest precedence, and counts of disjoint parts add up.
func TestAlgebraIsTheJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sets, parts := analytics.Algebra{}, []analytics.Algebra{{}, {}, {}}
		states := map[uint32]schemas.Precedence{}
		clicked := map[uint32]bool{}
		add := func(a analytics.Algebra, p schemas.Precedence, seq uint32) {
			if a[p] == nil {
				a[p] = roaring.New()
			}
			a[p].Add(seq)
		}
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			kind := rapid.SampledFrom(schemas.Kinds).Draw(t, "kind").Kind
			p := schemas.PrecedenceOf(kind, rapid.Uint32Range(1, 3).Draw(t, "try"), rapid.SampledFrom(schemas.Codes[:4]).Draw(t, "code").Code)
			seq := rapid.Uint32Range(0, 20).Draw(t, "seq")
			add(sets, p, seq)
			add(parts[seq%3], p, seq)
			states[seq] = schemas.Join(states[seq], p)
			clicked[seq] = clicked[seq] || p == analytics.FactClicked
		}
		want := map[schemas.Precedence]analytics.Count{}
		for seq, p := range states {
			if p == 0 {
				continue
			}
			c := want[p]
			c.Precedence, c.N = p, c.N+1
			if clicked[seq] {
				c.Clickers++
			}
			want[p] = c
		}
		got := map[schemas.Precedence]analytics.Count{}
		for _, c := range sets.Count() {
			if c.Precedence < schemas.PrecedenceFacts {
				got[c.Precedence] = c
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("counts (-want +got):\n%s", diff)
		}
		merged := analytics.MergeCounts(parts[0].Count(), parts[1].Count(), parts[2].Count())
		if diff := cmp.Diff(sets.Count(), merged); diff != "" && len(merged)+len(sets) > 0 {
			t.Fatalf("counted in parts (-whole +parts):\n%s", diff)
		}
	})
}

func ExampleStats_Figures() {
	stats := analytics.Stats{Counts: []analytics.Count{
		{Precedence: schemas.PrecedenceOf(schemas.KindSent, 1, 0), N: 10},
		{Precedence: schemas.PrecedenceOf(schemas.KindUndelivered, 1, schemas.CodeHandsetOff), N: 15},
		{Precedence: schemas.PrecedenceOf(schemas.KindDelivered, 1, schemas.CodeDelivered), N: 75},
	}}
	f := stats.Figures(120)
	fmt.Println(f.Total, "=", f.Pending, "pending +", f.Sent, "sent")
	fmt.Println(f.Sent, "=", f.Awaiting, "awaiting +", f.Undelivered, "undelivered +", f.Delivered, "delivered, a rate of", f.DeliveryRate)
	// Output:
	// 120 = 20 pending + 100 sent
	// 100 = 10 awaiting + 15 undelivered + 75 delivered, a rate of 0.75
}

// The sums of the figures of two campaigns equal the figures of all their recipients, rates included. The click rate
// counts the clickers among the delivered, as for one campaign.
func TestFiguresAdd(t *testing.T) {
	a := []analytics.Count{
		{Precedence: schemas.PrecedenceOf(schemas.KindDelivered, 1, 0), N: 10, Clickers: 3}, count(schemas.KindUndelivered, 0, 2), count(schemas.KindClicked, 0, 5),
	}
	b := []analytics.Count{
		{Precedence: schemas.PrecedenceOf(schemas.KindDelivered, 1, 0), N: 30, Clickers: 1}, count(schemas.KindNotSent, 0, 4), count(schemas.KindClicked, 0, 1),
	}
	got := analytics.Stats{Counts: a}.Figures(20)
	second := analytics.Stats{Counts: b}.Figures(50)
	got.Add(&second)
	want := analytics.Stats{Counts: analytics.MergeCounts(a, b)}.Figures(70)
	got.Tree, want.Tree = nil, nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sum of two campaigns (-want +got):\n%s", diff)
	}
	if got.ClickRate != 0.1 {
		t.Errorf("click rate: got %v, want 0.1", got.ClickRate)
	}
}
