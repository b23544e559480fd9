package api

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"

	"fanfare/api/problem"
)

// unpackBody makes the body of a request what it was before its Content-Encoding. gzip is unpacked as it is read, so that the
// limits on bodies hold for what comes out; any other encoding is refused by name, or a client would be told that its JSON is
// malformed.
func unpackBody(r *http.Request) *problem.Problem {
	encoding := strings.Join(r.Header.Values("Content-Encoding"), ", ")
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return nil
	case "gzip", "x-gzip":
		r.Body = &gzipBody{packed: r.Body}
		r.ContentLength = -1 // of what comes out, which is not known
		r.Header.Del("Content-Encoding")
		return nil
	}
	return problem.New(problem.CodeMediaType, "The body is encoded as %q, which is not read.", problem.Truncate(encoding, 60)).
		WithFix("Send Content-Encoding: gzip, or the body as it is.")
}

// gzipBody unpacks a body. The first byte is read when the handler asks for it, with the handler's deadlines.
type gzipBody struct {
	packed io.ReadCloser
	plain  *gzip.Reader
}

func (b *gzipBody) Read(p []byte) (int, error) {
	if b.plain == nil {
		var err error
		if b.plain, err = gzip.NewReader(b.packed); err != nil {
			return 0, fmt.Errorf("body is not gzip: %w", err)
		}
	}
	return b.plain.Read(p)
}

// Close closes the body as it came.
func (b *gzipBody) Close() error { return b.packed.Close() }
