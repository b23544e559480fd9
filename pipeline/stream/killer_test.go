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

func (k *killer) option() kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
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
	})
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
