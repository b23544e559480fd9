package schemas

import (
	"time"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// How often a recipient is tried on one leg, and when the next try follows. The api prices and reserves according to
// these values, and the scheduler deals according to them.
//
//	channel         hand-overs at most   longest wait before the 2nd, the 3rd, each further one
//	sms             3                    1 min, 5 min, 25 min
//	rcs, whatsapp   2                    1 min, 5 min, 25 min
//	voice           1 (R24)              1 min (R25)
//
// A campaign may set its own number of hand-overs and its own delay. The wait is a random time in (0, longest] (full
// jitter). The code of the bounce decides (see [Codes]):
//
//	RetryYes    as the table says
//	RetryLong   immediately with the last, longest wait
//	RetryOnce   one more hand-over at most after this code
//	RetryNo     no retry; the next leg of the chain if the code has Fallback
//
// A return (paused, window, rate, breaker …) is not a hand-over and costs nothing. The next try follows when its cause
// has ended, but not before the least wait in this table, because a recipient has at most 250 tries:
//
//	return of try   least wait
//	1 to 5          none
//	6 to 20         5 s
//	21 to 50        1 min
//	51 to 250       15 min

// DefaultCare is the care of a route that sets none: its campaigns are suspended when it has been down for a minute, or
// when 80 % of 500 of their messages have failed. They are resumed when the route is up again. No other route carries
// them meanwhile.
func DefaultCare() *fanfarev1.RouteCare {
	return &fanfarev1.RouteCare{DownAfterMs: 60_000, FailurePercent: 80, FailureSample: 500, AutoResume: true, NoFailover: true}
}

// DefaultHandovers is how often a recipient may be handed over on a leg of a channel, unless the campaign says
// otherwise.
func DefaultHandovers(channel Channel) uint32 {
	switch channel {
	case ChannelSMS:
		return 3
	case ChannelVoice:
		return 1
	default:
		return 2
	}
}

// DefaultBackoff returns the longest waits before the second and each further hand-over on a leg of a channel, unless
// the campaign says otherwise. The last one applies to all that follow.
func DefaultBackoff(channel Channel) []time.Duration {
	if channel == ChannelVoice {
		return []time.Duration{time.Minute}
	}
	return []time.Duration{time.Minute, 5 * time.Minute, 25 * time.Minute}
}

// ReturnDelay returns the least wait after a return of the n-th try.
func ReturnDelay(n int) time.Duration {
	switch {
	case n <= 5:
		return 0
	case n <= 20:
		return 5 * time.Second
	case n <= 50:
		return time.Minute
	default:
		return 15 * time.Minute
	}
}
