package sim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/inflight"
)

// Client is a connector to a carrier in another process; see [Dial].
type Client struct {
	submitURL, queryURL, receiptsURL string
	opts                             Options
	wireCaps                         wireCaps
	http                             *http.Client
	book                             *inflight.Book
}

var (
	_ carrier.Connector     = (*Client)(nil)
	_ carrier.ReceiptSource = (*Client)(nil)
	_ carrier.Querier       = (*Client)(nil)
)

// Dial returns a connector to the carrier that serves [NewHandler] at rawURL, such as http://127.0.0.1:9999. It asks
// for the carrier's capabilities, so it fails while the carrier does not run.
func Dial(ctx context.Context, rawURL string, opts Options) (*Client, error) {
	base, err := url.Parse(rawURL)
	if err != nil || base.Scheme != "http" || base.Host == "" {
		return nil, fmt.Errorf("carrier simulator at %q: want a URL such as http://127.0.0.1:9999", rawURL)
	}
	opts = opts.withDefaults()
	query := url.Values{"account": {opts.Account}}.Encode()
	c := &Client{
		submitURL:   base.JoinPath("v1", "submit").String() + "?" + query,
		queryURL:    base.JoinPath("v1", "query").String() + "?" + query,
		receiptsURL: base.JoinPath("v1", "receipts").String() + "?" + query,
		opts:        opts, book: inflight.New(opts.Window),
		http: &http.Client{
			Transport: &http.Transport{
				DialContext:           (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
				ExpectContinueTimeout: opts.AnswerTimeout,
				MaxIdleConnsPerHost:   64, IdleConnTimeout: 30 * time.Second, DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("v1", "caps").String(), nil)
	if err != nil {
		return nil, fmt.Errorf("carrier simulator at %s: %w", rawURL, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("carrier simulator at %s: %w", rawURL, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("carrier simulator at %s: it answers %s", rawURL, resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&c.wireCaps); err != nil {
		return nil, fmt.Errorf("carrier simulator at %s: read what it can do: %w", rawURL, err)
	}
	return c, nil
}

// Caps returns what the carrier's profile allowed when it was dialled.
func (c *Client) Caps() carrier.Caps {
	caps := carrier.Caps{
		MaxBatch: c.opts.Batch, EchoesKey: c.wireCaps.EchoesKey, Receipts: carrier.ReceiptsPoll,
		ReadReceipts: true, AnswerTimeout: c.opts.AnswerTimeout,
	}
	caps.Doubt, caps.KeyWindow, caps.QuerySettles = c.wireCaps.Doubt, KeyWindow, QuerySettles
	return caps
}

// Send implements [carrier.Connector]. Each batch is one request; the window bounds them.
func (c *Client) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	return c.book.Send(ctx, batch, c.opts.Batch, done, func(ctx context.Context, f *inflight.Batch) { c.post(ctx, f, batch) })
}

// post hands one batch over and passes the results on.
func (c *Client) post(ctx context.Context, f *inflight.Batch, batch []carrier.Outbound) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.AnswerTimeout)
	defer cancel()
	body := &lateBody{batch: batch, flight: f}
	err := c.exchange(ctx, f, body)
	if err != nil && ctx.Err() != nil {
		c.book.Failed(nil) // no answer; the connection did not fail
	} else {
		c.book.Failed(err)
	}
	if body.close() {
		// The transport has not asked for the body, so nothing was written.
		f.Rest(carrier.Result{Outcome: carrier.Retryable, Code: "not connected", RetryAfter: time.Second})
	} else {
		f.Rest(carrier.Result{Outcome: carrier.Unknown, Code: "no answer"})
	}
}

// exchange makes the request and reads the answers to their end.
func (c *Client) exchange(ctx context.Context, f *inflight.Batch, body *lateBody) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.submitURL, body)
	if err != nil {
		return err
	}
	// GetBody stays nil and there is no Idempotency-Key: with either, net/http would repeat the request by itself.
	req.Header.Set("Content-Type", "application/octet-stream")
	// The client writes the body only after the server has sent 100-continue. So if an idle connection has died, the
	// client only needs a new one, and no batch is in doubt.
	req.Header.Set("Expect", "100-continue")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		err := fmt.Errorf("submit: %s: %s", resp.Status, strings.TrimSpace(string(text)))
		if resp.StatusCode/100 == 4 {
			// The server says that the request is wrong. It has accepted no message, and would refuse the same request
			// again.
			f.Rest(carrier.Result{Outcome: carrier.Rejected, Code: strconv.Itoa(resp.StatusCode)})
		}
		return err
	}
	r := bufio.NewReader(resp.Body)
	var buf []byte
	for {
		frame, err := readFrame(r, buf)
		if err != nil {
			return fmt.Errorf("read answers: %w", err)
		}
		if frame == nil {
			return nil
		}
		i, result, err := parseResult(frame)
		if err != nil || i >= f.Len() {
			return fmt.Errorf("read answers: %w", errors.Join(errFrame, err))
		}
		f.Answer(i, result)
		buf = frame
	}
}

// lateBody is the body of a request. It is encoded when the transport first reads it, which is when the connection
// exists and the request is being written. It omits messages whose deadline has passed by then.
type lateBody struct {
	flight *inflight.Batch

	mu     sync.Mutex
	batch  []carrier.Outbound
	buf    []byte
	begun  bool
	closed bool
}

func (b *lateBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errors.New("request is over")
	}
	if !b.begun {
		b.begin()
	}
	if len(b.buf) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.buf)
	b.buf = b.buf[n:]
	return n, nil
}

// begin encodes the messages that may still be written and answers the others. The caller holds the lock.
func (b *lateBody) begin() {
	b.begun = true
	now := time.Now()
	b.buf = make([]byte, 0, 256*len(b.batch))
	for i := range b.batch {
		o := &b.batch[i]
		if o.Expired(now) {
			b.flight.Answer(i, carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline})
			continue
		}
		start := len(b.buf)
		b.buf = appendFrame(b.buf, func(to []byte) []byte { return appendOutbound(to, i, o) })
		if len(b.buf)-start > maxFrame {
			b.buf = b.buf[:start]
			b.flight.Answer(i, carrier.Result{Outcome: carrier.Rejected, Code: "too long", Sub: schemas.CodeTooLong})
		}
	}
	b.buf = append(b.buf, 0)
}

// Close implements io.Closer for the transport, which may close and read again while it looks for a connection.
func (b *lateBody) Close() error { return nil }

// close ends reading for good. It reports whether nothing was read, which means that nothing was written.
func (b *lateBody) close() (unread bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return !b.begun
}

// Query implements [carrier.Querier].
func (c *Client) Query(ctx context.Context, keys []carrier.Key) ([]carrier.Result, error) {
	body := make([]byte, 0, len(keys)*len(carrier.Key{}))
	for i := range keys {
		body = append(body, keys[i][:]...)
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.AnswerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.queryURL, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("query: %s", resp.Status)
	}
	out := make([]carrier.Result, len(keys))
	r := bufio.NewReader(resp.Body)
	var buf []byte
	for n := range out {
		frame, err := readFrame(r, buf)
		if err != nil || frame == nil {
			return nil, fmt.Errorf("query: %d answers, want %d: %w", n, len(out), errors.Join(errFrame, err))
		}
		i, result, err := parseResult(frame)
		if err != nil || i != n {
			return nil, fmt.Errorf("query: %w", errors.Join(errFrame, err))
		}
		out[i], buf = result, frame
	}
	return out, nil
}

// Drain implements [carrier.Connector]. Receipts still come afterwards.
func (c *Client) Drain(ctx context.Context) error {
	c.book.Drain(ctx)
	return nil
}

// Health implements [carrier.Connector].
func (c *Client) Health() carrier.Health {
	h := c.book.Health()
	if h.LastError == nil {
		h.Sessions = 1
	}
	return h
}

// patience is how long a request for receipts may be held open.
const patience = 20 * time.Second

// Receipts implements [carrier.ReceiptSource]. It works until ctx ends, also after Drain, and asks again if the carrier
// is away.
func (c *Client) Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error {
	var pause carrier.Backoff
	var lease uint64 // lease whose receipts are durable but not acknowledged
	for ctx.Err() == nil {
		next, list, err := c.poll(ctx, lease, true, MaxReceipts)
		if err != nil {
			pause.Wait(ctx)
			continue // with the same lease, which the server may not have settled
		}
		lease = 0
		if len(list) == 0 {
			pause.Reset()
			continue
		}
		if emit(list) == nil {
			lease = next
			pause.Reset()
			continue
		}
		// Give the receipts back before the pause: another consumer may be able to take them.
		c.settle(ctx, next, false)
		pause.Wait(ctx)
	}
	if lease != 0 {
		c.settle(ctx, lease, true)
	}
	return nil
}

// settle settles a lease without asking for further receipts, even if ctx has ended. If settle fails, the lease
// expires.
func (c *Client) settle(ctx context.Context, lease uint64, ok bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_, _, _ = c.poll(ctx, lease, ok, 0)
}

// poll settles the previous lease, if there is one, and asks for up to limit receipts.
func (c *Client) poll(ctx context.Context, lease uint64, ok bool, limit int) (next uint64, list []carrier.Receipt, err error) {
	u := c.receiptsURL + "&max=" + strconv.Itoa(limit) + "&wait_ms=" + strconv.FormatInt(patience.Milliseconds(), 10)
	if lease != 0 {
		u += "&lease=" + strconv.FormatUint(lease, 10) + "&ok=" + strconv.FormatBool(ok)
	}
	ctx, cancel := context.WithTimeout(ctx, patience+5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		return 0, nil, nil
	default:
		return 0, nil, fmt.Errorf("receipts: %s", resp.Status)
	}
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	if next, err = binary.ReadUvarint(r); err != nil {
		return 0, nil, fmt.Errorf("receipts: %w", err)
	}
	var buf []byte
	for {
		frame, err := readFrame(r, buf)
		if err != nil {
			return 0, nil, fmt.Errorf("receipts: %w", err)
		}
		if frame == nil {
			return next, list, nil
		}
		receipt, err := parseReceipt(frame)
		if err != nil {
			return 0, nil, fmt.Errorf("receipts: %w", err)
		}
		receipt.Account = c.opts.Account
		list, buf = append(list, receipt), frame
	}
}
