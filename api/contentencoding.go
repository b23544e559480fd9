package api

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"

	"fanfare/api/problem"
)

// unpackBody decodes the Content-Encoding of a request's body. It unpacks gzip while the body is read, so that the
// limits on bodies apply to the unpacked bytes. It refuses any other encoding by name; otherwise the client would be
// told that its JSON is malformed.
func unpackBody(r *http.Request) *problem.Problem {
	encoding := strings.Join(r.Header.Values("Content-Encoding"), ", ")
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return nil
	case "gzip", "x-gzip":
		r.Body = &gzipBody{packed: r.Body}
		r.ContentLength = -1 // the length after unpacking is not known
		r.Header.Del("Content-Encoding")
		return nil
	}
	return problem.New(problem.CodeMediaType, "The body has the Content-Encoding %q, which is not supported.", problem.Truncate(encoding, 60)).
		WithFix("Send Content-Encoding: gzip, or send the body without encoding.")
}

// gzipBody unpacks a body. It reads the first byte only when the handler reads, so that the handler's deadlines apply.
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

// Close closes the packed body.
func (b *gzipBody) Close() error { return b.packed.Close() }
