package ui

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"
)

//go:embed assets
var assets embed.FS

// Source answers what the page shows.
type Source interface {
	// Grid returns a page of the tenant's campaigns with their figures.
	Grid(ctx context.Context, tenant string, q Query) (Grid, error)
	// Act does what a button says: pause or resume. The error is shown as it is.
	Act(ctx context.Context, tenant, campaign, action string) error
}

// Query is what the page asks for.
type Query struct {
	Search string
	Status string // a state, "" for any
	Type   string // a channel, "" for any
	Page   int    // 0-based
}

// PageSize is how many campaigns the page shows at once.
const PageSize = 20

// Grid is the page. Times are RFC 3339 in UTC.
type Grid struct {
	Tenant   string `json:"tenant"`
	Timezone string `json:"timezone"`
	Currency string `json:"currency"`
	Total    int    `json:"total"` // campaigns that match
	Page     int    `json:"page"`
	Active   int    `json:"active"` // campaigns on the page that send
	Totals   Counts `json:"totals"` // over the campaigns on the page
	Rows     []Row  `json:"rows"`
	AsOf     string `json:"asOf"` // "" when not known
}

// Counts obey total = pending + ambiguous + notSent + skipped + sent and sent = awaiting + undelivered + delivered.
type Counts struct {
	Total       uint64 `json:"total"`
	Sent        uint64 `json:"sent"`
	Delivered   uint64 `json:"delivered"`
	Undelivered uint64 `json:"undelivered"`
	Awaiting    uint64 `json:"awaiting"`
	Pending     uint64 `json:"pending"`
	Ambiguous   uint64 `json:"ambiguous"`
	NotSent     uint64 `json:"notSent"`
	Skipped     uint64 `json:"skipped"`
}

// Row is one campaign.
type Row struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Created   string   `json:"created"`
	Tags      []string `json:"tags"`
	Type      string   `json:"type"`
	State     string   `json:"state"`
	Reason    string   `json:"reason"`
	Settled   bool     `json:"settled"`
	List      string   `json:"list"`
	Sender    string   `json:"sender"`
	Counts    Counts   `json:"counts"`
	Target    uint64   `json:"target"` // recipients; before the audience is frozen, those it was priced for; 0 when not known
	Scheduled string   `json:"scheduled"`
	Finish    string   `json:"finish"` // when the last is handed over, "" when nobody knows
	Cost      string   `json:"cost"`
	Actions   []string `json:"actions"` // pause, resume
}

// Config of the page.
type Config struct {
	Logins *Logins
	Source Source
	// Done ends the live streams: a server that waits for its connections to end would wait for a browser.
	Done <-chan struct{}
}

// UI serves the page.
type UI struct {
	Config
	files   map[string]file
	streams atomic.Int32
}

type file struct {
	body        []byte
	etag, ctype string
}

// New reads the embedded files.
func New(cfg Config) (*UI, error) {
	if cfg.Logins == nil || cfg.Source == nil {
		return nil, errors.New("ui: Logins or Source is missing")
	}
	u := &UI{Config: cfg, files: map[string]file{}}
	err := fs.WalkDir(assets, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := assets.ReadFile(name)
		sum := sha256.Sum256(body)
		u.files[strings.TrimPrefix(name, "assets/")] = file{body, `"` + hex.EncodeToString(sum[:8]) + `"`, contentTypes[path.Ext(name)]}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ui: read embedded files: %w", err)
	}
	return u, nil
}

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".woff2": "font/woff2", ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8",
}

// Mount adds the page to a router: /, /login/{token} and what is below /ui.
func (u *UI) Mount(r chi.Router) {
	r.Group(func(r chi.Router) {
		r.Use(u.local)
		r.Get("/login/{token}", u.login)
		r.Get("/", u.page)
		r.Get("/ui/assets/*", u.asset)
		r.Get("/ui/live", u.live)
		r.Get("/ui/grid", u.grid)
		r.Method(http.MethodPost, "/ui/campaigns/{id}/{action}", http.NewCrossOriginProtection().Handler(http.HandlerFunc(u.act)))
	})
}

// local lets in this machine only, and tells the browser what the page may do: nothing but talk to us.
func (u *UI) local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if !loopback(r) {
			http.Error(w, "The live page is for a browser on this machine: open http://127.0.0.1 with the port of this process. Programs use /api and a key.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// login follows a link. A browser that has a session already keeps it, so that the same link twice does no harm.
func (u *UI) login(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	cookie, ok := u.Logins.open(chi.URLParam(r, "token"))
	if _, has := u.Logins.tenant(r); !ok && !has {
		u.serve(w, r, "expired.html", http.StatusForbidden)
		return
	}
	if ok {
		http.SetCookie(w, &http.Cookie{
			Name: cookieName, Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
			MaxAge: int(sessionFor / time.Second),
		})
	}
	// A redirect that began on another site (a terminal's link, a chat) would not carry a strict cookie; this page's own step does.
	u.serve(w, r, "enter.html", http.StatusOK)
}

func (u *UI) page(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if _, ok := u.Logins.tenant(r); !ok {
		u.serve(w, r, "expired.html", http.StatusUnauthorized)
		return
	}
	u.serve(w, r, "index.html", http.StatusOK)
}

func (u *UI) asset(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	name := chi.URLParam(r, "*")
	if path.Ext(name) == ".html" {
		http.NotFound(w, r)
		return
	}
	u.serve(w, r, name, http.StatusOK)
}

func (u *UI) serve(w http.ResponseWriter, r *http.Request, name string, status int) {
	f, ok := u.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", f.ctype)
	if status == http.StatusOK {
		w.Header().Set("ETag", f.etag)
		if r.Header.Get("If-None-Match") == f.etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.WriteHeader(status)
	_, _ = w.Write(f.body)
}

func query(r *http.Request) Query {
	v := r.URL.Query()
	page, _ := strconv.Atoi(v.Get("page"))
	return Query{Search: v.Get("search"), Status: v.Get("status"), Type: v.Get("type"), Page: max(page, 0)}
}

// grid answers once what live repeats.
func (u *UI) grid(w http.ResponseWriter, r *http.Request) {
	tenant, ok := u.Logins.tenant(r)
	if !ok {
		http.Error(w, "The session is over.", http.StatusUnauthorized)
		return
	}
	g, err := u.Source.Grid(r.Context(), tenant, query(r))
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(g)
}

const (
	tick       = 500 * time.Millisecond
	heartbeat  = 15 * time.Second
	maxStreams = 32 // browsers at once; each asks for its page twice a second
)

// live sends the grid whenever it has changed (server-sent events).
func (u *UI) live(w http.ResponseWriter, r *http.Request) {
	if _, ok := u.Logins.tenant(r); !ok {
		http.Error(w, "The session is over.", http.StatusUnauthorized)
		return
	}
	if u.streams.Add(1) > maxStreams {
		u.streams.Add(-1)
		http.Error(w, "Too many pages are open.", http.StatusServiceUnavailable)
		return
	}
	defer u.streams.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var last string
	var sent time.Time
	for {
		tenant, ok := u.Logins.tenant(r)
		if !ok {
			return
		}
		event := u.event(r.Context(), tenant, query(r))
		if now := time.Now(); event != last || now.Sub(sent) > heartbeat {
			_ = rc.SetWriteDeadline(now.Add(10 * time.Second))
			if _, err := w.Write([]byte(event)); err != nil {
				return
			}
			if err := rc.Flush(); err != nil {
				return
			}
			last, sent = event, now
		}
		select {
		case <-r.Context().Done():
			return
		case <-u.Done:
			return
		case <-ticker.C:
		}
	}
}

// event is the grid as an event, or why there is none.
func (u *UI) event(ctx context.Context, tenant string, q Query) string {
	g, err := u.Source.Grid(ctx, tenant, q)
	if err != nil {
		b, _ := json.Marshal(err.Error())
		return "event: trouble\ndata: " + string(b) + "\n\n"
	}
	b, err := json.Marshal(g)
	if err != nil {
		return ": nothing\n\n"
	}
	return "event: grid\ndata: " + string(b) + "\n\n"
}

// act does what a button says.
func (u *UI) act(w http.ResponseWriter, r *http.Request) {
	tenant, ok := u.Logins.tenant(r)
	if !ok {
		http.Error(w, "The session is over.", http.StatusUnauthorized)
		return
	}
	action := chi.URLParam(r, "action")
	if action != "pause" && action != "resume" {
		http.NotFound(w, r)
		return
	}
	if err := u.Source.Act(r.Context(), tenant, chi.URLParam(r, "id"), action); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
