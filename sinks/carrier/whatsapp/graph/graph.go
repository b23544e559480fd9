// Package graph is the server side of the WhatsApp connector: the part of Meta's Graph API that takes messages, and its
// webhooks. It decides nothing itself: a [Line] behind it, such as the simulator, decides the result of each message,
// so the simulator's one ground truth covers WhatsApp too.
//
//	POST /{version}/{phone number id}/messages   a template or a text
//	GET  /{version}/{phone number id}            whether the token may use the number
//
// A phone number id is a line. A message has its submission id in biz_opaque_callback_data; if it has none, the server
// gives it one. Before the first webhook the server registers the address as Meta does, with a challenge. It repeats a
// webhook that is not answered with 2xx. Statuses come in batches, the last one first.
package graph

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"fanfare/schemas"
	schematext "fanfare/schemas/text"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/peer"
)

// Line is the carrier behind a phone number id. Receipt.Ref must be the decimal number that the message had in
// [carrier.Outbound.Meta] under MetaRef.
type Line interface {
	carrier.Connector
	carrier.ReceiptSource
}

// MetaRef is the key in Meta under which a message has the id that its receipts must name: a number, in decimal.
const MetaRef = "ref"

// Config of a server.
type Config struct {
	// Open returns the line of a phone number id. It is called once for each. Required.
	Open func(phoneNumberID string) (Line, error)
	// Keys sign the submission ids of messages that have none. Required.
	Keys *schemas.Keys
	// AccessToken must be in every request; empty: any token is accepted.
	AccessToken string
	// Webhook is the address that gets statuses; empty: none does. AppSecret signs webhooks, VerifyToken registers the
	// address.
	Webhook, AppSecret, VerifyToken string
	// Pair is the shortest time between two messages to one person; 0: no limit. Portfolio is how many people may get
	// messages within 24 hours; 0: no limit.
	Pair      time.Duration
	Portfolio int
	// Batch is how many statuses one webhook may have, 0: 20. Client sends them; nil: a client with a time-out of 10 s.
	Batch  int
	Client *http.Client
	// Logger may be nil.
	Logger *slog.Logger
}

// Server is the Graph API. It is an http.Handler; Run calls webhooks.
type Server struct {
	cfg     Config
	log     *slog.Logger
	client  *http.Client
	refs    atomic.Uint64
	numbers *peer.Accounts[*number]
	foreign *peer.Numbering
	webhook peer.Webhook

	mu     sync.Mutex
	people people
}

// Stats counts webhooks.
type Stats struct{ Delivered, Repeated int }

type number struct {
	Line
	id string
}

// New returns a server.
func New(cfg Config) (*Server, error) {
	if cfg.Open == nil || cfg.Keys == nil {
		return nil, errors.New("graph: a line and keys are needed")
	}
	cfg.Batch = cmp.Or(cfg.Batch, 20)
	s := &Server{cfg: cfg, log: cfg.Logger, client: cfg.Client, foreign: peer.NewNumbering(cfg.Keys), people: people{}}
	s.numbers = peer.NewAccounts(func(id string) (*number, error) {
		line, err := cfg.Open(id)
		return &number{line, id}, err
	})
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.client == nil {
		s.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	}
	s.refs.Store(uint64(time.Now().UnixMilli()) << 16)
	return s, nil
}

// Run sends the statuses of all lines until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	s.numbers.Run(ctx, s.log, s.emit)
	return nil
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	delivered, repeated := s.webhook.Counts()
	return Stats{delivered, repeated}
}

// key returns the submission id of a message.
func (s *Server) key(opaque string) carrier.Key {
	if key, err := schemas.ParseID(opaque); err == nil && s.cfg.Keys.Verify(key) == nil && key.Try() > 0 {
		return key
	}
	return s.foreign.Next()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case s.cfg.AccessToken != "" && (!ok || token != s.cfg.AccessToken):
		fail(w, http.StatusUnauthorized, 190, "Invalid OAuth access token")
	case len(path) == 2 && r.Method == http.MethodGet:
		answer(w, map[string]string{"id": path[1]})
	case len(path) == 3 && path[2] == "messages" && r.Method == http.MethodPost:
		s.take(w, r, path[1])
	default:
		fail(w, http.StatusNotFound, 100, "Unsupported request")
	}
}

// take reads one message.
func (s *Server) take(w http.ResponseWriter, r *http.Request, id string) {
	var m struct {
		Product  string `json:"messaging_product"`
		To       string `json:"to"`
		Type     string `json:"type"`
		Opaque   string `json:"biz_opaque_callback_data"`
		Template *struct {
			Name     string `json:"name"`
			Language struct {
				Code string `json:"code"`
			} `json:"language"`
			Components []struct {
				Type       string `json:"type"`
				Parameters []struct {
					Type string `json:"type"`
					Text string `json:"text"`
				} `json:"parameters"`
			} `json:"components"`
		} `json:"template"`
		Text *struct {
			Body string `json:"body"`
		} `json:"text"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&m); err != nil {
		fail(w, http.StatusBadRequest, 100, "Invalid parameter")
		return
	}
	out := carrier.Outbound{Key: s.key(m.Opaque), Channel: schemas.ChannelWhatsApp, To: "+" + strings.TrimPrefix(m.To, "+"), From: id}
	switch {
	case m.Product != "whatsapp" || m.To == "":
		fail(w, http.StatusBadRequest, 131008, "Required parameter is missing")
		return
	case m.Type == "template" && m.Template != nil && m.Template.Name != "" && m.Template.Language.Code != "":
		t := &carrier.Template{Name: m.Template.Name, Language: m.Template.Language.Code}
		for _, c := range m.Template.Components {
			for _, p := range c.Parameters {
				if p.Type == "text" && p.Text == "" {
					fail(w, http.StatusBadRequest, 131008, "Required parameter is missing")
					return
				}
				t.Params = append(t.Params, p.Text)
			}
		}
		out.Body.Template = t
	case m.Type == "text" && m.Text != nil && m.Text.Body != "":
		size := schematext.Measure(m.Text.Body)
		out.Body.Text = carrier.Text{Body: m.Text.Body, Encoding: size.Encoding, Segments: size.Segments}
	default:
		fail(w, http.StatusBadRequest, 131008, "Required parameter is missing")
		return
	}
	n, err := s.numbers.Get(id)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, 131016, err.Error())
		return
	}
	if code := s.limit(out.To); code != 0 {
		fail(w, http.StatusBadRequest, code, "Rate limit hit")
		return
	}
	s.submit(w, r, n, &out)
}

// submit hands one message to the line and sends the line's answer.
func (s *Server) submit(w http.ResponseWriter, r *http.Request, n *number, out *carrier.Outbound) {
	ref := s.refs.Add(1)
	out.Meta = map[string]string{MetaRef: strconv.FormatUint(ref, 10)}
	x, ok := peer.Submit(w, r, n, *out)
	if !ok {
		return
	}
	switch x.Outcome {
	case carrier.Accepted:
		digits := strings.TrimPrefix(out.To, "+")
		answer(w, map[string]any{
			"messaging_product": "whatsapp", "contacts": []any{map[string]string{"input": digits, "wa_id": digits}},
			"messages": []any{map[string]string{"id": wamid(ref), "message_status": "accepted"}},
		})
	case carrier.Throttled:
		fail(w, http.StatusTooManyRequests, 130429, "Rate limit hit")
	case carrier.Retryable:
		fail(w, http.StatusServiceUnavailable, 131016, "Service unavailable")
	case carrier.Unsupported:
		fail(w, http.StatusBadRequest, 131026, "Message undeliverable")
	default:
		fail(w, http.StatusBadRequest, refusalOf(x.Sub), "refused")
	}
}

// refusalOf returns WhatsApp's code for a final refusal.
func refusalOf(sub schemas.Code) int {
	switch sub {
	case schemas.CodeInvalidNumber:
		return 131021
	case schemas.CodeCountryNotEnabled:
		return 130497
	default:
		return 131009
	}
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, status, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"message": fmt.Sprintf("(#%d) %s", code, message), "type": "OAuthException", "code": code}})
}

func wamid(ref uint64) string { return fmt.Sprintf("wamid.%020d", ref) }

// people maps the recipients of messages to the time of their last message.
type people map[string]time.Time

// mostPeople limits the memory: above it, recipients whose last message is more than a day old are dropped.
const mostPeople = 1_000_000

// limit counts one message to a person, and returns the code of the limit that it exceeds; 0: none.
func (s *Server) limit(to string) (code int) {
	if s.cfg.Pair == 0 && s.cfg.Portfolio == 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	last, known := s.people[to]
	if known && now.Sub(last) < s.cfg.Pair {
		return 131056
	}
	if s.cfg.Portfolio > 0 || len(s.people) >= mostPeople {
		for p, at := range s.people {
			if now.Sub(at) >= 24*time.Hour {
				delete(s.people, p)
			}
		}
		if _, known = s.people[to]; !known && s.cfg.Portfolio > 0 && len(s.people) >= s.cfg.Portfolio {
			return 131048
		}
	}
	s.people[to] = now
	return 0
}

// status is one status in a webhook.
type status struct {
	ID        string    `json:"id"`
	Status    string    `json:"status"`
	Timestamp string    `json:"timestamp"`
	Recipient string    `json:"recipient_id"`
	Opaque    string    `json:"biz_opaque_callback_data"`
	Pricing   *pricing  `json:"pricing,omitempty"`
	Errors    []problem `json:"errors,omitempty"`
}

type pricing struct {
	Billable bool   `json:"billable"`
	Model    string `json:"pricing_model"`
	Category string `json:"category"`
	Type     string `json:"type"`
}

type problem struct {
	Code  int    `json:"code"`
	Title string `json:"title"`
}

// statuses returns WhatsApp's statuses for a receipt.
func statuses(r *carrier.Receipt) []status {
	ref, err := strconv.ParseUint(r.Ref, 10, 64)
	if err != nil {
		return nil
	}
	at := strconv.FormatInt(r.At.Unix(), 10)
	s := status{ID: wamid(ref), Timestamp: at, Recipient: strings.TrimPrefix(r.To, "+"), Opaque: r.Key.String()}
	sent := s
	sent.Status = "sent"
	price := &pricing{Billable: true, Model: "PMP", Category: "marketing", Type: "regular"}
	switch r.Status {
	case schemas.ReceiptStatusBuffered:
		return []status{sent}
	case schemas.ReceiptStatusDelivered:
		s.Status, s.Pricing, sent.Pricing = "delivered", price, price
		return []status{sent, s}
	case schemas.ReceiptStatusRead:
		s.Status, s.Pricing = "read", price
	case schemas.ReceiptStatusFailed:
		s.Status = "failed"
		s.Errors = []problem{{failureOf(r.Sub), "Message undeliverable"}}
	default:
		return nil
	}
	return []status{s}
}

// failureOf returns WhatsApp's code for a message that was not delivered.
func failureOf(sub schemas.Code) int {
	switch sub {
	case schemas.CodeExpired:
		return 131043
	case schemas.CodeOperatorBlacklist, schemas.CodeBarred:
		return 131049
	case schemas.CodeProviderError, schemas.CodeNetworkError:
		return 131000
	default:
		return 131026
	}
}

// emit calls the webhook for receipts, in batches in which the last status comes first. It returns when all calls have
// succeeded, or ctx ends.
func (s *Server) emit(ctx context.Context, n *number, list []carrier.Receipt) error {
	if s.cfg.Webhook == "" {
		return nil
	}
	var all []status
	for i := range list {
		all = append(all, statuses(&list[i])...)
	}
	slices.Reverse(all)
	for batch := range slices.Chunk(all, s.cfg.Batch) {
		body, err := json.Marshal(map[string]any{"object": "whatsapp_business_account", "entry": []any{map[string]any{
			"id": "102290129340398", "changes": []any{map[string]any{"field": "messages", "value": map[string]any{
				"messaging_product": "whatsapp", "metadata": map[string]string{"phone_number_id": n.id, "display_phone_number": "15550783881"}, "statuses": batch,
			}}},
		}}})
		if err != nil {
			return err
		}
		s.deliver(ctx, body)
	}
	return ctx.Err()
}

// deliver calls the webhook until it answers with 2xx, or ctx ends.
func (s *Server) deliver(ctx context.Context, body []byte) {
	s.webhook.Deliver(ctx, func() error { return s.register(ctx) }, func() error { return s.post(ctx, body) })
}

// register challenges the webhook once.
func (s *Server) register(ctx context.Context) error {
	challenge := strconv.FormatUint(s.refs.Load(), 10)
	query := url.Values{"hub.mode": {"subscribe"}, "hub.verify_token": {s.cfg.VerifyToken}, "hub.challenge": {challenge}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.Webhook+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	got, err := s.call(req)
	if err != nil {
		return err
	}
	if string(got) != challenge {
		return errors.New("the challenge did not come back")
	}
	s.log.InfoContext(ctx, "webhook registered")
	return nil
}

func (s *Server) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.Webhook, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Hub-Signature-256", Sign(s.cfg.AppSecret, body))
	_, err = s.call(req)
	return err
}

func (s *Server) call(req *http.Request) ([]byte, error) {
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode/100 != 2 {
		return nil, errors.New(resp.Status)
	}
	return got, err
}

// Sign returns X-Hub-Signature-256 of a body.
func Sign(secret string, body []byte) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write(body)
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
}
