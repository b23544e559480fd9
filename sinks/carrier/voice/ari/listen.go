package ari

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// app is a Stasis application. It is registered while it has a socket.
type app struct {
	name   string
	line   Line
	socket *socket
}

// socket is the connection of a client that listens to an application.
type socket struct {
	queue chan []byte
	cut   context.CancelFunc
}

// Cut disconnects all clients, as a broken network does.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.apps {
		if a.socket != nil {
			s.unregister(a, a.socket)
		}
	}
}

// tell sends an event about a channel to the client that listens to it. The caller holds the lock.
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
		return // cannot happen: the event has only texts and numbers
	}
	select {
	case a.socket.queue <- raw:
	default:
		s.unregister(a, a.socket) // a client that does not read is disconnected
	}
}

// unregister removes an application and its socket. The caller holds the lock.
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

// mostQueued limits the events that a socket has not read.
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
		return // the request was answered with an error
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
		time.AfterFunc(time.Second, old.cut) // once the event has been sent
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

// applications answers with all applications, or with one.
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

// subscribe subscribes an application to a channel.
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
