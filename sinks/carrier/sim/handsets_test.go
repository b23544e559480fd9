package sim

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestHandsets: each phone to which a message was delivered does at most one thing, with the shares of the habits. The
// record has all actions, and a second run with the same record repeats none. A phone tries again while the edge is
// away.
func TestHandsets(t *testing.T) {
	var mu sync.Mutex
	asked, away := map[string]int{}, true
	edge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		asked[r.Method+" "+r.URL.Path]++
		if r.Header.Get("X-Forwarded-For") == "" {
			t.Error("a phone has no address")
		}
		http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound) // a client must not follow it
	}))
	defer edge.Close()
	path := truthPath(t)
	c, stop := startStop(t, Config{Truth: path})
	defer stop()
	n := c.Connector(Options{})
	ctx, end := context.WithCancel(t.Context())
	defer end()
	const people = 600
	batch := messages(t, 1, people, 1)
	for i := range batch {
		batch[i].Body.Text.Body = fmt.Sprintf("Buy http://go.example/Link%d or stop http://go.example/Stop%d", i, i)
	}
	for len(batch) > 0 {
		k := min(len(batch), 100)
		newLog().send(t, n, batch[:k])
		batch = batch[k:]
	}
	habits := Habits{Tap: 0.3, Scan: 0.2, OptOut: 0.2, Delay: 10 * time.Millisecond}
	open := func() *Handsets {
		h, err := OpenHandsets(HandsetsConfig{
			Truth: path, Record: filepath.Join(filepath.Dir(path), "handsets.ndjson"), Habits: habits, Seed: 1, Links: "http://go.example/",
			Edge: strings.TrimPrefix(edge.URL, "http://"), Logger: slog.New(slog.DiscardHandler),
			Now: func() time.Time { return time.Now().Add(time.Hour) }, // so that all messages are delivered
		})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	eventually(t, "all messages are in the truth", func() bool { return len(readTruth(t, path).Entries) == people })
	planned := open() // the seed and the submissions determine what the phones do
	if err := NewTail(path).Poll(func(e Entry) error { planned.plan(&e); return nil }); err != nil {
		t.Fatal(err)
	}
	_ = planned.record.Close()
	want := len(planned.due)
	if want < people*6/10 || want > people*8/10 {
		t.Fatalf("%d of %d phones do something, want about 0.7 of them", want, people)
	}
	h := open()
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	time.Sleep(300 * time.Millisecond) // for some failed requests; the test checks the record at the end
	mu.Lock()
	away = false
	mu.Unlock()
	var list []Did
	eventually(t, "each phone does what it does", func() bool {
		var err error
		if list, err = ReadHandsets(h.cfg.Record); err != nil {
			t.Fatal(err)
		}
		return len(list) >= want
	})
	end()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	count, of := map[string]int{}, map[string]bool{}
	for _, d := range list {
		count[d.Did]++
		if of[d.Submission] {
			t.Errorf("%s did two things", d.Submission)
		}
		of[d.Submission] = true
	}
	mu.Lock()
	defer mu.Unlock()
	got := map[string]int{}
	for what, n := range asked {
		method, path, _ := strings.Cut(what, " ")
		got[method+" "+path[:5]] += n
	}
	if got["GET /Link"] != count[DidTap]+count[DidScan] || got["HEAD /Link"] < count[DidScan] || got["POST /Stop"] != count[DidOptOut] {
		t.Errorf("the edge saw %v, the record has %v", got, count)
	}
	second := open()
	if err := NewTail(path).Poll(func(e Entry) error { second.plan(&e); return nil }); err != nil {
		t.Fatal(err)
	}
	_ = second.record.Close()
	if len(second.due) != 0 {
		t.Errorf("%d phones would do it again", len(second.due))
	}
}
