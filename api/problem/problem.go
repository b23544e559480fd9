// Package problem has the type of all errors in answers of the API (RFC 9457, application/problem+json), the codes that
// clients branch on, and the strict reader of JSON bodies, whose errors are problems.
//
// It promises: every problem has a code, a fix, and the field at fault if there is one. The cause of a problem (Unwrap)
// is only logged and is never part of the answer.
package problem

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"fanfare/schemas"
)

// MediaType of every problem.
const MediaType = "application/problem+json"

// Problem is an error in the form that clients get.
type Problem struct {
	Type   string `json:"type" doc:"Stable identifier of the kind of problem."`
	Title  string `json:"title" doc:"The kind of problem, for people."`
	Status int    `json:"status" doc:"The HTTP status of the answer."`
	Detail string `json:"detail" doc:"What happened in this request."`
	Code   Code   `json:"code" doc:"The kind of problem, for programs."`
	Field  string `json:"field" doc:"The field at fault, such as message or destinations[2]; empty when no field is at fault."`
	Fix    string `json:"fix" doc:"What to do about it."`
	// Errors lists every field at fault when there are several. The first of them is also in Field.
	Errors         []FieldError `json:"errors,omitempty" doc:"Every field at fault, when there are several."`
	AllowedActions []string     `json:"allowedActions,omitzero" doc:"The actions that are possible in the current state."`
	RetryAfter     int          `json:"retryAfter,omitzero" doc:"Seconds to wait before the next try."`
	RequestID      string       `json:"requestId,omitempty" doc:"Identifies this request in our logs."`

	cause error
}

// FieldError is one of several fields at fault.
type FieldError struct {
	Field  string `json:"field" doc:"The field at fault."`
	Code   Code   `json:"code" doc:"What is wrong with it, for programs."`
	Detail string `json:"detail" doc:"What is wrong with it, for people."`
}

// maxDetail is the maximum length of a detail, in bytes, because some errors quote their input.
const maxDetail = 800

// New returns a problem with the status, title and fix of its code.
func New(code Code, format string, args ...any) *Problem {
	e := catalogue[code]
	p := &Problem{Type: "urn:fanfare:problem:" + string(code), Title: e.title, Status: e.status, Code: code, Fix: e.fix, Detail: format}
	if len(args) > 0 {
		p.Detail = Truncate(fmt.Sprintf(format, args...), maxDetail)
	}
	return p
}

// Field returns a problem with one field.
func Field(code Code, field, format string, args ...any) *Problem {
	p := New(code, format, args...)
	p.Field = field
	return p
}

// Unavailable returns a 503: a service that the request needs does not answer, and the request had no effect. retry
// becomes Retry-After, rounded to a second and at least one.
func Unavailable(retry time.Duration, cause error, format string, args ...any) *Problem {
	p := New(CodeUnavailable, format, args...)
	p.RetryAfter = max(1, int(retry.Round(time.Second)/time.Second))
	p.cause = cause
	return p
}

// Because sets the cause, for the log.
func (p *Problem) Because(cause error) *Problem {
	p.cause = cause
	return p
}

// WithFix replaces the advice of the code.
func (p *Problem) WithFix(format string, args ...any) *Problem {
	p.Fix = fmt.Sprintf(format, args...)
	return p
}

// Error returns code and detail.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.cause }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType returns [MediaType], regardless of the client's preference.
func (p *Problem) ContentType(string) string { return MediaType }

// GetHeaders returns Retry-After when the client should wait, and WWW-Authenticate when it has no valid key.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="fanfare", charset="UTF-8"`)
	}
	return h
}

// List collects the problems of the fields of a request.
type List []*Problem

// Add appends a problem with a field.
func (l *List) Add(code Code, field, format string, args ...any) {
	*l = append(*l, Field(code, field, format, args...))
}

// Err returns nil for an empty list, else the first problem with all fields listed. A 5xx in the list is returned
// alone: a service did not answer, so nothing is known about the fields.
func (l List) Err() error {
	if len(l) == 0 {
		return nil
	}
	for _, p := range l {
		if p.Status >= http.StatusInternalServerError {
			return p
		}
	}
	first := *l[0]
	if len(l) > 1 {
		for _, p := range l {
			first.Errors = append(first.Errors, FieldError{p.Field, p.Code, p.Detail})
		}
	}
	return &first
}

// From turns any error of a handler into a problem.
func From(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	switch {
	case errors.Is(err, schemas.ErrNotFound):
		return New(CodeNotFound, "There is no such resource.").Because(err)
	case errors.Is(err, schemas.ErrConflict):
		return New(CodeConflict, "The row changed while the request ran.").Because(err)
	case errors.Is(err, schemas.ErrTransition):
		return New(CodeWrongState, "The campaign's state does not allow this.").Because(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return Unavailable(time.Second, err, "The request was not done in time.")
	}
	return New(CodeInternal, "An unexpected error occurred.").Because(err)
}

// FromHuma is the constructor of errors for huma: it turns all errors that huma itself finds in a request into
// problems.
func FromHuma(status int, msg string, errs ...error) huma.StatusError {
	var found List
	for _, err := range errs {
		if p, ok := errors.AsType[*Problem](err); ok {
			found = append(found, p)
		} else if d, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			found = append(found, fromDetail(d))
		}
	}
	if p, ok := errors.AsType[*Problem](found.Err()); ok {
		return p
	}
	switch status {
	case http.StatusBadRequest:
		if msg == "request body is required" {
			return New(CodeBodyRequired, "The body is empty.")
		}
		return New(CodeMalformed, "%s", msg)
	case http.StatusRequestTimeout:
		return New(CodeTimeout, "The body was not complete in time.")
	case http.StatusRequestEntityTooLarge:
		return New(CodeBodyTooLarge, "%s", msg)
	case http.StatusUnsupportedMediaType:
		return New(CodeMediaType, "%s", msg)
	case http.StatusUnprocessableEntity:
		return New(CodeInvalid, "%s", msg)
	case http.StatusInternalServerError:
		if msg == "cannot read request body" { // the client disconnected, or its chunked encoding is broken
			return New(CodeMalformed, "The body could not be read to its end.").Because(errors.Join(errs...))
		}
	}
	return New(CodeInternal, "An unexpected error occurred.").Because(errors.Join(append(errs, errors.New(msg))...))
}

// fromDetail returns the problem of a parameter that huma refused. It leaves out the value, which may be a phone
// number.
func fromDetail(d *huma.ErrorDetail) *Problem {
	name := d.Location
	for _, place := range []string{"query.", "path.", "header."} {
		name = strings.TrimPrefix(name, place)
	}
	if strings.HasPrefix(d.Message, "required ") {
		return Field(CodeRequired, name, "%s is required.", name)
	}
	return Field(CodeInvalid, name, "%s: %s", name, d.Message)
}

// Truncate cuts s to at most n bytes, between characters, and marks the cut with an ellipsis.
func Truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
