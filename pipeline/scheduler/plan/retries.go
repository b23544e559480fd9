package plan

import (
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// worthRetry reports whether another hand-over on the same leg may follow a bounce.
func (c *Campaign) worthRetry(seq uint32, leg uint8, made, last int, code schemas.Code) bool {
	if made >= maxHandovers(c.record.GetLegs()[leg-1]) {
		return false
	}
	info, ok := schemas.LookupCode(code)
	if !ok {
		return false
	}
	if info.Retry != schemas.RetryOnce {
		return info.Retry != schemas.RetryNo
	}
	var same int
	for i, t := range c.tries[:last] {
		if got, ok := t.bounced.code(seq); ok && got == code && c.leg(i+1, seq) == leg {
			same++
		}
	}
	return same <= 1
}

// maxHandovers is how often a recipient may be handed over on a leg.
func maxHandovers(l *fanfarev1.Leg) int {
	if n := l.GetMaxHandovers(); n > 0 {
		return int(n)
	}
	return int(schemas.DefaultHandovers(l.GetChannel()))
}

// backoff is the longest wait before the retry that follows the n-th hand-over (made).
func backoff(l *fanfarev1.Leg, made int, code schemas.Code) int64 {
	steps := l.GetBackoffMs()
	if len(steps) == 0 {
		for _, step := range schemas.DefaultBackoff(l.GetChannel()) {
			steps = append(steps, step.Milliseconds())
		}
	}
	if info, ok := schemas.LookupCode(code); ok && info.Retry == schemas.RetryLong {
		return steps[len(steps)-1]
	}
	return steps[min(max(made, 1), len(steps))-1]
}

// jitter spreads the retries of recipients that failed together over the whole wait. It is a function of the recipient
// and the try, so that a successor decides the same.
func jitter(campaign uint64, seq uint32, n int, wait int64) int64 {
	if wait <= 0 {
		return 0
	}
	x := campaign<<32 ^ uint64(seq)<<8 ^ uint64(n)
	x += 0x9e3779b97f4a7c15 // splitmix64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return int64(x%uint64(wait)) + 1
}

// returnDelay is the least wait after a return of the n-th try, in milliseconds.
func returnDelay(n int) int64 { return schemas.ReturnDelay(n).Milliseconds() }

// rounded rounds a due time up, to 100 ms within the next 10 s and to 1 s after that, so that few sets hold many
// recipients.
func rounded(from, due int64) int64 {
	if due-from <= 10_000 {
		return roundUp(due, 100*time.Millisecond)
	}
	return roundUp(due, time.Second)
}
