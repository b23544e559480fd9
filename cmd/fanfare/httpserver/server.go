package httpserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log" //nolint:depguard // net/http takes no other logger; it writes to slog
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"fanfare/api/problem"
)

// Limits of a server. A zero field takes its default.
type Limits struct {
	// Connections at most; default 4,096, but at least 512 file descriptors are left for the rest of the process.
	Connections int
	// Requests that are answered at once, see [Kind]; default 64 per CPU, at least 128.
	Requests int
	// Buffered is how many bytes of answers may wait for clients to take them; default 64 MB.
	Buffered int64
}

// Time-outs.
const (
	idleTime = time.Minute      // between two requests of a connection
	bodyTime = 30 * time.Second // to send the body, unless the handler sets its own deadline
	slowest  = 16 << 10         // bytes per second that a client must take on average
)

// maxHeaders is the most bytes of the headers of a request. net/http takes a megabyte by default: 4,096 connections
// would fill 4 GB before any key is looked at. Proxies send 8 to 32 KB at most.
const maxHeaders = 64 << 10

// times are the time-outs that tests shorten.
type times struct {
	headers time.Duration // to send the headers of a request
	stall   time.Duration // to take the next 64 KB of an answer
	queue   time.Duration // for a request to wait for room; clients give up after about as long
	stalled time.Duration // a client without progress for so long may be cut off at a cap
}

var defaultTimes = times{headers: 10 * time.Second, stall: 20 * time.Second, queue: 5 * time.Second, stalled: time.Second}

// A Kind of requests has its own places, so that many of one kind do not keep out the others.
type Kind int

// Kinds of requests.
const (
	// Write: sends, changes. They wait for Kafka or for the store. They have all places of [Limits].
	Write Kind = iota
	// Read: lists, statistics. They need CPU and the store, which the stages need, too. They have a quarter of the
	// places.
	Read
	// Upload: long bodies, such as imports. They have an eighth of the places.
	Upload
	// Probe: health checks and metrics. They have 16 places.
	Probe
)

// Config of a server.
type Config struct {
	Handler http.Handler
	// Kind returns the kind of a request. Nil: all are Write.
	Kind     func(*http.Request) Kind
	Limits   Limits
	Logger   *slog.Logger
	Registry prometheus.Registerer // nil: no metrics are kept
}

// Server serves HTTP within its limits.
type Server struct {
	http    *http.Server
	handler http.Handler
	kind    func(*http.Request) Kind
	conns   *conns
	log     *slog.Logger

	places map[Kind]chan struct{} // each has as many elements as there are requests
}

// New returns a server.
func New(cfg Config) (*Server, error) { return newServer(cfg, defaultTimes) }

func newServer(cfg Config, times times) (*Server, error) {
	if cfg.Handler == nil || cfg.Logger == nil {
		return nil, errors.New("http server: a handler and a logger are needed")
	}
	if cfg.Limits.Requests <= 0 {
		cfg.Limits.Requests = max(128, 64*runtime.GOMAXPROCS(0))
	}
	if cfg.Limits.Connections <= 0 {
		cfg.Limits.Connections = connectionsFor(openFiles())
	}
	if cfg.Limits.Buffered <= 0 {
		cfg.Limits.Buffered = 64 << 20
	}
	if cfg.Kind == nil {
		cfg.Kind = func(*http.Request) Kind { return Write }
	}
	s := &Server{
		handler: cfg.Handler, kind: cfg.Kind, log: cfg.Logger, conns: newConns(cfg.Limits, times, cfg.Logger),
		places: map[Kind]chan struct{}{},
	}
	for kind, n := range map[Kind]int{Write: cfg.Limits.Requests, Read: cfg.Limits.Requests / 4, Upload: cfg.Limits.Requests / 8, Probe: 16} {
		s.places[kind] = make(chan struct{}, max(1, n))
	}
	if cfg.Registry != nil {
		if err := s.conns.register(cfg.Registry); err != nil {
			return nil, err
		}
	}
	s.http = &http.Server{
		Handler: s, ReadHeaderTimeout: times.headers, IdleTimeout: idleTime, MaxHeaderBytes: maxHeaders,
		WriteTimeout: times.stall, // of the headers of an answer; later writes set their own
		ConnState:    s.conns.changed,
		ConnContext:  s.conns.context,
		ErrorLog:     log.New(errorLog{cfg.Logger}, "", 0),
	}
	return s, nil
}

// connectionsFor returns the cap on connections for a limit of open files, 0: not known.
func connectionsFor(files int) int {
	const most, reserved, least = 4096, 512, 64
	if files <= 0 {
		return most
	}
	return max(least, min(most, files-reserved))
}

// Serve answers requests until the server is shut down. base is the context of every request.
func (s *Server) Serve(base context.Context, l net.Listener) error {
	s.http.BaseContext = func(net.Listener) context.Context { return base }
	if err := s.http.Serve(s.conns.listener(l)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}

// Shutdown accepts no new request, waits for the open ones until ctx ends, and then cuts them off.
func (s *Server) Shutdown(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

// ServeHTTP answers one request when there is room for it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := connOf(r.Context())
	leave, ok := s.enter(r)
	if !ok {
		s.busy(w, r)
		return
	}
	defer leave()
	if c == nil { // served by something else than Serve
		s.handler.ServeHTTP(w, r)
		return
	}
	rc := http.NewResponseController(w)
	if r.Body != nil && r.Body != http.NoBody {
		_ = rc.SetReadDeadline(time.Now().Add(bodyTime))
		r.Body = &body{ReadCloser: r.Body, conn: c}
	}
	c.progress(handling)
	defer c.progress(finished)
	s.handler.ServeHTTP(&response{ResponseWriter: w, rc: rc, conn: c, conns: s.conns, began: time.Now(), stream: leave}, r)
}

// enter takes a place for a request, for a limited time. leave gives it back; it may be called more than once.
func (s *Server) enter(r *http.Request) (leave func(), ok bool) {
	places := s.places[s.kind(r)]
	deadline := time.NewTimer(s.conns.times.queue)
	defer deadline.Stop()
	look := time.NewTicker(s.conns.times.stalled / 10)
	defer look.Stop()
	for {
		select {
		case places <- struct{}{}:
			return sync.OnceFunc(func() { <-places }), true
		default:
		}
		s.conns.makeRoom()
		select {
		case places <- struct{}{}:
			return sync.OnceFunc(func() { <-places }), true
		case <-look.C:
		case <-deadline.C:
			return nil, false
		case <-r.Context().Done():
			return nil, false
		}
	}
}

// busy answers a request for which there was no room.
func (s *Server) busy(w http.ResponseWriter, r *http.Request) {
	s.conns.say("http request refused: too many requests of its kind are being answered", "method", r.Method, "places", cap(s.places[s.kind(r)]))
	p := problem.Unavailable(time.Second, nil, "The server is answering as many requests as it can.")
	maps.Copy(w.Header(), p.GetHeaders())
	w.Header().Set("Content-Type", problem.MediaType)
	w.Header().Set("Connection", "close")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// errorLog writes what net/http logs to slog.
type errorLog struct{ log *slog.Logger }

func (l errorLog) Write(b []byte) (int, error) {
	l.log.Warn("http server error", "err", strings.TrimSpace(string(b)))
	return len(b), nil
}
