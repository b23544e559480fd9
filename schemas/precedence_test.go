package schemas_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

var anyEvent = rapid.Custom(func(t *rapid.T) schemas.Precedence {
	info := rapid.SampledFrom(schemas.Kinds).Draw(t, "kind")
	code := rapid.SampledFrom(schemas.Codes).Draw(t, "code")
	return schemas.PrecedenceOf(info.Kind, rapid.Uint32Range(1, 255).Draw(t, "try"), code.Code)
})

// The join is a semilattice: receipts may come late, twice and in any order.
func TestJoinIsCommutativeAssociativeIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := anyEvent.Draw(t, "a"), anyEvent.Draw(t, "b"), anyEvent.Draw(t, "c")
		if schemas.Join(a, b) != schemas.Join(b, a) {
			t.Fatal("not commutative")
		}
		if schemas.Join(a, schemas.Join(b, c)) != schemas.Join(schemas.Join(a, b), c) {
			t.Fatal("not associative")
		}
		if j := schemas.Join(a, b); schemas.Join(j, b) != j || schemas.Join(j, a) != j {
			t.Fatal("not idempotent")
		}
	})
}

func TestShuffledAndDuplicatedHistoriesEndAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		history := rapid.SliceOfN(anyEvent, 1, 12).Draw(t, "history")
		var want schemas.Precedence
		for _, e := range history {
			want = schemas.Join(want, e)
		}
		again := append(slices.Clone(history), rapid.SliceOfN(rapid.SampledFrom(history), 0, 6).Draw(t, "duplicates")...)
		var got schemas.Precedence
		for _, e := range rapid.Permutation(again).Draw(t, "order") {
			got = schemas.Join(got, e)
		}
		if got != want {
			t.Fatalf("got %#x, want %#x", got, want)
		}
	})
}

func of(kind schemas.Kind, try uint32, code schemas.Code) schemas.Precedence {
	return schemas.PrecedenceOf(kind, try, code)
}

// What outranks what, in words (requirements §4).
func TestPrecedenceOrder(t *testing.T) {
	const (
		crash, paused     = schemas.CodeCrash, schemas.CodePaused
		absent, unknown   = schemas.CodeAbsentSubscriber, schemas.CodeUnknownSubscriber
		cancelled, noCode = schemas.CodeCancelled, schemas.CodeUnspecified
	)
	for _, c := range []struct {
		name       string
		less, more schemas.Precedence
	}{
		{"only the holder can prove that nothing was handed over", of(schemas.KindAmbiguous, 1, crash), of(schemas.KindReturned, 1, paused)},
		{"a later try outranks an earlier return", of(schemas.KindReturned, 1, paused), of(schemas.KindAmbiguous, 2, crash)},
		{"an outcome outranks doubt of any try", of(schemas.KindReturned, 255, paused), of(schemas.KindNotSent, 1, absent)},
		{"a receipt lifts what was skipped", of(schemas.KindSkipped, 1, cancelled), of(schemas.KindSent, 1, noCode)},
		{"a bounce outranks sent", of(schemas.KindSent, 2, noCode), of(schemas.KindBounced, 1, absent)},
		{"silence after a bounce", of(schemas.KindBounced, 1, absent), of(schemas.KindUnconfirmed, 1, schemas.CodeNoDLR)},
		{"a final negative", of(schemas.KindUnconfirmed, 1, schemas.CodeNoDLR), of(schemas.KindUndelivered, 1, absent)},
		{"of two negatives the greater code", of(schemas.KindUndelivered, 1, absent), of(schemas.KindUndelivered, 1, unknown)},
		{"a late DELIVRD after EXPIRED upgrades", of(schemas.KindUndelivered, 1, schemas.CodeExpired), of(schemas.KindDelivered, 1, schemas.CodeDelivered)},
		{"read outranks delivered", of(schemas.KindDelivered, 1, schemas.CodeDelivered), of(schemas.KindRead, 1, schemas.CodeRead)},
	} {
		if c.less >= c.more || schemas.Join(c.less, c.more) != c.more {
			t.Errorf("%s: got %#x >= %#x", c.name, c.less, c.more)
		}
	}
}

func TestPrecedenceTakesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		info := rapid.SampledFrom(schemas.Kinds).Draw(t, "kind")
		code := rapid.SampledFrom(schemas.Codes).Draw(t, "code").Code
		try := rapid.Uint32Range(1, 255).Draw(t, "try")
		p := schemas.PrecedenceOf(info.Kind, try, code)
		if p.Kind() != info.Kind || p.Class() != info.Class || p.Rank() != info.Rank || p.Code() != code || p.Bucket() != info.Bucket {
			t.Fatalf("%#x: got %v %v %v %v %v", p, p.Kind(), p.Class(), p.Rank(), p.Code(), p.Bucket())
		}
		want := uint8(0)
		if info.Class == schemas.ClassOpen {
			want = uint8(try)
		}
		if p.Try() != want {
			t.Fatalf("try: got %d, want %d", p.Try(), want)
		}
		if (p >= schemas.PrecedenceFacts) != (info.Class == schemas.ClassFact) {
			t.Fatalf("%#x: on the wrong side of the facts", p)
		}
		if info.Class == schemas.ClassFact && schemas.Join(p, 0) != 0 {
			t.Fatal("a fact made a state")
		}
	})
}

func TestKindNumbersAreClassAndRank(t *testing.T) {
	if got, want := len(schemas.Kinds), len(fanfarev1.Kind_name)-1; got != want {
		t.Errorf("table has %d kinds, records %d", got, want)
	}
	for _, k := range schemas.Kinds {
		if want := schemas.Kind(uint32(k.Class)&7<<4 | uint32(k.Rank)); k.Kind != want {
			t.Errorf("%s: number %d, want %d", k.Name, k.Kind, want)
		}
		if want := strings.ToLower(strings.TrimPrefix(k.Kind.String(), "KIND_")); k.Name != want {
			t.Errorf("got name %s, want %s", k.Name, want)
		}
	}
}

func TestEveryCodeHasOneRow(t *testing.T) {
	seen := map[schemas.Code]bool{}
	for _, c := range schemas.Codes {
		if seen[c.Code] {
			t.Errorf("%v: twice", c.Code)
		}
		seen[c.Code] = true
		if c.Description == "" { // R145
			t.Errorf("%v: no description", c.Code)
		}
		if back, ok := schemas.ParseCode(schemas.CodeName(c.Code)); !ok || back != c.Code {
			t.Errorf("%v: name reads back as %v", c.Code, back)
		}
		if c.Billed && !c.Bucket.Sent() {
			t.Errorf("%v: billed but never handed over", c.Code)
		}
	}
	for n, name := range fanfarev1.Code_name {
		if n != 0 && !seen[schemas.Code(n)] {
			t.Errorf("%s has no row", name)
		}
	}
	if !slices.IsSortedFunc(schemas.Codes, func(a, b schemas.CodeInfo) int { return int(a.Code - b.Code) }) {
		t.Error("rows are not in order of number: the greater number stands, so the order is read")
	}
	// Codes that end a recipient's tries must outrank those that may be tried again, or a retry would follow a final
	// answer.
	for _, a := range schemas.Codes {
		for _, b := range schemas.Codes {
			if a.Bucket == schemas.BucketUndelivered && b.Bucket == schemas.BucketUndelivered &&
				a.Retry == schemas.RetryNo && b.Retry != schemas.RetryNo && a.Code < b.Code {
				t.Errorf("%v is final but %v outranks it", a.Code, b.Code)
			}
		}
	}
}
