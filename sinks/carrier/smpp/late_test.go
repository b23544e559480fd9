package smpp

import (
	"testing"

	"fanfare/sinks/carrier"
)

// The id of a message centre that is unique only per session names two messages: a receipt gets the submission id of the
// one to its own number, however that is written.
func TestLateAnswerOfAnotherNumber(t *testing.T) {
	var k keysByRef
	first := carrier.Key{1}
	k.add("7", "+393331234567", first)
	for to, want := range map[string]carrier.Key{"+393331234567": first, "3331234567": first, "": first, "+393331234568": {}, "+393339999999": {}} {
		if got := k.of([]string{"x", "7"}, to); got != want {
			t.Errorf("receipt of %q: got %v, want %v", to, got, want)
		}
	}
	if got := k.of([]string{"8"}, "+393331234567"); got != (carrier.Key{}) {
		t.Errorf("another id: got %v", got)
	}
}
