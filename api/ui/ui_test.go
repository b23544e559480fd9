package ui_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"fanfare/api/ui"
)

// source is a page's source with fixed answers.
type source struct {
	asked atomic.Value // ui.Query
	acted atomic.Value // string
	err   error
}

func (s *source) Grid(_ context.Context, tenant string, q ui.Query) (ui.Grid, error) {
	s.asked.Store(q)
	return ui.Grid{Tenant: tenant, Rows: []ui.Row{}, Total: 1}, s.err
}

func (s *source) Act(_ context.Context, tenant, campaign, action string) error {
	s.acted.Store(tenant + " " + action + " " + campaign)
	return s.err
}

type world struct {
	*testing.T
	logins *ui.Logins
	src    *source
	url    string
	now    *atomic.Int64
	client *http.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, src: &source{}, now: &atomic.Int64{}}
	w.now.Store(1_000_000)
	w.logins = ui.NewLogins(func() time.Time { return time.Unix(w.now.Load(), 0) })
	done := make(chan struct{})
	page, err := ui.New(ui.Config{Logins: w.logins, Source: w.src, Done: done})
	if err != nil {
		t.Fatal(err)
	}
	r := chi.NewRouter()
	page.Mount(r)
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(done) })
	w.url = srv.URL
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.client = &http.Client{Jar: jar}
	return w
}

func (w *world) do(method, path string, change func(*http.Request)) (*http.Response, string) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, w.url+path, nil)
	if err != nil {
		w.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.Fatal(err)
	}
	return resp, string(b)
}

func (w *world) status(method, path string, change func(*http.Request)) int {
	w.Helper()
	resp, _ := w.do(method, path, change)
	return resp.StatusCode
}

// A link opens one session, once, within an hour; the cookie is out of reach of scripts and of other sites.
func TestLogin(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/", "/ui/grid", "/ui/live"} {
		if got := w.status("GET", path, nil); got != http.StatusUnauthorized {
			t.Errorf("%s without a session: got %d, want 401", path, got)
		}
	}
	link := w.logins.NewLogin("tn_a")
	resp, _ := w.do("GET", link, nil)
	if resp.StatusCode != http.StatusOK || len(resp.Cookies()) != 1 {
		t.Fatalf("link: got %d and %d cookies, want 200 and one", resp.StatusCode, len(resp.Cookies()))
	}
	c := resp.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || strings.Contains(link, c.Value) {
		t.Errorf("cookie: got %+v, want HttpOnly, SameSite=Strict and another secret than the link's", c)
	}
	if resp, body := w.do("GET", "/", nil); resp.StatusCode != http.StatusOK || !strings.Contains(body, "<h1>Campaigns</h1>") {
		t.Errorf("page: got %d %s", resp.StatusCode, body)
	}
	if _, body := w.do("GET", "/ui/grid?search=x&status=sending&type=sms&page=2", nil); !strings.Contains(body, `"tenant":"tn_a"`) || w.src.asked.Load() != (ui.Query{Search: "x", Status: "sending", Type: "sms", Page: 2}) {
		t.Errorf("grid: got %s for %+v, want tn_a's with the query", body, w.src.asked.Load())
	}
	other := &world{T: t, url: w.url, client: &http.Client{}}
	if got := other.status("GET", link, nil); got != http.StatusForbidden {
		t.Errorf("the same link from another browser: got %d, want 403", got)
	}
	if got := w.status("GET", link, nil); got != http.StatusOK {
		t.Errorf("the same link from the same browser: got %d, want 200", got)
	}
	late := w.logins.NewLogin("tn_a")
	w.now.Add(3600)
	if got := other.status("GET", late, nil); got != http.StatusForbidden {
		t.Errorf("a link after an hour: got %d, want 403", got)
	}
	if got := other.status("GET", "/login/guess", nil); got != http.StatusForbidden {
		t.Errorf("a guess: got %d, want 403", got)
	}
	w.now.Add(12 * 3600)
	if got := w.status("GET", "/", nil); got != http.StatusUnauthorized {
		t.Errorf("the next day: got %d, want 401", got)
	}
}

// Only this machine: by its address, and by the name that the browser asked for.
func TestLoopbackOnly(t *testing.T) {
	w := newWorld(t)
	w.status("GET", w.logins.NewLogin("tn_a"), nil)
	if got := w.status("GET", "/", func(r *http.Request) { r.Host = "attacker.example" }); got != http.StatusForbidden {
		t.Errorf("another host name: got %d, want 403", got)
	}
	for _, host := range []string{"localhost:1", "127.0.0.1", "[::1]:80", "LOCALHOST"} {
		if got := w.status("GET", "/", func(r *http.Request) { r.Host = host }); got == http.StatusForbidden {
			t.Errorf("%s: got 403, want it let in", host)
		}
	}
	page, err := ui.New(ui.Config{Logins: w.logins, Source: w.src})
	if err != nil {
		t.Fatal(err)
	}
	router := chi.NewRouter()
	page.Mount(router)
	for _, path := range []string{"/", "/ui/assets/app.js", w.logins.NewLogin("tn_a")} {
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr, r.Host = "192.0.2.7:1234", "localhost"
		rec := httptest.NewRecorder()
		router.ServeHTTP(rec, r)
		if rec.Code != http.StatusForbidden {
			t.Errorf("%s from another machine: got %d, want 403", path, rec.Code)
		}
	}
}

// The buttons do what they say, for the session's tenant, and not for a page of another site.
func TestActions(t *testing.T) {
	w := newWorld(t)
	if got := w.status("POST", "/ui/campaigns/camp_1/pause", nil); got != http.StatusUnauthorized {
		t.Errorf("without a session: got %d, want 401", got)
	}
	w.status("GET", w.logins.NewLogin("tn_a"), nil)
	if got := w.status("POST", "/ui/campaigns/camp_1/pause", nil); got != http.StatusNoContent || w.src.acted.Load() != "tn_a pause camp_1" {
		t.Errorf("pause: got %d and %v, want 204 and it done", got, w.src.acted.Load())
	}
	for name, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://attacker.example"} {
		if got := w.status("POST", "/ui/campaigns/camp_2/pause", func(r *http.Request) { r.Header.Set(name, value) }); got != http.StatusForbidden {
			t.Errorf("%s: got %d, want 403", name, got)
		}
	}
	if got := w.status("POST", "/ui/campaigns/camp_2/delete", nil); got != http.StatusNotFound {
		t.Errorf("another action: got %d, want 404", got)
	}
	w.src.err = errors.New("the campaign is completed")
	if resp, body := w.do("POST", "/ui/campaigns/camp_2/resume", nil); resp.StatusCode != http.StatusConflict || !strings.Contains(body, "completed") {
		t.Errorf("refused: got %d %s, want 409 with the reason", resp.StatusCode, body)
	}
	if got := w.src.acted.Load(); got != "tn_a resume camp_2" {
		t.Errorf("last: got %v", got)
	}
}

// The stream says the grid at once, trouble when there is some, and ends with its session.
func TestLive(t *testing.T) {
	w := newWorld(t)
	w.status("GET", w.logins.NewLogin("tn_a"), nil)
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/ui/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type: got %q, want text/event-stream", got)
	}
	lines := bufio.NewScanner(resp.Body)
	if lines.Scan(); lines.Text() != "event: grid" {
		t.Errorf("first: got %q, want the grid", lines.Text())
	}
	w.now.Add(13 * 3600)
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("after the session: got %v, want the end of the stream", err)
	}
}

// What the page is made of: no other host in it, a policy that forbids one, and vendored files that are what they were.
func TestAssets(t *testing.T) {
	w := newWorld(t)
	resp, js := w.do("GET", "/ui/assets/app.js", nil)
	policy := resp.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy: got %q, want nothing allowed but ours", policy)
	}
	_, css := w.do("GET", "/ui/assets/app.css", nil)
	html, err := os.ReadFile("assets/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"app.js": js, "app.css": css, "index.html": string(html)} {
		if found := regexp.MustCompile(`(https?:)?//[a-z0-9.-]+\.[a-z]{2,}|innerHTML|\son[a-z]+=|<style|style="`).FindString(text); found != "" {
			t.Errorf("%s: got %q, which the page must do without", name, found)
		}
	}
	etag := resp.Header.Get("ETag")
	if got := w.status("GET", "/ui/assets/app.js", func(r *http.Request) { r.Header.Set("If-None-Match", etag) }); got != http.StatusNotModified {
		t.Errorf("with its ETag: got %d, want 304", got)
	}
	for _, path := range []string{"/ui/assets/index.html", "/ui/assets/none", "/ui/assets/../ui.go"} {
		if got := w.status("GET", path, nil); got != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, got)
		}
	}
	sums, err := os.ReadFile("assets/vendor/SHA256SUMS")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(sums)) {
		want, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		b, err := os.ReadFile("assets/vendor/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s: got another sum than SHA256SUMS says", name)
		}
	}
}
