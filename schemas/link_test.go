package schemas_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fanfare/schemas"
)

func linkKeys(t testing.TB, secrets ...string) *schemas.Keys {
	t.Helper()
	var all [][]byte
	for _, s := range secrets {
		all = append(all, []byte(s))
	}
	keys, err := schemas.NewKeys(all...)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestLinkTokens (X10, CLICK of X6): a token identifies the link and the recipient, has the length that the price
// assumed, and can still be read with the old key while keys are rotated. No token of another installation is accepted.
func TestLinkTokens(t *testing.T) {
	old, other := linkKeys(t, "0123456789abcdef"), linkKeys(t, "another secret..")
	rotated := linkKeys(t, "fedcba9876543210", "0123456789abcdef")
	rapid.Check(t, func(t *rapid.T) {
		l := schemas.Link{
			Campaign: rapid.OneOf(rapid.Uint64Range(1, 1<<26), rapid.Uint64Range(1, schemas.MaxCampaignNumber)).Draw(t, "campaign"),
			Seq:      rapid.Uint32Range(0, schemas.MaxSeq).Draw(t, "seq"),
			Number:   rapid.Uint8Range(0, schemas.MaxLink).Draw(t, "number"),
		}
		token := string(old.AppendLink(nil, l))
		if len(token) != schemas.LinkLen(l.Campaign) {
			t.Fatalf("%s has %d letters, want %d", token, len(token), schemas.LinkLen(l.Campaign))
		}
		for _, keys := range []*schemas.Keys{old, rotated} {
			if got, err := keys.ParseLink(token); err != nil || got != l {
				t.Fatalf("%s: got %+v, %v, want %+v", token, got, err, l)
			}
		}
		if got, err := other.ParseLink(token); !errors.Is(err, schemas.ErrLink) {
			t.Fatalf("another installation's: got %+v, %v", got, err)
		}
		at := rapid.IntRange(0, len(token)-1).Draw(t, "at")
		changed := token[:at] + rapid.SampledFrom(strings.Split("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-/", "")).Draw(t, "letter") + token[at+1:]
		if got, err := old.ParseLink(changed); changed != token && err == nil {
			t.Fatalf("%s changed to %s: got %+v", token, changed, got)
		}
	})
	for campaign, want := range map[uint64]int{1: 16, 10001: 16, 1<<25 - 1: 16, 1 << 25: 20, schemas.MaxCampaignNumber: 20} {
		if got := schemas.LinkLen(campaign); got != want {
			t.Errorf("campaign %d: got %d letters, want %d", campaign, got, want)
		}
	}
}

// FuzzLinkToken: for any text after the address of the edge, ParseLink accepts only tokens that this installation has
// made, each in one form only.
func FuzzLinkToken(f *testing.F) {
	keys := linkKeys(f, "0123456789abcdef")
	for _, l := range []schemas.Link{{Campaign: 10001}, {Campaign: 1 << 25, Seq: 7, Number: 1}, {Campaign: schemas.MaxCampaignNumber, Seq: schemas.MaxSeq, Number: schemas.MaxLink}} {
		f.Add(string(keys.AppendLink(nil, l)))
	}
	for _, s := range []string{"", "zzzzzzzzzzzzzzzz", "zzzzzzzzzzzzzzzzzzzz", "../../etc/passwd", "0000000000000000", "00000000000000000\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		l, err := keys.ParseLink(token)
		if err != nil {
			return
		}
		if again := string(keys.AppendLink(nil, l)); again != token {
			t.Fatalf("%q was read as %+v, whose token is %q", token, l, again)
		}
	})
}

func BenchmarkLink(b *testing.B) {
	keys := linkKeys(b, "0123456789abcdef")
	token := string(keys.AppendLink(nil, schemas.Link{Campaign: 10001, Seq: 7, Number: 1}))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keys.ParseLink(token); err != nil {
			b.Fatal(err)
		}
	}
}
