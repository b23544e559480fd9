package webhook

import (
	"math/rand/v2"
	"time"
)

// waits are the waits before the second and further tries of an event, as Standard Webhooks recommends: three days
// altogether.
var waits = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

const (
	// failuresOpen: after this many failures in a row the endpoint counts as down, and one request at a time tests
	// whether it still is.
	failuresOpen = 3
	// pauseLeast and pauseMost bound the time between these requests.
	pauseLeast, pauseMost = 5 * time.Second, 5 * time.Minute
	// patienceMost bounds what Retry-After may ask for.
	patienceMost = time.Hour
	// failingMost: an endpoint that has failed for this long is disabled.
	failingMost = 5 * 24 * time.Hour
)

func random() float64 { return rand.Float64() }

// nextTry returns how long after its n-th try, 1 and up, an event is tried again; false: not any more.
func nextTry(n int, jitter float64) (time.Duration, bool) {
	if n > len(waits) {
		return 0, false
	}
	return spread(waits[n-1], 0.1, jitter), true
}

// pause returns how long a failing endpoint gets no request: half of the time for which it has failed.
func pause(failing time.Duration, jitter float64) time.Duration {
	return spread(min(max(failing/2, pauseLeast), pauseMost), 0.2, jitter)
}

// spread returns d ± part, so that the tries of many events do not happen at the same time.
func spread(d time.Duration, part, jitter float64) time.Duration {
	return time.Duration(float64(d) * (1 - part + 2*part*jitter))
}
