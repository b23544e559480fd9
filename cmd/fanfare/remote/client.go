package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Refusal is an error answer of the API.
type Refusal struct {
	Status  int
	Code    string `json:"code"`
	Detail  string `json:"detail"`
	Field   string `json:"field"`
	Fix     string `json:"fix"`
	Request string `json:"requestId"`
	Errors  []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors"`
}

// Error says what was refused and what to do.
func (r *Refusal) Error() string {
	var b strings.Builder
	b.WriteString(r.Detail)
	for i, e := range r.Errors {
		if i > 0 {
			b.WriteString("\n  " + e.Detail)
		}
	}
	if r.Fix != "" {
		b.WriteString(" " + r.Fix)
	}
	if r.Status >= http.StatusInternalServerError {
		fmt.Fprintf(&b, " (%d, request %s)", r.Status, r.Request)
	}
	return b.String()
}

// client sends requests to a server.
type client struct {
	base, key, tenant string
	http              *http.Client
}

const answerTimeout = 5 * time.Minute // an import of a million rows takes most of it

func newClient(base, key, tenant string) (*client, error) {
	if base == "" {
		return nil, errors.New("--server or FANFARE_SERVER is needed, such as http://localhost:8080")
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("--server %q: want an address such as https://fanfare.example.com", base)
	}
	if key == "" {
		return nil, errors.New("--key or FANFARE_KEY is needed; fanfare keys create makes one")
	}
	return &client{strings.TrimSuffix(base, "/"), key, tenant, &http.Client{Timeout: answerTimeout}}, nil
}

// do sends a request and returns the body of the answer. in is JSON unless ctype names another type; it may be nil.
func (c *client) do(ctx context.Context, method, path string, query url.Values, in io.Reader, ctype string) ([]byte, error) {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, in)
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Api-Key", c.key)
	if c.tenant != "" {
		r.Header.Set("X-Tenant", c.tenant)
	}
	if in != nil {
		r.Header.Set("Content-Type", ctype)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.base, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return body, nil
	}
	refusal := &Refusal{Status: resp.StatusCode}
	if json.Unmarshal(body, refusal) != nil || refusal.Detail == "" {
		refusal.Detail = fmt.Sprintf("%s answered %d: %s", c.base, resp.StatusCode, bytes.TrimSpace(body[:min(len(body), 200)]))
	}
	return nil, refusal
}
