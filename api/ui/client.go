package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"
)

// Problem is an error of the API, decoded from its JSON.
type Problem struct {
	Status         int      `json:"status"`
	Title          string   `json:"title"`
	Detail         string   `json:"detail"`
	Code           string   `json:"code"`
	Field          string   `json:"field"`
	Fix            string   `json:"fix"`
	AllowedActions []string `json:"allowedActions"`
	RequestID      string   `json:"requestId"`
	// Errors are the problems of other fields of the same request.
	Errors []Problem `json:"errors"`
}

// Error says what is wrong and what to do.
func (p *Problem) Error() string {
	if p.Fix == "" {
		return p.Detail
	}
	return p.Detail + " " + p.Fix
}

// Fields returns the sentence to show beside each field of a form, by the field's name. The key "" has what belongs to
// no field.
func (p *Problem) Fields() map[string]string {
	if p == nil {
		return nil
	}
	out := map[string]string{p.Field: p.Error()}
	for i := range p.Errors {
		if _, ok := out[p.Errors[i].Field]; !ok {
			out[p.Errors[i].Field] = p.Errors[i].Error()
		}
	}
	return out
}

// answer is the response that the API's handler wrote.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

// Header implements [http.ResponseWriter].
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements [http.ResponseWriter].
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// call sends a request to the API on behalf of a person. in, if not nil, is sent as JSON; the answer is decoded into
// out, if not nil. When the API refuses the request, the error is a [*Problem].
func (u *UI) call(ctx context.Context, p *Person, method, path string, in, out any) error {
	return u.callTagged(ctx, p, method, path, "", in, out)
}

// callTagged is call with If-Match, when version is not "".
func (u *UI) callTagged(ctx context.Context, p *Person, method, path, version string, in, out any) error {
	return u.callWith(ctx, p, method, path, map[string]string{"If-Match": version}, in, out)
}

// callOnce is call with an Idempotency-Key, when key is not "": a repetition changes nothing and has the answer of the
// first call.
func (u *UI) callOnce(ctx context.Context, p *Person, method, path, key string, in, out any) error {
	return u.callWith(ctx, p, method, path, map[string]string{"Idempotency-Key": key}, in, out)
}

// callWith is call with further headers; those without a value are left out.
func (u *UI) callWith(ctx context.Context, p *Person, method, path string, headers map[string]string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		sent, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		body, headers["Content-Type"] = bytes.NewReader(sent), "application/json"
	}
	a, err := u.send(ctx, p, method, path, headers, body)
	if err != nil {
		return err
	}
	if out != nil && a.body.Len() > 0 {
		if err := json.Unmarshal(a.body.Bytes(), out); err != nil {
			return fmt.Errorf("decode the answer of %s %s: %w", method, path, err)
		}
	}
	return nil
}

// send sends a request with an unchanged body, which the API reads as a stream. When the API refuses the request, the
// error is a [*Problem].
func (u *UI) send(ctx context.Context, p *Person, method, path string, headers map[string]string, body io.Reader) (*answer, error) {
	ctx = u.As(ctx, Actor{User: p.User.ID, Name: p.User.Name, Tenant: p.Tenant.ID, Scopes: p.Role.Scopes()})
	// The API's router must not reuse the route context of the page
	ctx = context.WithValue(ctx, chi.RouteCtxKey, (*chi.Context)(nil))
	r, err := http.NewRequestWithContext(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	for name, value := range headers {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	r.RequestURI = path
	a := &answer{header: http.Header{}}
	u.API.ServeHTTP(a, r)
	if a.status >= http.StatusBadRequest {
		problem := &Problem{Status: a.status, Title: http.StatusText(a.status)}
		if err := json.Unmarshal(a.body.Bytes(), problem); err != nil {
			return nil, fmt.Errorf("%s %s answered %d with no problem document: %w", method, path, a.status, err)
		}
		return nil, problem
	}
	return a, nil
}

// get reads a resource from path with the parameters of query; empty parameters are left out.
func (u *UI) get(ctx context.Context, p *Person, path string, query url.Values, out any) error {
	clean := url.Values{}
	for name, values := range query {
		for _, v := range values {
			if v != "" {
				clean.Add(name, v)
			}
		}
	}
	if len(clean) > 0 {
		path += "?" + clean.Encode()
	}
	return u.call(ctx, p, http.MethodGet, path, nil, out)
}
