package schemas_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"fanfare/schemas"
)

// TestMACIsPlainHMAC: ids and hashes are the HMAC-SHA256 of the bytes that their comments name, for any length. So
// another program can compute them, and no change of our code may change them.
func TestMACIsPlainHMAC(t *testing.T) {
	secret := []byte("0123456789abcdef")
	k, err := schemas.NewKeys(secret)
	if err != nil {
		t.Fatal(err)
	}
	sum := func(s string) string {
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(s))
		return hex.EncodeToString(h.Sum(nil))
	}
	for n := range 100 {
		tenant := strings.Repeat("t", n)
		got := k.NumberHash(tenant, "+393401234567")
		if want := sum("n" + tenant + "\x00+393401234567")[:16]; hex.EncodeToString(got[:]) != want {
			t.Fatalf("tenant of %d characters: got %x, want %s", n, got, want)
		}
	}
	id := k.Submission(10001, 7, 2)
	if got, want := hex.EncodeToString(id[10:]), sum("i" + string(id[:10]))[:12]; got != want {
		t.Errorf("tag: got %s, want %s", got, want)
	}
}
