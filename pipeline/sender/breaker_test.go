package sender

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A batch can end without a hand-over, because of the guard, a pause or a test message. It shows nothing about the
// carrier: it neither closes a half-open breaker nor resets the count of failures in a row.
func TestNothingTriedSaysNothingOfTheCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker("sim", time.Second, time.Now, func(bool) {})
		try := func(result error) {
			t.Helper()
			report, err := b.allow()
			if err != nil {
				t.Fatal(err)
			}
			report(result)
		}
		for range breakerConsecutive {
			try(errNothing)
			try(errCarrier)
		}
		if open, _ := b.open(time.Now()); !open {
			t.Fatalf("after %d failures with nothing tried between them: got closed, want open", breakerConsecutive)
		}
		time.Sleep(1100 * time.Millisecond)
		try(errNothing)
		if !b.probing() {
			t.Error("after a probe of nothing: got closed, want half open")
		}
		try(nil)
		if open, _ := b.open(time.Now()); open || b.probing() {
			t.Error("after a probe that was answered: got open, want closed")
		}
	})
}

func TestAnEmptyFlightReportsNothing(t *testing.T) {
	var got error
	new(flight).send(t.Context(), func(err error) { got = err })
	if !errors.Is(got, errNothing) {
		t.Errorf("got %v, want %v", got, errNothing)
	}
}
