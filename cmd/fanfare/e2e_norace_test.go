//go:build !race

package main

import "time"

// pauseGrace is how long after a pause is answered a submission may still be made.
const pauseGrace = 250 * time.Millisecond
