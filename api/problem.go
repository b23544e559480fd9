package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Problem is the one shape of every error (RFC 9457), application/problem+json.
type Problem struct {
	Type   string `json:"type" doc:"Stable identifier of the kind of problem."`
	Title  string `json:"title" doc:"What kind of problem it is, for people."`
	Status int    `json:"status"`
	Detail string `json:"detail" doc:"What happened in this request."`
	Code   Code   `json:"code" doc:"The kind of problem, for programs."`
	Field  string `json:"field" doc:"The field at fault, such as message or destinations[2]; empty when it is none."`
	Fix    string `json:"fix" doc:"What to do about it."`
	// Errors has every field at fault when there are several; the first stands above as well.
	Errors         []FieldError `json:"errors,omitempty" doc:"Every field at fault, when there are several."`
	AllowedActions []string     `json:"allowedActions,omitzero" doc:"What is possible in the present state."`
	RetryAfter     int          `json:"retryAfter,omitzero" doc:"Seconds to wait before the next try."`
	RequestID      string       `json:"requestId,omitempty"`

	err error // what caused it, for the log and never for the client
}

// FieldError is one of several fields at fault.
type FieldError struct {
	Field  string `json:"field"`
	Code   Code   `json:"code"`
	Detail string `json:"detail"`
}

// problem returns a problem of that code.
func problem(code Code, format string, args ...any) *Problem {
	e := catalogue[code]
	p := &Problem{Type: "urn:fanfare:problem:" + string(code), Title: e.title, Status: e.status, Code: code, Fix: e.fix, Detail: format}
	if len(args) > 0 {
		p.Detail = truncate(fmt.Sprintf(format, args...), maxDetail) // some errors quote what they were given
	}
	return p
}

// maxDetail is the most bytes of a detail.
const maxDetail = 800

// fieldProblem is a problem with one field.
func fieldProblem(code Code, field, format string, args ...any) *Problem {
	p := problem(code, format, args...)
	p.Field = field
	return p
}

// unavailable is a 503: a dependency is away and nothing was done.
func unavailable(retry time.Duration, err error, format string, args ...any) *Problem {
	p := problem(CodeUnavailable, format, args...)
	p.RetryAfter = max(1, int(retry.Round(time.Second)/time.Second))
	p.err = err
	return p
}

// because keeps the cause for the log.
func (p *Problem) because(err error) *Problem {
	p.err = err
	return p
}

// fixed replaces the advice.
func (p *Problem) fixed(format string, args ...any) *Problem {
	p.Fix = fmt.Sprintf(format, args...)
	return p
}

// Error returns the detail.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.err }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is application/problem+json.
func (p *Problem) ContentType(string) string { return problemJSON }

// GetHeaders returns Retry-After where there is something to wait for.
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

const problemJSON = "application/problem+json"

// problems gathers what is wrong with the fields of a body.
type problems []*Problem

func (ps *problems) add(code Code, field, format string, args ...any) {
	*ps = append(*ps, fieldProblem(code, field, format, args...))
}

// err returns the first problem with all of them listed, or nil.
func (ps problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	first := *ps[0]
	for _, p := range ps { // a dependency is away: nothing is known about the fields
		if p.Status >= http.StatusInternalServerError {
			return p
		}
	}
	if len(ps) > 1 {
		for _, p := range ps {
			first.Errors = append(first.Errors, FieldError{p.Field, p.Code, p.Detail})
		}
	}
	return &first
}

// wrongState is a 409 that says what may be done instead.
func wrongState(state fanfarev1.State, trigger schemas.Trigger) *Problem {
	p := problem(CodeWrongState, "%s is not possible: the campaign is %s", trigger, schemas.StateName(state))
	p.AllowedActions = allowedActions(state)
	return p
}

// actions are the names under which the API offers the triggers.
var actions = map[schemas.Trigger]string{
	schemas.TriggerPrice: "price", schemas.TriggerEdit: "edit", schemas.TriggerConfirm: "confirm", schemas.TriggerUnschedule: "unschedule",
	schemas.TriggerStart: "start", schemas.TriggerCancel: "delete", schemas.TriggerPause: "pause", schemas.TriggerResume: "resume",
	schemas.TriggerAbort: "abort",
}

// allowedActions names what a user may do in a state.
func allowedActions(state fanfarev1.State) []string {
	out := []string{}
	for _, t := range schemas.Allowed(state) {
		if name := actions[t]; name != "" {
			out = append(out, name)
		}
	}
	if schemas.Terminal(state) {
		out = append(out, "remove")
	}
	return append(out, "duplicate")
}

// actionsOf names what a user may do with a campaign: abort is legal until it is settled, and a draft in which nothing is
// missing can be priced and confirmed as it is (C29).
func actionsOf(c *store.Campaign) []string {
	out := allowedActions(c.State)
	if c.State == fanfarev1.State_STATE_DRAFT && len(missing(&c.Spec)) == 0 {
		out = append(out, actions[schemas.TriggerConfirm], actions[schemas.TriggerPrice])
	}
	if !c.Settled.IsZero() {
		out = slices.DeleteFunc(out, func(a string) bool { return a == actions[schemas.TriggerAbort] })
	}
	return out
}

// newError is huma's constructor of errors: everything that huma finds wrong by itself becomes a [Problem].
func newError(status int, msg string, errs ...error) huma.StatusError {
	var found problems
	for _, err := range errs {
		if p, ok := errors.AsType[*Problem](err); ok {
			found = append(found, p)
			continue
		}
		if d, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			loc := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(d.Location, "query."), "path."), "header.")
			if strings.HasPrefix(d.Message, "required ") {
				found = append(found, fieldProblem(CodeRequired, loc, "%s is required.", loc))
				continue
			}
			found = append(found, fieldProblem(CodeInvalid, loc, "%s: %s", loc, d.Message)) // never the value: it may be a phone number
		}
	}
	if err := found.err(); err != nil {
		p, _ := errors.AsType[*Problem](err)
		return p
	}
	switch status {
	case http.StatusBadRequest:
		if msg == "request body is required" {
			return problem(CodeBodyRequired, "The body is empty.")
		}
		return problem(CodeMalformed, "%s", msg)
	case http.StatusRequestTimeout:
		return problem(CodeTimeout, "The body was not complete in time.")
	case http.StatusRequestEntityTooLarge:
		return problem(CodeBodyTooLarge, "%s", msg)
	case http.StatusUnsupportedMediaType:
		return problem(CodeMediaType, "%s", msg)
	case http.StatusUnprocessableEntity:
		return problem(CodeInvalid, "%s", msg)
	case http.StatusInternalServerError:
		if msg == "cannot read request body" { // the client went, or its chunks are none
			return problem(CodeMalformed, "The body could not be read to its end.").because(errors.Join(errs...))
		}
	}
	return problem(CodeInternal, "An unexpected error occurred.").because(errors.Join(append(errs, errors.New(msg))...))
}

// asProblem turns whatever a handler returned into a problem.
func asProblem(err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, schemas.ErrNotFound):
		return problem(CodeNotFound, "There is no such resource.").because(err)
	case errors.Is(err, schemas.ErrConflict):
		return problem(CodeConflict, "The row changed while the request ran.").because(err)
	case errors.Is(err, schemas.ErrTransition):
		return problem(CodeWrongState, "The campaign's state does not allow this.").because(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unavailable(time.Second, err, "The request was not done in time.")
	}
	return problem(CodeInternal, "An unexpected error occurred.").because(err)
}
