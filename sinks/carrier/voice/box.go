package voice

import (
	"context"
	"errors"
	"slices"
	"time"

	"fanfare/sinks/carrier"
)

// said is a receipt that is not durable yet, and the function to call when it is.
type said struct {
	receipt carrier.Receipt
	then    func() // may be nil
}

// Bounds for receipts. While mostWaiting receipts wait, the connector makes no more calls.
const (
	mostWaiting = 10_000
	mostTaken   = 1000
)

// errTwoTakers is returned to a second caller of Receipts, because emit must not run twice at the same time.
var errTwoTakers = errors.New("voice: somebody takes the receipts already")

// tell puts a receipt into the box. The caller holds the lock.
func (c *Connector) tell(k *call, word string, at time.Time, raw []byte, then func()) {
	status, sub, ok := c.cfg.codes.Receipt(word, "")
	if !ok {
		status, sub, _ = c.cfg.codes.Receipt(causeOther, "")
	}
	c.box = append(c.box, said{carrier.Receipt{
		Account: c.name, Ref: k.id, Key: k.key, To: k.plan.To, Status: status, Code: word, Sub: sub, At: at, Raw: raw,
	}, then})
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// Receipts implements [carrier.ReceiptSource]. It returns when ctx ends, or when the connector is drained and the box
// is empty.
func (c *Connector) Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error {
	c.mu.Lock()
	if c.taken {
		c.mu.Unlock()
		return errTwoTakers
	}
	c.taken = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.taken = false
		c.turn.Broadcast()
	}()
	c.begin()
	var pause carrier.Backoff
	for ctx.Err() == nil {
		batch := c.waiting()
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
			case <-c.over:
				if len(c.waiting()) == 0 {
					return nil
				}
			case <-c.more:
			}
			continue
		}
		list := make([]carrier.Receipt, len(batch))
		for i := range batch {
			list[i] = batch[i].receipt
		}
		if emit(list) != nil {
			pause.Wait(ctx)
			continue
		}
		pause.Reset()
		c.durable(batch)
	}
	return nil
}

// waiting returns the oldest receipts of the box and leaves them there.
func (c *Connector) waiting() []said {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.box[:min(len(c.box), mostTaken)])
}

// durable removes the receipts from the box that waiting returned.
func (c *Connector) durable(batch []said) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.box = slices.Delete(c.box, 0, len(batch))
	for i := range batch {
		if batch[i].then != nil {
			batch[i].then()
		}
	}
	c.turn.Broadcast()
}
