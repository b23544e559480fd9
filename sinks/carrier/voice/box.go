package voice

import (
	"context"
	"errors"
	"slices"
	"time"

	"fanfare/sinks/carrier"
)

// said is a receipt that waits until it is durable, and what is done then.
type said struct {
	receipt carrier.Receipt
	then    func() // may be nil
}

// Bounds of the receipts that wait. A connector with mostWaiting receipts that were not taken makes no more calls.
const (
	mostWaiting = 10_000
	mostTaken   = 1000
)

// errTwoTakers is returned to a second caller: emit is never called twice at a time.
var errTwoTakers = errors.New("voice: somebody takes the receipts already")

// tell puts a receipt in the box. The caller holds the lock.
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

// Receipts implements [carrier.ReceiptSource]. It ends with ctx, or when the connector was drained and nothing waits
// any more.
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

// waiting returns the oldest receipts. They stay in the box: only durable takes them out.
func (c *Connector) waiting() []said {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.box[:min(len(c.box), mostTaken)])
}

// durable takes receipts out that waiting has returned.
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
