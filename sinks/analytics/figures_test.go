package analytics_test

import (
	"fmt"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

func count(kind fanfarev1.Kind, code fanfarev1.Code, n uint64) analytics.Count {
	return analytics.Count{Precedence: schemas.PrecedenceOf(kind, 1, code), N: n}
}

// R120, R121, C7: the rates of the documented sample, by the documented formulas.
func TestFiguresGolden(t *testing.T) {
	f := analytics.Stats{Counts: []analytics.Count{
		count(fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER, 310),
		count(fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED, 2890),
	}}.Figures(5000)
	got := []any{f.Total, f.Sent, f.Delivered, f.Failed, f.Pending, f.DeliveryRate, f.FailureRate, f.DeliveryRateOfTotal, f.FailureRateOfTotal}
	want := []any{uint64(5000), uint64(3200), uint64(2890), uint64(310), uint64(1800), 0.9031, 0.0969, 0.578, 0.062}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
}

// C7, C8: what never left is failed, and part of what the failure rate divides by; what was skipped is neither.
func TestFailureRateCountsRefused(t *testing.T) {
	f := analytics.Stats{Counts: []analytics.Count{
		count(fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_INVALID_NUMBER, 20),
		count(fanfarev1.Kind_KIND_SKIPPED, fanfarev1.Code_CODE_OPTED_OUT, 40),
		count(fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_BARRED, 10),
		count(fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED, 30),
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

// Every part of the account on its own, so that a kind counted in the wrong place is seen.
func TestFiguresParts(t *testing.T) {
	f := analytics.Stats{Counts: []analytics.Count{
		count(fanfarev1.Kind_KIND_AMBIGUOUS, fanfarev1.Code_CODE_CRASH, 1),
		count(fanfarev1.Kind_KIND_RETURNED, fanfarev1.Code_CODE_PAUSED, 2),
		count(fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_TOO_LONG, 4),
		count(fanfarev1.Kind_KIND_SKIPPED, fanfarev1.Code_CODE_CANCELLED, 8),
		count(fanfarev1.Kind_KIND_SENT, 0, 16),
		count(fanfarev1.Kind_KIND_BUFFERED, fanfarev1.Code_CODE_ENROUTE, 32),
		count(fanfarev1.Kind_KIND_BOUNCED, fanfarev1.Code_CODE_HANDSET_OFF, 64),
		count(fanfarev1.Kind_KIND_UNCONFIRMED, fanfarev1.Code_CODE_NO_DLR, 128),
		count(fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_BARRED, 256),
		{Precedence: schemas.PrecedenceOf(fanfarev1.Kind_KIND_DELIVERED, 1, fanfarev1.Code_CODE_DELIVERED), N: 512, Clickers: 128},
		{Precedence: schemas.PrecedenceOf(fanfarev1.Kind_KIND_READ, 1, fanfarev1.Code_CODE_READ), N: 1024, Clickers: 256},
		count(fanfarev1.Kind_KIND_CLICKED, 0, 400),
		count(fanfarev1.Kind_KIND_CLICKED, fanfarev1.Code_CODE_BOT, 3),
		count(fanfarev1.Kind_KIND_REPLIED, 0, 5),
		count(fanfarev1.Kind_KIND_OPTED_OUT, 0, 6),
	}}.Figures(3000)
	known := uint64(2047)
	want := analytics.Figures{
		Total: 3000, Pending: 3000 - known + 2, Returned: 2, Ambiguous: 1, NotSent: 4, Skipped: 8,
		Sent: 16 + 32 + 64 + 128 + 256 + 512 + 1024, Awaiting: 16 + 32 + 64 + 128, Unconfirmed: 128, Undelivered: 256,
		Delivered: 1536, Read: 1024, Failed: 260, Clickers: 400, Bots: 3, Replied: 5, OptedOut: 6,
		DeliveryRate: 0.7559, FailureRate: 0.1277, DeliveryRateOfTotal: 0.512, FailureRateOfTotal: 0.0867, ClickRate: 0.25,
		Tree: []analytics.Branch{
			{Bucket: schemas.BucketPending, N: 2, Codes: []analytics.Leaf{{Code: fanfarev1.Code_CODE_PAUSED, N: 2}}},
			{Bucket: schemas.BucketAmbiguous, N: 1, Codes: []analytics.Leaf{{Code: fanfarev1.Code_CODE_CRASH, N: 1}}},
			{Bucket: schemas.BucketNotSent, N: 4, Codes: []analytics.Leaf{{Code: fanfarev1.Code_CODE_TOO_LONG, N: 4}}},
			{Bucket: schemas.BucketSkipped, N: 8, Codes: []analytics.Leaf{{Code: fanfarev1.Code_CODE_CANCELLED, N: 8}}},
			{Bucket: schemas.BucketAwaiting, N: 240, Codes: []analytics.Leaf{
				{N: 16},
				{Code: fanfarev1.Code_CODE_ENROUTE, N: 32},
				{Code: fanfarev1.Code_CODE_NO_DLR, N: 128},
				{Code: fanfarev1.Code_CODE_HANDSET_OFF, N: 64},
			}},
			{Bucket: schemas.BucketUndelivered, N: 256, Codes: []analytics.Leaf{{Code: fanfarev1.Code_CODE_BARRED, N: 256}}},
			{Bucket: schemas.BucketDelivered, N: 1536, Codes: []analytics.Leaf{
				{Code: fanfarev1.Code_CODE_DELIVERED, N: 512},
				{Code: fanfarev1.Code_CODE_READ, N: 1024},
			}},
		},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Errorf("figures (-want +got):\n%s", diff)
	}
}

// P2: the identities hold for whatever sets, and for a total that is too small.
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

// The algebra agrees with taking the greatest for each recipient, and in any number of pieces.
func TestAlgebraIsTheJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sets, pieces := analytics.Algebra{}, []analytics.Algebra{{}, {}, {}}
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
			add(pieces[seq%3], p, seq)
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
		merged := analytics.MergeCounts(pieces[0].Count(), pieces[1].Count(), pieces[2].Count())
		if diff := cmp.Diff(sets.Count(), merged); diff != "" && len(merged)+len(sets) > 0 {
			t.Fatalf("counted in pieces (-whole +pieces):\n%s", diff)
		}
	})
}

func ExampleStats_Figures() {
	stats := analytics.Stats{Counts: []analytics.Count{
		{Precedence: schemas.PrecedenceOf(fanfarev1.Kind_KIND_SENT, 1, 0), N: 10},
		{Precedence: schemas.PrecedenceOf(fanfarev1.Kind_KIND_UNDELIVERED, 1, fanfarev1.Code_CODE_HANDSET_OFF), N: 15},
		{Precedence: schemas.PrecedenceOf(fanfarev1.Kind_KIND_DELIVERED, 1, fanfarev1.Code_CODE_DELIVERED), N: 75},
	}}
	f := stats.Figures(120)
	fmt.Println(f.Total, "=", f.Pending, "pending +", f.Sent, "sent")
	fmt.Println(f.Sent, "=", f.Awaiting, "awaiting +", f.Undelivered, "undelivered +", f.Delivered, "delivered, a rate of", f.DeliveryRate)
	// Output:
	// 120 = 20 pending + 100 sent
	// 100 = 10 awaiting + 15 undelivered + 75 delivered, a rate of 0.75
}
