package billing_test

import (
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"pgregory.net/rapid"

	"fanfare/schemas"
	"fanfare/schemas/billing"
)

// happened is one event about one try.
type happened struct {
	kind schemas.Kind
	code schemas.Code
}

// Checks case by case what is billed (pipeline.md 3.5, requirements §4 column "billed").
func TestBilled(t *testing.T) {
	for name, c := range map[string]struct {
		events []happened
		want   bool
	}{
		"nothing happened":                          {nil, false},
		"sent":                                      {[]happened{{schemas.KindSent, 0}}, true},
		"in doubt":                                  {[]happened{{schemas.KindAmbiguous, schemas.CodeCrash}}, false},
		"in doubt, then delivered":                  {[]happened{{schemas.KindAmbiguous, schemas.CodeCrash}, {schemas.KindDelivered, schemas.CodeDelivered}}, true},
		"in doubt, then buffered":                   {[]happened{{schemas.KindAmbiguous, schemas.CodeCrash}, {schemas.KindBuffered, schemas.CodeEnroute}}, true},
		"in doubt, no receipt in time":              {[]happened{{schemas.KindAmbiguous, schemas.CodeCrash}, {schemas.KindUnconfirmed, schemas.CodeNoDLR}}, false},
		"in doubt, then the provider's error":       {[]happened{{schemas.KindAmbiguous, schemas.CodeCrash}, {schemas.KindBounced, schemas.CodeProviderError}}, false},
		"refused":                                   {[]happened{{schemas.KindNotSent, schemas.CodeSpamContent}}, false},
		"delivered, no hand-over known":             {[]happened{{schemas.KindDelivered, schemas.CodeDelivered}}, false},
		"undelivered":                               {[]happened{{schemas.KindSent, 0}, {schemas.KindUndelivered, schemas.CodeBarred}}, true},
		"undelivered, unknown code":                 {[]happened{{schemas.KindSent, 0}, {schemas.KindUndelivered, 9999}}, true},
		"the provider's error":                      {[]happened{{schemas.KindSent, 0}, {schemas.KindUndelivered, schemas.CodeProviderError}}, false},
		"a receipt with a code of never sent":       {[]happened{{schemas.KindSent, 0}, {schemas.KindUndelivered, schemas.CodeInvalidNumber}}, false},
		"bounced for free, then delivered":          {[]happened{{schemas.KindSent, 0}, {schemas.KindBounced, schemas.CodeProviderError}, {schemas.KindDelivered, 0}}, true},
		"a greater billed code after a free one":    {[]happened{{schemas.KindSent, 0}, {schemas.KindBounced, schemas.CodeProviderError}, {schemas.KindBounced, schemas.CodeUnknownSubscriber}}, true},
		"a lower billed code after a free one":      {[]happened{{schemas.KindSent, 0}, {schemas.KindBounced, schemas.CodeProviderError}, {schemas.KindBounced, schemas.CodeAbsentSubscriber}}, false},
		"final and billed after a bounce for free":  {[]happened{{schemas.KindSent, 0}, {schemas.KindBounced, schemas.CodeProviderError}, {schemas.KindUndelivered, schemas.CodeExpired}}, true},
		"delivered with a code that is not billed":  {[]happened{{schemas.KindSent, 0}, {schemas.KindDelivered, schemas.CodeProviderError}}, true},
		"a click says nothing about the bill":       {[]happened{{schemas.KindAmbiguous, schemas.CodeCrash}, {schemas.KindClicked, 0}}, false},
		"handed over, a doubt of the same try also": {[]happened{{schemas.KindAmbiguous, schemas.CodeTimeout}, {schemas.KindSent, 0}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := bySets(c.events); got != c.want {
				t.Errorf("billed: got %v, want %v", got, c.want)
			}
		})
	}
}

// bySets judges one try of recipient 7 with sets.
func bySets(events []happened) bool {
	sent, doubt := roaring.New(), roaring.New()
	receipts := billing.Receipts{}
	for _, e := range events {
		p := schemas.PrecedenceOf(e.kind, 1, e.code)
		switch {
		case e.kind == schemas.KindSent:
			sent.Add(7)
		case e.kind == schemas.KindAmbiguous:
			doubt.Add(7)
		case billing.IsReceipt(p):
			receipts[p] = roaring.BitmapOf(7)
		}
	}
	return receipts.Verdict().Billed(sent, doubt).Contains(7)
}

// The sets agree with judging the events of one try one by one, and do not depend on their order or on duplicates.
func TestBilledHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) happened {
			return happened{
				rapid.SampledFrom(schemas.Kinds).Draw(t, "kind").Kind,
				rapid.SampledFrom([]schemas.Code{0, 9999, schemas.CodeProviderError, schemas.CodeNetworkError, schemas.CodeBarred, schemas.CodeTooLong}).Draw(t, "code"),
			}
		}), 0, 6).Draw(t, "events")
		var sent, doubt bool
		var greatest schemas.Precedence
		for _, e := range events {
			p := schemas.PrecedenceOf(e.kind, 0, e.code)
			switch e.kind {
			case schemas.KindSent:
				sent = true
			case schemas.KindAmbiguous:
				doubt = true
			case schemas.KindBuffered, schemas.KindBounced, schemas.KindUndelivered, schemas.KindDelivered, schemas.KindRead:
				greatest = max(greatest, p)
			default:
			}
		}
		info, known := schemas.LookupCode(greatest.Code())
		free := (greatest.Kind() == schemas.KindBounced || greatest.Kind() == schemas.KindUndelivered) && known && !info.Billed
		want := (sent || doubt && greatest != 0) && !free
		if got := bySets(events); got != want {
			t.Fatalf("%v: billed %v, want %v", events, got, want)
		}
		shuffled := rapid.Permutation(append(slices.Clone(events), events...)).Draw(t, "shuffled")
		if got := bySets(shuffled); got != want {
			t.Fatalf("%v: billed %v, want %v as in another order", shuffled, got, want)
		}
	})
}

// The codes for databases are those of IsFree.
func TestFreeCodes(t *testing.T) {
	free := billing.FreeCodes()
	if !slices.Contains(free, schemas.CodeProviderError) || slices.Contains(free, schemas.CodeBarred) {
		t.Errorf("free codes: got %v, want PROVIDER_ERROR among them and BARRED not", free)
	}
	for code := range schemas.Code(1 << 10) {
		p := schemas.PrecedenceOf(schemas.KindBounced, 0, code)
		if got, want := slices.Contains(free, code), billing.IsFree(p); got != want {
			t.Errorf("code %d: got %v, want %v", code, got, want)
		}
	}
}

func TestAmount(t *testing.T) {
	for _, c := range []struct{ segments, price, want uint64 }{{1, 50_000, 50_000}, {3, 50_000, 150_000}, {0, 50_000, 50_000}, {2, 0, 0}} {
		if got := billing.Amount(c.segments, c.price); got != c.want {
			t.Errorf("amount of %d segments at %d: got %d, want %d", c.segments, c.price, got, c.want)
		}
	}
}
