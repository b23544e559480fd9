package ui

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	loginFor   = time.Hour      // a link that nobody followed
	sessionFor = 12 * time.Hour // a working day; the process's end is the end of it in any case
	maxLogins  = 100
)

const cookieName = "fanfare_session"

// Logins opens sessions of the live page by links that work once. Both live in memory: a new start of the process makes a new link.
type Logins struct {
	now func() time.Time

	mu       sync.Mutex
	pending  map[[sha256.Size]byte]session
	sessions map[[sha256.Size]byte]session
}

type session struct {
	tenant string
	until  time.Time
}

// NewLogins returns an empty set of logins. now is the clock, nil for the real one.
func NewLogins(now func() time.Time) *Logins {
	if now == nil {
		now = time.Now
	}
	return &Logins{now: now, pending: map[[sha256.Size]byte]session{}, sessions: map[[sha256.Size]byte]session{}}
}

// NewLogin returns the path of a link, `/login/<token>`, that opens a session of the tenant once, within an hour.
func (l *Logins) NewLogin(tenant string) string {
	token := rand.Text() + rand.Text()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(l.pending, token, session{tenant, l.now().Add(loginFor)})
	return "/login/" + token
}

// put keeps a session under the hash of its token, and drops those that are over; of too many, any.
func (l *Logins) put(m map[[sha256.Size]byte]session, token string, s session) {
	for k, old := range m {
		if !l.now().Before(old.until) || len(m) >= maxLogins {
			delete(m, k)
		}
	}
	m[sha256.Sum256([]byte(token))] = s
}

// open turns the token of a link into that of a session.
func (l *Logins) open(token string) (cookie string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := sha256.Sum256([]byte(token))
	s, ok := l.pending[key]
	delete(l.pending, key)
	if !ok || !l.now().Before(s.until) {
		return "", false
	}
	cookie = rand.Text() + rand.Text()
	l.put(l.sessions, cookie, session{s.tenant, l.now().Add(sessionFor)})
	return cookie, true
}

// tenant returns whose session a request belongs to.
func (l *Logins) tenant(r *http.Request) (string, bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return "", false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s, ok := l.sessions[sha256.Sum256([]byte(c.Value))]
	return s.tenant, ok && l.now().Before(s.until)
}

// loopback reports whether both ends are this machine: the peer's address, and the name that the browser asked for, which a
// page of another site may have made resolve to us (DNS rebinding).
func loopback(r *http.Request) bool {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil || !isLoopback(peer) {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	return subtle.ConstantTimeCompare([]byte(strings.ToLower(host)), []byte("localhost")) == 1 || isLoopback(host)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
