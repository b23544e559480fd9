//go:build race

package main

import "time"

// pauseGrace is longer than the promised 250 ms, because the race detector slows everything down.
const pauseGrace = time.Second
