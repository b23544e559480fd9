package api_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

// The page of the API needs no key, runs one script, and that script is the one that was vendored.
func TestDocs(t *testing.T) {
	w := newEnv(t)
	page := w.callAs("", "GET", "/api/docs", "").want(200)
	if !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") || !strings.Contains(string(page.body), `spec-url="openapi.json"`) {
		t.Errorf("got %s %s", page.header.Get("Content-Type"), page.body)
	}
	policy := page.header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'self';", "connect-src 'self'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("got policy %q, want %s in it", policy, want)
		}
	}
	if strings.Count(string(page.body), "<script") != 1 || strings.Contains(string(page.body), "://") {
		t.Errorf("the page has inline code or loads from elsewhere: %s", page.body)
	}
	script := w.callAs("", "GET", "/api/docs/rapidoc-min.js", "").want(200)
	sum := sha256.Sum256(script.body)
	sums, err := os.ReadFile("docs/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s  rapidoc-min.js\n", hex.EncodeToString(sum[:])); string(sums) != want {
		t.Errorf("SHA256SUMS: got %q, want %q", sums, want)
	}
}
