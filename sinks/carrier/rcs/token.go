package rcs

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"
)

// scope of access tokens.
const scope = "https://www.googleapis.com/auth/rcsbusinessmessaging"

// tokens gets access tokens. It fetches a token when one is needed, keeps it until shortly before it expires, and
// fetches a new one if the platform refuses it. After a failure it waits before the next fetch, because otherwise each
// message would cause one.
type tokens struct {
	cfg  *jwt.Config
	http *http.Client

	mu     sync.Mutex
	source oauth2.TokenSource
	err    error
	next   time.Time // earliest time of the next fetch
}

// tokenPause is the pause after a failed fetch, and after a refused token.
const tokenPause = time.Second

func newTokens(a *account) *tokens {
	return &tokens{
		cfg: &jwt.Config{
			Email: a.ServiceAccount.Email, PrivateKey: []byte(a.ServiceAccount.Key), PrivateKeyID: a.ServiceAccount.KeyID, Scopes: []string{scope}, TokenURL: a.TokenURL,
		},
		http: &http.Client{Timeout: a.timeout, Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: a.roots, MinVersion: tls.VersionTLS12}, IdleConnTimeout: time.Minute,
		}},
	}
}

// get returns a token.
func (t *tokens) get() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil && time.Now().Before(t.next) {
		return "", t.err
	}
	if t.source == nil {
		t.source = t.cfg.TokenSource(context.WithValue(context.Background(), oauth2.HTTPClient, t.http))
	}
	token, err := t.source.Token()
	if t.err = err; err != nil {
		t.next = time.Now().Add(tokenPause)
		return "", err
	}
	return token.AccessToken, nil
}

// refused drops a token that the platform has refused.
func (t *tokens) refused() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.After(t.next) {
		t.source, t.next = nil, now.Add(tokenPause)
	}
}

func (t *tokens) close() { t.http.CloseIdleConnections() }
