package ari

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

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
	shown        bool   // the call was accepted; before, there are no events, and GET /channels does not list it
	stasis       bool
	followed     bool
	machine      bool
	unsure, hang bool
	queue        []*playback // Asterisk plays the first one
}

type playback struct {
	id, media string
	channel   *channel
}

// silently removes a channel without an event. The caller holds the lock.
func (s *Server) silently(c *channel) {
	if s.channels[c.id] == c {
		delete(s.channels, c.id)
		delete(s.byKey, c.key)
	}
}

// causes are causes of Q.850 with Asterisk's names.
var causes = map[int]string{
	1: "Unallocated (unassigned) number", 16: "Normal Clearing", 17: "User busy", 18: "No user responding", 19: "User alerting, no answer",
	20: "Subscriber absent", 21: "Call Rejected", 27: "Destination out of order", 38: "Network out of order", 127: "Interworking, unspecified",
}

// causeOf returns the cause for a call that has failed.
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

// emit answers or ends calls as the truth says.
func (s *Server) emit(list []carrier.Receipt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range list {
		r := &list[i]
		c := s.byKey[r.Key]
		if c == nil || c.state != "Ringing" {
			continue // the call has ended, and is answered only once
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

// describe returns a channel in Asterisk's form.
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

// seen returns a channel if clients can see it. The caller holds the lock.
func (s *Server) seen(id string) *channel {
	if c := s.channels[id]; c != nil && c.shown {
		return c
	}
	return nil
}

// channel handles requests about channels.
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

// goOn hands a channel to the dialplan. The caller holds the lock.
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

// play queues a message after those that are being played, whatever its id, as Asterisk does (res_stasis_playback.c
// does not compare ids). A message whose address contains `missing` cannot be played. The caller holds the lock.
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
	}
	p := &playback{cmp.Or(id, "play-"+c.id), in.media[0], c}
	if s.plays[p.id] == nil {
		s.plays[p.id] = p
	}
	c.queue = append(c.queue, p)
	answer(w, http.StatusCreated, p.describe("queued"))
	if len(c.queue) == 1 {
		s.begin(p)
	}
}

// begin starts to play the first message of a call's queue. The caller holds the lock.
func (s *Server) begin(p *playback) {
	c := p.channel
	s.plays[p.id] = p
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
	c := p.channel
	if len(c.queue) == 0 || c.queue[0] != p || s.channels[c.id] != c {
		return
	}
	c.queue = c.queue[1:]
	if s.plays[p.id] == p {
		delete(s.plays, p.id)
	}
	s.tell(c, map[string]any{"type": "PlaybackFinished", "playback": p.describe(state)})
	if len(c.queue) > 0 {
		s.begin(c.queue[0])
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
