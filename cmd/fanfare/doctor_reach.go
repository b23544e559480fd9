package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A trouble is why a service cannot be used, and what to do.
type trouble struct {
	found, fix string
	passing    bool // a service that is being started looks just like this
}

// wrong is a trouble that stays until somebody mends it.
func wrong(found, fix string) *trouble { return &trouble{found: found, fix: fix} }

// passing is a trouble that may be over in a moment.
func passing(found, fix string) *trouble { return &trouble{found: found, fix: fix, passing: true} }

// Error says both in one line.
func (t *trouble) Error() string { return t.found + ": " + t.fix }

// patience with each service. What is there answers within milliseconds; a process that is started with a wrong address must
// say so while somebody is still looking.
const patience = 4 * time.Second

// dialTrouble connects to addr and says why it cannot; nil: somebody listens there.
func dialTrouble(ctx context.Context, flag, addr string) *trouble {
	d := net.Dialer{Timeout: 2 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err == nil {
		_ = conn.Close()
		return nil
	}
	return networkTrouble(flag, addr, err)
}

// dialAll dials all addresses at once; nil stands for one that can be reached.
func dialAll(ctx context.Context, flag string, addrs []string) []*trouble {
	all := make([]*trouble, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		wg.Go(func() { all[i] = dialTrouble(ctx, flag, addr) })
	}
	wg.Wait()
	return all
}

// firstReachable is the first of the addresses that can be reached; with none, why the first cannot.
func firstReachable(ctx context.Context, flag string, addrs []string) (string, *trouble) {
	all := dialAll(ctx, flag, addrs)
	for i, t := range all {
		if t == nil {
			return addrs[i], nil
		}
	}
	return "", all[0]
}

// networkTrouble puts an error of the network into words; nil: it is none.
func networkTrouble(flag, addr string, err error) *trouble {
	var dns *net.DNSError
	var netErr net.Error
	switch {
	case errors.As(err, &dns):
		return wrong(fmt.Sprintf("the name in %s is not known (%s)", addr, oneLine(dns.Err)), "correct the name after "+flag+", or the name service of this machine")
	case errors.Is(err, syscall.ECONNREFUSED):
		return passing("nothing listens at "+addr, "start it, or correct the address after "+flag)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return wrong("there is no way to "+addr+" from this machine", "correct the address after "+flag+", or the route to it")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return passing("no answer from "+addr, "correct the address after "+flag+", or let a firewall between here and there pass it")
	case isDialError(err):
		return passing(fmt.Sprintf("cannot connect to %s (%s)", addr, oneLine(err.Error())), "correct the address after "+flag)
	}
	return nil
}

func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// tlsTrouble puts an error of TLS into words; nil: it is none. With it the client wanted TLS.
func tlsTrouble(addr, without string, err error) *trouble {
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	switch {
	case errors.As(err, &record):
		return wrong(addr+" does not speak TLS", without)
	case errors.As(err, &unknown):
		return wrong("the certificate of "+addr+" is signed by nobody that this machine knows", "install the certificate of its authority on this machine (for Kafka: name its file with --kafka-ca)")
	case errors.As(err, &host), errors.As(err, &invalid):
		return wrong(fmt.Sprintf("the certificate of %s does not hold (%s)", addr, oneLine(err.Error())), "connect by the name that is in the certificate, or renew it")
	case errors.As(err, &alert):
		return wrong(fmt.Sprintf("%s refuses TLS with us (%s)", addr, oneLine(err.Error())), "see the log of the server; it may want a certificate of the client")
	}
	return nil
}

// A speech is a protocol that a port may speak.
type speech string

// What can be told apart at a port.
const (
	speaksKafka      speech = "Kafka"
	speaksRedis      speech = "Redis"
	speaksPostgres   speech = "Postgres"
	speaksClickHouse speech = "ClickHouse"
	speaksHTTP       speech = "HTTP"
	speaksTLS        speech = "TLS"
	speaksNothing    speech = ""
)

// sslRequest of the Postgres protocol is answered by one letter, S(ure) or N(o).
const sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

// greetings are first words by which a server gives itself away.
var greetings = []struct {
	speech speech
	say    string
	is     func(answer []byte) bool
}{
	{speaksRedis, "*1\r\n$4\r\nPING\r\n", func(a []byte) bool {
		return bytes.HasPrefix(a, []byte("+PONG")) || len(a) > 4 && a[0] == '-' && bytes.Contains(a, []byte("\r\n"))
	}},
	{speaksPostgres, sslRequest, func(a []byte) bool { return len(a) == 1 && (a[0] == 'S' || a[0] == 'N') }},
	{speaksHTTP, "GET /ping HTTP/1.0\r\n\r\n", func(a []byte) bool {
		return bytes.HasPrefix(a, []byte("HTTP/")) && !bytes.Contains(a, []byte("clickhouse-client"))
	}},
	// Hello of the native protocol, revision 54032, to database default as nobody: a hello or an exception comes back.
	{speaksClickHouse, "\x00\x07fanfare\x01\x00\x90\xa6\x03\x07default\x06nobody\x00", func(a []byte) bool {
		return len(a) > 2 && (a[0] == 0 && a[1] > 0 && a[1] < 64 && a[2] > ' ' || a[0] == 2 && len(a) > 20)
	}},
	// ApiVersions, version 0, correlation 0x66616e66: the answer has the correlation again.
	{speaksKafka, "\x00\x00\x00\x0a\x00\x12\x00\x00\x66\x61\x6e\x66\xff\xff", func(a []byte) bool { return len(a) >= 8 && string(a[4:8]) == "fanf" }},
}

// sniff finds out what speaks at addr, by greeting it in every way at once.
func sniff(ctx context.Context, addr string) speech {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	heard := make([]speech, 1+len(greetings)) // TLS first: within it there may be anything
	var wg sync.WaitGroup
	for i, g := range greetings {
		wg.Go(func() {
			if g.is(ask(ctx, addr, g.say)) {
				heard[1+i] = g.speech
			}
		})
	}
	wg.Go(func() {
		conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", addr) //nolint:gosec // nothing is said to it
		var alert tls.AlertError
		if err == nil {
			_ = conn.Close()
		}
		if err == nil || errors.As(err, &alert) {
			heard[0] = speaksTLS
		}
	})
	wg.Wait()
	for _, s := range heard {
		if s != speaksNothing {
			return s
		}
	}
	return speaksNothing
}

// ask says something on a connection of its own and returns the beginning of the answer.
func ask(ctx context.Context, addr, say string) []byte {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, say); err != nil {
		return nil
	}
	answer := make([]byte, 256)
	n, _ := conn.Read(answer)
	return answer[:n]
}

// askWithin is ask within a second.
func askWithin(ctx context.Context, addr, say string) []byte {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return ask(ctx, addr, say)
}

// A tongue is what ought to be spoken at an address.
type tongue struct {
	flag             string
	want             speech
	secure           bool   // within TLS
	withTLS, without string // what to do to speak TLS, and not to
	port             string // which one it usually is
}

// try calls a service that ought to answer within [patience]. What speaks another tongue may never answer: when nothing has
// come after a second, it is looked at what it is.
func (g tongue) try(ctx context.Context, addr string, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- call(ctx) }()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Second):
	}
	right := g.want
	if g.secure {
		right = speaksTLS
	}
	if got := sniff(ctx, addr); got != speaksNothing && got != right {
		cancel()
	}
	return <-done
}

// trouble says that something else is spoken at addr; nil: it is as it ought to be, or cannot be told.
func (g tongue) trouble(ctx context.Context, addr string) *trouble {
	otherPort := fmt.Sprintf("correct the port after %s; %s", g.flag, g.port)
	switch got := sniff(ctx, addr); got {
	case g.want:
		if g.secure {
			return wrong(addr+" does not speak TLS", g.without)
		}
		return nil
	case speaksTLS:
		if g.secure {
			return nil
		}
		return wrong(addr+" speaks TLS", g.withTLS)
	case speaksNothing:
		return passing(fmt.Sprintf("what listens at %s does not answer as %s does", addr, g.want), otherPort)
	case speaksHTTP:
		return wrong(fmt.Sprintf("%s speaks HTTP, not the protocol of %s", addr, g.want), otherPort)
	default:
		return wrong(fmt.Sprintf("%s is %s, not %s", addr, got, g.want), otherPort)
	}
}

// oneLine puts a text of somebody else into one line.
func oneLine(text string) string {
	const most = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// withoutPassword is an address as it may be shown.
func withoutPassword(addr string) string {
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" {
		if strings.Contains(addr, "@") {
			return "(an address that cannot be read)"
		}
		return addr
	}
	if q := u.Query(); q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// skew is how far a clock that said at is from ours, which stood at before when it was asked and at after when it answered.
// Where within that time it was read is not known, so the way there and back is never taken for a difference.
func skew(at, before, after time.Time) time.Duration {
	switch {
	case at.Before(before):
		return at.Sub(before)
	case at.After(after):
		return at.Sub(after)
	default:
		return 0
	}
}

// maxSkew between clocks: schedules, expiries and receipts are compared by them.
const maxSkew = 2 * time.Second

// clockFinding compares a clock with ours.
func clockFinding(what string, off time.Duration) []finding {
	if off.Abs() <= maxSkew {
		return nil
	}
	word := "ahead of"
	if off < 0 {
		word = "behind"
	}
	return []finding{bad(what, fmt.Sprintf("its clock is %s %s this machine's", off.Abs().Round(time.Millisecond), word),
		"synchronise the clocks of both machines (chrony, systemd-timesyncd): schedules and expiries go by them")}
}
