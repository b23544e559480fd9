package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/go-chi/chi/v5"
)

//go:embed assets
var embedded embed.FS

// assets are the embedded files. A file's URL contains a hash of its content, so browsers may cache it for a year.
type assets struct{ files map[string]*asset }

type asset struct {
	plain, zipped []byte // zipped is nil when it saves nothing
	hash, ctype   string
}

var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".woff2": "font/woff2",
	".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8", ".csv": "text/csv; charset=utf-8",
}

func loadAssets() (*assets, error) {
	a := &assets{files: map[string]*asset{}}
	err := fs.WalkDir(embedded, "assets", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(body)
		f := &asset{plain: body, hash: hex.EncodeToString(sum[:6]), ctype: contentTypes[path.Ext(name)]}
		if f.ctype == "" {
			f.ctype = "application/octet-stream"
		}
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		_, _ = z.Write(body) // writing to a bytes.Buffer never fails
		if err := z.Close(); err != nil {
			return err
		}
		if zipped.Len() < len(body)*9/10 {
			f.zipped = zipped.Bytes()
		}
		a.files[strings.TrimPrefix(name, "assets/")] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("ui: read embedded files: %w", err)
	}
	return a, nil
}

// url returns the URL of an asset. An unknown name is a mistake in a template; its test fails.
func (a *assets) url(name string) (string, error) {
	f := a.files[name]
	if f == nil {
		return "", fmt.Errorf("there is no asset %q", name)
	}
	return "/ui/assets/" + name + "?v=" + f.hash, nil
}

func (a *assets) serve(w http.ResponseWriter, r *http.Request) {
	f := a.files[chi.URLParam(r, "*")]
	if f == nil {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	etag := `"` + f.hash + `"`
	h.Set("Content-Type", f.ctype)
	h.Set("ETag", etag)
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "public, no-cache")
	if r.URL.Query().Get("v") == f.hash {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.plain
	if f.zipped != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.zipped
	}
	_, _ = w.Write(body)
}
