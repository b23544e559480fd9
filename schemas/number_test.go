package schemas_test

import (
	"fmt"
	"testing"

	"fanfare/schemas"
)

// C27, X10: the old and the new form of a number are one person.
func TestNumberKey(t *testing.T) {
	for _, same := range [][]string{
		{"+525512345678", "+5215512345678", "+520445512345678", "+520455512345678", "+52015512345678"},
		{"+541123456789", "+5491123456789"},
		{"+542214567890", "+5492214567890"},
		{"+5511987654321", "+551187654321"},
		{"+5511966654321", "+551166654321"},
		{"+2250707123456", "+22507123456"},
		{"+2250747123456", "+22547123456"},
		{"+2250505123456", "+22505123456"},
		{"+2250594123456", "+22594123456"},
		{"+2250101123456", "+22501123456"},
		{"+2250142123456", "+22542123456"},
		{"+2290197123456", "+22997123456"},
		{"+2290121123456", "+22921123456"},
		{"+84329876543", "+841629876543"},
		{"+84709876543", "+841209876543"},
		{"+84599876543", "+841999876543"},
	} {
		for _, form := range same {
			if got := schemas.NumberKey(form); got != same[0] {
				t.Errorf("%s: got key %s, want %s", form, got, same[0])
			}
		}
	}
	// A number with only one form does not change, and a number of another country is not mistaken for one with two
	// forms.
	for _, number := range []string{
		"", "+", "+39", "+393331234567", "+12125550123", "+15215512345", "+52155123456", "+52155123456789", "+551123456789", "+55112345678",
		"+54911234567", "+22520123456", "+22500123456", "+2251312345", "+229971234567", "+84912345678", "+841701234567", "+8419001234",
		"+8613812345678", "+2348012345678",
	} {
		if got := schemas.NumberKey(number); got != number {
			t.Errorf("%s: got key %s, want the number itself", number, got)
		}
	}
}

// Keys are stable: the key of a key is the key itself, so that both forms can be looked up.
func TestNumberKeyOfKey(t *testing.T) {
	for _, head := range []string{"+521", "+549", "+5511", "+225", "+229", "+841", "+84162"} {
		for i := range 2000 {
			for width := 6; width <= 11; width++ {
				number := head + fmt.Sprintf("%0*d", width, i*499979%1000000007)
				key := schemas.NumberKey(number)
				if again := schemas.NumberKey(key); again != key {
					t.Fatalf("%s: got key %s, and of that %s", number, key, again)
				}
			}
		}
	}
}

// X10: an opt-out in one form stops messages to the other: senders and store compare hashes.
func TestNumberHashOfForms(t *testing.T) {
	k, err := schemas.NewKeys([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	if k.NumberHash("tn_a", "+5215512345678") != k.NumberHash("tn_a", "+525512345678") {
		t.Error("got two hashes for the two forms of a Mexican number, want one")
	}
	if k.NumberHash("tn_a", "+525512345678") == k.NumberHash("tn_b", "+525512345678") {
		t.Error("got one hash for two tenants, want two")
	}
}

func BenchmarkNumberKey(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		schemas.NumberKey("+393331234567")
	}
}
