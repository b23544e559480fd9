//go:build !synctests

package simulation

import "testing"

// needsTag skips: without the tag the mutexes of franz-go keep fake time from going on.
func needsTag(t testing.TB) {
	t.Helper()
	t.Skip("run it with -tags synctests, as make test does")
}
