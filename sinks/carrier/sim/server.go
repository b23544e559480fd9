package sim

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"fanfare/sinks/carrier"
)

// maxWait is how long a request for receipts may wait.
const maxWait = 30 * time.Second

// maxBody of a request.
const maxBody = 64 << 20

// NewHandler returns the server's side of [Dial]:
//
//	GET  /healthz      200 while the carrier is open
//	GET  /v1/caps      what the profile allows
//	GET  /v1/stats     Stats as JSON
//	POST /v1/submit    one batch; its answers come in the response as they are given
//	POST /v1/query     the outcomes of submissions
//	POST /v1/receipts  settles the receipts given out before, and waits for more
//
// It has no authentication: bind it to the loopback interface. Requests that are held open end when the carrier is
// closed.
func NewHandler(c *Carrier) http.Handler {
	s := &server{c}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /v1/caps", s.caps)
	mux.HandleFunc("GET /v1/stats", s.stats)
	mux.HandleFunc("POST /v1/submit", s.submit)
	mux.HandleFunc("POST /v1/query", s.query)
	mux.HandleFunc("POST /v1/receipts", s.receipts)
	return mux
}

type server struct{ carrier *Carrier }

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.carrier.quiet:
		http.Error(w, "stopping", http.StatusServiceUnavailable)
	case <-s.carrier.done:
		http.Error(w, "closed", http.StatusServiceUnavailable)
	default:
		_, _ = io.WriteString(w, "ok\n")
	}
}

func (s *server) caps(w http.ResponseWriter, _ *http.Request) {
	p := &s.carrier.cfg.Profile
	writeJSON(w, wireCaps{EchoesKey: !p.HidesKey, Doubt: p.Doubt})
}

func (s *server) stats(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.carrier.Stats()) }

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has gone
}

// submit reads the whole batch before it takes any message. So it takes no message of a request that breaks off.
func (s *server) submit(w http.ResponseWriter, r *http.Request) {
	batch, index, err := readBatch(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	st := &stream{index: index, ready: make(chan struct{}, 1)}
	s.carrier.submit(accountOf(r), batch, 0, st)
	st.run(w, r, s.carrier.done)
}

// query answers with the outcome of the submissions whose keys, 16 bytes each, are in the body.
func (s *server) query(w http.ResponseWriter, r *http.Request) {
	if s.carrier.cfg.Profile.Doubt != carrier.DoubtQuery {
		http.Error(w, "this carrier cannot be asked", http.StatusNotFound)
		return
	}
	const size = len(carrier.Key{})
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(size*MaxBatch)))
	if err != nil || len(body)%size != 0 {
		http.Error(w, fmt.Sprintf("want at most %d keys of %d bytes", MaxBatch, size), http.StatusBadRequest)
		return
	}
	keys := make([]carrier.Key, 0, len(body)/size)
	for ; len(body) > 0; body = body[size:] {
		keys = append(keys, carrier.Key(body[:size]))
	}
	results, err := s.carrier.query(accountOf(r), keys)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	b := make([]byte, 0, 64*len(results))
	for i := range results {
		b = appendFrame(b, func(b []byte) []byte { return appendResult(b, i, &results[i]) })
	}
	_, _ = w.Write(append(b, 0))
}

func accountOf(r *http.Request) string {
	if a := r.URL.Query().Get("account"); a != "" {
		return a
	}
	return DefaultAccount
}

// readBatch reads the messages of a request, and the index that each has at its client.
func readBatch(body io.Reader) (batch []carrier.Outbound, index []int, err error) {
	r := bufio.NewReaderSize(body, 64<<10)
	var buf []byte
	for {
		frame, err := readFrame(r, buf)
		if err != nil {
			return nil, nil, fmt.Errorf("message %d: %w", len(batch), err)
		}
		if frame == nil {
			// The end of the body must be read, too: only then the server notices when the client goes away.
			if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
				return nil, nil, fmt.Errorf("after the last message: %w", errors.Join(errFrame, err))
			}
			return batch, index, nil
		}
		if len(batch) == MaxBatch {
			return nil, nil, fmt.Errorf("more than %d messages", MaxBatch)
		}
		i, o, err := parseOutbound(frame)
		if err != nil {
			return nil, nil, fmt.Errorf("message %d: %w", len(batch), err)
		}
		batch, index, buf = append(batch, o), append(index, i), frame
	}
}

// stream writes the answers to one batch as they come, several at once if possible.
type stream struct {
	index []int // at the client
	ready chan struct{}

	mu     sync.Mutex
	buf    []byte
	left   int // answers to come
	silent bool
	broken bool
}

func (s *stream) expect(answers int, broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = answers
	s.silent, s.broken = answers < len(s.index), broken
}

func (s *stream) answer(i int, r carrier.Result) {
	s.mu.Lock()
	s.buf = appendFrame(s.buf, func(b []byte) []byte { return appendResult(b, s.index[i], &r) })
	s.left--
	s.mu.Unlock()
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// run writes until all answers are written. If a message is never answered, the response stays open. If the fate is a
// broken connection, the response breaks off.
func (s *stream) run(w http.ResponseWriter, r *http.Request, closed <-chan struct{}) {
	rc := http.NewResponseController(w)
	var spare []byte
	for {
		s.mu.Lock()
		out, over := s.buf, s.left <= 0
		s.buf = spare[:0]
		silent, broken := s.silent, s.broken
		s.mu.Unlock()
		if over && !silent {
			out = append(out, 0)
		}
		if len(out) > 0 {
			if _, err := w.Write(out); err != nil {
				return
			}
			if err := rc.Flush(); err != nil {
				return
			}
		}
		spare = out
		switch {
		case over && broken:
			if conn, _, err := rc.Hijack(); err == nil {
				_ = conn.Close() // the profile breaks the connection here
			}
			return
		case over && !silent:
			return
		}
		select {
		case <-s.ready:
		case <-r.Context().Done():
			return
		case <-closed:
			return
		}
	}
}

// receipts settles one lease and grants the next.
func (s *server) receipts(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	account := accountOf(r)
	limit, err := number(q.Get("max"), MaxReceipts, MaxReceipts)
	if err != nil {
		http.Error(w, "max: "+err.Error(), http.StatusBadRequest)
		return
	}
	wait, err := number(q.Get("wait_ms"), 0, int(maxWait.Milliseconds()))
	if err != nil {
		http.Error(w, "wait_ms: "+err.Error(), http.StatusBadRequest)
		return
	}
	if lease := q.Get("lease"); lease != "" {
		id, err := strconv.ParseUint(lease, 10, 64)
		if err != nil {
			http.Error(w, "lease: want a number", http.StatusBadRequest)
			return
		}
		s.carrier.settle(account, id, q.Get("ok") == "true")
	}
	if limit == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	patience := time.NewTimer(time.Duration(wait) * time.Millisecond)
	defer patience.Stop()
	for {
		id, list, more := s.carrier.take(account, limit, s.carrier.cfg.Lease)
		if len(list) > 0 {
			s.writeReceipts(w, account, id, list)
			return
		}
		select {
		case <-more:
			continue
		case <-patience.C:
		case <-r.Context().Done():
		case <-s.carrier.quiet:
		case <-s.carrier.done:
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
}

// writeReceipts answers with the lease and its receipts. If the client has gone, the lease expires.
func (s *server) writeReceipts(w http.ResponseWriter, account string, id uint64, list []owed) {
	b := binary.AppendUvarint(make([]byte, 0, 128*len(list)), id)
	drafts := s.carrier.draft(account, list)
	for i := range drafts {
		b = appendFrame(b, func(b []byte) []byte { return appendReceipt(b, &drafts[i]) })
	}
	b = append(b, 0)
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b)
}

// number parses a number of at most limit; for "" it returns otherwise.
func number(s string, otherwise, limit int) (int, error) {
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, errors.New("want a number")
	}
	return min(n, limit), nil
}
