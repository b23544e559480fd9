//go:build race

package main

import "time"

// pauseGrace is 250 ms on a machine of its own; under the race detector, with the tests beside it, everything takes longer.
const pauseGrace = time.Second
