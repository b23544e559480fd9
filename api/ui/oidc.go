package ui

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-chi/chi/v5"
	"golang.org/x/oauth2"

	"fanfare/schemas"
)

// OIDC is a provider of OpenID Connect by which people log in. The provider identifies the person. The store has the
// person's rights, so the person must have been added to the console before.
type OIDC struct {
	// Issuer is the provider's address, such as https://login.example.com, below which it has
	// /.well-known/openid-configuration.
	Issuer string
	// ClientID and ClientSecret identify the console at the provider.
	ClientID, ClientSecret string
	// PublicURL is the console's own address, as browsers reach it. The provider must allow PublicURL +
	// /login/oidc/callback.
	PublicURL string
}

const (
	oidcCallback = "/login/oidc/callback"
	// oidcPatience bounds each request to the provider.
	oidcPatience = 10 * time.Second
	// oidcLife is how long a person may take at the provider.
	oidcLife = 10 * time.Minute
	keyOIDC  = "oidc"
)

// oidcLogin is a log-in that has gone to the provider. The session keeps it until the person comes back.
type oidcLogin struct {
	State, Nonce, Verifier, Next string
	Until                        time.Time
}

// oidcClient knows the provider once it has answered.
type oidcClient struct {
	cfg  *OIDC
	http *http.Client
	made atomic.Pointer[oidc.Provider]
}

func newOIDCClient(cfg *OIDC) *oidcClient {
	if cfg == nil {
		return nil
	}
	return &oidcClient{cfg: cfg, http: &http.Client{Timeout: oidcPatience}}
}

// provider asks the provider for its addresses, once. If the provider does not answer, the next log-in asks again.
func (c *oidcClient) provider(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	known := c.made.Load()
	if known == nil {
		var err error
		if known, err = oidc.NewProvider(oidc.ClientContext(ctx, c.http), c.cfg.Issuer); err != nil {
			return nil, nil, fmt.Errorf("ask the OpenID provider: %w", err)
		}
		c.made.Store(known)
	}
	return known, &oauth2.Config{
		ClientID: c.cfg.ClientID, ClientSecret: c.cfg.ClientSecret, Endpoint: known.Endpoint(),
		RedirectURL: strings.TrimSuffix(c.cfg.PublicURL, "/") + oidcCallback, Scopes: []string{oidc.ScopeOpenID, "email", "profile"},
	}, nil
}

func (u *UI) oidcRoutes(r chi.Router) {
	if u.oidc != nil {
		r.Get("/login/oidc", u.oidcStart)
		r.Get(oidcCallback, u.oidcReturn)
	}
}

// oidcStart sends the person to the provider.
func (u *UI) oidcStart(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if u.tooFast(w, r) {
		return
	}
	_, config, err := u.oidc.provider(r.Context())
	if err != nil {
		u.oidcFailed(w, r, http.StatusBadGateway, "login.oidc_away", err)
		return
	}
	l := oidcLogin{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Next: ownPath(r.URL.Query().Get("next")), Until: u.Now().Add(oidcLife)}
	kept, err := json.Marshal(l)
	if err != nil {
		u.fail(w, r, err)
		return
	}
	u.sessions.Put(r.Context(), keyOIDC, string(kept))
	http.Redirect(w, r, config.AuthCodeURL(l.State, oidc.Nonce(l.Nonce), oauth2.S256ChallengeOption(l.Verifier)), http.StatusSeeOther)
}

// errOIDC means that the provider's answer does not prove who the person is.
var errOIDC = errors.New("the provider's answer proves nothing")

// oidcReturn logs in the person that the provider names.
func (u *UI) oidcReturn(w http.ResponseWriter, r *http.Request) {
	// This request has no rate limit: without the state that a rate-limited log-in has left in the session, it makes no
	// request to the provider.
	w.Header().Set("Cache-Control", "no-store")
	var l oidcLogin
	err := json.Unmarshal([]byte(u.sessions.PopString(r.Context(), keyOIDC)), &l)
	q := r.URL.Query()
	if err != nil || u.Now().After(l.Until) || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(l.State)) != 1 {
		u.oidcFailed(w, r, http.StatusForbidden, "login.oidc_state", errOIDC)
		return
	}
	if said := q.Get("error"); said != "" {
		u.oidcFailed(w, r, http.StatusForbidden, "login.oidc_refused", fmt.Errorf("%w: %s: %s", errOIDC, said, q.Get("error_description")))
		return
	}
	email, err := u.oidcEmail(r.Context(), q.Get("code"), &l)
	switch {
	case errors.Is(err, errOIDC):
		u.oidcFailed(w, r, http.StatusForbidden, "login.oidc_refused", err)
		return
	case err != nil:
		u.oidcFailed(w, r, http.StatusBadGateway, "login.oidc_away", err)
		return
	}
	user, err := u.Store.UserByEmail(r.Context(), email)
	switch {
	case errors.Is(err, schemas.ErrNotFound) || err == nil && user.Disabled:
		u.Logger.InfoContext(r.Context(), "log-in of an unknown or disabled person refused", "email", email)
		u.render(w, r, http.StatusForbidden, "login", u.loginForm(loginForm{Error: mustSay("login.oidc_unknown", email)}))
	case err != nil:
		u.fail(w, r, err)
	default:
		u.enter(w, r, &user, l.Next)
	}
}

// watched notes whether the provider failed to answer a request, or answered with 5xx. The library's errors do not tell
// a token that proves nothing from keys that could not be read.
type watched struct {
	to     http.RoundTripper // nil: the default
	failed atomic.Bool
}

// RoundTrip implements http.RoundTripper.
func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	to := w.to
	if to == nil {
		to = http.DefaultTransport
	}
	a, err := to.RoundTrip(r)
	if err != nil || a.StatusCode >= 500 {
		w.failed.Store(true)
	}
	return a, err
}

// oidcEmail exchanges the code for the person's e-mail address. It returns errOIDC unless the provider's token is its
// own, for this console and this log-in, and says that the address is the person's.
func (u *UI) oidcEmail(ctx context.Context, code string, l *oidcLogin) (string, error) {
	asked := &watched{to: u.oidc.http.Transport}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, &http.Client{Timeout: oidcPatience, Transport: asked}), oidcPatience)
	defer cancel()
	provider, config, err := u.oidc.provider(ctx)
	if err != nil {
		return "", err
	}
	token, err := config.Exchange(ctx, code, oauth2.VerifierOption(l.Verifier))
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refused.Response.StatusCode/100 == 4 {
		return "", fmt.Errorf("%w: %w", errOIDC, err)
	}
	if err != nil {
		return "", fmt.Errorf("exchange the code: %w", err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: u.oidc.cfg.ClientID, Now: time.Now}).Verify(ctx, raw)
	switch {
	case err != nil && asked.failed.Load():
		return "", fmt.Errorf("ask the OpenID provider for its keys: %w", err)
	case err != nil:
		return "", fmt.Errorf("%w: %w", errOIDC, err)
	}
	var claims struct {
		Email    string `json:"email"`
		Verified bool   `json:"email_verified"`
	}
	if err := id.Claims(&claims); err != nil {
		return "", fmt.Errorf("%w: %w", errOIDC, err)
	}
	switch {
	case subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(l.Nonce)) != 1:
		return "", fmt.Errorf("%w: the token is of another log-in", errOIDC)
	case claims.Email == "" || !claims.Verified:
		return "", fmt.Errorf("%w: it has no e-mail address with email_verified true", errOIDC)
	}
	return claims.Email, nil
}

// oidcFailed shows the log-in page with what is wrong; the log has the details, which the browser does not get.
func (u *UI) oidcFailed(w http.ResponseWriter, r *http.Request, status int, text string, err error) {
	u.Logger.WarnContext(r.Context(), "log-in by the OpenID provider failed", "err", err)
	u.render(w, r, status, "login", u.loginForm(loginForm{Error: mustSay(text)}))
}

// tooFast answers a person, or a program, that tries to log in too often.
func (u *UI) tooFast(w http.ResponseWriter, r *http.Request) bool {
	wait := u.logins.take("", u.Proxies.Of(r).String())
	if wait <= 0 {
		return false
	}
	w.Header().Set("Retry-After", seconds(wait))
	u.render(w, r, http.StatusTooManyRequests, "login", u.loginForm(loginForm{Error: mustSay("login.slow", int(wait/time.Second)+1)}))
	return true
}
