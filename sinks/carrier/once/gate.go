package once

import (
	"crypto/tls"
	"net"
	"net/http/httptrace"
	"sync/atomic"
)

// wire is the state of a request on its way to the connection.
type wire struct {
	expired func() bool
	// refused says that nothing was written, because a message had expired. begun says that something may have been
	// written.
	refused, begun atomic.Bool
}

// trace sets the gate of the connection that the request gets.
func (w *wire) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		conn := info.Conn
		if secured, ok := conn.(*tls.Conn); ok {
			conn = secured.NetConn()
		}
		if g, ok := conn.(*gate); ok {
			g.next.Store(w)
		} else {
			w.begun.Store(true) // cannot happen: every connection has a gate
		}
	}}
}

// gate is a connection that checks, right before the first system call of a request, whether the request may still be
// made. Between the call of Do and the write, net/http looks for a connection and may wait for one.
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
