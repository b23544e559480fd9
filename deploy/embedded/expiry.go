package embedded

import (
	"time"

	"github.com/alicebob/miniredis/v2"
)

const (
	// expiryPause is the shortest time between two rounds of expiry.
	expiryPause = 100 * time.Millisecond
	// expiryShare is the part of the time that rounds of expiry may take: one in so many. Redis answers nothing during
	// a round.
	expiryShare = 20
)

// expireKeys lets the keys of the embedded Redis expire until stop is closed. A key may live up to a pause too long or
// too short: 100 ms with a few thousand keys, and some 20 s with a million, because a round looks at every key.
// (ClockTTL of miniredis is exact, but looks at every key before each command: with 10,000 messages that await receipts
// a command took milliseconds.)
func expireKeys(redis *miniredis.Miniredis, stop <-chan struct{}) {
	last, pause := time.Now(), expiryPause
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-timer.C:
		}
		now := time.Now()
		redis.FastForward(now.Sub(last))
		last = now
		pause = max(expiryPause, expiryShare*time.Since(now))
		timer.Reset(pause)
	}
}
