package ui

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// hub updates live pages. Pages that show the same data share one topic. The hub loads and renders a topic once a
// second, however many browsers show it, and sends only the parts that changed.
type hub struct {
	done   <-chan struct{}
	mu     sync.Mutex
	topics map[string]*topic
}

// parts maps the ids of the live elements of a page to their HTML.
type parts map[string]string

type topic struct {
	key     string
	readers map[chan parts]struct{}
	last    parts
	stop    context.CancelFunc
}

const (
	liveTick      = time.Second
	liveHeartbeat = 15 * time.Second
	liveWrite     = 10 * time.Second
	// maxLive is the most live pages of one process.
	maxLive = 2000
)

func newHub(done <-chan struct{}) *hub { return &hub{done: done, topics: map[string]*topic{}} }

// join adds a reader to a topic, and starts the topic for its first reader. The caller must call leave. ok is false
// when there are too many live pages.
func (h *hub) join(key string, load func(ctx context.Context) (parts, error)) (updates chan parts, leave func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, t := range h.topics {
		n += len(t.readers)
	}
	if n >= maxLive {
		return nil, nil, false
	}
	updates = make(chan parts, 1)
	t := h.topics[key]
	if t == nil {
		ctx, cancel := context.WithCancel(context.Background())
		t = &topic{key: key, readers: map[chan parts]struct{}{}, stop: cancel}
		h.topics[key] = t
		go h.run(ctx, t, load)
	}
	t.readers[updates] = struct{}{}
	if len(t.last) > 0 {
		updates <- maps.Clone(t.last)
	}
	return updates, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(t.readers, updates)
		if len(t.readers) == 0 && h.topics[t.key] == t {
			delete(h.topics, t.key)
			t.stop()
		}
	}, true
}

// run loads a topic once a second until its last reader has left. It ends with the topic's context, which join's leave
// cancels.
func (h *hub) run(ctx context.Context, t *topic, load func(ctx context.Context) (parts, error)) {
	ticker := time.NewTicker(liveTick)
	defer ticker.Stop()
	for {
		next, err := load(ctx)
		if err == nil {
			h.publish(t, next)
		}
		select {
		case <-ctx.Done():
			return
		case <-h.done:
			return
		case <-ticker.C:
		}
	}
}

// publish sends the changed parts to every reader. A reader that has not received the last change yet gets both
// together.
func (h *hub) publish(t *topic, next parts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed := parts{}
	for id, html := range next {
		if t.last[id] != html {
			changed[id] = html
		}
	}
	t.last = next
	if len(changed) == 0 {
		return
	}
	for reader := range t.readers {
		select {
		case reader <- maps.Clone(changed):
		default:
			select {
			case waiting := <-reader:
				maps.Copy(waiting, changed)
				reader <- waiting
			default:
				reader <- maps.Clone(changed)
			}
		}
	}
}

// live streams a topic to a browser as server-sent events, each a list of parts that htmx swaps by id.
func (u *UI) live(w http.ResponseWriter, r *http.Request, key string, load func(ctx context.Context) (parts, error)) {
	p := personOf(r.Context())
	updates, leave, ok := u.hub.join(p.Tenant.ID+"\n"+string(p.Role)+"\n"+key, load) //nolint:contextcheck // a topic outlives the request that started it
	if !ok {
		w.Header().Set("Retry-After", "10")
		http.Error(w, mustSay("error.live"), http.StatusServiceUnavailable)
		return
	}
	defer leave()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	send := func(text string) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(liveWrite))
		if _, err := w.Write([]byte(text)); err != nil {
			return false
		}
		return rc.Flush() == nil
	}
	if !send(": live\n\n") {
		return
	}
	beat := time.NewTicker(liveHeartbeat)
	defer beat.Stop()
	for {
		select {
		case changed := <-updates:
			if !send(event(changed)) {
				return
			}
		case <-beat.C:
			// The session may have ended meanwhile; then the live page must end too.
			if again, err := u.person(r.Context()); err == nil && again == nil {
				return
			}
			if !send(": beat\n\n") {
				return
			}
		case <-r.Context().Done():
			return
		case <-u.Done:
			return
		}
	}
}

// event is one server-sent event with the parts that changed.
func event(changed parts) string {
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(changed)) {
		b.WriteString("data: <hx-partial hx-target=\"#" + id + "\" hx-swap=\"outerMorph\">\n")
		for line := range strings.SplitSeq(changed[id], "\n") {
			if line = strings.TrimSpace(line); line != "" {
				b.WriteString("data: " + line + "\n")
			}
		}
		b.WriteString("data: </hx-partial>\n")
	}
	b.WriteString("\n")
	return b.String()
}
