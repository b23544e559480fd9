package api

import (
	"errors"
	"strings"

	"fanfare/api/phone"
	"fanfare/api/problem"
)

// wrongNumber returns the problem of a field that is not a phone number.
func wrongNumber(field string, err error) *problem.Problem {
	p := problem.Field(problem.CodeInvalidNumber, field, "%s is %s.", field, err)
	if ambiguous, ok := errors.AsType[*phone.AmbiguousError](err); ok {
		return p.WithFix("Send %s if you mean that number; otherwise send the number with the country code of %s.", ambiguous.With.E164, ambiguous.Region)
	}
	return p
}

// noMessages says why a number cannot receive messages, "" when it can.
func noMessages(n phone.Number) string {
	if n.Valid && n.Class.TakesText() {
		return ""
	}
	return n.Class.Phrase()
}

// plusInQuery restores the + of a number in a query, because an unescaped + in a URL arrives as a blank.
func plusInQuery(raw string) string {
	if digits, ok := strings.CutPrefix(raw, " "); ok && digits != "" && digits[0] >= '0' && digits[0] <= '9' {
		return "+" + digits
	}
	return raw
}
