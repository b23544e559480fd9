package whatsapp

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/inflight"
	"fanfare/sinks/carrier/once"
)

// Connector hands over on one business account.
type Connector struct {
	cfg  *account
	name string
	http *once.Client
	book *inflight.Book
}

var (
	_ carrier.Connector      = (*Connector)(nil)
	_ carrier.Webhook        = (*Connector)(nil)
	_ carrier.Handshaker     = (*Connector)(nil)
	_ carrier.TemplateTeller = (*Connector)(nil)
)

// New returns a connector. It connects at the first hand-over. name is the account in receipts: the route's name.
func New(cfg Config, name string) (*Connector, error) {
	a, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	return &Connector{
		cfg: a, name: name, book: inflight.New(a.window), http: once.New(once.Config{Window: a.window, Timeout: a.timeout, Roots: a.roots}),
	}, nil
}

// Caps implements [carrier.Connector].
func (c *Connector) Caps() carrier.Caps {
	return carrier.Caps{
		MaxBatch: 1, EchoesKey: true, Receipts: carrier.ReceiptsWebhook, Pacing: carrier.PacingMessages, ReadReceipts: true, AnswerTimeout: c.cfg.timeout,
	}
}

// Send implements [carrier.Connector].
func (c *Connector) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	return c.book.Send(ctx, batch, c.Caps().MaxBatch, done, func(work context.Context, f *inflight.Batch) {
		f.Answer(0, c.submit(work, &batch[0]))
	})
}

// submit hands one message over.
func (c *Connector) submit(ctx context.Context, o *carrier.Outbound) carrier.Result {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	expired := func() bool { return o.Expired(time.Now()) }
	if expired() {
		return carrier.Result{Outcome: carrier.Retryable, Code: carrier.CodeDeadline}
	}
	body, err := json.Marshal(messageOf(o))
	if err != nil {
		return carrier.Result{Outcome: carrier.Rejected, Sub: schemas.CodeRenderError, Code: "components"}
	}
	req, err := c.request(ctx, http.MethodPost, c.sender(o)+"/messages", body)
	if err != nil {
		return carrier.Result{Outcome: carrier.Rejected, Sub: schemas.CodeRenderError, Code: "request"}
	}
	a, err := c.http.Do(req, expired)
	switch {
	case err != nil:
		return c.book.Unanswered(ctx, err)
	case a.Torn && a.Status/100 == 2:
		return carrier.Result{Outcome: carrier.Unknown, Code: "answer torn"}
	}
	c.book.Failed(a.Failure())
	return c.cfg.result(a)
}

// sender returns the id of the number that sends a message.
func (c *Connector) sender(o *carrier.Outbound) string {
	if numberID.MatchString(o.From) {
		return o.From
	}
	return c.cfg.PhoneNumberID
}

func (c *Connector) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	req, err := once.Request(ctx, method, c.cfg.base+"/"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+string(c.cfg.AccessToken))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// result returns the result for an answer.
func (a *account) result(got *once.Answer) carrier.Result {
	var doc struct {
		Messages []struct {
			ID     string `json:"id"`
			Status string `json:"message_status"`
		} `json:"messages"`
		Error *struct {
			Code json.Number `json:"code"`
		} `json:"error"`
	}
	err := json.Unmarshal(got.Body, &doc)
	if got.Status/100 == 2 {
		if err != nil || len(doc.Messages) == 0 || doc.Messages[0].ID == "" {
			return carrier.Result{Outcome: carrier.Unknown, Code: "answer without the message"}
		}
		m := doc.Messages[0]
		out := carrier.Result{Outcome: carrier.Accepted, Ref: m.ID}
		if said, ok := a.codes.Answer(m.Status); ok && m.Status != "" {
			out.Outcome, out.Sub = said.Outcome, said.Sub
			if said.Outcome != carrier.Accepted {
				out.Code = m.Status
			}
		}
		return out
	}
	var word string
	if err == nil && doc.Error != nil {
		word = doc.Error.Code.String()
	}
	said := a.codes.HTTP(got.Status, word)
	out := carrier.Result{Outcome: said.Outcome, Sub: said.Sub, Code: cmp.Or(word, strconv.Itoa(got.Status))}
	out.RetryAfter = cmp.Or(got.RetryAfter(), a.codes.Wait(out.Code))
	return out
}

// message is the body of a hand-over.
type message struct {
	Product   string    `json:"messaging_product"`
	Recipient string    `json:"recipient_type"`
	To        string    `json:"to"`
	Type      string    `json:"type"`
	Template  *template `json:"template,omitempty"`
	Text      *text     `json:"text,omitempty"`
	// Opaque is in each status of the message.
	Opaque string `json:"biz_opaque_callback_data"`
}

type template struct {
	Name     string `json:"name"`
	Language struct {
		Code string `json:"code"`
	} `json:"language"`
	Components any `json:"components,omitempty"`
}

type text struct {
	PreviewURL bool   `json:"preview_url"`
	Body       string `json:"body"`
}

type component struct {
	Type       string      `json:"type"`
	Parameters []parameter `json:"parameters"`
}

type parameter struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// messageOf returns a message in the form of WhatsApp. If WhatsApp has no form for a body, it refuses the message.
func messageOf(o *carrier.Outbound) message {
	m := message{Product: "whatsapp", Recipient: "individual", To: strings.TrimPrefix(o.To, "+"), Opaque: o.Key.String()}
	t := o.Body.Template
	if t == nil {
		m.Type, m.Text = "text", &text{Body: o.Body.Text.Body}
		return m
	}
	m.Type, m.Template = "template", &template{Name: t.Name}
	m.Template.Language.Code = t.Language
	switch {
	case len(t.Components) > 0:
		m.Template.Components = json.RawMessage(t.Components)
	case len(t.Params) > 0:
		c := component{Type: "body"}
		for _, p := range t.Params {
			c.Parameters = append(c.Parameters, parameter{"text", p})
		}
		m.Template.Components = []component{c}
	}
	return m
}

// Drain implements [carrier.Connector].
func (c *Connector) Drain(ctx context.Context) error {
	c.book.Drain(ctx)
	c.http.CloseIdle()
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

// Reach reads the data of the number that sends, which shows that the token may use it.
func (c *Connector) Reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	req, err := c.request(ctx, http.MethodGet, url.PathEscape(c.cfg.PhoneNumberID)+"?fields=id", nil)
	if err != nil {
		return fmt.Errorf("whatsapp: %w", err)
	}
	a, err := c.http.Do(req, func() bool { return false })
	switch {
	case err != nil:
		return fmt.Errorf("whatsapp: %w", err)
	case a.Status/100 == 2:
		return nil
	}
	var doc struct {
		Error struct {
			Message string      `json:"message"`
			Code    json.Number `json:"code"`
		} `json:"error"`
	}
	_ = json.Unmarshal(a.Body, &doc) // an answer without it is told by its status
	return fmt.Errorf("whatsapp: the number %s can't be used: status %d, code %s: %s", c.cfg.PhoneNumberID, a.Status, cmp.Or(doc.Error.Code.String(), "none"), doc.Error.Message)
}
