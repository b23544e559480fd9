//go:build race

package main

import "time"

// pauseGrace is less without the race detector: under it, with the tests beside it, everything takes longer.
const pauseGrace = time.Second
