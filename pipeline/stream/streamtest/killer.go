package streamtest

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Killer ends clients as kill -9 does: it cuts their connections and refuses new ones, so they neither commit nor leave
// their group.
type Killer struct {
	mu    sync.Mutex
	dead  bool
	conns map[net.Conn]struct{}
}

// ErrKilled is what a dial returns after [Killer.Kill].
var ErrKilled = errors.New("killed")

// Option makes the client's connections killable.
func (k *Killer) Option() kgo.Opt { return kgo.Dialer(k.Dial) }

// Dial dials, unless the client was killed.
func (k *Killer) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead {
		return nil, ErrKilled
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

// Kill cuts all connections: written bytes may still arrive, unread bytes are lost.
func (k *Killer) Kill() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dead = true
	for c := range k.conns {
		_ = c.Close()
	}
}

// Freezer pauses clients as SIGSTOP does: their connections stay open and carry no bytes.
type Freezer struct {
	mu     sync.Mutex
	frozen chan struct{} // closed by Thaw; nil: not frozen
}

// Option makes the client's connections freezable.
func (f *Freezer) Option() kgo.Opt { return f.Around(new(net.Dialer).DialContext) }

// Around returns a dialer whose connections can be frozen; dial makes them.
func (f *Freezer) Around(dial func(context.Context, string, string) (net.Conn, error)) kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		f.Wait()
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return frozenConn{conn, f}, nil
	})
}

type frozenConn struct {
	net.Conn
	f *Freezer
}

func (c frozenConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.f.Wait()
	return n, err
}

func (c frozenConn) Write(b []byte) (int, error) {
	c.f.Wait()
	return c.Conn.Write(b)
}

// Freeze stops all connections.
func (f *Freezer) Freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen == nil {
		f.frozen = make(chan struct{})
	}
}

// Thaw lets the clients continue.
func (f *Freezer) Thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen != nil {
		close(f.frozen)
		f.frozen = nil
	}
}

// Wait blocks while the freezer is frozen.
func (f *Freezer) Wait() {
	f.mu.Lock()
	frozen := f.frozen
	f.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}
