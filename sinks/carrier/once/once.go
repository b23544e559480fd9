// Package once makes the requests of HTTP by which messages are handed over. A request is written to the carrier once
// or not at all, and the caller learns which:
//
//	[ErrExpired]       nothing was written: the message may not be handed over any more, tested right before the
//	                   system call
//	[ErrNotConnected]  nothing was written: there was no connection
//	[ErrNoAnswer]      something may have been written, and no answer came; it is unknown whether the carrier has it
//
// net/http repeats requests by itself when a connection that was idle turns out to be closed. It does not here, because
// no request can be rewound.
package once

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"time"
)

// Errors of [Client.Do].
var (
	ErrExpired      = errors.New("a message has expired")
	ErrNotConnected = errors.New("no connection")
	ErrNoAnswer     = errors.New("no answer")
)

// Config of a client.
type Config struct {
	// Window is how many requests may run at a time.
	Window int
	// Timeout is how long an answer may take, including at most 5 s to connect.
	Timeout time.Duration
	// Roots sign the carrier's certificate; nil: those of the system.
	Roots *x509.CertPool
	// MaxAnswer is the maximum size of an answer's body in bytes; 0: 4 MB. A longer one is cut, and [Answer.Torn] is
	// set.
	MaxAnswer int64
}

// Client makes requests. It is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
}

// idle is how long a connection without requests is kept. It is shorter than providers keep connections, because a
// request on a connection that the provider has just closed is a hand-over in doubt.
const idle = 15 * time.Second

// New returns a client. It connects with the first request.
func New(cfg Config) *Client {
	c := &Client{cfg: cfg}
	dialer := &net.Dialer{Timeout: c.connect()}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dialer.DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				return &gate{Conn: conn}, nil
			},
			TLSClientConfig: c.tls(), TLSHandshakeTimeout: c.connect(),
			// One write for most requests, and no more connections than hand-overs.
			WriteBufferSize: 64 << 10, MaxIdleConnsPerHost: cfg.Window, MaxConnsPerHost: cfg.Window, IdleConnTimeout: idle,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

func (c *Client) connect() time.Duration { return min(5*time.Second, c.cfg.Timeout) }

func (c *Client) tls() *tls.Config {
	return &tls.Config{RootCAs: c.cfg.Roots, MinVersion: tls.VersionTLS12}
}

// CloseIdle closes the connections that no request uses.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

// Answer is the carrier's answer.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	// Torn says that the connection broke within the body, or that the body is longer than [Config.MaxAnswer].
	Torn bool
}

// RetryAfter is how long the carrier asks us to wait; 0 if it does not say.
func (a *Answer) RetryAfter() time.Duration {
	v := a.Header.Get("Retry-After")
	if n, err := strconv.Atoi(v); err == nil {
		return max(0, time.Duration(n)*time.Second)
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// Failure returns what the status says about the account or the carrier; nil if nothing is wrong with them.
func (a *Answer) Failure() error {
	if a.Status/100 == 2 || a.Status == http.StatusBadRequest || a.Status == http.StatusUnprocessableEntity || a.Status == http.StatusTooManyRequests {
		return nil
	}
	return &StatusError{a.Status}
}

// StatusError is an answer that says that something is wrong with the account or the carrier.
type StatusError struct{ Status int }

// Error names the status.
func (e *StatusError) Error() string {
	return "the provider answers " + strconv.Itoa(e.Status) + " " + http.StatusText(e.Status)
}

// AccountRefused reports whether the carrier refuses the account: 401 (RFC 9110, 15.5.2). 403 does not count, because
// it may concern one number or one agent of several that share the account.
func (e *StatusError) AccountRefused() bool { return e.Status == http.StatusUnauthorized }

// defaultMaxAnswer is the default of [Config.MaxAnswer].
const defaultMaxAnswer = 4 << 20

// Request makes a request that net/http cannot repeat.
func Request(ctx context.Context, method, address string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	req.Header.Set("User-Agent", "fanfare")
	return req, nil
}

// Do makes a request of [Request], or another one that cannot be rewound. It calls expired right before it writes the
// first byte. The errors are those of this package, with their cause. They contain no URL, because a URL may contain
// phone numbers, texts and keys.
func (c *Client) Do(req *http.Request, expired func() bool) (*Answer, error) {
	w := &wire{expired: expired}
	resp, err := c.http.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), w.trace())))
	if err != nil {
		switch {
		case w.refused.Load():
			return nil, ErrExpired
		case !w.begun.Load():
			return nil, fmt.Errorf("%w: %w", ErrNotConnected, withoutURL(err))
		default:
			return nil, fmt.Errorf("%w: %w", ErrNoAnswer, withoutURL(err))
		}
	}
	defer func() { _ = resp.Body.Close() }()
	a := &Answer{Status: resp.StatusCode, Header: resp.Header}
	most := cmp.Or(c.cfg.MaxAnswer, defaultMaxAnswer)
	a.Body, err = io.ReadAll(io.LimitReader(resp.Body, most+1))
	if a.Torn = err != nil; int64(len(a.Body)) > most {
		a.Body, a.Torn = a.Body[:most], true
	}
	return a, nil
}

// withoutURL removes the address from an error of net/http.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return errors.New("request failed")
}

// Reach connects to the host of an address, with TLS if the address says so, and sends nothing.
func (c *Client) Reach(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return errors.New("no address: want one such as https://api.example.org/sms")
	}
	port := cmp.Or(u.Port(), map[string]string{"https": "443", "http": "80"}[u.Scheme])
	ctx, cancel := context.WithTimeout(ctx, c.connect())
	defer cancel()
	addr := net.JoinHostPort(u.Hostname(), port)
	dial := (&net.Dialer{}).DialContext
	if u.Scheme == "https" {
		dial = (&tls.Dialer{Config: c.tls()}).DialContext
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("provider at %s: %w", addr, err)
	}
	return conn.Close()
}
