package httpserver

import (
	"io"
	"net/http"
	"strings"
	"time"
)

// body records the progress of a client that sends the body of a request.
type body struct {
	io.ReadCloser
	conn *conn
}

// Read reads the next part of the body.
func (b *body) Read(p []byte) (int, error) {
	b.conn.progress(reading)
	n, err := b.ReadCloser.Read(p)
	b.conn.progress(handling)
	return n, err
}

// response gives each part of an answer a deadline, and counts what the client has not taken.
type response struct {
	http.ResponseWriter
	rc     *http.ResponseController
	conn   *conn
	conns  *conns
	began  time.Time
	sent   int64
	stream func() // called once it is known that the answer is a live stream
	wrote  bool
}

// piece is how much is written at a time.
const piece = 64 << 10

// WriteHeader sends the status and the headers.
func (w *response) WriteHeader(status int) {
	if w.wrote {
		return // the handler reports that a write failed: the client is gone
	}
	if status >= http.StatusOK {
		w.wrote = true
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream") {
			w.stream()
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the answer.
func (w *response) Write(b []byte) (n int, err error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	w.conns.buffer(w.conn, len(b))
	defer func() {
		w.conns.taken(w.conn, len(b)-n) // the rest will never be taken
		w.conn.progress(handling)
	}()
	for n < len(b) {
		part := b[n:min(n+piece, len(b))]
		w.conn.progress(writing)
		_ = w.rc.SetWriteDeadline(w.deadline(time.Now()))
		done, err := w.ResponseWriter.Write(part)
		n += done
		w.sent += int64(done)
		w.conns.taken(w.conn, done)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// deadline of the next piece: some seconds from now, but the client must have taken what it got so far at the slowest
// speed. A live stream has no such bound: its parts are small and far between.
func (w *response) deadline(now time.Time) time.Time {
	next := now.Add(w.conns.times.stall)
	if w.sent < piece {
		return next
	}
	if last := w.began.Add(2*w.conns.times.stall + time.Duration(w.sent/slowest)*time.Second); last.Before(next) && !w.isStream() {
		return last
	}
	return next
}

func (w *response) isStream() bool {
	return strings.HasPrefix(w.Header().Get("Content-Type"), "text/event-stream")
}

// Flush sends what is buffered.
func (w *response) Flush() {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	w.conn.progress(writing)
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.conns.times.stall))
	_ = w.rc.Flush()
	w.conn.progress(handling)
}

// FlushError is Flush with its error, for [http.ResponseController].
func (w *response) FlushError() error {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	w.conn.progress(writing)
	defer w.conn.progress(handling)
	return w.rc.Flush()
}

// Unwrap lets [http.ResponseController] set deadlines.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
