package httpserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// States of a connection.
const (
	headers  int32 = iota // the client sends headers, or has just connected
	idle                  // between two requests
	handling              // the handler works
	reading               // the handler waits for the body
	writing               // the handler waits for the client to take its answer
	finished              // the handler has returned
)

// conn is one connection of a client.
type conn struct {
	net.Conn
	doing atomic.Int32
	since atomic.Int64 // when it last made progress, in nanoseconds

	mu      sync.Mutex
	pending int  // bytes of its answer that the client has not taken
	gone    bool // cut off: its bytes do not count any more
}

// progress records that the connection makes progress.
func (c *conn) progress(doing int32) {
	c.since.Store(time.Now().UnixNano())
	c.doing.Store(doing)
}

// waits returns how long the server has waited for the client; 0 while the handler works.
func (c *conn) waits(now time.Time) time.Duration {
	if c.doing.Load() == handling {
		return 0
	}
	return now.Sub(time.Unix(0, c.since.Load()))
}

// conns are all connections.
type conns struct {
	limits Limits
	times  times
	log    *slog.Logger

	mu  sync.Mutex
	all map[net.Conn]*conn

	buffered  atomic.Int64 // bytes of answers that clients have not taken
	lastSaid  atomic.Int64 // when the log last said that clients are cut off
	lastSwept atomic.Int64 // when makeRoom last looked at all connections

	open     prometheus.GaugeFunc
	pending  prometheus.GaugeFunc
	cut      *prometheus.CounterVec
	accepted prometheus.Counter
}

func newConns(limits Limits, times times, log *slog.Logger) *conns {
	c := &conns{limits: limits, times: times, log: log, all: map[net.Conn]*conn{}}
	c.open = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fanfare_http_connections", Help: "Connections of clients that are open."}, func() float64 { return float64(c.count()) })
	c.pending = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fanfare_http_buffered_bytes", Help: "Bytes of answers that clients have not taken yet."}, func() float64 { return float64(c.buffered.Load()) })
	c.cut = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fanfare_http_cut_off_total", Help: "Connections closed because a cap was reached, by cap: connections, requests or bytes."}, []string{"cap"})
	c.accepted = prometheus.NewCounter(prometheus.CounterOpts{Name: "fanfare_http_accepted_total", Help: "Connections accepted."})
	return c
}

func (c *conns) register(reg prometheus.Registerer) error {
	for _, m := range []prometheus.Collector{c.open, c.pending, c.cut, c.accepted} {
		if err := reg.Register(m); err != nil {
			return fmt.Errorf("register metrics of http: %w", err)
		}
	}
	return nil
}

func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

type connKey struct{}

// context lets requests find their connection.
func (c *conns) context(ctx context.Context, nc net.Conn) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.all[nc]; known != nil {
		return context.WithValue(ctx, connKey{}, known)
	}
	return ctx
}

func connOf(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// changed follows the states of connections; net/http calls it.
func (c *conns) changed(nc net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateActive:
		if known := c.all[nc]; known != nil {
			known.progress(headers)
		}
	case http.StateIdle:
		if known := c.all[nc]; known != nil {
			known.progress(idle)
		}
	case http.StateClosed, http.StateHijacked:
		delete(c.all, nc)
	case http.StateNew: // added by the listener
	}
}

// listener accepts connections within the cap.
func (c *conns) listener(l net.Listener) net.Listener { return &listener{l, c} }

type listener struct {
	net.Listener
	conns *conns
}

// Accept returns the next connection for which there is room. At the cap it closes an idle connection, or cuts off a
// client that stalls, to make room; if there is none, it closes the new connection.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.conns.add(nc) {
			return nc, nil
		}
		_ = nc.Close()
	}
}

// add counts a connection; false: there is no room.
func (c *conns) add(nc net.Conn) bool {
	c.accepted.Inc()
	if c.count() >= c.limits.Connections && !c.cutIdle() && !c.cutStalled("connections") {
		c.cut.WithLabelValues("connections").Inc()
		c.say("http connection refused: too many connections are open")
		return false
	}
	added := &conn{Conn: nc}
	added.progress(headers)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[nc] = added
	return true
}

// cutIdle closes the connection that has been idle for the longest, or that has sent no headers for the longest.
func (c *conns) cutIdle() bool {
	return c.cutLongest("connections", 0, func(doing int32) bool { return doing == idle || doing == headers })
}

// cutStalled cuts off the client that has stalled for the longest, if one has for a second.
func (c *conns) cutStalled(why string) bool {
	return c.cutLongest(why, c.times.stalled, func(doing int32) bool { return doing == reading || doing == writing || doing == finished })
}

// makeRoom cuts off clients that stall, because requests wait for a place. However many wait, it looks at the
// connections only twenty times a second.
func (c *conns) makeRoom() {
	const every, most = 50 * time.Millisecond, 16
	now, last := time.Now().UnixNano(), c.lastSwept.Load()
	if now-last < int64(every) || !c.lastSwept.CompareAndSwap(last, now) {
		return
	}
	for range most {
		if !c.cutStalled("requests") {
			return
		}
	}
}

func (c *conns) cutLongest(why string, least time.Duration, which func(doing int32) bool) bool {
	now := time.Now()
	c.mu.Lock()
	var longest *conn
	for _, known := range c.all {
		if which(known.doing.Load()) && (longest == nil || known.since.Load() < longest.since.Load()) {
			longest = known
		}
	}
	if longest == nil || longest.waits(now) < least {
		c.mu.Unlock()
		return false
	}
	delete(c.all, longest.Conn)
	c.mu.Unlock()
	longest.mu.Lock()
	c.buffered.Add(-int64(longest.pending))
	longest.pending, longest.gone = 0, true
	longest.mu.Unlock()
	_ = longest.Close() // its handler gets an error from the read or write that it waits for
	c.cut.WithLabelValues(why).Inc()
	c.say("http client cut off: it is idle or stalls, and a cap is reached")
	return true
}

// say logs that a cap is reached, at most once every ten seconds.
func (c *conns) say(msg string, args ...any) {
	const every = 10 * time.Second
	now, last := time.Now().UnixNano(), c.lastSaid.Load()
	if now-last < int64(every) || !c.lastSaid.CompareAndSwap(last, now) {
		return
	}
	//nolint:sloglint // msg is one of three constants
	c.log.Warn(msg, append(args, "connections", c.count(), "most_connections", c.limits.Connections, "buffered_bytes", c.buffered.Load())...)
}

// buffer counts bytes that the client of a connection is about to be sent. At the cap it cuts off clients that stall
// while they take their answers.
func (c *conns) buffer(to *conn, n int) {
	c.account(to, n)
	for c.buffered.Load() > c.limits.Buffered {
		if !c.cutLongest("bytes", c.times.stalled, func(doing int32) bool { return doing == writing }) {
			return
		}
	}
}

// taken counts bytes that the client has taken, or will never take.
func (c *conns) taken(by *conn, n int) { c.account(by, -n) }

func (c *conns) account(of *conn, n int) {
	of.mu.Lock()
	defer of.mu.Unlock()
	if !of.gone {
		of.pending += n
		c.buffered.Add(int64(n))
	}
}
