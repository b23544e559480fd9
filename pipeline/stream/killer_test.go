package stream_test

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// killer ends clients as kill -9 does: their connections are cut and none is made again, so they neither commit nor leave.
type killer struct {
	mu    sync.Mutex
	dead  bool
	conns map[net.Conn]struct{}
}

var errKilled = errors.New("killed")

func (k *killer) option() kgo.Opt { return kgo.Dialer(k.dial) }

func (k *killer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return nil, errKilled
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if k.conns == nil {
		k.conns = map[net.Conn]struct{}{}
	}
	k.conns[conn] = struct{}{}
	return conn, nil
}

// kill cuts everything; what was written before may still arrive, what is read after is lost.
func (k *killer) kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dead = true
	for c := range k.conns {
		_ = c.Close()
	}
}

// freezer pauses clients as SIGSTOP does: their connections stay open and nothing goes through.
type freezer struct {
	mu     sync.Mutex
	frozen chan struct{} // closed by thaw; nil: not frozen
}

func (f *freezer) option() kgo.Opt { return f.around(new(net.Dialer).DialContext) }

// around freezes what another dialer dials.
func (f *freezer) around(dial func(context.Context, string, string) (net.Conn, error)) kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		f.wait()
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return frozenConn{conn, f}, nil
	})
}

type frozenConn struct {
	net.Conn
	f *freezer
}

func (c frozenConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.f.wait()
	return n, err
}

func (c frozenConn) Write(b []byte) (int, error) {
	c.f.wait()
	return c.Conn.Write(b)
}

func (f *freezer) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen == nil {
		f.frozen = make(chan struct{})
	}
}

func (f *freezer) thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen != nil {
		close(f.frozen)
		f.frozen = nil
	}
}

// wait waits while it is frozen.
func (f *freezer) wait() {
	f.mu.Lock()
	frozen := f.frozen
	f.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}
