// Package domaincheck checks whether recipients can open links on a domain: whether its name resolves, whether its
// server has a valid certificate, and whether a DNS blocklist lists the domain.
package domaincheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"fanfare/api/store"
)

// Resolver looks names up; [net.Resolver] implements it.
type Resolver interface {
	LookupHost(ctx context.Context, host string) (addrs []string, err error)
}

// Dialer opens connections; [net.Dialer] implements it.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// Config of a [Checker].
type Config struct {
	// Resolver and Dialer default to those of package net.
	Resolver Resolver
	Dialer   Dialer
	// Roots are trusted to sign certificates; nil means the roots of the system.
	Roots *x509.CertPool
	// Blocklists are DNS zones that answer `<domain>.<zone>` with an address in 127.0.0.0/8 if the domain is blocked
	// (RFC 5782), such as dbl.spamhaus.org. If there are none, no blocklist is queried.
	Blocklists []string
	// Timeout of each lookup, connection and handshake; default 5 s.
	Timeout time.Duration
	// Tries is how often the check must fail before a domain counts as bad, default 3. Pause is the time between two
	// tries, default 5 s. One lost packet must not stop a campaign.
	Tries int
	Pause time.Duration
	// Allow lists private address ranges to which domains may lead. If there are none, the check connects only to
	// public addresses.
	Allow []netip.Prefix
	// Now is the clock for the validity of certificates; default time.Now.
	Now func() time.Time
}

// Checker checks domains.
type Checker struct{ cfg Config }

// New returns a checker.
func New(cfg Config) *Checker {
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	if cfg.Dialer == nil {
		cfg.Dialer = &net.Dialer{}
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.Tries <= 0 {
		cfg.Tries = 3
	}
	if cfg.Pause <= 0 {
		cfg.Pause = 5 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Checker{cfg}
}

// Result of a check.
type Result struct {
	// Health is one of the Domain… constants of package store; empty if it is not known because the resolver does not
	// answer.
	Health string
	// Reason says in a sentence what is wrong and what to do; "" if nothing is wrong.
	Reason string
	// Certificate is when the certificate expires; zero if the check saw none.
	Certificate time.Time
}

// Check checks a host. It returns an error only when ctx ends.
func (c *Checker) Check(ctx context.Context, host string) (Result, error) {
	var r Result
	for try := 1; ; try++ {
		if r = c.once(ctx, host); r.Health == store.DomainOK || try >= c.cfg.Tries {
			return r, ctx.Err()
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(c.cfg.Pause):
		}
	}
}

func (c *Checker) once(ctx context.Context, host string) Result {
	bounded := func(do func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
		return do(ctx)
	}
	var addresses []string
	err := bounded(func(ctx context.Context) (err error) {
		addresses, err = c.cfg.Resolver.LookupHost(ctx, host)
		return err
	})
	if missing := (*net.DNSError)(nil); err != nil && (!errors.As(err, &missing) || !missing.IsNotFound) {
		return Result{Reason: "The resolver does not answer."}
	}
	if err != nil || len(addresses) == 0 {
		return Result{Health: store.DomainUnresolved, Reason: "The name does not resolve. Add an A or AAAA record that leads to the edge."}
	}
	if !c.public(addresses[0]) {
		return Result{
			Health: store.DomainUnresolved,
			Reason: fmt.Sprintf("The name leads to %s, which is not a public address. Let it lead to the edge, or to the proxy before it.", addresses[0]),
		}
	}
	for _, zone := range c.cfg.Blocklists {
		var answer []string
		err := bounded(func(ctx context.Context) (err error) {
			answer, err = c.cfg.Resolver.LookupHost(ctx, host+"."+zone)
			return err
		})
		if err == nil && listed(answer) {
			return Result{Health: store.DomainBlocked, Reason: fmt.Sprintf("%s lists the name as blocked. Use another domain, or have it removed from the list.", zone)}
		}
	}
	var conn net.Conn
	err = bounded(func(ctx context.Context) (err error) {
		conn, err = c.cfg.Dialer.DialContext(ctx, "tcp", net.JoinHostPort(addresses[0], "443"))
		return err
	})
	if err != nil {
		return Result{Health: store.DomainUnresolved, Reason: fmt.Sprintf("Nothing answers at %s, port 443. Let the name lead to the edge, or to the proxy before it.", addresses[0])}
	}
	defer func() { _ = conn.Close() }()
	client := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: c.cfg.Roots, Time: c.cfg.Now, MinVersion: tls.VersionTLS12})
	if err := bounded(client.HandshakeContext); err != nil {
		return Result{Health: store.DomainCertificate, Reason: "The server has no valid certificate for the name (" + why(err) + "). Install one."}
	}
	return Result{Health: store.DomainOK, Certificate: client.ConnectionState().PeerCertificates[0].NotAfter.UTC()}
}

// public reports whether an address is public. The check does not connect to other addresses, because a tenant chooses
// the names and could use the check to explore the internal network.
func (c *Checker) public(address string) bool {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	a = a.Unmap()
	for _, r := range c.cfg.Allow {
		if r.Contains(a) {
			return true
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate()
}

// listed reports whether the answer of a blocklist means that the name is listed. An address in 127.255.255.0/24 means
// that the list refused the query.
func listed(answer []string) bool {
	for _, a := range answer {
		if strings.HasPrefix(a, "127.") && !strings.HasPrefix(a, "127.255.255.") {
			return true
		}
	}
	return false
}

// why returns in a few words why a handshake failed.
func why(err error) string {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "it has expired or is not valid yet"
	case errors.As(err, &name):
		return "it is of another name"
	case errors.As(err, &authority):
		return "no trusted authority has signed it"
	default:
		return "the handshake failed"
	}
}
