// Package servicestest has small servers that stand in for services in tests: they do not answer, close connections, or
// give the answers that a test sets.
package servicestest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// Listen serves each connection to a loopback port with serve, and returns the address.
func Listen(tb testing.TB, serve func(net.Conn)) string {
	tb.Helper()
	return ListenAt(tb, "127.0.0.1:0", serve)
}

// ListenAt is Listen at an address.
func ListenAt(tb testing.TB, addr string, serve func(net.Conn)) string {
	tb.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// Silent reads everything and answers nothing.
func Silent(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// Close closes the connection at once.
func Close(net.Conn) {}

// Garbage answers with bytes that belong to no protocol.
func Garbage(c net.Conn) {
	_, _ = io.ReadFull(c, make([]byte, 1))
	_, _ = c.Write([]byte("\x7f\x03what is this?\xff\xfe\x00\x01"))
}

// FreeAddr returns a loopback address where nothing listens. Its port is below those that the system gives out by
// itself, so that no other test gets it by asking for any free port.
func FreeAddr(tb testing.TB) string {
	tb.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	tb.Fatal("no port is free between 20000 and 32000")
	return ""
}
