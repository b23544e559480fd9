package rcs

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/inflight"
	"fanfare/sinks/carrier/once"
)

// Connector hands over on one partner account.
type Connector struct {
	cfg    *account
	name   string
	http   *once.Client
	book   *inflight.Book
	tokens *tokens
	known  *known
}

var (
	_ carrier.Connector  = (*Connector)(nil)
	_ carrier.Webhook    = (*Connector)(nil)
	_ carrier.Handshaker = (*Connector)(nil)
	_ carrier.Prober     = (*Connector)(nil)
	_ carrier.Revoker    = (*Connector)(nil)
)

// New returns a connector. It connects at the first hand-over. name is the account in receipts: the route's name.
func New(cfg Config, name string) (*Connector, error) {
	a, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	return &Connector{
		cfg: a, name: name, book: inflight.New(a.window), tokens: newTokens(a), known: newKnown(a.knownFor),
		http: once.New(once.Config{Window: a.window, Timeout: a.timeout, Roots: a.roots}),
	}, nil
}

// maxBatch is how many recipients one capabilities query has. Each message is a separate request, whatever the size of
// the batch.
const maxBatch = 100

// Caps implements [carrier.Connector].
func (c *Connector) Caps() carrier.Caps {
	caps := carrier.Caps{
		MaxBatch: 1, Doubt: carrier.DoubtNaturalID, EchoesKey: true, Receipts: carrier.ReceiptsWebhook, Pacing: carrier.PacingMessages,
		ReadReceipts: true, CanRevoke: true, CanProbe: true, AnswerTimeout: c.cfg.timeout,
	}
	if c.cfg.Capabilities {
		caps.MaxBatch = min(maxBatch, c.cfg.window)
	}
	return caps
}

// Send implements [carrier.Connector].
func (c *Connector) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	return c.book.Send(ctx, batch, c.Caps().MaxBatch, done, func(work context.Context, f *inflight.Batch) {
		work, cancel := context.WithTimeout(work, c.cfg.timeout)
		defer cancel()
		without := c.without(work, batch)
		var each sync.WaitGroup
		for i := range batch {
			if without[batch[i].To] {
				f.Answer(i, carrier.Result{Outcome: carrier.Unsupported, Sub: schemas.CodeRCSNotCapable, Code: "capabilities"})
				continue
			}
			each.Go(func() { f.Answer(i, c.submit(work, &batch[i])) })
		}
		each.Wait()
	})
}

// without returns the recipients of a batch that have no RCS. It queries the platform about recipients that it does not
// remember. If the query fails, it returns none of them.
func (c *Connector) without(ctx context.Context, batch []carrier.Outbound) map[string]bool {
	if !c.cfg.Capabilities {
		return nil
	}
	by := map[string][]string{}
	for i := range batch {
		agent := c.agent(batch[i].From)
		by[agent] = append(by[agent], batch[i].To)
	}
	out := map[string]bool{}
	for agent, to := range by {
		reach, _, err := c.probe(ctx, agent, to)
		if err != nil {
			continue
		}
		for i, ok := range reach {
			out[to[i]] = !ok
		}
	}
	return out
}

// submit hands one message over.
func (c *Connector) submit(ctx context.Context, o *carrier.Outbound) carrier.Result {
	expired := func() bool { return o.Expired(time.Now()) }
	if expired() {
		return carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline}
	}
	body, err := json.Marshal(c.message(o, time.Now()))
	if err != nil {
		return carrier.Result{Outcome: carrier.Rejected, Sub: schemas.CodeRenderError, Code: "message"}
	}
	id := messageID(o.Key)
	a, err := c.call(ctx, http.MethodPost, "phones/"+url.PathEscape(o.To)+"/agentMessages", url.Values{"messageId": {id}, "agentId": {c.agent(o.From)}}, body, expired)
	switch {
	case errors.Is(err, errNoToken):
		c.book.Failed(err)
		return carrier.Result{Outcome: carrier.Retryable, Sub: schemas.CodeProviderError, Code: "no token", RetryAfter: tokenPause}
	case err != nil:
		return c.book.Unanswered(ctx, err)
	}
	c.failed(a)
	r := c.cfg.result(a)
	if r.Outcome == carrier.Accepted {
		r.Ref, r.Code = id, ""
	}
	return r
}

// failed notes what an answer says about the platform. 404 and 409 say nothing about it.
func (c *Connector) failed(a *once.Answer) {
	if a.Status == http.StatusNotFound || a.Status == http.StatusConflict {
		c.book.Failed(nil)
		return
	}
	c.book.Failed(a.Failure())
}

// errNoToken is returned when there is no access token.
var errNoToken = errors.New("no access token")

// call makes one request.
func (c *Connector) call(ctx context.Context, method, path string, query url.Values, body []byte, expired func() bool) (*once.Answer, error) {
	token, err := c.tokens.get() //nolint:contextcheck // the token is for all requests: no single one ends its fetch
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoToken, err)
	}
	address := c.cfg.base + "/" + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := once.Request(ctx, method, address, body)
	if err != nil {
		return nil, errors.New("the request cannot be made")
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	a, err := c.http.Do(req, expired)
	if err == nil && a.Status == http.StatusUnauthorized {
		c.tokens.refused()
	}
	return a, err
}

// agent returns the id of the agent that sends a message.
func (c *Connector) agent(from string) string {
	if agent.MatchString(from) {
		return from
	}
	return c.cfg.AgentID
}

// result returns the result for an answer.
func (a *account) result(got *once.Answer) carrier.Result {
	if got.Status/100 == 2 {
		return carrier.Result{Outcome: carrier.Accepted}
	}
	status := statusOf(got)
	said := a.codes.HTTP(got.Status, status)
	word := cmp.Or(status, strconv.Itoa(got.Status))
	return carrier.Result{Outcome: said.Outcome, Sub: said.Sub, Code: word, RetryAfter: cmp.Or(got.RetryAfter(), a.codes.Wait(word))}
}

// statusOf returns the word of an error; empty if there is none.
func statusOf(got *once.Answer) string {
	var doc struct {
		Error struct {
			Status string `json:"status"`
		} `json:"error"`
	}
	if json.Unmarshal(got.Body, &doc) != nil {
		return ""
	}
	return doc.Error.Status
}

// agentMessage is the body of a hand-over.
type agentMessage struct {
	Content json.RawMessage `json:"contentMessage"`
	Traffic string          `json:"messageTrafficType,omitempty"`
	Expires string          `json:"expireTime,omitempty"`
}

// Bounds of how long the platform keeps a message for a phone that is off.
const (
	leastTTL = 10 * time.Second
	mostTTL  = 15 * 24 * time.Hour
)

// message returns a message in the form of the platform.
func (c *Connector) message(o *carrier.Outbound, now time.Time) agentMessage {
	m := agentMessage{Traffic: strings.ToUpper(c.cfg.TrafficType)}
	if o.Body.Rich != nil {
		m.Content = o.Body.Rich.JSON
	} else {
		m.Content, _ = json.Marshal(map[string]string{"text": o.Body.Text.Body}) // never fails
	}
	if !o.NotAfter.IsZero() {
		left := min(max(o.NotAfter.Sub(now), leastTTL), mostTTL)
		m.Expires = now.Add(left).UTC().Format(time.RFC3339)
	}
	return m
}

// messageID returns a submission id as a UUID. It uses all bits, so that keyOf can read the id back; therefore no bits
// have a version of RFC 9562.
func messageID(k carrier.Key) string {
	b := make([]byte, 36)
	hex.Encode(b, k[:4])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	hex.Encode(b[9:], k[4:6])
	hex.Encode(b[14:], k[6:8])
	hex.Encode(b[19:], k[8:10])
	hex.Encode(b[24:], k[10:])
	return string(b)
}

// keyOf returns the submission id in a message id; ok is false if the id is another program's.
func keyOf(id string) (k carrier.Key, ok bool) {
	if len(id) != 36 || id[8] != '-' || id[13] != '-' || id[18] != '-' || id[23] != '-' {
		return k, false
	}
	n, err := hex.Decode(k[:], []byte(strings.ReplaceAll(id, "-", "")))
	return k, err == nil && n == len(k) && k.Try() > 0
}

// Revoke implements [carrier.Revoker]: it revokes a message that has not reached the phone. The message must be from
// the account's agent.
func (c *Connector) Revoke(ctx context.Context, to, ref string) (carrier.RevokeOutcome, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	a, err := c.call(ctx, http.MethodDelete, "phones/"+url.PathEscape(to)+"/agentMessages/"+url.PathEscape(ref), url.Values{"agentId": {c.cfg.AgentID}}, nil, never)
	switch {
	case err != nil:
		return carrier.RevokeUnknown, fmt.Errorf("rcs: revoke: %w", err)
	case a.Status/100 == 2:
		return carrier.Revoked, nil
	case a.Status == http.StatusNotFound:
		return carrier.RevokeTooLate, nil
	default:
		return carrier.RevokeUnknown, fmt.Errorf("rcs: revoke: %w", c.refusal(a))
	}
}

func never() bool { return false }

func (c *Connector) refusal(a *once.Answer) error {
	return fmt.Errorf("the platform answers %d %s", a.Status, statusOf(a))
}

// Drain implements [carrier.Connector].
func (c *Connector) Drain(ctx context.Context) error {
	c.book.Drain(ctx)
	c.http.CloseIdle()
	c.tokens.close()
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

// Reach fetches an access token and sends a capabilities request for no number, which shows that the platform accepts
// the service account.
func (c *Connector) Reach(ctx context.Context) error {
	if _, err := c.tokens.get(); err != nil { //nolint:contextcheck // as in call
		return fmt.Errorf("rcs: %w: %w", errNoToken, err)
	}
	if err := c.http.Reach(ctx, c.cfg.base); err != nil {
		return fmt.Errorf("rcs: %w", err)
	}
	return nil
}
