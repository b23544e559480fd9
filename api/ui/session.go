package ui

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/alexedwards/scs/v2"
	"github.com/go-chi/chi/v5"

	"fanfare/api/store"
	"fanfare/schemas"
)

// Person is the person who uses the console, with the tenant in use.
type Person struct {
	User   store.User
	Tenant store.Tenant
	Role   store.Role
	// Tenants are the tenants that the person may switch to, including the one in use.
	Tenants []store.Tenant
}

// Can reports whether the person has a scope in this tenant.
func (p *Person) Can(scope string) bool {
	for _, s := range p.Role.Scopes() {
		if string(s) == scope {
			return true
		}
	}
	return false
}

const (
	sessionLife = 12 * time.Hour // after this, the person must log in again
	sessionIdle = 2 * time.Hour  // without a request

	keyUser   = "user"
	keyEpoch  = "epoch"
	keyTenant = "tenant"
	keyFlash  = "flash"
)

func newSessions(st *store.Store, secure bool) *scs.SessionManager {
	m := scs.New()
	m.Store = sessionStore{st}
	m.Lifetime, m.IdleTimeout = sessionLife, sessionIdle
	m.HashTokenInStore = true
	m.Cookie.Name = "fanfare_session"
	m.Cookie.HttpOnly, m.Cookie.Secure = true, secure
	// Lax, so that a link in a chat can open the console; CrossOriginProtection guards changes
	m.Cookie.SameSite = http.SameSiteLaxMode
	m.ErrorFunc = func(w http.ResponseWriter, _ *http.Request, _ error) {
		w.Header().Set("Retry-After", "2")
		http.Error(w, mustSay("error.store"), http.StatusServiceUnavailable)
	}
	return m
}

// sessionStore keeps sessions in the store, so that every api process knows them. The interface scs.Store requires the
// methods without a context; scs calls only those with one.
type sessionStore struct{ store *store.Store }

var _ scs.CtxStore = sessionStore{}

// FindCtx implements [scs.CtxStore].
func (s sessionStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	return s.store.Session(ctx, token)
}

// CommitCtx implements [scs.CtxStore].
func (s sessionStore) CommitCtx(ctx context.Context, token string, data []byte, expires time.Time) error {
	return s.store.PutSession(ctx, token, data, expires)
}

// DeleteCtx implements [scs.CtxStore].
func (s sessionStore) DeleteCtx(ctx context.Context, token string) error {
	return s.store.DeleteSession(ctx, token)
}

// Find implements [scs.Store].
func (s sessionStore) Find(token string) ([]byte, bool, error) {
	return s.FindCtx(context.Background(), token)
}

// Commit implements [scs.Store].
func (s sessionStore) Commit(token string, data []byte, expires time.Time) error {
	return s.CommitCtx(context.Background(), token, data, expires)
}

// Delete implements [scs.Store].
func (s sessionStore) Delete(token string) error { return s.DeleteCtx(context.Background(), token) }

type personKey struct{}

// personOf returns the person of a request that has passed loggedIn.
func personOf(ctx context.Context) *Person {
	p, _ := ctx.Value(personKey{}).(*Person)
	return p
}

// loggedIn passes on requests of logged-in people. It redirects all others to the log-in page, which returns them to
// the requested page.
func (u *UI) loggedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, err := u.person(r.Context())
		if err != nil {
			u.fail(w, r, err)
			return
		}
		if p == nil {
			w.Header().Set("Cache-Control", "no-store")
			if r.Method != http.MethodGet || r.Header.Get("Accept") == "text/event-stream" {
				http.Error(w, mustSay("login.over"), http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, "/login?next="+escape(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), personKey{}, p)))
	})
}

// person returns the person of the session; nil when the request has no valid session or the person has lost access.
func (u *UI) person(ctx context.Context) (*Person, error) {
	id := u.sessions.GetString(ctx, keyUser)
	if id == "" {
		return nil, nil
	}
	user, err := u.Store.User(ctx, id)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if user.Disabled || int64(user.Epoch) != u.sessions.GetInt64(ctx, keyEpoch) {
		return nil, nil
	}
	p := &Person{User: user}
	roles := map[string]store.Role{}
	if user.Operator {
		if p.Tenants, err = u.Store.Tenants(ctx); err != nil {
			return nil, err
		}
		for i := range p.Tenants {
			roles[p.Tenants[i].ID] = store.RoleOperator
		}
	} else {
		members, err := u.Store.Memberships(ctx, id)
		if err != nil {
			return nil, err
		}
		for _, m := range members {
			t, err := u.Store.Tenant(ctx, m.Tenant)
			if err != nil {
				return nil, err
			}
			if t.Enabled {
				p.Tenants, roles[t.ID] = append(p.Tenants, t), m.Role
			}
		}
	}
	if len(p.Tenants) == 0 {
		return nil, nil
	}
	chosen := u.sessions.GetString(ctx, keyTenant)
	p.Tenant = p.Tenants[0]
	for i := range p.Tenants {
		if p.Tenants[i].ID == chosen {
			p.Tenant = p.Tenants[i]
		}
	}
	p.Role = roles[p.Tenant.ID]
	return p, nil
}

func (u *UI) switchTenant(w http.ResponseWriter, r *http.Request) {
	u.sessions.Put(r.Context(), keyTenant, r.PostFormValue("tenant"))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// loginForm is the data of the log-in page.
type loginForm struct {
	Email, Next, Error string
	Link               string // the secret of a one-time link; "" for the form
	OIDC               string // path at which the log-in by a provider begins; "" if there is no provider
}

// loginForm returns f with the fields that follow from the configuration.
func (u *UI) loginForm(f loginForm) loginForm {
	if u.oidc != nil && f.Link == "" {
		f.OIDC = "/login/oidc?next=" + escape(f.Next)
	}
	return f
}

func (u *UI) loginPage(w http.ResponseWriter, r *http.Request) {
	u.render(w, r, http.StatusOK, "login", u.loginForm(loginForm{Next: r.URL.Query().Get("next")}))
}

// wrongHash is the hash to compare with when there is no such person, so that the answer takes as long as for a wrong
// password.
var wrongHash = sync.OnceValue(func() string {
	hash, _ := argon2id.CreateHash("nobody has this password", argon2id.DefaultParams) // fails only without randomness
	return hash
})

func (u *UI) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	form := loginForm{Email: strings.TrimSpace(r.PostFormValue("email")), Next: r.PostFormValue("next")}
	if wait := u.logins.take(strings.ToLower(form.Email), u.Proxies.Of(r).String()); wait > 0 {
		w.Header().Set("Retry-After", seconds(wait))
		form.Error = mustSay("login.slow", int(wait/time.Second)+1)
		u.render(w, r, http.StatusTooManyRequests, "login", u.loginForm(form))
		return
	}
	user, err := u.Store.UserByEmail(r.Context(), form.Email)
	if err != nil && !errors.Is(err, schemas.ErrNotFound) {
		u.fail(w, r, err)
		return
	}
	hash := user.Password
	if hash == "" {
		hash = wrongHash()
	}
	if ok, err := argon2id.ComparePasswordAndHash(r.PostFormValue("password"), hash); err != nil || !ok || user.Password == "" || user.Disabled {
		form.Error = mustSay("login.wrong")
		u.render(w, r, http.StatusUnauthorized, "login", u.loginForm(form))
		return
	}
	u.enter(w, r, &user, form.Next)
}

// linkPage asks for a click before it uses a one-time link, because programs that open links in messages must not use
// it up.
func (u *UI) linkPage(w http.ResponseWriter, r *http.Request) {
	u.render(w, r, http.StatusOK, "login", loginForm{Link: chi.URLParam(r, "link")})
}

func (u *UI) useLink(w http.ResponseWriter, r *http.Request) {
	if u.tooFast(w, r) {
		return
	}
	user, err := u.Store.UseLoginLink(r.Context(), chi.URLParam(r, "link"))
	switch {
	case errors.Is(err, schemas.ErrNotFound) || err == nil && user.Disabled:
		u.render(w, r, http.StatusForbidden, "login", u.loginForm(loginForm{Error: mustSay("login.link_used")}))
	case err != nil:
		u.fail(w, r, err)
	default:
		u.enter(w, r, &user, "/")
	}
}

// enter starts a session with a new token, so that a token planted by an attacker before the log-in is useless (session
// fixation).
func (u *UI) enter(w http.ResponseWriter, r *http.Request, user *store.User, next string) {
	ctx := r.Context()
	if err := u.sessions.RenewToken(ctx); err != nil {
		u.fail(w, r, err)
		return
	}
	u.sessions.Put(ctx, keyUser, user.ID)
	u.sessions.Put(ctx, keyEpoch, int64(user.Epoch))
	if err := u.Store.UserSeen(ctx, user.ID); err != nil {
		u.Logger.WarnContext(ctx, "write of the last log-in failed", "user", user.ID, "err", err)
	}
	http.Redirect(w, r, ownPath(next), http.StatusSeeOther)
}

func (u *UI) logout(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	if r.PostFormValue("everywhere") != "" {
		if user, err := u.Store.User(ctx, u.sessions.GetString(ctx, keyUser)); err == nil {
			user.Epoch++
			if _, err := u.Store.ChangeUser(ctx, user); err != nil {
				u.fail(w, r, err)
				return
			}
		}
	}
	if err := u.sessions.Destroy(ctx); err != nil {
		u.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// ownPath returns next if it is a path of this server, else the first page, so that a link cannot redirect people to
// another site after the log-in.
func ownPath(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") {
		return "/"
	}
	return next
}

// loginLimits limits log-in attempts, for each e-mail address and for each network address: a burst of ten, then one
// every six seconds.
type loginLimits struct {
	now func() time.Time
	mu  sync.Mutex
	at  map[string]time.Time // theoretical arrival time of the next attempt (GCRA)
}

const (
	loginEvery  = 6 * time.Second
	loginBurst  = 10
	loginsKnown = 10_000
	// longestEmail is how many bytes of an address count. The longest address has 254.
	longestEmail = 320
)

func newLoginLimits(now func() time.Time) *loginLimits {
	return &loginLimits{now: now, at: map[string]time.Time{}}
}

// take counts an attempt and returns how long to wait when there are too many.
func (l *loginLimits) take(email, address string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if len(l.at) > loginsKnown {
		for key, at := range l.at {
			if at.Before(now) {
				delete(l.at, key)
			}
		}
	}
	// The network address comes first: attempts that it refuses leave nothing in memory.
	keys := []string{"address " + address}
	if email != "" {
		keys = append(keys, "email "+email[:min(len(email), longestEmail)])
	}
	for _, key := range keys {
		at := l.at[key]
		if at.Before(now) {
			at = now
		}
		if over := at.Sub(now) - (loginBurst-1)*loginEvery; over > 0 {
			return over
		}
		l.at[key] = at.Add(loginEvery)
	}
	return 0
}
