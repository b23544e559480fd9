package once

import (
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync/atomic"
)

// wire is what a request knows of its way to the connection.
type wire struct {
	expired func() bool
	// refused: nothing was written, because a message had expired. begun: something may have been written.
	refused, begun atomic.Bool
}

// trace arms the gate of the connection that the request gets.
func (w *wire) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		conn := info.Conn
		if secured, ok := conn.(*tls.Conn); ok {
			conn = secured.NetConn()
		}
		if g, ok := conn.(*gate); ok {
			g.next.Store(w)
		} else {
			w.begun.Store(true) // never: every connection has a gate
		}
	}}
}

// gate is a connection that asks right before the first system call of a request whether it may still be made: net/http
// looks for a connection, and may wait for one, between the call and the write.
type gate struct {
	net.Conn
	next atomic.Pointer[wire] // a request that has written nothing yet
}

// Write implements net.Conn.
func (g *gate) Write(b []byte) (int, error) {
	if w := g.next.Swap(nil); w != nil {
		if w.expired() {
			w.refused.Store(true)
			return 0, ErrExpired
		}
		w.begun.Store(true)
	}
	return g.Conn.Write(b)
}
