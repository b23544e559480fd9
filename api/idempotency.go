package api

import (
	"bytes"
	"context"
	"crypto/sha256"
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

	"fanfare/api/store"
)

// maxIdempotencyKey is the most bytes of an Idempotency-Key.
const maxIdempotencyKey = 255

// stored is an answer as it is kept under an Idempotency-Key.
type stored struct {
	ContentType string `json:"t"`
	Location    string `json:"l,omitempty"`
	ETag        string `json:"e,omitempty"`
	Body        []byte `json:"b"`
	// Sum is the hash of a streamed request, which is known only after it was done.
	Sum []byte `json:"s,omitempty"`
}

// idempotent answers a POST that repeats an Idempotency-Key (X12) without doing anything again: with the first answer, 409
// while the first is still running, 422 when it was another request. Only what succeeded is kept: a refused request did
// nothing, and may be corrected and sent again under the same key.
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
		writeProblem(w, r, problem(CodeIdempotencyMismatch, "The Idempotency-Key was used for a request with another body."))
		return
	case store.ClaimInFlight:
		if !o.reserves {
			p := problem(CodeIdempotencyInFlight, "The first request with this Idempotency-Key is still running.")
			p.RetryAfter = 1
			writeProblem(w, r, p)
			return
		}
		req.claim = &claim
		next(ctx)
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
		if !done { // a panic: nobody knows what was done, but it was not answered
			s.settle(r.Context(), req, &claim, &recorder{status: http.StatusInternalServerError})
		}
	}()
	next(humachi.NewContext(ctx.Operation(), r, rec))
	done = true
	s.settle(r.Context(), req, &claim, rec)
	w.WriteHeader(rec.status)
	_, _ = w.Write(rec.body.Bytes())
}

// claim asks the store for the key, with the hash of the body: of a streamed one, of what its headers say.
func (s *server) claim(r *http.Request, req *request, o *operation, key string) (store.Claim, *Problem) {
	if len(key) > maxIdempotencyKey || !printable(key) {
		p := fieldProblem(CodeMalformed, "Idempotency-Key", "Want 1 to %d printable ASCII characters.", maxIdempotencyKey)
		return store.Claim{}, p
	}
	h := sha256.New()
	if o.streamed {
		_, _ = io.WriteString(h, r.Header.Get("Content-Type")+" "+strconv.FormatInt(r.ContentLength, 10)+" "+r.URL.RawQuery)
	} else {
		body, err := io.ReadAll(io.LimitReader(r.Body, o.maxBody+1))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return store.Claim{}, problem(CodeTimeout, "The body was not complete in time.").because(err)
		}
		if err != nil {
			return store.Claim{}, problem(CodeMalformed, "The body could not be read to its end.").because(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.Write(body)
		h.Write([]byte(r.URL.RawQuery))
	}
	claim, err := s.Store.Begin(r.Context(), req.who.tenant.ID, r.Method+" "+r.URL.Path, key, h.Sum(nil))
	if err != nil {
		return store.Claim{}, asProblem(s.storeProblem(err))
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

// settle keeps the answer when the request did something, and forgets the key when it did nothing. A send that has reserved
// ids and was not acknowledged stays as it is: its repetition must not send.
func (s *server) settle(ctx context.Context, req *request, claim *store.Claim, rec *recorder) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var err error
	switch {
	case rec.status >= 200 && rec.status < 300:
		var b []byte
		b, err = json.Marshal(stored{rec.header.Get("Content-Type"), rec.header.Get("Location"), rec.header.Get("ETag"), rec.body.Bytes(), rec.hash()})
		if err == nil {
			err = s.Store.Finish(ctx, *claim, rec.status, b)
		}
	case !req.reserved:
		err = s.Store.Forget(ctx, *claim)
	}
	if err != nil { // the answer stands; a repetition finds the key in flight
		s.Logger.WarnContext(ctx, "idempotency key not settled", "request_id", req.id, "operation", req.operation, "error", err.Error())
	}
}

// replay gives the first answer again. Of a streamed request it reads the body first: another file is another request.
func (s *server) replay(w http.ResponseWriter, r *http.Request, o *operation, claim *store.Claim) {
	var a stored
	if err := json.Unmarshal(claim.Response, &a); err != nil {
		writeProblem(w, r, s.explain(r.Context(), err))
		return
	}
	if o.streamed {
		sum := sha256.New()
		_, err := io.Copy(sum, &limitedBody{r: s.stalling(r.Context(), r.Body), left: maxImport})
		if err != nil {
			writeProblem(w, r, s.explain(r.Context(), problem(CodeMalformed, "The body could not be read to its end.").because(err)))
			return
		}
		if !bytes.Equal(sum.Sum(nil), a.Sum) {
			writeProblem(w, r, problem(CodeIdempotencyMismatch, "The Idempotency-Key was used for a request with another body."))
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
	_, _ = w.Write(a.Body)
}

// recorder holds an answer back until it is kept.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
	sum    hash.Hash // of a streamed body
}

// hash of a streamed body that was read to its end.
func (r *recorder) hash() []byte {
	if r.sum == nil {
		return nil
	}
	return r.sum.Sum(nil)
}

// hashedBody hashes what is read of a body.
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
