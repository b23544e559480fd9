// Package rbm is the server side of the RCS connector: the part of Google's RCS for Business API that takes messages,
// and its webhook. It decides nothing itself: a [Line] behind it, such as the simulator, decides the result of each
// message, so the simulator's one ground truth covers RCS too.
//
//	POST   /token                                       an access token for a signed assertion (RFC 7523)
//	POST   /v1/phones/{number}/agentMessages            contentMessage, under the query's messageId and agentId
//	DELETE /v1/phones/{number}/agentMessages/{id}       always too late: an accepted message cannot be revoked
//	POST   /v1/users:batchGet                           which numbers of a list have RCS
//
// An agent is a line. A message's id is its submission id; an id of another form gets a submission id here.
// Before its first event the server registers the webhook as Google does, with a secret that must come back. It repeats
// an event that is not answered with 2xx. The platform has an event only for messages that expired. A message that
// fails for another reason has no event.
package rbm

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"fanfare/schemas"
	schematext "fanfare/schemas/text"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/peer"
)

// Line is the carrier behind an agent. It must ignore a repeated key, as the platform does.
type Line interface {
	carrier.Connector
	carrier.ReceiptSource
}

// Config of a server.
type Config struct {
	// Open returns the line of an agent. It is called once for each agent. Required.
	Open func(agentID string) (Line, error)
	// Keys sign the submission ids of messages that have none. Required.
	Keys *schemas.Keys
	// Account is the service account that may get tokens. Required; see [NewAccount].
	Account *Account
	// Webhook is the address that gets events; empty: none does. ClientToken signs the events and registers the
	// address.
	Webhook, ClientToken string
	// Unreachable is the share of numbers without RCS, 0..1. The number itself decides whether it is one of them.
	Unreachable float64
	// Callbacks is how many callbacks are sent at a time; 0: 16. Client sends them; nil: a client with a time-out of 10
	// s.
	Callbacks int
	Client    *http.Client
	// Logger may be nil.
	Logger *slog.Logger
}

// Account is a service account.
type Account struct {
	Email string
	key   *rsa.PrivateKey
}

// NewAccount makes a service account with a new key.
func NewAccount() (*Account, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("rbm: service account: %w", err)
	}
	return &Account{"simulated@fanfare.invalid", key}, nil
}

// accountFile is the key file of a service account.
type accountFile struct {
	Type  string `json:"type"`
	Email string `json:"client_email"`
	Key   string `json:"private_key"`
}

// JSON returns the key file, as Google gives it.
func (a *Account) JSON() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, fmt.Errorf("rbm: service account: %w", err)
	}
	return json.MarshalIndent(accountFile{"service_account", a.Email, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}, "", "  ")
}

// ReadAccount reads a key file.
func ReadAccount(raw []byte) (*Account, error) {
	var f accountFile
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("rbm: service account: %w", err)
	}
	block, _ := pem.Decode([]byte(f.Key))
	if block == nil {
		return nil, errors.New("rbm: service account: no key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("rbm: service account: %w", err)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("rbm: service account: the key is not RSA")
	}
	return &Account{f.Email, private}, nil
}

// Server is the platform. It is an http.Handler; Run calls the webhook.
type Server struct {
	cfg     Config
	log     *slog.Logger
	client  *http.Client
	agents  *peer.Accounts[*line]
	next    *peer.Numbering
	webhook peer.Webhook

	mu      sync.Mutex
	tokens  map[string]time.Time
	foreign map[carrier.Key]string
	events  uint64
	probes  int
}

// Stats counts events and capabilities queries.
type Stats struct{ Delivered, Repeated, Probes int }

type line struct {
	Line
	agent string
}

// New returns a server.
func New(cfg Config) (*Server, error) {
	if cfg.Open == nil || cfg.Keys == nil || cfg.Account == nil {
		return nil, errors.New("rbm: a line, keys and a service account are needed")
	}
	cfg.Callbacks = cmp.Or(cfg.Callbacks, 16)
	s := &Server{
		cfg: cfg, log: cfg.Logger, client: cfg.Client, next: peer.NewNumbering(cfg.Keys),
		tokens: map[string]time.Time{}, foreign: map[carrier.Key]string{},
	}
	s.agents = peer.NewAccounts(func(agent string) (*line, error) {
		opened, err := cfg.Open(agent)
		return &line{opened, agent}, err
	})
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.client == nil {
		s.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Callbacks}}
	}
	return s, nil
}

// Run sends the events of all lines until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	s.agents.Run(ctx, s.log, s.emit)
	return nil
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	delivered, repeated := s.webhook.Counts()
	return Stats{delivered, repeated, s.probes}
}

// mostForeign limits the memory for ids of other programs.
const mostForeign = 100_000

// key returns the submission id of a message.
func (s *Server) key(id string) (carrier.Key, bool) {
	var key carrier.Key
	bare := strings.ReplaceAll(id, "-", "")
	if len(id) != 36 || len(bare) != 32 {
		return key, false
	}
	if n, err := hex.Decode(key[:], []byte(bare)); err != nil || n != len(key) {
		return key, false
	}
	if key.Try() > 0 && s.cfg.Keys.Verify(key) == nil {
		return key, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, known := range s.foreign {
		if known == id {
			return k, true
		}
	}
	if len(s.foreign) >= mostForeign {
		clear(s.foreign)
	}
	key = s.next.Next()
	s.foreign[key] = id
	return key, true
}

// idOf returns the id with which a message came.
func (s *Server) idOf(key carrier.Key) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := s.foreign[key]; id != "" {
		return id
	}
	h := hex.EncodeToString(key[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	if r.URL.Path == "/token" && r.Method == http.MethodPost {
		s.token(w, r)
		return
	}
	if !s.mayPass(r.Header.Get("Authorization")) {
		fail(w, http.StatusUnauthorized, "UNAUTHENTICATED")
		return
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(path) == 2 && path[1] == "users:batchGet" && r.Method == http.MethodPost:
		s.batchGet(w, r)
	case len(path) == 4 && path[1] == "phones" && path[3] == "agentMessages" && r.Method == http.MethodPost:
		s.take(w, r, path[2])
	case len(path) == 5 && path[1] == "phones" && path[3] == "agentMessages" && r.Method == http.MethodDelete:
		fail(w, http.StatusNotFound, "NOT_FOUND")
	default:
		fail(w, http.StatusNotFound, "NOT_FOUND")
	}
}

// tokenLife is how long an access token is valid.
const tokenLife = time.Hour

// token gives an access token for an assertion that the service account has signed.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	if err := s.assertion(r.PostFormValue("assertion"), time.Now()); err != nil || r.PostFormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":"invalid_grant","error_description":"Invalid JWT"}`)
		return
	}
	token := rand.Text()
	s.mu.Lock()
	for t, until := range s.tokens {
		if time.Now().After(until) {
			delete(s.tokens, t)
		}
	}
	s.tokens[token] = time.Now().Add(tokenLife)
	s.mu.Unlock()
	answer(w, map[string]any{"access_token": token, "token_type": "Bearer", "expires_in": int(tokenLife.Seconds())})
}

// assertion checks a JWT of the service account.
func (s *Server) assertion(text string, now time.Time) error {
	part := strings.Split(text, ".")
	if len(part) != 3 {
		return errors.New("not three parts")
	}
	sig, err := base64.RawURLEncoding.DecodeString(part[2])
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(part[0] + "." + part[1]))
	if err := rsa.VerifyPKCS1v15(&s.cfg.Account.key.PublicKey, crypto.SHA256, sum[:], sig); err != nil {
		return err
	}
	raw, err := base64.RawURLEncoding.DecodeString(part[1])
	if err != nil {
		return err
	}
	var claims struct {
		Issuer  string `json:"iss"`
		Scope   string `json:"scope"`
		Expires int64  `json:"exp"`
	}
	if err := json.Unmarshal(raw, &claims); err != nil {
		return err
	}
	if claims.Issuer != s.cfg.Account.Email || now.Unix() >= claims.Expires || !strings.Contains(claims.Scope, "rcsbusinessmessaging") {
		return errors.New("another account, too late, or another scope")
	}
	return nil
}

func (s *Server) mayPass(header string) bool {
	token, ok := strings.CutPrefix(header, "Bearer ")
	s.mu.Lock()
	defer s.mu.Unlock()
	return ok && time.Now().Before(s.tokens[token])
}

// Forget makes all access tokens invalid, as if a key were revoked.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// reachable reports whether a number has RCS.
func (s *Server) reachable(number string) bool {
	h := fnv.New64a()
	_, _ = io.WriteString(h, number)
	return float64(h.Sum64()%10_000)/10_000 >= s.cfg.Unreachable
}

// batchGet answers which numbers of a list have RCS.
func (s *Server) batchGet(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Users   []string `json:"users"`
		AgentID string   `json:"agentId"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.AgentID == "" || len(q.Users) == 0 || len(q.Users) > 10_000 {
		fail(w, http.StatusBadRequest, "INVALID_ARGUMENT")
		return
	}
	s.mu.Lock()
	s.probes++
	s.mu.Unlock()
	reach := []string{}
	for _, number := range q.Users {
		if s.reachable(number) {
			reach = append(reach, number)
		}
	}
	answer(w, map[string]any{"reachableUsers": reach})
}

// maxText is the maximum length of a text in characters.
const maxText = 3072

// take reads one message.
func (s *Server) take(w http.ResponseWriter, r *http.Request, number string) {
	var m struct {
		Content map[string]json.RawMessage `json:"contentMessage"`
		Traffic string                     `json:"messageTrafficType"`
		Expires time.Time                  `json:"expireTime"`
	}
	agent := r.URL.Query().Get("agentId")
	key, ok := s.key(r.URL.Query().Get("messageId"))
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil || !ok || agent == "" {
		fail(w, http.StatusBadRequest, "INVALID_ARGUMENT")
		return
	}
	kinds := 0
	for _, name := range []string{"text", "richCard", "contentInfo", "uploadedRbmFile", "fileName"} {
		if m.Content[name] != nil {
			kinds++
		}
	}
	out := carrier.Outbound{Key: key, Channel: schemas.ChannelRCS, To: number, From: agent, NotAfter: m.Expires}
	var text string
	switch {
	case kinds != 1:
		fail(w, http.StatusBadRequest, "INVALID_ARGUMENT")
		return
	case m.Content["text"] != nil && len(m.Content) == 1:
		if json.Unmarshal(m.Content["text"], &text) != nil || text == "" || utf8.RuneCountInString(text) > maxText {
			fail(w, http.StatusBadRequest, "INVALID_ARGUMENT")
			return
		}
		size := schematext.Measure(text)
		out.Body.Text = carrier.Text{Body: text, Encoding: size.Encoding, Segments: size.Segments}
	default:
		raw, err := json.Marshal(m.Content)
		if err != nil {
			fail(w, http.StatusBadRequest, "INVALID_ARGUMENT")
			return
		}
		out.Body.Rich = &carrier.Rich{JSON: raw}
	}
	if !s.reachable(number) {
		fail(w, http.StatusNotFound, "NOT_FOUND")
		return
	}
	l, err := s.agents.Get(agent)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, "UNAVAILABLE")
		return
	}
	s.submit(w, r, l, &out)
}

// submit hands one message to the line and sends the line's answer.
func (s *Server) submit(w http.ResponseWriter, r *http.Request, l *line, out *carrier.Outbound) {
	x, ok := peer.Submit(w, r, l, *out)
	if !ok {
		return
	}
	switch x.Outcome {
	case carrier.Accepted:
		answer(w, map[string]any{"name": "phones/" + out.To + "/agentMessages/" + s.idOf(out.Key), "sendTime": time.Now().UTC().Format(time.RFC3339Nano)})
	case carrier.Throttled:
		fail(w, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED")
	case carrier.Retryable:
		fail(w, http.StatusServiceUnavailable, "UNAVAILABLE")
	case carrier.Unsupported:
		fail(w, http.StatusNotFound, "NOT_FOUND")
	default:
		fail(w, http.StatusBadRequest, "INVALID_ARGUMENT")
	}
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, status int, word string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": status, "message": word, "status": word}})
}

// emit calls the webhook for each receipt, several at a time. It returns when all calls have succeeded, or ctx ends.
func (s *Server) emit(ctx context.Context, l *line, list []carrier.Receipt) error {
	if s.cfg.Webhook == "" {
		return nil
	}
	peer.EachOf(list, s.cfg.Callbacks, func(r *carrier.Receipt) {
		if event := s.event(l.agent, r); event != nil {
			s.deliver(ctx, event)
		}
	})
	return ctx.Err()
}

// event returns the platform's event for a receipt; nil if it has none.
func (s *Server) event(agent string, r *carrier.Receipt) []byte {
	s.mu.Lock()
	s.events++
	id := strconv.FormatUint(s.events, 10)
	s.mu.Unlock()
	e := map[string]string{"eventId": id, "messageId": s.idOf(r.Key), "agentId": agent, "sendTime": r.At.UTC().Format(time.RFC3339Nano)}
	switch {
	case r.Status == schemas.ReceiptStatusDelivered:
		e["senderPhoneNumber"], e["eventType"] = r.To, "DELIVERED"
	case r.Status == schemas.ReceiptStatusRead:
		e["senderPhoneNumber"], e["eventType"] = r.To, "READ"
	case r.Status == schemas.ReceiptStatusFailed && r.Sub == schemas.CodeExpired:
		e["phoneNumber"], e["eventType"] = r.To, "TTL_EXPIRATION_REVOKED"
	default:
		return nil
	}
	raw, err := json.Marshal(e)
	if err != nil {
		return nil // cannot happen: the event has only texts
	}
	return raw
}

// deliver calls the webhook until it answers with 2xx, or ctx ends.
func (s *Server) deliver(ctx context.Context, event []byte) {
	s.webhook.Deliver(ctx, func() error { return s.register(ctx) }, func() error { return s.post(ctx, event) })
}

// register calls the webhook once with a secret, which must come back.
func (s *Server) register(ctx context.Context) error {
	secret := rand.Text()
	body, err := json.Marshal(map[string]string{"clientToken": s.cfg.ClientToken, "secret": secret})
	if err != nil {
		return err
	}
	got, err := s.call(ctx, body, "")
	if err != nil {
		return err
	}
	if string(got) != secret {
		return errors.New("the secret did not come back")
	}
	s.log.InfoContext(ctx, "webhook registered")
	return nil
}

func (s *Server) post(ctx context.Context, event []byte) error {
	body, err := json.Marshal(map[string]any{"message": map[string]any{"data": event, "messageId": "1"}, "subscription": "projects/rbm/subscriptions/simulated"})
	if err != nil {
		return err
	}
	_, err = s.call(ctx, body, Sign(s.cfg.ClientToken, event))
	return err
}

func (s *Server) call(ctx context.Context, body []byte, signature string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.Webhook, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if signature != "" {
		req.Header.Set("X-Goog-Signature", signature)
	}
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

// Sign returns X-Goog-Signature of an event.
func Sign(token string, event []byte) string {
	m := hmac.New(sha512.New, []byte(token))
	m.Write(event)
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}
