//go:build !race

package main

import "time"

// pauseGrace is how long after a pause is answered a submission may still be made: what was judged may be half a second on its way
// to a carrier that makes it wait.
const pauseGrace = 750 * time.Millisecond
