package ui

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// asProblem finds the API's refusal in an error; false when the API itself failed.
func asProblem(err error) (*Problem, bool) {
	var p *Problem
	if errors.As(err, &p) && p.Status < http.StatusInternalServerError {
		return p, true
	}
	return nil, false
}

// orNil is null for an empty field.
func orNil(s string) any {
	if s = strings.TrimSpace(s); s != "" {
		return s
	}
	return nil
}

// number sends what was typed as a number when it is one, else as the text that it is, which the API refuses with the field's
// name. An empty field is null.
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

// splitList reads words separated by commas.
func splitList(s string) []string {
	out := []string{}
	for word := range strings.SplitSeq(s, ",") {
		if word = strings.TrimSpace(word); word != "" {
			out = append(out, word)
		}
	}
	return out
}
