package simulation

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// A point is a moment in the life of a process: just before or just after the process does something that others can
// see.
type point struct {
	// client is the beginning of the Kafka client's name, such as `sender-sim-bulk`, or one of `carrier`, `redis`,
	// `store` and `analytics`.
	client string
	// what is a Kafka request or the name of a call.
	what string
	// after: the request takes effect, and the process dies before it gets the answer.
	after bool
	// nth is which occurrence from now on kills the process, from 1.
	nth int
}

func (p point) String() string {
	when := "before"
	if p.after {
		when = "after"
	}
	return when + " " + p.client + " " + p.what
}

// errDead is the error of every call that a dead process makes.
var errDead = errors.New("simulation: the process is dead")

// network carries all traffic of a process. Once it is cut, it carries nothing; while it is frozen, all traffic waits.
type network struct {
	mu     sync.Mutex
	dead   bool
	conns  []*conn
	frozen chan struct{} // closed by thaw; nil: it is not frozen
	points []*point
	hit    func(point) // called without the lock when a point is reached; it kills the process
}

// die cuts every connection for good. The broker does not learn of it at once, just as when a machine loses its power:
// it still writes answers, and waits until the session times out.
func (n *network) die() {
	n.mu.Lock()
	n.dead = true
	conns := n.conns
	n.conns = nil
	if n.frozen != nil {
		close(n.frozen)
		n.frozen = nil
	}
	n.mu.Unlock()
	for _, c := range conns {
		c.abandon()
	}
}

// breakConnections cuts the connections that are open now. The process can make new ones.
func (n *network) breakConnections() {
	n.mu.Lock()
	conns := n.conns
	n.conns = nil
	n.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

func (n *network) freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen == nil && !n.dead {
		n.frozen = make(chan struct{})
	}
}

func (n *network) thaw() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen != nil {
		close(n.frozen)
		n.frozen = nil
	}
}

func (n *network) isFrozen() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frozen != nil
}

// disarm removes all points.
func (n *network) disarm() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.points = nil
}

// pass waits while the process is frozen, and returns errDead once it is dead.
func (n *network) pass() error {
	for {
		n.mu.Lock()
		frozen, dead := n.frozen, n.dead
		n.mu.Unlock()
		switch {
		case dead:
			return errDead
		case frozen == nil:
			return nil
		}
		<-frozen
	}
}

// arm sets a point at which the process dies.
func (n *network) arm(p point) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.points = append(n.points, &p)
}

// reached is called just before and just after the process does something. It kills the process if that is one of its
// points.
func (n *network) reached(client, what string, after bool) error {
	n.mu.Lock()
	var due *point
	for i, p := range n.points {
		if p.after == after && p.what == what && strings.HasPrefix(client, p.client) {
			if p.nth--; p.nth <= 0 {
				due = p
				n.points = slices.Delete(n.points, i, i+1)
				break
			}
		}
	}
	n.mu.Unlock()
	if due != nil {
		n.hit(*due)
	}
	return n.pass()
}

// call runs f, a call of this process to a service, with a point before it and a point after it.
func call[T any](n *network, client, what string, f func() (T, error)) (T, error) {
	var none T
	if err := n.reached(client, what, false); err != nil {
		return none, err
	}
	out, err := f()
	if dead := n.reached(client, what, true); dead != nil {
		return none, dead
	}
	return out, err
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// kafka dials a broker for a process. The connection reads which requests the process sends.
func (n *network) kafka(under dialer) dialer {
	return n.dial(under, func(b []byte) (client, what string) {
		// A request begins with size, key, version, correlation id, and the client id as a nullable string.
		if len(b) < 14 {
			return "", ""
		}
		size := int(binary.BigEndian.Uint16(b[12:]))
		if size > len(b)-14 {
			return "", ""
		}
		return string(b[14 : 14+size]), kmsg.NameForKey(int16(binary.BigEndian.Uint16(b[4:])))
	})
}

// redis dials Redis for a process.
func (n *network) redis(under dialer) dialer {
	return n.dial(under, func([]byte) (client, what string) { return "redis", "call" })
}

func (n *network) dial(under dialer, read func([]byte) (client, what string)) dialer {
	return func(ctx context.Context, kind, addr string) (net.Conn, error) {
		if err := n.pass(); err != nil {
			return nil, err
		}
		c, err := under(ctx, kind, addr)
		if err != nil {
			return nil, err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.dead {
			_ = c.Close()
			return nil, errDead
		}
		mine := &conn{Conn: c, n: n, read: read}
		n.conns = append(n.conns, mine)
		return mine, nil
	}
}

// conn is a connection of a process.
type conn struct {
	net.Conn
	n    *network
	read func([]byte) (client, what string)

	mu        sync.Mutex
	waiting   [][2]string // client and request of each answer that has not come
	abandoned bool
}

// lingers is how long the other side of a connection does not notice that the process has died. It is longer than a
// session time-out and a rebalance.
const lingers = 2 * time.Minute

// abandon takes the connection away from the process. For a while it reads and drops what the other side writes,
// because kfake removes a member that died while it joined only if kfake could write the answer to the join request.
func (c *conn) abandon() {
	c.mu.Lock()
	c.abandoned = true
	c.mu.Unlock()
	_ = c.Conn.SetDeadline(time.Now()) // ends reads and writes that wait
	go func() {
		_ = c.Conn.SetDeadline(time.Now().Add(lingers))
		_, _ = io.Copy(io.Discard, c.Conn)
		_ = c.Conn.Close()
	}()
}

func (c *conn) isAbandoned() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.abandoned
}

// Close closes the connection unless it was abandoned.
func (c *conn) Close() error {
	if c.isAbandoned() {
		return nil
	}
	return c.Conn.Close()
}

// SetDeadline implements [net.Conn].
func (c *conn) SetDeadline(at time.Time) error {
	if c.isAbandoned() {
		return errDead
	}
	return c.Conn.SetDeadline(at)
}

// SetReadDeadline implements [net.Conn].
func (c *conn) SetReadDeadline(at time.Time) error {
	if c.isAbandoned() {
		return errDead
	}
	return c.Conn.SetReadDeadline(at)
}

// SetWriteDeadline implements [net.Conn].
func (c *conn) SetWriteDeadline(at time.Time) error {
	if c.isAbandoned() {
		return errDead
	}
	return c.Conn.SetWriteDeadline(at)
}

func (c *conn) Write(b []byte) (int, error) {
	client, what := c.read(b)
	if err := c.n.reached(client, what, false); err != nil {
		return 0, err
	}
	c.mu.Lock()
	c.waiting = append(c.waiting, [2]string{client, what})
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *conn) Read(b []byte) (int, error) {
	k, err := c.Conn.Read(b)
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, w := range waiting {
		if dead := c.n.reached(w[0], w[1], true); dead != nil {
			return 0, dead
		}
	}
	if dead := c.n.pass(); dead != nil {
		return 0, dead
	}
	return k, err
}
