//go:build synctests

package simulation

import "testing"

// needsTag does nothing, because the tests were built with the tag.
func needsTag(testing.TB) {}
