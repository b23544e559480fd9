package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-json-experiment/json"

	"fanfare/api/problem"
	"fanfare/api/store"
)

// maxIdempotencyKey is the maximum length of an Idempotency-Key in bytes.
const maxIdempotencyKey = 255

// stored is an answer that is stored under an Idempotency-Key.
type stored struct {
	ContentType string `json:"t"`
	Location    string `json:"l,omitempty"`
	ETag        string `json:"e,omitempty"`
	Packed      []byte `json:"-"` // the body: see [pack]
	// Sum is the hash of a streamed request body, which is known only after the body was read.
	Sum []byte `json:"s,omitempty"`
}

// encode writes the headers as JSON, their length first, and then the body.
func (a stored) encode() ([]byte, error) {
	headers, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return append(append(binary.AppendUvarint(nil, uint64(len(headers))), headers...), a.Packed...), nil
}

func decodeStored(b []byte) (a stored, body []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return a, nil, errPacked
	}
	if err := json.Unmarshal(b[size:size+int(n)], &a); err != nil {
		return a, nil, errors.Join(errPacked, err)
	}
	body, err = unpack(b[size+int(n):])
	return a, body, err
}

// idempotent answers a POST that repeats an Idempotency-Key (X12) without running it again: with the first answer; with
// 409 while the first request is running; with 422 when the first request had another body. Only successful answers are
// stored: a refused request changed nothing, so the client may correct it and send it again with the same key.
func (s *server) idempotent(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	key := r.Header.Get("Idempotency-Key")
	if key == "" || r.Method != http.MethodPost {
		next(ctx)
		return
	}
	o, _ := ctx.Operation().Metadata[metaOperation].(*operation)
	req := requestOf(r.Context())
	claim, p := s.claim(r, req, o, key)
	if p != nil {
		writeProblem(w, r, s.explain(r.Context(), p))
		return
	}
	switch claim.State {
	case store.ClaimReplay:
		s.replay(w, r, o, &claim)
		return
	case store.ClaimMismatch:
		writeProblem(w, r, problem.New(problem.CodeIdempotencyMismatch, "The Idempotency-Key was used for a request with another body."))
		return
	case store.ClaimInFlight:
		if !o.reserves {
			p := problem.New(problem.CodeIdempotencyInFlight, "The first request with this Idempotency-Key is still running.")
			p.RetryAfter = 1
			writeProblem(w, r, p)
			return
		}
		req.claim = &claim
		next(ctx)
		return
	case store.ClaimUnknown:
		writeProblem(w, r, problem.New(problem.CodeIdempotencyInFlight, "The first request with this Idempotency-Key has changed something and ended without an answer.").
			WithFix("Look at what it has changed. To go on, use another Idempotency-Key."))
		return
	case store.ClaimNew:
	}
	req.claim = &claim
	rec := &recorder{header: w.Header()}
	if o.streamed {
		rec.sum = sha256.New()
		r.Body = &hashedBody{r.Body, rec.sum}
	}
	done := false
	defer func() {
		if !done { // the handler panicked before it answered
			s.settle(r.Context(), req, &claim, &recorder{status: http.StatusInternalServerError})
		}
	}()
	noted := r
	if !o.streamed && !o.reserves { // imports may be repeated, and sends reserve their ids
		noted = r.WithContext(store.WithClaim(r.Context(), claim))
	}
	next(humachi.NewContext(ctx.Operation(), noted, rec))
	done = true
	s.settle(r.Context(), req, &claim, rec)
	w.WriteHeader(rec.status)
	_, _ = w.Write(rec.body.Bytes())
}

// claim claims the key in the store, with a hash of the request: of its body, or of the headers when the body is
// streamed.
func (s *server) claim(r *http.Request, req *request, o *operation, key string) (store.Claim, *problem.Problem) {
	if len(key) > maxIdempotencyKey || !printable(key) {
		p := problem.Field(problem.CodeMalformed, "Idempotency-Key", "Want 1 to %d printable ASCII characters.", maxIdempotencyKey)
		return store.Claim{}, p
	}
	h := sha256.New()
	if o.streamed {
		_, _ = io.WriteString(h, r.Header.Get("Content-Type")+" "+strconv.FormatInt(r.ContentLength, 10)+" "+r.URL.RawQuery)
	} else {
		body, err := io.ReadAll(io.LimitReader(r.Body, o.maxBody+1))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return store.Claim{}, problem.New(problem.CodeTimeout, "The body was not complete in time.").Because(err)
		}
		if err != nil {
			return store.Claim{}, problem.New(problem.CodeMalformed, "The body could not be read to its end.").Because(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.Write(body)
		h.Write([]byte(r.URL.RawQuery))
	}
	route := r.Method + " " + r.URL.Path
	if req.who.key.Test { // X14: a test key must not get the answer of a live key's request, nor the other way round
		route = "test " + route
	}
	claim, err := s.Store.Begin(r.Context(), req.who.tenant.ID, route, key, h.Sum(nil))
	if err != nil {
		return store.Claim{}, problem.From(s.storeProblem(err))
	}
	return claim, nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// settle stores the answer of a successful request, and releases the key of a failed one. It keeps the key of a send
// that reserved ids and was not acknowledged, because a repeated request must not send again; and the key of a request
// of which the store does not know whether it changed something.
func (s *server) settle(ctx context.Context, req *request, claim *store.Claim, rec *recorder) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var err error
	switch {
	case rec.status >= 200 && rec.status < 300:
		var b []byte
		b, err = stored{rec.header.Get("Content-Type"), rec.header.Get("Location"), rec.header.Get("ETag"), req.reserved.of(rec.body.Bytes()), rec.hash()}.encode()
		if err == nil {
			err = s.Store.Finish(ctx, *claim, rec.status, b)
		}
	case req.reserved == nil && !req.unknown:
		err = s.Store.Forget(ctx, *claim)
	}
	if err != nil { // the client gets its answer; a repeated request finds the key in flight
		s.Logger.WarnContext(ctx, "idempotency key not settled", "request_id", req.id, "operation", req.operation, "err", err.Error())
	}
}

// replay answers as the first request was answered. It reads a streamed body first, to compare its hash with that of
// the first body.
func (s *server) replay(w http.ResponseWriter, r *http.Request, o *operation, claim *store.Claim) {
	a, body, err := decodeStored(claim.Response)
	if err != nil {
		writeProblem(w, r, s.explain(r.Context(), err))
		return
	}
	if o.streamed {
		sum := sha256.New()
		_, err := io.Copy(sum, &limitedBody{r: s.stalling(r.Context(), r.Body), left: maxImport})
		if err != nil {
			writeProblem(w, r, s.explain(r.Context(), problem.New(problem.CodeMalformed, "The body could not be read to its end.").Because(err)))
			return
		}
		if !bytes.Equal(sum.Sum(nil), a.Sum) {
			writeProblem(w, r, problem.New(problem.CodeIdempotencyMismatch, "The Idempotency-Key was used for a request with another body."))
			return
		}
	}
	h := w.Header()
	h.Set("Content-Type", a.ContentType)
	if a.Location != "" {
		h.Set("Location", a.Location)
	}
	if a.ETag != "" {
		h.Set("ETag", a.ETag)
	}
	h.Set("Idempotent-Replayed", "true")
	w.WriteHeader(claim.Status)
	_, _ = w.Write(body)
}

// recorder holds an answer until it is stored.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
	sum    hash.Hash // of a streamed request body
}

// hash of the streamed request body, after it was read to its end.
func (r *recorder) hash() []byte {
	if r.sum == nil {
		return nil
	}
	return r.sum.Sum(nil)
}

// hashedBody hashes a body as it is read.
type hashedBody struct {
	io.ReadCloser
	sum hash.Hash
}

// Read reads and hashes.
func (b *hashedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sum.Write(p[:n])
	return n, err
}

// Header is the header of the answer.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader sets the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}
