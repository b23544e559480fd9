package schemas_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fanfare/schemas"
)

func keys(t testing.TB, secrets ...string) *schemas.Keys {
	t.Helper()
	var b [][]byte
	for _, s := range secrets {
		b = append(b, []byte(s))
	}
	k, err := schemas.NewKeys(b...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

const (
	secretOne = "0123456789abcdef-one"
	secretTwo = "0123456789abcdef-two"
)

func TestIDCarriesCampaignSeqAndTry(t *testing.T) {
	k := keys(t, secretOne)
	rapid.Check(t, func(t *rapid.T) {
		campaign := rapid.Uint64Range(0, schemas.MaxCampaignNumber).Draw(t, "campaign")
		seq := rapid.Uint32Range(0, schemas.MaxSeq).Draw(t, "seq")
		try := rapid.Uint8().Draw(t, "try")
		id := k.Submission(campaign, seq, try)
		if id.CampaignNumber() != campaign || id.Seq() != seq || id.Try() != try {
			t.Fatalf("got (%d, %d, %d), want (%d, %d, %d)", id.CampaignNumber(), id.Seq(), id.Try(), campaign, seq, try)
		}
		back, err := schemas.ParseID(id.String())
		if err != nil || back != id {
			t.Fatalf("ParseID(%s): got %v, %v", id, back, err)
		}
		if err := k.Verify(id); err != nil {
			t.Fatalf("Verify: %v", err)
		}
		if got, want := k.MessageOf(id), k.Message(campaign, seq); got != want {
			t.Fatalf("MessageOf: got %s, want %s", got, want)
		}
	})
}

func TestIDIsTheSameForEver(t *testing.T) {
	// Golden: a carrier may send this text back years later.
	k := keys(t, secretOne)
	for want, id := range map[string]schemas.ID{
		"msg_00000017240001r0kk635nay5c": k.Message(10001, 7),
		"sub_00000017240001r1twxvndxjx0": k.Submission(10001, 7, 1),
	} {
		if got := id.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if a, b := k.Submission(1, 2, 3), keys(t, secretOne).Submission(1, 2, 3); a != b {
		t.Errorf("two processes mint %s and %s", a, b)
	}
}

func TestForgedIDIsRefused(t *testing.T) {
	k := keys(t, secretOne)
	id := k.Submission(10001, 7, 1)
	for bit := range 128 {
		forged := id
		forged[bit/8] ^= 1 << (bit % 8)
		if err := k.Verify(forged); !errors.Is(err, schemas.ErrID) {
			t.Fatalf("bit %d flipped: got %v, want ErrID", bit, err)
		}
	}
}

func TestKeyRotation(t *testing.T) {
	old, both := keys(t, secretOne), keys(t, secretTwo, secretOne)
	if err := both.Verify(old.Submission(1, 2, 3)); err != nil {
		t.Errorf("an id of the old key: %v", err)
	}
	if err := old.Verify(both.Submission(1, 2, 3)); err == nil {
		t.Error("the old key alone verified an id of the new one")
	}
}

func TestNumberHashDiffersBetweenTenants(t *testing.T) {
	k := keys(t, secretOne)
	if k.NumberHash("tn_a", "+393401234567") == k.NumberHash("tn_b", "+393401234567") {
		t.Error("one hash for two tenants")
	}
	if again := keys(t, secretOne); k.NumberHash("tn_a", "+393401234567") != again.NumberHash("tn_a", "+393401234567") {
		t.Error("two hashes for one number")
	}
}

func TestParseIDRefuses(t *testing.T) {
	id := keys(t, secretOne).Submission(1, 2, 3).String()
	for _, s := range []string{"", "msg_", id[1:], "msg_" + id[4:], strings.ToUpper(id), id[:29] + "u", id + "0"} {
		if _, err := schemas.ParseID(s); !errors.Is(err, schemas.ErrID) {
			t.Errorf("ParseID(%q): got %v, want ErrID", s, err)
		}
	}
}

func TestCampaignID(t *testing.T) { // R105
	if got := schemas.CampaignID(12345); got != "camp_12345" {
		t.Errorf("got %s, want camp_12345", got)
	}
	if n, err := schemas.CampaignNumber("camp_12345"); n != 12345 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	for _, s := range []string{"", "camp_", "12345", "camp_-1", "camp_01", "camp_1x", "camp_281474976710656"} {
		if _, err := schemas.CampaignNumber(s); err == nil {
			t.Errorf("CampaignNumber(%q): no error", s)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("msg_00000017240001r0kk635nay5c")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := schemas.ParseID(s); err == nil && id.String() != s {
			t.Fatalf("%q reads as an id that is written %q", s, id)
		}
	})
}

func BenchmarkSubmission(b *testing.B) {
	k := keys(b, secretOne)
	b.ReportAllocs()
	for b.Loop() {
		k.Submission(10001, 7, 1)
	}
}
