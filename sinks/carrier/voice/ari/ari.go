// Package ari is the server side of package voice: the REST interface of an Asterisk, with the simulator's ground truth
// behind it. Answers and events have the form of Asterisk 20. The dialplan has one context that runs AMD() and returns
// the call; every other context is a queue.
//
// A call rings until the truth decides its end: for `delivered` it is answered, for busy it ends with cause 17, and so
// on. Like Asterisk, the server forgets a channel at its end, keeps no events for an application that is not connected,
// and hangs up calls that are answered meanwhile.
package ari

import (
	"cmp"
	"context"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// Line is the carrier that gets the calls, such as a connector of package sim.
type Line interface {
	Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error
	Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error
}

// Config of a server.
type Config struct {
	// Keys distinguish submission ids from other ids. Required. Open opens the line of an application. Required.
	Keys *schemas.Keys
	Open func(app string) (Line, error)
	// Username and Password must be in every request; if both are empty, any are accepted.
	Username, Password string
	// MachineContext is the context that runs AMD(); empty: fanfare-amd.
	MachineContext string
	// Detect is how long AMD() takes, Play how long a message lasts, and Talk how long an agent of a queue talks.
	Detect, Play, Talk time.Duration
	// Machines is the share of calls that a machine answers, Unsure the share for which AMD() is not sure, and HangUps
	// the share of people who hang up during the message. Each is 0 to 1. The submission id decides which calls these
	// are.
	Machines, Unsure, HangUps float64
	// Logger may be nil.
	Logger *slog.Logger
}

// Server is the REST interface. It is an http.Handler; Run ends the calls.
type Server struct {
	cfg    Config
	log    *slog.Logger
	opened chan *app

	mu       sync.Mutex
	closed   bool
	apps     map[string]*app
	channels map[string]*channel
	byKey    map[carrier.Key]*channel
	plays    map[string]*playback
	calls    int
	peak     int
	foreign  uint32
	began    time.Time
	timers   map[*time.Timer]struct{}
}

// Stats counts calls.
type Stats struct {
	// Calls is how many calls were made, Living how many exist now, and Peak how many existed at the same time at most.
	Calls  int `json:"calls"`
	Living int `json:"living"`
	Peak   int `json:"peak"`
}

// New returns a server.
func New(cfg Config) (*Server, error) {
	if cfg.Open == nil || cfg.Keys == nil {
		return nil, errors.New("ari: a line and keys are needed")
	}
	cfg.MachineContext = cmp.Or(cfg.MachineContext, "fanfare-amd")
	s := &Server{
		cfg: cfg, log: cfg.Logger, opened: make(chan *app, 1000), apps: map[string]*app{}, channels: map[string]*channel{},
		byKey: map[carrier.Key]*channel{}, plays: map[string]*playback{}, began: time.Now(), timers: map[*time.Timer]struct{}{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// Run ends calls when the lines say so, until ctx ends. Then it disconnects all listeners.
func (s *Server) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	defer s.close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-s.opened:
			running.Go(func() {
				if err := a.line.Receipts(ctx, s.emit); err != nil {
					s.log.ErrorContext(ctx, "receipts of an application ended", "app", a.name, "err", err)
				}
			})
		}
	}
}

func (s *Server) close() {
	s.mu.Lock()
	s.closed = true
	for t := range s.timers {
		t.Stop()
	}
	clear(s.timers)
	s.mu.Unlock()
	s.Cut()
}

// Stats returns the counts.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Calls: s.calls, Living: len(s.channels), Peak: s.peak}
}

// after calls then later unless the server is closed. The caller holds the lock, and then runs with the lock.
func (s *Server) after(d time.Duration, then func()) {
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.timers, t)
		if !s.closed {
			then()
		}
	})
	s.timers[t] = struct{}{}
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/stats" {
		answer(w, http.StatusOK, s.Stats())
		return
	}
	if !s.mayPass(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="asterisk"`)
		fail(w, http.StatusUnauthorized, "Authentication required")
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/ari/")
	if !ok {
		fail(w, http.StatusNotFound, "Resource not found")
		return
	}
	in, err := input(w, r)
	if err != nil {
		fail(w, http.StatusBadRequest, "Invalid JSON")
		return
	}
	part := strings.Split(path, "/")
	switch route := r.Method + " " + part[0]; {
	case route == "GET events" && len(part) == 1:
		s.listen(w, r)
	case route == "GET applications" && len(part) <= 2:
		s.applications(w, part[1:])
	case route == "POST applications" && len(part) == 3 && part[2] == "subscription":
		s.subscribe(w, part[1], in)
	case route == "POST channels" && len(part) == 1:
		s.originate(w, r, in)
	case part[0] == "channels":
		s.channel(w, r.Method, part[1:], in)
	case route == "GET playbacks" && len(part) == 2:
		s.playback(w, part[1])
	default:
		fail(w, http.StatusNotFound, "Resource not found")
	}
}

func (s *Server) mayPass(r *http.Request) bool {
	if s.cfg.Username == "" && s.cfg.Password == "" {
		return true
	}
	user, password, _ := r.BasicAuth()
	if key := r.URL.Query().Get("api_key"); key != "" {
		user, password, _ = strings.Cut(key, ":")
	}
	return user == s.cfg.Username && subtle.ConstantTimeCompare([]byte(password), []byte(s.cfg.Password)) == 1
}

// inputs are the parameters in the address and the body of a request.
type inputs struct {
	values    map[string]string
	media     []string
	variables map[string]string
}

func (in *inputs) get(name string) string { return in.values[name] }

func input(w http.ResponseWriter, r *http.Request) (*inputs, error) {
	in := &inputs{values: map[string]string{}}
	for name, values := range r.URL.Query() {
		in.values[name] = values[0]
	}
	if m := in.values["media"]; m != "" {
		in.media = strings.Split(m, ",")
	}
	if r.Body == nil || r.ContentLength == 0 {
		return in, nil
	}
	var body map[string]json.RawMessage
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&body); err != nil {
		return nil, err
	}
	for name, raw := range body {
		var text string
		var number json.Number
		switch {
		case name == "variables":
			if err := json.Unmarshal(raw, &in.variables); err != nil {
				return nil, err
			}
		case name == "media":
			if json.Unmarshal(raw, &in.media) != nil {
				if err := json.Unmarshal(raw, &text); err != nil {
					return nil, err
				}
				in.media = []string{text}
			}
		case json.Unmarshal(raw, &text) == nil:
			in.values[name] = text
		case json.Unmarshal(raw, &number) == nil:
			in.values[name] = number.String()
		}
	}
	return in, nil
}

// dialled matches the number in an endpoint.
var dialled = regexp.MustCompile(`\+?[0-9]{6,15}`)

// originate makes a call.
func (s *Server) originate(w http.ResponseWriter, r *http.Request, in *inputs) {
	to := "+" + strings.TrimPrefix(dialled.FindString(in.get("endpoint")), "+")
	ring, err := strconv.Atoi(cmp.Or(in.get("timeout"), "30"))
	name := in.get("app")
	switch {
	case in.get("endpoint") == "":
		fail(w, http.StatusBadRequest, "Endpoint must be specified")
		return
	case !strings.Contains(in.get("endpoint"), "/"), to == "+":
		fail(w, http.StatusBadRequest, "Invalid endpoint specified")
		return
	case name == "":
		fail(w, http.StatusBadRequest, "Application or extension must be specified")
		return
	case err != nil:
		fail(w, http.StatusBadRequest, "Invalid timeout")
		return
	}
	c, line, status, why := s.enter(in, name, to)
	if why != "" {
		fail(w, status, why)
		return
	}
	limit := time.Duration(ring) * time.Second
	out := carrier.Outbound{
		Key: c.key, Channel: schemas.ChannelVoice, To: to, From: c.from, NotAfter: time.Now().Add(limit),
		Body: carrier.Body{Text: carrier.Text{Body: cmp.Or(in.variables["CALL_PLAN"], "call"), Encoding: schemas.EncodingGSM7, Segments: 1}},
	}
	answered := make(chan carrier.Result, 1)
	// If the client disconnects, the call continues.
	err = line.Send(context.WithoutCancel(r.Context()), []carrier.Outbound{out}, func(_ int, x carrier.Result) {
		s.taken(c, x, limit)
		answered <- x
	})
	if err != nil {
		s.taken(c, carrier.Result{Outcome: carrier.Retryable}, limit)
		fail(w, http.StatusServiceUnavailable, "Not now")
		return
	}
	select {
	case x := <-answered:
		s.reply(w, c, x)
	case <-r.Context().Done():
	}
}

// mournFor is how long a call stays after its ringing is over if the truth never decides its end.
const mournFor = 5 * time.Second

// taken handles the carrier's answer for a new call.
func (s *Server) taken(c *channel, x carrier.Result, ring time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch x.Outcome {
	case carrier.Accepted:
		c.shown = true
	case carrier.Unknown: // lost, or accepted without an answer: in that case the truth may decide its end later
	default:
		s.silently(c)
		return
	}
	s.after(ring+mournFor, func() {
		if c.state == "Ringing" {
			s.silently(c)
		}
	})
}

// reply answers the client that makes the call.
func (s *Server) reply(w http.ResponseWriter, c *channel, x carrier.Result) {
	switch x.Outcome {
	case carrier.Accepted:
		s.mu.Lock()
		body := c.describe()
		s.mu.Unlock()
		answer(w, http.StatusOK, body)
	case carrier.Unknown:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close() // the client gets no answer
		}
	case carrier.Throttled:
		fail(w, http.StatusTooManyRequests, "Too many calls")
	case carrier.Retryable:
		fail(w, http.StatusInternalServerError, "Allocation failed")
	default:
		fail(w, http.StatusBadRequest, "Invalid endpoint specified")
	}
}

// enter adds a channel.
func (s *Server) enter(in *inputs, name, to string) (c *channel, line Line, status int, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[name]
	if a == nil {
		var err error
		if a, err = s.open(name); err != nil {
			return nil, nil, http.StatusServiceUnavailable, "Not now"
		}
	}
	key, ours := s.keyOf(in.get("channelId"), name)
	id := in.get("channelId")
	if id == "" {
		id = strconv.FormatInt(time.Now().Unix(), 10) + "." + strconv.Itoa(s.calls)
	}
	if s.channels[id] != nil {
		return nil, nil, http.StatusConflict, "Channel with given unique ID already exists"
	}
	if !ours {
		s.foreign++
		key = s.cfg.Keys.Submission(1<<46+uint64(s.began.UnixMilli()), s.foreign&schemas.MaxSeq, 1)
	}
	s.calls++
	c = &channel{
		id: id, to: to, app: name, key: key, variables: maps.Clone(in.variables), state: "Ringing", from: in.get("callerId"),
		name: "PJSIP/trunk-" + hex.EncodeToString(binary.BigEndian.AppendUint32(nil, uint32(s.calls))), created: time.Now(), followed: true,
	}
	if c.variables == nil {
		c.variables = map[string]string{}
	}
	if args := in.get("appArgs"); args != "" {
		c.args = strings.Split(args, ",")
	}
	at := func(n int) float64 { return float64(binary.BigEndian.Uint16(key[10+2*n:])) / (1 << 16) }
	c.machine, c.unsure, c.hang = at(0) < s.cfg.Machines, at(1) < s.cfg.Unsure, at(2) < s.cfg.HangUps
	s.channels[id], s.byKey[key] = c, c
	s.peak = max(s.peak, len(s.channels))
	return c, a.line, 0, ""
}

// open adds an application and opens its line. The caller holds the lock.
func (s *Server) open(name string) (*app, error) {
	line, err := s.cfg.Open(name)
	if err != nil {
		return nil, err
	}
	a := &app{name: name, line: line}
	select {
	case s.opened <- a:
	default:
		return nil, errors.New("too many applications")
	}
	s.apps[name] = a
	return a, nil
}

// keyOf returns the submission id in the id of a channel.
func (s *Server) keyOf(id, app string) (key carrier.Key, ok bool) {
	text, ok := strings.CutPrefix(id, app+"-")
	if n, err := hex.Decode(key[:], []byte(text[:min(len(text), 2*len(key))])); !ok || len(text) != 2*len(key) || err != nil || n != len(key) {
		return carrier.Key{}, false
	}
	return key, key.Try() > 0 && s.cfg.Keys.Verify(key) == nil
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, status int, why string) {
	answer(w, status, map[string]string{"message": why})
}
