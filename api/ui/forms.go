package ui

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// asProblem returns the problem with which the API refused a request. It returns false when the API itself failed.
func asProblem(err error) (*Problem, bool) {
	var p *Problem
	if errors.As(err, &p) && p.Status < http.StatusInternalServerError {
		return p, true
	}
	return nil, false
}

// orNil returns nil for an empty field.
func orNil(s string) any {
	if s = strings.TrimSpace(s); s != "" {
		return s
	}
	return nil
}

// number returns the typed text as a number if it is one. Otherwise it returns the text, which the API refuses with the
// field's name. It returns nil for an empty field.
func number(s string) any {
	s = strings.ReplaceAll(strings.TrimSpace(s), ",", "")
	if s == "" {
		return nil
	}
	if json.Valid([]byte(s)) && strings.Trim(s, "0123456789.-") == "" {
		return json.Number(s)
	}
	return s
}

// splitList splits words that are separated by commas.
func splitList(s string) []string {
	out := []string{}
	for word := range strings.SplitSeq(s, ",") {
		if word = strings.TrimSpace(word); word != "" {
			out = append(out, word)
		}
	}
	return out
}
