package doctor

import (
	"fmt"
	"time"
)

// maxSkew is how far the clock of a service may be from ours: schedules, expiries and receipts are compared by clocks.
const maxSkew = 2 * time.Second

// clockOffset returns how far the clock that ask reads is ahead of ours.
func clockOffset(ask func() (time.Time, error)) (time.Duration, error) {
	before := time.Now()
	at, err := ask()
	if err != nil {
		return 0, err
	}
	return skew(at, before, time.Now()), nil
}

// skew returns how far a clock that said at is ahead of ours, which showed before when the question was sent and after
// when the answer came. The clock was read at an unknown moment in between, so a difference within that time counts as
// none.
func skew(at, before, after time.Time) time.Duration {
	switch {
	case at.Before(before):
		return at.Sub(before)
	case at.After(after):
		return at.Sub(after)
	default:
		return 0
	}
}

// clockFinding says that a clock differs too much from ours; it is empty if it does not.
func clockFinding(service string, offset time.Duration) []Finding {
	if offset.Abs() <= maxSkew {
		return nil
	}
	word := "ahead of"
	if offset < 0 {
		word = "behind"
	}
	return []Finding{bad(service, fmt.Sprintf("its clock is %s %s this machine's", offset.Abs().Round(time.Millisecond), word),
		"synchronise the clocks of both machines (chrony, systemd-timesyncd): schedules and expiries go by them")}
}
