package services

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// A protocol that a server may speak at a port.
type protocol string

// The protocols that a probe tells apart.
const (
	protocolKafka      protocol = "Kafka"
	protocolRedis      protocol = "Redis"
	protocolPostgres   protocol = "Postgres"
	protocolClickHouse protocol = "ClickHouse"
	protocolHTTP       protocol = "HTTP"
	protocolTLS        protocol = "TLS"
	// protocolOther: the server answers, but in none of the protocols above.
	protocolOther protocol = "something else"
	// protocolNone: the server says nothing, or closes the connection, as proxies do whose backend is not there yet.
	protocolNone protocol = ""
)

// sslRequest of the Postgres protocol is answered by one letter, S (TLS follows) or N (no TLS).
const sslRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

// greetings are the first bytes of each protocol, and how to recognise the answer of a server that speaks it.
var greetings = []struct {
	protocol protocol
	send     string
	is       func(answer []byte) bool
}{
	{protocolRedis, "*1\r\n$4\r\nPING\r\n", func(a []byte) bool {
		return bytes.HasPrefix(a, []byte("+PONG")) || len(a) > 4 && a[0] == '-' && bytes.Contains(a, []byte("\r\n"))
	}},
	{protocolPostgres, sslRequest, func(a []byte) bool { return len(a) == 1 && (a[0] == 'S' || a[0] == 'N') }},
	{protocolHTTP, "GET /ping HTTP/1.0\r\n\r\n", func(a []byte) bool {
		return bytes.HasPrefix(a, []byte("HTTP/")) && !bytes.Contains(a, []byte("clickhouse-client"))
	}},
	// The hello of the native protocol, revision 54032, database default, user nobody. A hello or an exception comes
	// back.
	{protocolClickHouse, "\x00\x07fanfare\x01\x00\x90\xa6\x03\x07default\x06nobody\x00", func(a []byte) bool {
		return len(a) > 2 && (a[0] == 0 && a[1] > 0 && a[1] < 64 && a[2] > ' ' || a[0] == 2 && len(a) > 20)
	}},
	// ApiVersions, version 0, correlation id 0x66616e66. The answer repeats the correlation id.
	{protocolKafka, "\x00\x00\x00\x0a\x00\x12\x00\x00\x66\x61\x6e\x66\xff\xff", func(a []byte) bool { return len(a) >= 8 && string(a[4:8]) == "fanf" }},
}

// probe finds out which protocol the server at addr speaks. It sends every greeting at once, each on its own
// connection.
func probe(ctx context.Context, addr string) protocol {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	found := make([]protocol, 1+len(greetings)) // TLS comes first: any protocol may be inside it
	answers := make([]bool, len(greetings))
	var wg sync.WaitGroup
	for i, g := range greetings {
		wg.Go(func() {
			answer := ask(ctx, addr, g.send)
			answers[i] = len(answer) > 0
			if g.is(answer) {
				found[1+i] = g.protocol
			}
		})
	}
	wg.Go(func() {
		conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, "tcp", addr) //nolint:gosec // the probe sends no data
		var alert tls.AlertError
		if err == nil {
			_ = conn.Close()
		}
		if err == nil || errors.As(err, &alert) {
			found[0] = protocolTLS
		}
	})
	wg.Wait()
	for _, p := range found {
		if p != protocolNone {
			return p
		}
	}
	if slices.Contains(answers, true) {
		return protocolOther
	}
	return protocolNone
}

// ask sends text on a new connection and returns the beginning of the answer.
func ask(ctx context.Context, addr, text string) []byte {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return nil
	}
	answer := make([]byte, 256)
	n, _ := conn.Read(answer)
	return answer[:n]
}

// askWithin is ask with a deadline of one second.
func askWithin(ctx context.Context, addr, text string) []byte {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return ask(ctx, addr, text)
}

// expected says which protocol the server at the address of a flag should speak.
type expected struct {
	flag     string
	protocol protocol
	secure   bool // inside TLS
	// addTLS and dropTLS say what to change to connect with TLS and without it.
	addTLS, dropTLS string
	port            string // the usual ports, in a sentence
}

// call runs a first request, which should be answered within [Timeout]. A server that speaks another protocol may never
// answer: if no answer has come after a second, call probes the server, and ends the request if the protocol is another
// one.
func (e expected) call(ctx context.Context, addr string, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- request(ctx) }()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Second):
	}
	want := e.protocol
	if e.secure {
		want = protocolTLS
	}
	if got := probe(ctx, addr); got != protocolNone && got != want {
		cancel()
	}
	return <-done
}

// problem says that the server at addr speaks another protocol; nil: it speaks the expected one, or a probe cannot
// tell.
func (e expected) problem(ctx context.Context, addr string) *Problem {
	otherPort := fmt.Sprintf("correct the port after %s; %s", e.flag, e.port)
	switch got := probe(ctx, addr); got {
	case e.protocol:
		if e.secure {
			return Permanent(addr+" does not speak TLS", e.dropTLS)
		}
		return nil
	case protocolTLS:
		if e.secure {
			return nil
		}
		return Permanent(addr+" speaks TLS", e.addTLS)
	case protocolNone:
		return transient(fmt.Sprintf("what listens at %s does not answer as %s does", addr, e.protocol), otherPort)
	case protocolOther: // an overloaded server may answer some greetings and not the right one
		return doubtful(fmt.Sprintf("what listens at %s does not answer as %s does", addr, e.protocol), otherPort)
	case protocolHTTP:
		return Permanent(fmt.Sprintf("%s speaks HTTP, not the protocol of %s", addr, e.protocol), otherPort)
	default:
		return Permanent(fmt.Sprintf("%s is %s, not %s", addr, got, e.protocol), otherPort)
	}
}
