package ui

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/go-chi/chi/v5"

	"fanfare/api/clientaddr"
	"fanfare/api/store"
)

// Actor is the person on whose behalf the console calls the API.
type Actor struct {
	// User is the id that campaign events record.
	User string
	// Name is the name of the user.
	Name   string
	Tenant string
	Scopes []store.Scope
}

// Config of the console.
type Config struct {
	// API answers everything below /api.
	API http.Handler
	// As returns a context under which the API treats a request as one of the actor.
	As func(ctx context.Context, actor Actor) context.Context
	// Store keeps people and sessions.
	Store *store.Store
	// Secure is true when browsers reach the console by HTTPS. Cookies are then sent only by HTTPS.
	Secure bool
	// Proxies are the addresses of our own proxies: attempts to log in are limited by the address behind them.
	Proxies clientaddr.Proxies
	// OIDC is a provider by which people may log in; nil: by password and one-time link only.
	OIDC *OIDC
	// Done is closed when the process begins to stop. It ends live pages.
	Done   <-chan struct{}
	Logger *slog.Logger
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// UI serves the console.
type UI struct {
	Config
	assets   *assets
	pages    *pages
	sessions *scs.SessionManager
	logins   *loginLimits
	oidc     *oidcClient
	hub      *hub
}

// New reads the embedded files and templates.
func New(cfg Config) (*UI, error) {
	if cfg.API == nil || cfg.As == nil || cfg.Store == nil || cfg.Logger == nil {
		return nil, errors.New("ui: API, As, Store or Logger is missing")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	u := &UI{Config: cfg, logins: newLoginLimits(cfg.Now), oidc: newOIDCClient(cfg.OIDC), hub: newHub(cfg.Done)}
	u.sessions = newSessions(cfg.Store, cfg.Secure)
	var err error
	if u.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	if u.pages, err = loadPages(u.assets); err != nil {
		return nil, err
	}
	return u, nil
}

// Mount adds the console to a router. It takes all paths except /api and those that the router already has.
func (u *UI) Mount(r chi.Router) {
	r.Group(func(r chi.Router) {
		r.Use(securityHeaders)
		r.Get("/ui/assets/*", u.assets.serve)
		r.Group(func(r chi.Router) {
			r.Use(http.NewCrossOriginProtection().Handler, u.sessions.LoadAndSave)
			r.Get("/login", u.loginPage)
			r.Post("/login", u.login)
			u.oidcRoutes(r)
			r.Get("/login/{link}", u.linkPage)
			r.Post("/login/{link}", u.useLink)
			r.Post("/logout", u.logout)
			r.Group(func(r chi.Router) {
				r.Use(u.loggedIn)
				u.screens(r)
			})
		})
	})
}

// screens adds the screens of the console to the router, one line per screen.
func (u *UI) screens(r chi.Router) {
	r.Post("/tenant", u.switchTenant)
	u.gridScreen(r)
	u.wizardScreens(r)
	u.panelScreen(r)
	u.analyticsScreen(r)
	u.replayScreen(r)
	u.memberScreens(r)
	u.ambiguousScreen(r)
	u.rescheduleScreen(r)
	u.testSendScreen(r)
	u.realtimeScreen(r)
	u.resourceRoutes(r)
	u.contactScreens(r)
	u.importScreens(r)
	u.exportScreens(r)
	u.erasureScreens(r)
	u.forecastScreen(r)
	u.moneyScreen(r)
	u.policyScreen(r)
	u.webhookScreens(r)
	u.inboxScreens(r)
}

// securityHeaders sets headers by which a page can load only what this server serves.
func securityHeaders(next http.Handler) http.Handler {
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; media-src 'self'; " +
		"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}
