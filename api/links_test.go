package api_test

import (
	"fmt"
	"strings"
	"testing"

	"fanfare/schemas"
)

// X10: an opt-out link is counted as long as it will be, needs an edge, and can't be read out in a call.
func TestOptOutLink(t *testing.T) {
	w := newEnv(t, func(w *env) { w.deps.LinkURL = "https://go.example.com/" })
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	w.call("POST", "/api/contacts/list/l/import", "phone\n+393331230001\n", csv).want(200)
	link := len("https://go.example.com/") + schemas.LinkLen(1)
	body := func(message string) string {
		return fmt.Sprintf(`{"name":"C","channel":"sms","contactList":"l","message":%q}`, message)
	}
	var made struct{ ID string }
	full := "Stop: {{opt_out}} " + strings.Repeat("a", 160-len("Stop:  ")-link)
	w.call("POST", "/api/campaigns", body(full)).want(201).into(&made)
	var c struct {
		Segments int
		Links    []any
	}
	w.call("GET", "/api/campaigns/"+made.ID, "").want(200).into(&c)
	if c.Segments != 1 || len(c.Links) != 0 {
		t.Errorf("got %+v, want 160 characters in one segment, and no link to a page of the author's", c)
	}
	w.call("POST", "/api/campaigns", body(full+"a")).problem(422, "too_long", "message")

	none := newEnvOf(t)
	none.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	none.call("POST", "/api/contacts/list/l/import", "phone\n+393331230001\n", csv).want(200)
	none.call("POST", "/api/campaigns", body("Stop: {{opt_out}}")).problem(422, "invalid_value", "message")
}
