package sim

import (
	"context"
	"errors"
	"sync"

	"fanfare/sinks/carrier"
)

// errEnded is returned by [Carrier.Write] when the carrier has ended.
var errEnded = errors.New("carrier simulator: closed")

// mailbox passes messages of phones to the consumers of an account.
type mailbox struct {
	mu sync.Mutex
	of map[string]chan letter
}

// letter is a message, and the channel on which its writer waits for the result.
type letter struct {
	message carrier.Inbound
	done    chan error
}

func (b *mailbox) account(name string) chan letter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of == nil {
		b.of = map[string]chan letter{}
	}
	if b.of[name] == nil {
		b.of[name] = make(chan letter)
	}
	return b.of[name]
}

// Write hands a phone's message to a connector of an account. It returns nil when the connector has made the message
// durable. If no connector takes messages, it waits until ctx ends.
func (c *Carrier) Write(ctx context.Context, m carrier.Inbound) error {
	l := letter{m, make(chan error, 1)}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return errEnded
	case c.written.account(m.Account) <- l:
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return errEnded
	case err := <-l.done:
		return err
	}
}

// Inbound implements [carrier.InboundSource].
func (n *Connector) Inbound(ctx context.Context, emit func([]carrier.Inbound) error) error {
	box := n.carrier.written.account(n.opts.Account)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.carrier.done:
			return nil
		case l := <-box:
			l.done <- emit([]carrier.Inbound{l.message})
		}
	}
}
