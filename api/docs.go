package api

import (
	_ "embed"
	"net/http"

	"github.com/go-chi/chi/v5"
)

// The page at /api/docs shows the OpenAPI document with RapiDoc, which api/docs/SHA256SUMS names (npm rapidoc 9.3.8,
// dist/rapidoc-min.js).
var (
	//go:embed docs/index.html
	docsPage []byte
	//go:embed docs/rapidoc-min.js
	docsScript []byte
)

// docsPolicy lets the page run only its own script and call only this server. style-src needs 'unsafe-inline' because
// RapiDoc styles its elements with attributes.
const docsPolicy = "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; style-src 'unsafe-inline'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func mountDocs(r chi.Router) {
	serve := func(path, contentType, cache string, body []byte) {
		r.Get(path, func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", contentType)
			h.Set("Cache-Control", cache)
			h.Set("Content-Security-Policy", docsPolicy)
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Referrer-Policy", "no-referrer")
			_, _ = w.Write(body)
		})
	}
	serve("/api/docs", "text/html; charset=utf-8", "no-cache", docsPage)
	serve("/api/docs/rapidoc-min.js", "text/javascript; charset=utf-8", "public, max-age=86400", docsScript)
}
