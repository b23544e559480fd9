package ui

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"fanfare/api/store"
)

// No other site can make a browser change anything in the console: every route but those that only show something
// refuses a request which the browser says comes from elsewhere, before the session is read. Cookies are of no use
// there. A browser's own request is let through, to the page for login.
func TestOtherSitesChangeNothing(t *testing.T) {
	u, err := New(Config{
		API: http.NotFoundHandler(), As: func(ctx context.Context, _ Actor) context.Context { return ctx }, Store: new(store.Store), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	router := chi.NewRouter()
	u.Mount(router)
	send := func(method, path string, headers map[string]string) int {
		r := httptest.NewRequestWithContext(t.Context(), method, "https://console.example"+path, strings.NewReader("a=b"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for name, value := range headers {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		return w.Code
	}
	tried := 0
	err = chi.Walk(router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions {
			return nil
		}
		tried++
		path := strings.NewReplacer("{", "", "}", "", "*", "x").Replace(route)
		for what, headers := range map[string]map[string]string{
			"another site":           {"Sec-Fetch-Site": "cross-site"},
			"another host of ours":   {"Sec-Fetch-Site": "same-site"},
			"an old browser":         {"Origin": "https://evil.example"},
			"a page without origin":  {"Origin": "null"},
			"another port of a host": {"Origin": "https://console.example:8443"},
		} {
			if got := send(method, path, headers); got != http.StatusForbidden {
				t.Errorf("%s %s from %s: got %d, want 403", method, path, what, got)
			}
		}
		if strings.HasPrefix(path, "/log") {
			return nil // people who are not logged in use these
		}
		if got := send(method, path, map[string]string{"Sec-Fetch-Site": "same-origin"}); got == http.StatusForbidden {
			t.Errorf("%s %s from the console itself: got 403", method, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if tried < 40 {
		t.Errorf("%d routes were tried, want all of the console", tried)
	}
	t.Logf("%d routes", tried)
}
