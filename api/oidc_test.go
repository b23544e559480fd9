package api_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"fanfare/api"
	"fanfare/api/clientaddr"
	"fanfare/api/store"
)

// provider is an OpenID provider. Its answers can be made wrong.
type provider struct {
	*httptest.Server
	t      *testing.T
	signer jose.Signer
	keys   jose.JSONWebKeySet
	// asked is the query of the last authorization; claims change those of the next token.
	asked  url.Values
	claims func(map[string]any)
	away   bool
	locked bool // the keys are not answered
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{t: t, keys: jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "RS256", Use: "sig"}}}}
	p.sign(key)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		if p.away {
			http.Error(w, "maintenance", http.StatusServiceUnavailable)
			return
		}
		p.answer(w, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		if p.locked {
			http.Error(w, "maintenance", http.StatusServiceUnavailable)
			return
		}
		p.answer(w, p.keys)
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		p.asked = r.URL.Query()
		back := url.Values{"code": {"code-1"}, "state": {p.asked.Get("state")}}
		http.Redirect(w, r, p.asked.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
	})
	mux.HandleFunc("POST /token", p.token)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) sign(key *rsa.PrivateKey) {
	var err error
	p.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", "k1"))
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *provider) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		p.t.Error(err)
	}
}

// token exchanges the code for its token if the client knows the console's secret and the verifier of the challenge.
func (p *provider) token(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if id != "console" || secret != "s3cret" || r.PostFormValue("code") != "code-1" || base64.RawURLEncoding.EncodeToString(sum[:]) != p.asked.Get("code_challenge") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
		return
	}
	claims := map[string]any{
		"iss": p.URL, "aud": "console", "sub": "u-1", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(), "nonce": p.asked.Get("nonce"),
		"email": "anna@example.com", "email_verified": true,
	}
	if p.claims != nil {
		p.claims(claims)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		p.t.Error(err)
	}
	signed, err := p.signer.Sign(payload)
	if err != nil {
		p.t.Error(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		p.t.Error(err)
	}
	p.answer(w, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": token})
}

// People log in by the organization's provider; whom it does not prove, and whom the console does not know, stay
// outside.
func TestLogInByProvider(t *testing.T) {
	p := newProvider(t)
	oidc := &api.OIDC{Issuer: p.URL, ClientID: "console", ClientSecret: "s3cret"}
	w := newEnvOf(t, func(w *env) {
		w.deps.Console, w.deps.OIDC, w.deps.Proxies = true, oidc, clientaddr.Proxies{netip.MustParsePrefix("127.0.0.0/8")}
	})
	oidc.PublicURL = w.url
	user, err := w.store.CreateUser(t.Context(), store.User{Email: "Anna@example.com", Name: "Anna Rossi"})
	w.check(err)
	w.check(w.store.SetMembership(t.Context(), user.ID, w.tenant.ID, store.RoleEditor))
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	w.check(err)

	// browse begins a log-in and follows all redirects. It returns the last address and page.
	browse := func(start string, change func(*http.Client)) (string, string) {
		t.Helper()
		w.clock.forward(time.Minute) // the limit of attempts
		jar, err := cookiejar.New(nil)
		w.check(err)
		browser := &http.Client{Jar: jar}
		if change != nil {
			change(browser)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+start, http.NoBody)
		w.check(err)
		resp, err := browser.Do(req)
		w.check(err)
		defer resp.Body.Close()
		var page strings.Builder
		_, err = io.Copy(&page, resp.Body)
		w.check(err)
		return resp.Request.URL.RequestURI(), page.String()
	}
	if _, page := browse("/login?next=/contacts", nil); !strings.Contains(page, `href="/login/oidc?next=%2Fcontacts"`) {
		t.Error("the log-in page has no link to the provider")
	}
	p.away = true
	if _, page := browse("/login/oidc", nil); !strings.Contains(page, "does not answer") {
		t.Errorf("the provider is away: got %q", page)
	}
	p.away = false
	if at, page := browse("/login/oidc?next=/contacts", nil); at != "/contacts" || !strings.Contains(page, "Anna Rossi") {
		t.Errorf("logged in: got %s, want /contacts as Anna Rossi", at)
	}
	if p.asked.Get("code_challenge_method") != "S256" || p.asked.Get("scope") != "openid email profile" {
		t.Errorf("the provider was asked %v, want a PKCE challenge and the scopes", p.asked)
	}
	if at, _ := browse("/login/oidc?next=https://evil.example", nil); at != "/" {
		t.Errorf("a foreign address: got %s, want /", at)
	}
	outside := func(name, want string, change func(*http.Client)) {
		t.Helper()
		if at, page := browse("/login/oidc", change); !strings.Contains(page, want) || strings.Contains(page, "Anna Rossi") {
			t.Errorf("%s: got %s, want %q and no session", name, at, want)
		}
	}
	for name, claims := range map[string]func(map[string]any){
		"address not verified": func(c map[string]any) { c["email_verified"] = false },
		"no address":           func(c map[string]any) { delete(c, "email") },
		"another console":      func(c map[string]any) { c["aud"] = "other" },
		"another provider":     func(c map[string]any) { c["iss"] = "https://evil.example" },
		"another log-in":       func(c map[string]any) { c["nonce"] = "n" },
		"expired":              func(c map[string]any) { c["exp"] = time.Now().Add(-time.Hour).Unix() },
	} {
		p.claims = claims
		outside(name, "did not confirm who you are", nil)
	}
	p.claims = func(c map[string]any) { c["email"] = "eve@example.com" }
	outside("unknown", "eve@example.com has no account here", nil)
	p.claims = nil
	outside("another window", "started in another window", func(b *http.Client) {
		b.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
			if req.URL.Path == "/login/oidc/callback" { // a link to somebody else's log-in
				req.URL.RawQuery = "code=code-1&state=theirs"
			}
			return nil
		}
	})
	p.locked = true
	outside("keys that cannot be read", "does not answer", nil)
	p.locked = false
	p.sign(other)
	outside("another key", "did not confirm who you are", nil)

	// Answers of the provider without a log-in cost nothing, so that they keep no other person out. Attempts are
	// limited by the address behind our own proxies.
	attempt := func(path, from string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+path, http.NoBody)
		w.check(err)
		req.Header.Set("X-Forwarded-For", from)
		resp, err := http.DefaultTransport.RoundTrip(req)
		w.check(err)
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	w.clock.forward(time.Hour)
	for range 30 {
		if got := attempt("/login/oidc/callback?code=1&state=2", "192.0.2.1"); got != http.StatusForbidden {
			t.Fatalf("a callback without a log-in: got %d, want 403", got)
		}
	}
	for i := range 11 {
		want := http.StatusSeeOther
		if i == 10 {
			want = http.StatusTooManyRequests
		}
		if got := attempt("/login/oidc", "192.0.2.1"); got != want {
			t.Errorf("attempt %d: got %d, want %d", i, got, want)
		}
	}
	if got := attempt("/login/oidc", "192.0.2.2"); got != http.StatusSeeOther {
		t.Errorf("another person behind the same proxy: got %d, want 303", got)
	}
}
