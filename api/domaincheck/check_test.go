package domaincheck_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/api/domaincheck"
	"fanfare/api/store"
)

// names is the DNS of the tests.
type names struct {
	mu    sync.Mutex
	of    map[string]string
	fails int // how many lookups fail before one is answered
	asked []string
}

func (n *names) LookupHost(_ context.Context, host string) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, host)
	if n.fails > 0 {
		n.fails--
		return nil, errors.New("no answer")
	}
	if a, ok := n.of[host]; ok {
		return []string{a}, nil
	}
	return nil, &net.DNSError{Name: host, IsNotFound: true}
}

// wire connects every address to the server of the tests.
type wire struct{ to string }

func (w wire) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.HasPrefix(address, "192.0.2.99:") {
		return nil, errors.New("refused")
	}
	var d net.Dialer
	return d.DialContext(ctx, network, w.to)
}

var now = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

// serve answers TLS with a certificate for a host. It returns the address, and the pool with the certificate's issuer.
func serve(t *testing.T, host string, until time.Time) (string, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{host}, NotBefore: now.Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(signed)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer func() { _ = c.Close() }()
				_, _ = c.Read(make([]byte, 1)) // the handshake
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); group.Wait() })
	return l.Addr().String(), roots
}

// TestCheck (R39): a good domain resolves, answers with a valid certificate, and is on no list. Each fault has its own
// word, and a sentence that says what to do.
func TestCheck(t *testing.T) {
	until := now.Add(90 * 24 * time.Hour)
	address, roots := serve(t, "go.example", until)
	dns := &names{of: map[string]string{
		"go.example": "192.0.2.1", "other.example": "192.0.2.2", "silent.example": "192.0.2.99",
		"inside.example": "10.1.2.3", "local.example": "169.254.169.254", "self.example": "127.0.0.1",
		"bad.example": "192.0.2.3", "bad.example.dbl.example": "127.0.1.2", "go.example.dbl.example": "127.255.255.254",
	}}
	checker := func(change ...func(*domaincheck.Config)) *domaincheck.Checker {
		cfg := domaincheck.Config{
			Resolver: dns, Dialer: wire{address}, Roots: roots, Blocklists: []string{"dbl.example"}, Pause: time.Microsecond, Timeout: 30 * time.Second, Now: func() time.Time { return now },
		}
		for _, f := range change {
			f(&cfg)
		}
		return domaincheck.New(cfg)
	}
	at := func(then time.Time) func(*domaincheck.Config) {
		return func(c *domaincheck.Config) { c.Now = func() time.Time { return then } }
	}
	for _, c := range []struct {
		host   string
		want   string
		reason string
		change func(*domaincheck.Config)
	}{
		{"go.example", store.DomainOK, "", at(now)},
		{"none.example", store.DomainUnresolved, "does not resolve", at(now)},
		{"silent.example", store.DomainUnresolved, "Nothing answers at 192.0.2.99", at(now)},
		{"inside.example", store.DomainUnresolved, "10.1.2.3, which is not a public address", at(now)},
		{"local.example", store.DomainUnresolved, "not a public address", at(now)},
		{"self.example", store.DomainUnresolved, "not a public address", at(now)},
		{"inside.example", store.DomainCertificate, "another name", func(c *domaincheck.Config) { c.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }},
		{"other.example", store.DomainCertificate, "another name", at(now)},
		{"go.example", store.DomainCertificate, "expired", at(until.Add(time.Second))},
		{"go.example", store.DomainCertificate, "no trusted authority", func(c *domaincheck.Config) { c.Roots = x509.NewCertPool() }},
		{"bad.example", store.DomainBlocked, "dbl.example lists", at(now)},
	} {
		got, err := checker(c.change).Check(t.Context(), c.host)
		if err != nil || got.Health != c.want || !strings.Contains(got.Reason, c.reason) || (got.Reason == "") != (c.reason == "") {
			t.Errorf("%s: got %+v %v, want %s %q", c.host, got, err, c.want, c.reason)
		}
		if c.want == store.DomainOK && !got.Certificate.Equal(until) {
			t.Errorf("certificate until %s, want %s", got.Certificate, until)
		}
	}
	dns.fails = 2 // one lost packet does not make a domain bad
	if got, err := checker().Check(t.Context(), "go.example"); err != nil || got.Health != store.DomainOK {
		t.Errorf("after two lost answers: got %+v %v", got, err)
	}
	dns.fails = 3 // a resolver that is away says nothing about the domain
	if got, err := checker().Check(t.Context(), "go.example"); err != nil || got.Health != "" {
		t.Errorf("without a resolver: got %+v %v, want that it is not known", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := checker().Check(ctx, "none.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: got %v", err)
	}
}
