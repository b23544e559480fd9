package httpserver

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A flood of headers is refused before the handler sees the request, whether it is one long header or many short ones,
// and the server answers others meanwhile and afterwards.
func TestHeaderFlood(t *testing.T) {
	t.Parallel()
	var handled atomic.Int32
	_, addr := start(t, Limits{}, defaultTimes, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/flood" {
			handled.Add(1)
		}
		hello(w, r)
	})
	for name, flood := range map[string]string{
		"one header of 200 KB": "X-Long: " + strings.Repeat("x", 200<<10) + "\r\n",
		"10,000 headers":       strings.Repeat("X-Short: a value of a header\r\n", 10_000),
		"200 KB of cookies":    strings.Repeat("Cookie: session="+strings.Repeat("0", 100)+"\r\n", 2000),
	} {
		c := dial(t, addr, "")
		request := "GET /flood HTTP/1.1\r\nHost: x\r\n" + flood + "\r\n"
		sent := make(chan struct{})
		go func() { // the server may close the connection in the middle
			defer close(sent)
			_, _ = io.WriteString(c, request)
		}()
		answer, err := bufio.NewReader(c).ReadString('\n')
		if err == nil && !strings.Contains(answer, "431") { // an error: closed before all was sent, so the answer is lost
			t.Errorf("%s: got %q, want 431", name, answer)
		}
		_ = c.Close()
		<-sent
		if status, _ := get(t, addr, "/"); status != http.StatusOK {
			t.Errorf("%s: another client got %d, want 200", name, status)
		}
	}
	if n := handled.Load(); n != 0 {
		t.Errorf("the handler got %d of the floods, want none", n)
	}
	// What proxies and browsers send is accepted.
	if c := dial(t, addr, "GET / HTTP/1.1\r\nHost: x\r\nCookie: "+strings.Repeat("x", 32<<10)+"\r\n\r\n"); true {
		if answer, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(answer, "200") {
			t.Errorf("32 KB of cookies: got %q, %v, want 200", answer, err)
		}
	}
}

// A client that sends its headers so slowly that they never end is cut off, however many bytes it sends meanwhile.
func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	times := defaultTimes
	times.headers = 200 * time.Millisecond
	var handled atomic.Int32
	_, addr := start(t, Limits{}, times, func(http.ResponseWriter, *http.Request) { handled.Add(1) })
	c := dial(t, addr, "GET / HTTP/1.1\r\nHost: x\r\n")
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, c) // ends when the server closes the connection
	}()
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		select {
		case <-closed:
			if n := handled.Load(); n != 0 {
				t.Errorf("the handler got %d requests, want none", n)
			}
			return
		case <-tick.C:
			_, _ = io.WriteString(c, "X-A: b\r\n")
		case <-t.Context().Done():
			t.Fatal("the client was never cut off")
		}
	}
}
