//go:build synctests

package simulation

import "testing"

// needsTag does nothing: the tests were built with the tag that they need.
func needsTag(testing.TB) {}
