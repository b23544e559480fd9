// Package ari is the other end of package voice: the REST interface of an Asterisk, with the simulator's truth behind it. What is answered,
// and the events, are shaped as Asterisk 20 shapes them. Its dialplan has one context that runs AMD() and comes back, and takes any
// other context for a queue.
//
// A call rings until the truth says how it ends: delivered is answered, busy ends with cause 17, and so on. Like Asterisk it forgets a channel
// with its end, keeps no event for who is not connected, and hangs up a call that is answered while its application is not.
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
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"

	"github.com/coder/websocket"
)

// Line is what calls are handed to. A connector of package sim is one.
type Line interface {
	Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error
	Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error
}

// Config of a server.
type Config struct {
	// Keys tell a submission id from other ids. Required, as is Open, which opens the line of an application.
	Keys *schemas.Keys
	Open func(app string) (Line, error)
	// Username and Password that a request must have; both empty: any.
	Username, Password string
	// MachineContext runs AMD(); empty: fanfare-amd.
	MachineContext string
	// Detect is how long AMD() takes, Play how long a message is, Talk how long an agent of a queue speaks.
	Detect, Play, Talk time.Duration
	// Machines is the share of answers by a machine, Unsure that of which AMD() is not sure, and HangUps the share of people who do not
	// hear the message to its end. Each is 0 to 1, and drawn from the submission id.
	Machines, Unsure, HangUps float64
	// Logger may be nil.
	Logger *slog.Logger
}

// Server is the interface. It is an http.Handler; Run makes the calls end.
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

// Stats count calls.
type Stats struct {
	// Calls that were made, Living now, and the most that lived at once.
	Calls  int `json:"calls"`
	Living int `json:"living"`
	Peak   int `json:"peak"`
}

// app is a Stasis application. It is registered while it has a socket.
type app struct {
	name   string
	line   Line
	socket *socket
}

// socket is who listens to an application.
type socket struct {
	queue chan []byte
	cut   context.CancelFunc
}

// channel is a call.
type channel struct {
	id, to, app  string
	args         []string
	key          carrier.Key
	variables    map[string]string
	state        string // Down, Ringing or Up
	from         string
	name         string
	created      time.Time
	context      string // of the dialplan
	shown        bool   // it is known to have been taken; until then nobody sees it
	stasis       bool
	followed     bool
	machine      bool
	unsure, hang bool
}

type playback struct {
	id, media string
	channel   *channel
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

// Run lets calls end as the lines say, until ctx ends. Then it disconnects who listens.
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

// Cut disconnects all who listen, as a broken line does.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.apps {
		if a.socket != nil {
			s.unregister(a, a.socket)
		}
	}
}

// Stats returns what was called.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Calls: s.calls, Living: len(s.channels), Peak: s.peak}
}

// after does something later unless the server is closed. The caller holds the lock; so does then when it runs.
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

// inputs are the parameters of a request, of its address and of its body.
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

// dialled finds the number in an endpoint.
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
		Body: carrier.Body{Text: carrier.Text{Body: cmp.Or(in.variables["FANFARE_CALL"], "call"), Encoding: schemas.EncodingGSM7, Segments: 1}},
	}
	answered := make(chan carrier.Result, 1)
	// Who hangs up on us does not take the call back.
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

// mournFor is how long a call is kept after its ringing is over of which the truth never says how it ended.
const mournFor = 5 * time.Second

// taken says what became of a call that was to be made.
func (s *Server) taken(c *channel, x carrier.Result, ring time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch x.Outcome {
	case carrier.Accepted:
		c.shown = true
	case carrier.Unknown: // lost, or taken in silence: when it was taken, the truth may say so later
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

// reply answers who made the call.
func (s *Server) reply(w http.ResponseWriter, c *channel, x carrier.Result) {
	switch x.Outcome {
	case carrier.Accepted:
		s.mu.Lock()
		body := c.describe()
		s.mu.Unlock()
		answer(w, http.StatusOK, body)
	case carrier.Unknown:
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close() // the client is never told
		}
	case carrier.Throttled:
		fail(w, http.StatusTooManyRequests, "Too many calls")
	case carrier.Retryable:
		fail(w, http.StatusInternalServerError, "Allocation failed")
	default:
		fail(w, http.StatusBadRequest, "Invalid endpoint specified")
	}
}

// enter makes a channel.
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

// open opens an application's line. The caller holds the lock.
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

// keyOf reads the submission id in the id of a channel.
func (s *Server) keyOf(id, app string) (key carrier.Key, ok bool) {
	text, ok := strings.CutPrefix(id, app+"-")
	if n, err := hex.Decode(key[:], []byte(text[:min(len(text), 2*len(key))])); !ok || len(text) != 2*len(key) || err != nil || n != len(key) {
		return carrier.Key{}, false
	}
	return key, key.Try() > 0 && s.cfg.Keys.Verify(key) == nil
}

// silently takes a channel away, and nobody hears of it. The caller holds the lock.
func (s *Server) silently(c *channel) {
	if s.channels[c.id] == c {
		delete(s.channels, c.id)
		delete(s.byKey, c.key)
	}
}

// causes of Q.850, and what Asterisk calls them.
var causes = map[int]string{
	1: "Unallocated (unassigned) number", 16: "Normal Clearing", 17: "User busy", 18: "No user responding", 19: "User alerting, no answer",
	20: "Subscriber absent", 21: "Call Rejected", 27: "Destination out of order", 38: "Network out of order", 127: "Interworking, unspecified",
}

// causeOf is how a call ends of which the truth says that it failed.
func causeOf(sub schemas.Code) int {
	switch sub {
	case schemas.CodeUnknownSubscriber, schemas.CodeInvalidNumber:
		return 1
	case schemas.CodeHandsetBusy, schemas.CodeMemoryFull:
		return 17
	case schemas.CodeExpired:
		return 19
	case schemas.CodeAbsentSubscriber, schemas.CodeHandsetOff:
		return 20
	case schemas.CodeBarred, schemas.CodeHandsetError, schemas.CodeOperatorBlacklist, schemas.CodeOperatorSeriesBlock:
		return 21
	case schemas.CodeNetworkError, schemas.CodeRoamingOrOperatorFail, schemas.CodeProviderError:
		return 38
	default:
		return 127
	}
}

// emit lets calls end, or be answered, as the truth says.
func (s *Server) emit(list []carrier.Receipt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		r := &list[i]
		c := s.byKey[r.Key]
		if c == nil || c.state != "Ringing" {
			continue // it has ended, and a call is answered once
		}
		switch r.Status {
		case schemas.ReceiptStatusDelivered, schemas.ReceiptStatusRead:
			c.shown = true
			s.pickUp(c)
		case schemas.ReceiptStatusFailed:
			c.shown = true
			s.destroy(c, causeOf(r.Sub))
		case schemas.ReceiptStatusUnknown:
			c.shown = true
			s.destroy(c, 127)
		default:
		}
	}
	return nil
}

// pickUp answers a call. The caller holds the lock.
func (s *Server) pickUp(c *channel) {
	c.state = "Up"
	s.tell(c, map[string]any{"type": "ChannelStateChange", "channel": c.describe()})
	s.enterStasis(c, c.args)
}

// enterStasis gives a channel to its application, which must be registered. The caller holds the lock.
func (s *Server) enterStasis(c *channel, args []string) {
	if s.channels[c.id] != c {
		return
	}
	if a := s.apps[c.app]; a == nil || a.socket == nil {
		s.destroy(c, 16)
		return
	}
	c.stasis, c.followed, c.context = true, true, ""
	if args == nil {
		args = []string{}
	}
	s.tell(c, map[string]any{"type": "StasisStart", "args": args, "channel": c.describe()})
}

// destroy ends a call. The caller holds the lock.
func (s *Server) destroy(c *channel, cause int) {
	if s.channels[c.id] != c {
		return
	}
	if c.stasis {
		s.tell(c, map[string]any{"type": "StasisEnd", "channel": c.describe()})
	}
	s.silently(c)
	s.tell(c, map[string]any{"type": "ChannelDestroyed", "cause": cause, "cause_txt": causes[cause], "channel": c.describe()})
	for id, p := range s.plays {
		if p.channel == c {
			delete(s.plays, id)
		}
	}
}

// stamp is a time as Asterisk writes it.
func stamp(t time.Time) string { return t.Format("2006-01-02T15:04:05.000-0700") }

// describe is a channel as Asterisk describes it.
func (c *channel) describe() map[string]any {
	program, data := "", ""
	if c.stasis {
		program, data = "Stasis", strings.Join(append([]string{c.app}, c.args...), ",")
	}
	return map[string]any{
		"id": c.id, "name": c.name, "state": c.state, "protocol_id": c.name, "caller": map[string]string{"name": "", "number": c.to},
		"connected": map[string]string{"name": "", "number": c.from}, "accountcode": "",
		"dialplan":     map[string]any{"context": cmp.Or(c.context, "default"), "exten": "s", "priority": 1, "app_name": program, "app_data": data},
		"creationtime": stamp(c.created), "language": "en",
	}
}

// tell sends an event about a channel to who listens to it. The caller holds the lock.
func (s *Server) tell(c *channel, event map[string]any) {
	if a := s.apps[c.app]; c.followed && a != nil {
		s.send(a, event)
	}
}

func (s *Server) send(a *app, event map[string]any) {
	if a.socket == nil {
		return
	}
	event["application"], event["timestamp"], event["asterisk_id"] = a.name, stamp(time.Now()), "02:42:ac:11:00:02"
	raw, err := json.Marshal(event)
	if err != nil {
		return // never: texts and numbers
	}
	select {
	case a.socket.queue <- raw:
	default:
		s.unregister(a, a.socket) // who does not read is cut off
	}
}

// unregister takes an application away with its socket. The caller holds the lock.
func (s *Server) unregister(a *app, which *socket) {
	which.cut()
	if a.socket != which {
		return
	}
	a.socket = nil
	for _, c := range s.channels {
		if c.app == a.name {
			c.followed = false
		}
	}
}

// mostQueued bounds the events that a socket has not taken.
const mostQueued = 100_000

// listen serves the events of an application.
func (s *Server) listen(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("app")
	if name == "" {
		fail(w, http.StatusBadRequest, "Missing parameter app")
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // it was answered
	}
	defer func() { _ = conn.CloseNow() }()
	ctx, cancel := context.WithCancel(conn.CloseRead(context.WithoutCancel(r.Context())))
	defer cancel()
	me := &socket{queue: make(chan []byte, mostQueued), cut: cancel}
	s.mu.Lock()
	a := s.apps[name]
	if a == nil && !s.closed {
		a, err = s.open(name)
	}
	if err != nil || s.closed {
		s.mu.Unlock()
		return
	}
	if old := a.socket; old != nil {
		s.send(a, map[string]any{"type": "ApplicationReplaced"})
		a.socket = nil
		for _, c := range s.channels {
			if c.app == name {
				c.followed = false
			}
		}
		time.AfterFunc(time.Second, old.cut) // after the event has gone out
	}
	a.socket = me
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unregister(a, me)
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case raw := <-me.queue:
			if conn.Write(ctx, websocket.MessageText, raw) != nil {
				return
			}
		}
	}
}

// applications answers with all, or one.
func (s *Server) applications(w http.ResponseWriter, which []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(s.apps)) {
		if s.apps[name].socket != nil && (len(which) == 0 || which[0] == name) {
			list = append(list, s.describeApp(name))
		}
	}
	switch {
	case len(which) == 0:
		answer(w, http.StatusOK, list)
	case len(list) == 0:
		fail(w, http.StatusNotFound, "Application not found")
	default:
		answer(w, http.StatusOK, list[0])
	}
}

func (s *Server) describeApp(name string) map[string]any {
	ids := []string{}
	for id, c := range s.channels {
		if c.app == name && c.followed {
			ids = append(ids, id)
		}
	}
	return map[string]any{"name": name, "channel_ids": ids, "bridge_ids": []string{}, "endpoint_ids": []string{}, "device_names": []string{}, "events_allowed": []string{}, "events_disallowed": []string{}}
}

// subscribe lets an application hear of a channel.
func (s *Server) subscribe(w http.ResponseWriter, name string, in *inputs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.apps[name]; a == nil || a.socket == nil {
		fail(w, http.StatusNotFound, "Application not found")
		return
	}
	id, ok := strings.CutPrefix(in.get("eventSource"), "channel:")
	if !ok {
		fail(w, http.StatusBadRequest, "Invalid event source URI scheme")
		return
	}
	c := s.seen(id)
	if c == nil {
		fail(w, http.StatusUnprocessableEntity, "Event source does not exist")
		return
	}
	c.app, c.followed = name, true
	answer(w, http.StatusOK, s.describeApp(name))
}

// seen is a channel that others see. The caller holds the lock.
func (s *Server) seen(id string) *channel {
	if c := s.channels[id]; c != nil && c.shown {
		return c
	}
	return nil
}

// channel answers what is asked about channels, and done with one.
func (s *Server) channel(w http.ResponseWriter, method string, part []string, in *inputs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(part) == 0 && method == http.MethodGet {
		list := []map[string]any{}
		for _, id := range slices.Sorted(maps.Keys(s.channels)) {
			if c := s.seen(id); c != nil {
				list = append(list, c.describe())
			}
		}
		answer(w, http.StatusOK, list)
		return
	}
	if len(part) == 0 {
		fail(w, http.StatusMethodNotAllowed, "Invalid method")
		return
	}
	c := s.seen(part[0])
	if c == nil {
		fail(w, http.StatusNotFound, "Channel not found")
		return
	}
	switch what := method + " " + strings.Join(part[1:min(len(part), 2)], ""); what {
	case "GET ":
		answer(w, http.StatusOK, c.describe())
	case "DELETE ":
		s.tell(c, map[string]any{"type": "ChannelHangupRequest", "cause": 16, "channel": c.describe()})
		s.destroy(c, 16)
		w.WriteHeader(http.StatusNoContent)
	case "GET variable":
		if value, ok := c.variables[in.get("variable")]; ok {
			answer(w, http.StatusOK, map[string]string{"value": value})
			return
		}
		fail(w, http.StatusNotFound, "Provided variable was not found")
	case "POST variable":
		c.variables[in.get("variable")] = in.get("value")
		w.WriteHeader(http.StatusNoContent)
	case "POST continue":
		s.goOn(w, c, in)
	case "POST play":
		s.play(w, c, part, in)
	default:
		fail(w, http.StatusNotFound, "Resource not found")
	}
}

// goOn gives a channel to the dialplan. The caller holds the lock.
func (s *Server) goOn(w http.ResponseWriter, c *channel, in *inputs) {
	if !c.stasis {
		fail(w, http.StatusConflict, "Channel not in a Stasis application")
		return
	}
	s.tell(c, map[string]any{"type": "StasisEnd", "channel": c.describe()})
	c.stasis, c.context = false, in.get("context")
	w.WriteHeader(http.StatusNoContent)
	if c.context != s.cfg.MachineContext {
		s.after(s.cfg.Talk, func() { s.destroy(c, 16) })
		return
	}
	s.after(s.cfg.Detect, func() {
		status, cause := "HUMAN", "HUMAN-1500-800"
		switch {
		case c.machine:
			status, cause = "MACHINE", "MAXWORDS-5-5"
		case c.unsure:
			status, cause = "NOTSURE", "TOOLONG-5000"
		}
		c.variables["AMDSTATUS"], c.variables["AMDCAUSE"] = status, cause
		s.enterStasis(c, []string{"amd", status, cause})
	})
}

// play plays a message. One whose address has `missing` in it cannot be played. The caller holds the lock.
func (s *Server) play(w http.ResponseWriter, c *channel, part []string, in *inputs) {
	id := in.get("playbackId")
	if len(part) == 3 {
		id = part[2]
	}
	switch {
	case !c.stasis:
		fail(w, http.StatusConflict, "Channel not in a Stasis application")
		return
	case len(in.media) == 0:
		fail(w, http.StatusBadRequest, "Media must be specified")
		return
	case s.plays[id] != nil:
		fail(w, http.StatusConflict, "Playback already exists")
		return
	}
	p := &playback{cmp.Or(id, "play-"+c.id), in.media[0], c}
	s.plays[p.id] = p
	answer(w, http.StatusCreated, p.describe("queued"))
	s.tell(c, map[string]any{"type": "PlaybackStarted", "playback": p.describe("playing")})
	length := s.cfg.Play
	switch {
	case strings.Contains(p.media, "missing"):
		s.after(0, func() { s.played(p, "failed") })
	case c.hang && !c.machine:
		s.after(length/2, func() {
			s.tell(c, map[string]any{"type": "ChannelHangupRequest", "cause": 16, "channel": c.describe()})
			s.played(p, "failed")
			s.destroy(c, 16)
		})
	default:
		s.after(length, func() { s.played(p, "done") })
	}
}

// played ends a message. The caller holds the lock.
func (s *Server) played(p *playback, state string) {
	if s.plays[p.id] == p {
		delete(s.plays, p.id)
		s.tell(p.channel, map[string]any{"type": "PlaybackFinished", "playback": p.describe(state)})
	}
}

func (p *playback) describe(state string) map[string]any {
	return map[string]any{"id": p.id, "media_uri": p.media, "target_uri": "channel:" + p.channel.id, "language": "en", "state": state}
}

func (s *Server) playback(w http.ResponseWriter, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.plays[id]; p != nil {
		answer(w, http.StatusOK, p.describe("playing"))
		return
	}
	fail(w, http.StatusNotFound, "Playback not found")
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, status int, why string) {
	answer(w, status, map[string]string{"message": why})
}
