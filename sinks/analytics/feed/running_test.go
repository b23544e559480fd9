package feed

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/sinks/analytics"
)

// running is a feed that runs as if in a process of its own.
type running struct {
	*Feed
	cut  func()
	stop context.CancelFunc
	done chan error
}

// start starts a feed whose connections the test can cut.
func (w *env) start(t testing.TB, store analytics.Store, change func(*Config), interrupted func(*running) func(string) error) *running {
	t.Helper()
	cut := &cutter{conns: map[net.Conn]bool{}}
	cfg := Config{Cluster: w.Cluster, Store: store, Campaigns: w.view, Interval: 20 * time.Millisecond, SessionTimeout: time.Second, DrainTimeout: time.Second}
	cfg.Cluster.Options = []kgo.Opt{kgo.Dialer(cut.dial)}
	if change != nil {
		change(&cfg)
	}
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Feed: f, cut: cut.cut, stop: stop, done: make(chan error, 1)}
	if interrupted != nil {
		f.events.interrupted = interrupted(r)
	}
	go func() { r.done <- f.Run(ctx) }()
	t.Cleanup(func() { _ = r.end(t) })
	return r
}

// end stops the feed and returns what Run returned.
func (r *running) end(t testing.TB) error {
	t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the feed does not end")
		return nil
	}
}

// cutter makes connections that the test can cut, as the end of a process does: the client does not leave the group.
type cutter struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
	gone  bool
}

var errCut = errors.New("killed")

func (c *cutter) dial(ctx context.Context, network, host string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		conn.Close()
		return nil, errCut
	}
	c.conns[conn] = true
	return conn, nil
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for conn := range c.conns {
		conn.Close()
	}
}

// line is a TCP proxy that the test can cut.
type line struct {
	addr, to string
	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
}

func newLine(t testing.TB) *line {
	t.Helper()
	l := &line{conns: map[net.Conn]bool{}}
	var err error
	if l.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	l.addr = l.listener.Addr().String()
	go l.serve(l.listener)
	t.Cleanup(func() { l.cut(true) })
	return l
}

func (l *line) serve(listener net.Listener) {
	for {
		in, err := listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		to := l.to
		l.mu.Unlock()
		out, err := net.Dial("tcp", to)
		if err != nil {
			in.Close()
			continue
		}
		l.mu.Lock()
		l.conns[in], l.conns[out] = true, true
		l.mu.Unlock()
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				_, _ = io.Copy(pair[0], pair[1])
				pair[0].Close()
				pair[1].Close()
			}()
		}
	}
}

// cut closes all connections. If gone is set, new ones are refused as well.
func (l *line) cut(gone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if gone {
		l.listener.Close()
	}
	for conn := range l.conns {
		conn.Close()
	}
	clear(l.conns)
}

// mend accepts connections again, at the same address.
func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		listener, err := net.Listen("tcp", l.addr)
		if err == nil {
			l.listener = listener
			go l.serve(listener)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
