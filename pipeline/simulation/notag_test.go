//go:build !synctests

package simulation

import "testing"

// needsTag skips the test: without the tag, the mutexes of franz-go stop fake time.
func needsTag(t testing.TB) {
	t.Helper()
	t.Skip("run it with -tags synctests, as make test does")
}
