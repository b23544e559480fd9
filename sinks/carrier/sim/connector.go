package sim

import (
	"cmp"
	"context"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/inflight"
)

// Options of a connector.
type Options struct {
	// Account is the account at the carrier. Receipts for submissions of an account go only to consumers of that
	// account. "": `sim`.
	Account string
	// Window is how many hand-overs may be without an answer. 0: 4 x MaxBatch.
	Window int
	// Batch is how many messages one Send may have, at most the window. 0: MaxBatch, the maximum.
	Batch int
	// AnswerTimeout is how long the connector waits for an answer before the result is Unknown. 0:
	// DefaultAnswerTimeout.
	AnswerTimeout time.Duration
}

// DefaultAccount is the account of a connector that names none.
const DefaultAccount = "sim"

func (o Options) withDefaults() Options {
	o.Account = cmp.Or(o.Account, DefaultAccount)
	o.Window = cmp.Or(max(o.Window, 0), 4*MaxBatch)
	o.Batch = min(cmp.Or(max(o.Batch, 0), MaxBatch), MaxBatch, o.Window)
	o.AnswerTimeout = cmp.Or(o.AnswerTimeout, DefaultAnswerTimeout)
	return o
}

// Connector hands over to a simulated carrier in the same process. Answers that take no time come before Send returns;
// Carrier.Run gives the others.
type Connector struct {
	carrier *Carrier
	opts    Options
	book    *inflight.Book
}

var (
	_ carrier.Connector     = (*Connector)(nil)
	_ carrier.ReceiptSource = (*Connector)(nil)
	_ carrier.InboundSource = (*Connector)(nil)
	_ carrier.Querier       = (*Connector)(nil)
)

// Connector returns a connector to the carrier. Several may be open at once.
func (c *Carrier) Connector(opts Options) *Connector {
	opts = opts.withDefaults()
	return &Connector{carrier: c, opts: opts, book: inflight.New(opts.Window)}
}

// Caps returns what the profile allows.
func (n *Connector) Caps() carrier.Caps { return n.carrier.caps(n.opts) }

func (c *Carrier) caps(o Options) carrier.Caps {
	caps := carrier.Caps{
		MaxBatch: o.Batch, EchoesKey: !c.cfg.Profile.HidesKey, Receipts: carrier.ReceiptsPoll,
		ReadReceipts: true, AnswerTimeout: o.AnswerTimeout,
	}
	caps.Doubt, caps.KeyWindow, caps.QuerySettles = c.cfg.Profile.Doubt, KeyWindow, QuerySettles
	return caps
}

// Send implements [carrier.Connector].
func (n *Connector) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	if len(batch) == 0 {
		return nil
	}
	if len(batch) > n.opts.Batch {
		return carrier.ErrBatch
	}
	f, err := n.book.Begin(ctx, len(batch), done, nil)
	if err != nil {
		return err
	}
	defer n.book.Leave()
	n.carrier.submit(n.opts.Account, batch, n.opts.AnswerTimeout, answersTo{f})
	return nil
}

// answersTo passes the carrier's answers to a batch. In the same process no connection can break, and the carrier
// itself ends the wait for answers that do not come.
type answersTo struct{ *inflight.Batch }

func (answersTo) expect(int, bool) {}

func (a answersTo) answer(i int, r carrier.Result) { a.Answer(i, r) }

// Drain implements [carrier.Connector]. Receipts still come afterwards.
func (n *Connector) Drain(ctx context.Context) error {
	n.book.Drain(ctx)
	return nil
}

// Health implements [carrier.Connector].
func (n *Connector) Health() carrier.Health {
	h := n.book.Health()
	h.Sessions = 1
	return h
}

// Receipts implements [carrier.ReceiptSource]. It works until ctx ends, also after Drain.
func (n *Connector) Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error {
	var pause carrier.Backoff
	for ctx.Err() == nil {
		id, list, more := n.carrier.take(n.opts.Account, MaxReceipts, 0)
		if len(list) == 0 {
			select {
			case <-ctx.Done():
			case <-n.carrier.done:
				return nil
			case <-more:
			}
			continue
		}
		taken := emit(n.carrier.draft(n.opts.Account, list)) == nil
		n.carrier.settle(n.opts.Account, id, taken)
		if taken {
			pause.Reset()
		} else {
			pause.Wait(ctx)
		}
	}
	return nil
}
