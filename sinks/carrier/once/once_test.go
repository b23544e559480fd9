package once

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestMaxAnswer: an answer of exactly the maximum size is complete. A longer one is cut and marked as torn, so that a
// reader does not take a part for the whole.
func TestMaxAnswer(t *testing.T) {
	const most = 1000
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := most
		if r.URL.Path == "/longer" {
			size++
		}
		_, _ = w.Write([]byte(strings.Repeat("x", size)))
	}))
	defer server.Close()
	c := New(Config{Window: 1, Timeout: 60 * time.Second, MaxAnswer: most})
	for path, torn := range map[string]bool{"/whole": false, "/longer": true} {
		req, err := Request(t.Context(), http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := c.Do(req, func() bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Body) != most || a.Torn != torn {
			t.Errorf("%s: got %d bytes, torn %v; want %d, %v", path, len(a.Body), a.Torn, most, torn)
		}
	}
}
