// Package provider is the server side of an HTTP connector: a provider that accepts messages as Twilio does, with a
// form for each and JSON as the answer. It reports the state of messages in callbacks that are signed as Twilio's. Like
// package smsc it decides nothing itself: a [Line] behind it, such as the simulator, decides the result of each
// message, so the simulator's one ground truth covers HTTP, too.
//
//	POST /2010-04-01/Accounts/{sid}/Messages.json   To, From, Body, StatusCallback, ValidityPeriod
//
// An account is a line. A message has its submission id in the parameter k of its StatusCallback, or in the header
// I-Twilio-Idempotency-Token; the server gives a message without one a submission id. It repeats a callback that is
// not answered with 2xx.
package provider

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // it is what the provider signs with
	"encoding/base64"
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
	"fanfare/schemas/text"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/peer"
)

// Line is the carrier behind an account. Receipt.Ref must be the decimal number that the message had in
// [carrier.Outbound.Meta] under MetaRef.
type Line interface {
	carrier.Connector
	carrier.ReceiptSource
}

// MetaRef is the key in Meta under which a message has the id that its receipts must name: a number, in decimal.
const MetaRef = "ref"

// Config of a provider.
type Config struct {
	// Open returns the line of an account. It is called once for each account. Required.
	Open func(accountSID string) (Line, error)
	// Keys sign the submission ids of messages that have none. Required.
	Keys *schemas.Keys
	// AuthToken is the token of every account. It authenticates requests and signs callbacks.
	AuthToken string
	// Callbacks is how many callbacks are sent at a time; 0: 16. Client sends them; nil: a client with a time-out of 10
	// s.
	Callbacks int
	Client    *http.Client
	// Logger may be nil.
	Logger *slog.Logger
}

// Server is a provider. It is an http.Handler; Run sends callbacks.
type Server struct {
	accounts *peer.Accounts[*account]
	foreign  *peer.Numbering
	webhook  peer.Webhook
	cfg      Config
	log      *slog.Logger
	client   *http.Client
	refs     atomic.Uint64
}

// Stats counts callbacks.
type Stats struct{ Delivered, Repeated int }

type account struct {
	Line
	sid string

	mu    sync.Mutex
	urls  map[uint64]origin
	order []uint64
}

// origin is data of a message that its callbacks need and the line does not keep.
type origin struct{ url, to string }

// mostOrigins limits the memory.
const mostOrigins = 500_000

// New returns a provider.
func New(cfg Config) (*Server, error) {
	if cfg.Open == nil || cfg.Keys == nil {
		return nil, errors.New("provider: a line and keys are needed")
	}
	cfg.Callbacks = cmp.Or(cfg.Callbacks, 16)
	s := &Server{cfg: cfg, log: cfg.Logger, client: cfg.Client, foreign: peer.NewNumbering(cfg.Keys)}
	s.accounts = peer.NewAccounts(func(sid string) (*account, error) {
		line, err := cfg.Open(sid)
		return &account{Line: line, sid: sid, urls: map[uint64]origin{}}, err
	})
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.client == nil {
		s.client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: cfg.Callbacks}}
	}
	s.refs.Store(uint64(time.Now().UnixMilli()) << 16)
	return s, nil
}

// Run sends callbacks for the messages that asked for them, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	s.accounts.Run(ctx, s.log, s.emit)
	return nil
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	delivered, repeated := s.webhook.Counts()
	return Stats{delivered, repeated}
}

// key returns the submission id of a message.
func (s *Server) key(r *http.Request, callback string) carrier.Key {
	if u, err := url.Parse(callback); err == nil {
		if key, err := schemas.ParseID(cmp.Or(u.Query().Get("k"), r.Header.Get("I-Twilio-Idempotency-Token"))); err == nil && s.cfg.Keys.Verify(key) == nil && key.Try() > 0 {
			return key
		}
	}
	return s.foreign.Next()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sid, ok := strings.CutPrefix(r.URL.Path, "/2010-04-01/Accounts/")
	sid, ok2 := strings.CutSuffix(sid, "/Messages.json")
	if !ok || !ok2 || r.Method != http.MethodPost {
		fail(w, http.StatusNotFound, 20404, "not found")
		return
	}
	if user, password, _ := r.BasicAuth(); s.cfg.AuthToken != "" && (user != sid || password != s.cfg.AuthToken) {
		fail(w, http.StatusUnauthorized, 20003, "Authenticate")
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	if err := r.ParseForm(); err != nil {
		fail(w, http.StatusBadRequest, 20001, err.Error())
		return
	}
	a, err := s.accounts.Get(sid)
	if err != nil {
		fail(w, http.StatusServiceUnavailable, 20503, err.Error())
		return
	}
	s.submit(w, r, a)
}

// submit hands one message to the line and sends the line's answer.
func (s *Server) submit(w http.ResponseWriter, r *http.Request, a *account) {
	f := r.PostForm
	ref, body := s.refs.Add(1), f.Get("Body")
	size := text.Measure(body)
	out := carrier.Outbound{
		Key: s.key(r, f.Get("StatusCallback")), Channel: schemas.ChannelSMS, To: f.Get("To"), From: f.Get("From"),
		Body: carrier.Body{Text: carrier.Text{Body: body, Encoding: size.Encoding, Segments: size.Segments}},
		Meta: map[string]string{MetaRef: strconv.FormatUint(ref, 10)},
	}
	if n, err := strconv.Atoi(f.Get("ValidityPeriod")); err == nil {
		out.NotAfter = time.Now().Add(time.Duration(n) * time.Second)
	}
	a.remember(ref, origin{f.Get("StatusCallback"), out.To})
	x, ok := peer.Submit(w, r, a, out)
	if !ok {
		return
	}
	switch x.Outcome {
	case carrier.Accepted:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"sid": sidOf(ref), "status": "queued", "to": out.To, "from": out.From, "body": body, "num_segments": strconv.Itoa(size.Segments), "error_code": nil,
		})
	case carrier.Throttled:
		if x.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((x.RetryAfter+time.Second-1)/time.Second)))
		}
		fail(w, http.StatusTooManyRequests, 20429, "Too Many Requests")
	case carrier.Retryable:
		fail(w, http.StatusServiceUnavailable, 20503, "busy")
	default:
		fail(w, http.StatusBadRequest, codeOf(x.Sub), "refused")
	}
}

// codeOf returns the provider's code for a refusal.
func codeOf(sub schemas.Code) int {
	switch sub {
	case schemas.CodeInvalidNumber:
		return 21211
	case schemas.CodeSenderInvalid:
		return 21606
	case schemas.CodeOptedOut:
		return 21610
	case schemas.CodeCountryNotEnabled:
		return 21408
	case schemas.CodeTooLong:
		return 21617
	default:
		return 21620
	}
}

func fail(w http.ResponseWriter, status, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"code": code, "message": message, "status": status})
}

func sidOf(ref uint64) string { return fmt.Sprintf("SM%032x", ref) }

func (a *account) remember(ref uint64, o origin) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.order) >= mostOrigins {
		delete(a.urls, a.order[0])
		a.order = a.order[1:]
	}
	a.urls[ref] = o
	a.order = append(a.order, ref)
}

// states are the provider's words for the statuses of receipts.
var states = map[schemas.ReceiptStatus]string{
	schemas.ReceiptStatusBuffered: "sent", schemas.ReceiptStatusDelivered: "delivered", schemas.ReceiptStatusRead: "read", schemas.ReceiptStatusFailed: "undelivered",
}

// errorCodes are the provider's codes for failed messages.
var errorCodes = map[schemas.Code]string{
	schemas.CodeAbsentSubscriber: "30003", schemas.CodeHandsetOff: "30003", schemas.CodeBarred: "30004", schemas.CodeUnknownSubscriber: "30005",
	schemas.CodeHandsetError: "30006", schemas.CodeOperatorBlacklist: "30007", schemas.CodeExpired: "30036", schemas.CodeNetworkError: "30410",
}

// emit sends a callback for each receipt, several at a time. It returns when all have succeeded, or ctx ends.
func (s *Server) emit(ctx context.Context, a *account, list []carrier.Receipt) error {
	peer.EachOf(list, s.cfg.Callbacks, func(r *carrier.Receipt) { s.callback(ctx, a, r) })
	return ctx.Err()
}

// callback repeats a callback until it is answered with 2xx, or ctx ends.
func (s *Server) callback(ctx context.Context, a *account, r *carrier.Receipt) {
	ref, err := strconv.ParseUint(r.Ref, 10, 64)
	state, known := states[r.Status]
	a.mu.Lock()
	o := a.urls[ref]
	a.mu.Unlock()
	if err != nil || !known || o.url == "" || r.Part > 1 && r.Status != schemas.ReceiptStatusFailed {
		return
	}
	form := url.Values{"MessageSid": {sidOf(ref)}, "SmsSid": {sidOf(ref)}, "AccountSid": {a.sid}, "MessageStatus": {state}, "SmsStatus": {state}, "To": {o.to}, "ApiVersion": {"2010-04-01"}}
	if r.Status == schemas.ReceiptStatusFailed {
		form.Set("ErrorCode", cmp.Or(errorCodes[r.Sub], "30008"))
	}
	s.webhook.Deliver(ctx, nil, func() error { return s.post(ctx, o.url, form) })
}

// post sends one callback.
func (s *Server) post(ctx context.Context, to string, form url.Values) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader([]byte(form.Encode())))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Twilio-Signature", Sign(s.cfg.AuthToken, to, form))
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode/100 != 2 {
		return errors.New(resp.Status)
	}
	return nil
}

// Sign returns X-Twilio-Signature of a form.
func Sign(token, address string, form url.Values) string {
	names := make([]string, 0, len(form))
	for n := range form {
		names = append(names, n)
	}
	slices.Sort(names)
	m := hmac.New(sha1.New, []byte(token))
	_, _ = io.WriteString(m, address)
	for _, n := range names {
		_, _ = io.WriteString(m, n+form.Get(n))
	}
	return base64.StdEncoding.EncodeToString(m.Sum(nil))
}
