package httpserver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// start serves handler on a loopback port until the test ends.
func start(t *testing.T, limits Limits, times times, handler http.HandlerFunc) (*Server, string) {
	t.Helper()
	s, err := newServer(Config{
		Handler: handler, Limits: limits, Logger: slog.New(slog.DiscardHandler),
		Kind: func(r *http.Request) Kind {
			switch {
			case strings.HasSuffix(r.URL.Path, "/import"):
				return Upload
			case r.URL.Path == "/healthz":
				return Probe
			case r.URL.Path == "/list":
				return Read
			}
			return Write
		},
	}, times)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		s.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

// dial connects, sends text, and closes the connection at the end of the test.
func dial(t *testing.T, addr, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// get makes a request on a connection of its own. It retries while the server closes the connection without an answer,
// as clients do.
func get(t *testing.T, addr, path string) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	for range 5 {
		resp, err := client.Get("http://" + addr + path)
		if err != nil {
			continue
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err == nil {
			return resp.StatusCode, string(b)
		}
	}
	t.Fatal("the server does not answer")
	return 0, ""
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 9000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: not within 90 s", what)
}

// Idle connections up to the cap and beyond do not keep a client out: the server closes the oldest of them.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	s, addr := start(t, Limits{Connections: 50}, defaultTimes, hello)
	for i := range 200 {
		text := "" // half of them send nothing; the others were served once and are kept alive
		if i%2 == 0 {
			text = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
		}
		c := dial(t, addr, text)
		if text != "" {
			_, _ = bufio.NewReader(c).ReadString('\n')
		}
	}
	for range 10 {
		if status, body := get(t, addr, "/"); status != http.StatusOK || body != "hello" {
			t.Errorf("got %d %q, want the answer", status, body)
		}
	}
	if n := s.conns.count(); n > 50 {
		t.Errorf("%d connections are open, want 50 at most", n)
	}
}

// Without any idle connection, and with no client that stalls, the server refuses a new connection at the cap.
func TestConnectionsAreCapped(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var working atomic.Int32
	s, addr := start(t, Limits{Connections: 4}, defaultTimes, func(w http.ResponseWriter, r *http.Request) {
		working.Add(1)
		<-release
		hello(w, r)
	})
	defer close(release)
	for range 4 {
		dial(t, addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	eventually(t, "four handlers work", func() bool { return working.Load() == 4 })
	c := dial(t, addr, "")
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the fifth connection was served, want it closed")
	}
	if n := s.conns.count(); n != 4 {
		t.Errorf("%d connections are open, want the four that are served", n)
	}
}

// Clients that do not read their answers: their buffered answers stay within the cap, other clients are answered
// meanwhile, and in the end the server cuts them off.
func TestReadersThatDoNotRead(t *testing.T) {
	t.Parallel()
	const readers, size, most = 100, 8 << 20, 32 << 20
	large := bytes.Repeat([]byte("x"), size)
	var ended atomic.Int32
	times := defaultTimes
	times.stalled, times.stall = 300*time.Millisecond, 3*time.Second
	s, addr := start(t, Limits{Buffered: most}, times, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			_, _ = w.Write(large)
			ended.Add(1)
			return
		}
		hello(w, r)
	})
	for range readers {
		dial(t, addr, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	if status, body := get(t, addr, "/"); status != http.StatusOK || body != "hello" {
		t.Errorf("got %d %q, want an answer beside readers that do not read", status, body)
	}
	// A client that reads gets the whole answer.
	if status, body := get(t, addr, "/large"); status != http.StatusOK || len(body) != size {
		t.Errorf("got %d and %d bytes, want all %d", status, len(body), size)
	}
	eventually(t, "answers that clients do not read stay within the cap", func() bool { return s.conns.buffered.Load() <= most })
	eventually(t, "every reader that does not read is cut off", func() bool { return ended.Load() == readers+1 })
	if left := s.conns.buffered.Load(); left != 0 {
		t.Errorf("%d bytes are still counted, want 0", left)
	}
}

// Clients that stall while they send the body of a request give their places to others.
func TestStalledBodiesMakeRoom(t *testing.T) {
	t.Parallel()
	times := defaultTimes
	times.stalled = 100 * time.Millisecond
	_, addr := start(t, Limits{Requests: 8}, times, func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			hello(w, r)
		}
	})
	for range 64 {
		dial(t, addr, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf of it")
	}
	for range 5 {
		if status, body := get(t, addr, "/"); status != http.StatusOK || body != "hello" {
			t.Errorf("got %d %q, want the answer", status, body)
		}
	}
}

// Each kind of requests has its own places: however many imports or lists there are, other requests are answered.
func TestKindsHaveTheirOwnPlaces(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var once sync.Once
	defer once.Do(func() { close(release) })
	times := defaultTimes
	times.queue = 100 * time.Millisecond
	_, addr := start(t, Limits{Requests: 8}, times, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/import") || r.URL.Path == "/list" {
			<-release
		}
		hello(w, r)
	})
	dial(t, addr, strings.Repeat("GET /list HTTP/1.1\r\nHost: x\r\n\r\n", 2))
	dial(t, addr, "GET /list HTTP/1.1\r\nHost: x\r\n\r\n")
	busy := make(chan int, 20)
	for range 20 {
		go func() {
			resp, err := http.Post("http://"+addr+"/import", "text/csv", strings.NewReader("x"))
			if err != nil {
				busy <- 0
				return
			}
			_ = resp.Body.Close()
			busy <- resp.StatusCode
		}()
	}
	refused := 0
	for range 19 { // one has the place
		if status := <-busy; status == http.StatusServiceUnavailable {
			refused++
		}
	}
	if refused != 19 {
		t.Errorf("got %d imports refused, want 19 of 20", refused)
	}
	for path, want := range map[string]int{"/": 200, "/healthz": 200, "/list": 503} {
		if status, _ := get(t, addr, path); status != want {
			t.Errorf("%s: got %d beside imports and lists, want %d", path, status, want)
		}
	}
	once.Do(func() { close(release) })
	if status := <-busy; status != http.StatusOK {
		t.Errorf("the import that had a place: got %d, want 200", status)
	}
}

// A live stream does not keep a place, and has no deadline as a whole.
func TestLiveStreamsKeepNoPlace(t *testing.T) {
	t.Parallel()
	times := defaultTimes
	times.queue, times.stall = 200*time.Millisecond, 500*time.Millisecond
	end := make(chan struct{})
	defer close(end)
	_, addr := start(t, Limits{Requests: 1}, times, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/live" {
			hello(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		for {
			_, _ = io.WriteString(w, ": beat\n\n")
			if rc.Flush() != nil {
				return
			}
			select {
			case <-end:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	live := bufio.NewReader(dial(t, addr, "GET /live HTTP/1.1\r\nHost: x\r\n\r\n"))
	beats := 0
	for began := time.Now(); time.Since(began) < 1200*time.Millisecond; {
		line, err := live.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended after %d beats: %v", beats, err)
		}
		if strings.Contains(line, "beat") {
			beats++
		}
		if beats == 3 {
			if status, _ := get(t, addr, "/"); status != http.StatusOK {
				t.Errorf("got %d beside a live stream, want 200", status)
			}
		}
	}
	if beats < 3 {
		t.Errorf("got %d beats, want some", beats)
	}
}

// With all places taken by handlers that work, a request waits for a while and is then told when to come again.
func TestBusyServerSaysSo(t *testing.T) {
	t.Parallel()
	times := defaultTimes
	times.queue = 100 * time.Millisecond
	release := make(chan struct{})
	defer close(release)
	var working atomic.Int32
	_, addr := start(t, Limits{Requests: 2}, times, func(http.ResponseWriter, *http.Request) {
		working.Add(1)
		<-release
	})
	for range 2 {
		dial(t, addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	eventually(t, "both handlers work", func() bool { return working.Load() == 2 })
	resp, err := http.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(b), `"code"`) {
		t.Errorf("got %d, Retry-After %q and %s, want 503 as a problem", resp.StatusCode, resp.Header.Get("Retry-After"), b)
	}
}

// A client that takes an answer too slowly is cut off, also when there is room; one that is slow and steady is not.
func TestDeadlineOfAnswers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	w := &response{ResponseWriter: headerOnly{}, conns: newConns(Limits{}, defaultTimes, slog.New(slog.DiscardHandler)), began: now}
	for _, c := range []struct {
		after time.Duration
		sent  int64
		left  time.Duration // until the deadline
	}{
		{0, 0, 20 * time.Second},
		{10 * time.Second, 1 << 20, 20 * time.Second},
		{time.Minute, 1 << 20, 20 * time.Second},                       // 17 KB/s: just quick enough
		{10 * time.Minute, 1 << 20, -10*time.Minute + 104*time.Second}, // 1.7 KB/s
	} {
		w.sent = c.sent
		if got := w.deadline(now.Add(c.after)).Sub(now.Add(c.after)); got != c.left {
			t.Errorf("%d bytes after %s: got %s until the deadline, want %s", c.sent, c.after, got, c.left)
		}
	}
}

type headerOnly struct{ http.ResponseWriter }

func (headerOnly) Header() http.Header { return http.Header{} }

// What net/http logs goes through slog.
func TestErrorsGoThroughSlog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := errorLog{slog.New(slog.NewJSONHandler(&out, nil))}
	fmt.Fprintln(l, "http: superfluous response.WriteHeader call")
	if got := out.String(); !strings.Contains(got, `"msg":"http server error"`) || !strings.Contains(got, `"err":"http: superfluous response.WriteHeader call"`) {
		t.Errorf("got %s", got)
	}
}

func TestConnectionsForOpenFiles(t *testing.T) {
	t.Parallel()
	for files, want := range map[int]int{0: 4096, 1024: 512, 100: 64, 1 << 20: 4096} {
		if got := connectionsFor(files); got != want {
			t.Errorf("%d open files: got %d connections, want %d", files, got, want)
		}
	}
}
