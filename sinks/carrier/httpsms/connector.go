package httpsms

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/inflight"
	"fanfare/sinks/carrier/once"
)

// Deps are what a connector works with.
type Deps struct {
	// Account is the name of the account in receipts: the route's name.
	Account string
	// Logger may be nil.
	Logger *slog.Logger
}

// Connector hands over to one account of one provider.
type Connector struct {
	cfg     *account
	account string
	log     *slog.Logger
	http    *once.Client
	book    *inflight.Book
}

var (
	_ carrier.Connector = (*Connector)(nil)
	_ carrier.Webhook   = (*Connector)(nil)
)

// New returns a connector. It connects at the first hand-over.
func New(cfg Config, deps Deps) (*Connector, error) {
	s, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	c := &Connector{cfg: s, account: deps.Account, log: deps.Logger, book: inflight.New(s.window)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.http = once.New(once.Config{Window: s.window, Timeout: s.timeout, Roots: s.roots})
	return c, nil
}

// keyWindow is how long the sender relies on the provider to remember our key. Providers that honour a key promise at
// least a day.
const keyWindow = time.Hour

// Caps implements [carrier.Connector].
func (c *Connector) Caps() carrier.Caps {
	caps := carrier.Caps{MaxBatch: min(c.cfg.spec.Request.Max, c.cfg.window), AnswerTimeout: c.cfg.timeout, Pacing: carrier.PacingMessages}
	if c.cfg.spec.Callback != nil && c.cfg.callback != "" {
		caps.Receipts = carrier.ReceiptsWebhook
	}
	if c.cfg.spec.Callback != nil {
		caps.EchoesKey = c.cfg.spec.Callback.Key != ""
	}
	if r := &c.cfg.spec.Request; r.Idempotency != "" && r.Honoured {
		caps.Doubt, caps.KeyWindow = carrier.DoubtKeyHeader, keyWindow
	}
	return caps
}

// Send implements [carrier.Connector].
func (c *Connector) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	return c.book.Send(ctx, batch, c.Caps().MaxBatch, done, func(ctx context.Context, f *inflight.Batch) { c.post(ctx, f, batch) })
}

// Drain implements [carrier.Connector].
func (c *Connector) Drain(ctx context.Context) error {
	c.book.Drain(ctx)
	c.http.CloseIdle()
	return nil
}

// Reach connects to the provider, with TLS if its address says so, and sends nothing. It tests the connection, not the
// account, because providers have no request that only logs in.
func (c *Connector) Reach(ctx context.Context) error {
	text, err := c.cfg.fill(c.cfg.spec.Request.URL)
	if err != nil {
		return fmt.Errorf("httpsms: request.url: %w", err)
	}
	if err := c.http.Reach(ctx, text); err != nil {
		return fmt.Errorf("httpsms: %w", err)
	}
	return nil
}

// Health implements [carrier.Connector].
func (c *Connector) Health() carrier.Health {
	h := c.book.Health()
	if h.LastError == nil {
		h.Sessions = 1
	}
	return h
}

// post hands a batch over in one request. If messages expired while the request waited for a connection, it makes
// another request without them.
func (c *Connector) post(ctx context.Context, f *inflight.Batch, batch []carrier.Outbound) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	left := make([]int, len(batch))
	for i := range left {
		left[i] = i
	}
	for {
		var all []vars
		now, live := time.Now(), left[:0]
		for _, i := range left {
			m := &message{c.cfg, &batch[i], now}
			if m.out.Expired(now) {
				f.Answer(i, carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline})
			} else if r, refused := m.refusal(); refused {
				f.Answer(i, r)
			} else {
				all, live = append(all, m), append(live, i)
			}
		}
		if left = live; len(left) == 0 {
			return
		}
		if !c.attempt(ctx, f, batch, left, all) {
			return
		}
	}
}

// attempt makes one request. It returns true if nothing was written because a message had expired; the caller then
// tries again with the others.
func (c *Connector) attempt(ctx context.Context, f *inflight.Batch, batch []carrier.Outbound, left []int, all []vars) (again bool) {
	rest := func(r carrier.Result) {
		for _, i := range left {
			f.Answer(i, r)
		}
	}
	expired := func() bool {
		now := time.Now()
		return slices.ContainsFunc(left, func(i int) bool { return batch[i].Expired(now) })
	}
	req, err := c.cfg.request(ctx, all)
	if err != nil {
		c.log.ErrorContext(ctx, "request cannot be made of a message", "err", err)
		rest(carrier.Result{Outcome: carrier.Rejected, Sub: schemas.CodeRenderError, Code: "request"})
		return false
	}
	resp, err := c.http.Do(req, expired)
	switch {
	case errors.Is(err, once.ErrExpired):
		return true
	case err != nil:
		rest(c.book.Unanswered(ctx, err))
		return false
	case resp.Torn && resp.Status/100 == 2:
		// The provider probably took the messages, but the answer does not say which, nor their ids.
		rest(carrier.Result{Outcome: carrier.Unknown, Code: "answer torn"})
		return false
	}
	c.book.Failed(resp.Failure())
	for n, r := range c.cfg.results(resp, batch, left) {
		f.Answer(left[n], r)
	}
	return false
}

// results returns the result of each message from an answer.
func (s *account) results(resp *once.Answer, batch []carrier.Outbound, left []int) []carrier.Result {
	out := make([]carrier.Result, len(left))
	r := &s.spec.Response
	var doc any
	var err error
	if !r.Text {
		doc, err = decode(resp.Body)
	}
	if resp.Status/100 != 2 {
		x := s.refusal(resp, lookFirst(doc, r.ErrorCode))
		for i := range out {
			out[i] = x
		}
		return out
	}
	if err != nil {
		for i := range out {
			out[i] = carrier.Result{Outcome: carrier.Unknown, Code: "answer not understood"}
		}
		return out
	}
	for i := range out {
		out[i] = s.result(s.entries(doc, batch, left, i), batch[left[i]].Key)
	}
	return out
}

// refusal returns the result for an answer that is not 2xx.
func (s *account) refusal(resp *once.Answer, code string) carrier.Result {
	said := s.codes.HTTP(resp.Status, code)
	return carrier.Result{
		Outcome: said.Outcome, Sub: said.Sub, Code: cmp.Or(code, strconv.Itoa(resp.Status)), RetryAfter: resp.RetryAfter(),
	}
}

// entries returns the entries of an answer about message i: one, or one for each part of a text if the request had one
// message.
func (s *account) entries(doc any, batch []carrier.Outbound, left []int, i int) []any {
	r := &s.spec.Response
	if r.Items == "" {
		return []any{doc}
	}
	found, _ := look(doc, r.Items)
	list, ok := found.([]any)
	switch {
	case !ok:
		return nil
	case r.Key != "" && len(left) > 1:
		want := batch[left[i]].Key.String()
		for _, e := range list {
			if lookText(e, r.Key) == want {
				return []any{e}
			}
		}
		return nil
	case len(left) == 1:
		return list
	case i < len(list):
		return list[i : i+1]
	default:
		return nil
	}
}

// result returns the result for the entries about one message.
func (s *account) result(entries []any, key carrier.Key) carrier.Result {
	r := &s.spec.Response
	if len(entries) == 0 {
		return carrier.Result{Outcome: carrier.Unknown, Code: "answer without the message"}
	}
	out := carrier.Result{Outcome: carrier.Accepted}
	for _, e := range entries {
		if r.Status != "" && !slices.Contains(r.Accepted, lookText(e, r.Status)) {
			return s.refusedEntry(lookFirst(e, r.Code), out.Ref != "")
		}
		id := lookText(e, r.ID)
		if id == "" {
			id = key.String()
		}
		if out.Ref == "" {
			out.Ref = id
		}
		out.PartRefs = append(out.PartRefs, id)
		out.Parts, _ = strconv.Atoi(lookText(e, r.Parts))
	}
	if out.Parts = max(out.Parts, 0); len(entries) > 1 {
		out.Parts = len(entries)
	} else {
		out.PartRefs = nil
	}
	return out
}

// refusedEntry returns the result for a code in an answer of 2xx. If the provider accepted an earlier part, the result
// of the whole message is unknown.
func (s *account) refusedEntry(code string, partly bool) carrier.Result {
	out := carrier.Result{Outcome: carrier.Rejected, Sub: schemas.CodeNotSentOther, Code: code}
	if a, ok := s.codes.Answer(code); ok {
		out.Outcome, out.Sub = a.Outcome, a.Sub
	}
	if partly {
		out.Outcome, out.Sub = carrier.Unknown, 0
	}
	return out
}
