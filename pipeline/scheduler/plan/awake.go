package plan

import (
	"container/heap"
	"math"
	"time"

	"fanfare/schemas"
)

// A round of decisions examines only campaigns that are awake: something about them changed since the last round, or
// something is due. A campaign with nothing to do sleeps until then. So thousands of campaigns that are paused,
// scheduled, or only await receipts cost nothing.

// reviewEvery is how often every campaign is examined even if nothing woke it, so that no change is missed for longer.
const reviewEvery = time.Minute

// never is the wake time of a campaign that only an event or a record wakes.
const never = math.MaxInt64

// wake makes the next round look at a campaign.
func (pl *Planner) wake(c *Campaign) {
	if !c.awake {
		c.awake = true
		pl.awake = append(pl.awake, c)
	}
}

func (pl *Planner) wakeAll() {
	for _, c := range pl.open {
		pl.wake(c)
	}
}

// wakeDue wakes the campaigns with something due.
func (pl *Planner) wakeDue(now int64) {
	if now >= pl.reviewAt {
		pl.reviewAt = now + reviewEvery.Milliseconds()
		pl.wakeAll()
	}
	for len(pl.sleeping) > 0 && pl.sleeping[0].at <= now {
		s, _ := heap.Pop(&pl.sleeping).(sleeper)
		if s.c.queuedAt == s.at { // otherwise this entry is outdated: the campaign now sleeps until another time
			s.c.queuedAt = 0
			pl.wake(s.c)
		}
	}
}

// rest sends the campaigns to sleep that have nothing to do now.
func (pl *Planner) rest(now int64) {
	still := pl.awake[:0]
	for _, c := range pl.awake {
		if !pl.tracks(c) {
			c.awake = false
			continue
		}
		pl.updateRing(c) // this round may have dealt its last recipients
		at := pl.nextLook(c, now)
		if at <= now {
			still = append(still, c)
			continue
		}
		c.awake = false
		if at == never {
			c.queuedAt = 0
		} else if c.queuedAt != at {
			c.queuedAt = at
			heap.Push(&pl.sleeping, sleeper{at, c})
		}
	}
	clear(pl.awake[len(still):])
	pl.awake = still
	if len(pl.sleeping) > 4*len(pl.open)+1000 { // most entries are of campaigns that sleep until another time
		pl.dropStaleSleepers()
	}
}

func (pl *Planner) dropStaleSleepers() {
	kept := pl.sleeping[:0]
	for _, s := range pl.sleeping {
		if s.c.queuedAt == s.at && pl.tracks(s.c) {
			kept = append(kept, s)
		}
	}
	clear(pl.sleeping[len(kept):])
	pl.sleeping = kept
	heap.Init(&pl.sleeping)
}

// tracks reports whether a campaign is one of the open ones.
func (pl *Planner) tracks(c *Campaign) bool {
	return pl.campaigns[c.number] == c && !c.closed && !c.broken
}

// nextLook is when a campaign must be looked at again, though no event and no record arrives.
func (pl *Planner) nextLook(c *Campaign, now int64) int64 {
	r := c.record
	switch {
	case r == nil:
		return never
	case len(c.notes) > 0:
		return now
	case stopping(r) && (c.undealt() > 0 || c.waiting()):
		return now // to be cancelled
	case pl.stranded && c.waiting():
		return now
	case len(c.groups) > 0 && dealing(r) && c.neverWaits(now):
		return now // to be ended
	}
	at := int64(never)
	soonest := func(t int64) {
		if t < at {
			at = t
		}
	}
	if c.nextDue > 0 {
		soonest(c.nextDue)
	}
	if c.expiry > 0 {
		soonest(c.expiry)
	}
	if c.needsAudience() {
		soonest(c.request.again)
	}
	if c.moneyChanged && spends(r.GetState()) {
		soonest(max(c.money.at, now-1) + moneyEvery.Milliseconds())
	}
	asked := c.move.version == r.GetVersion()
	move := now // a move is to be requested: at once, or again
	if asked {
		move = c.move.again
	}
	switch state := r.GetState(); {
	case r.GetHidden() && state == schemas.StateSending:
		if dayOver(r, time.UnixMilli(now)) {
			soonest(move)
		} else {
			soonest(dayEnd(r).UnixMilli() + 1)
		}
	case state == schemas.StateScheduled:
		soonest(max(r.GetScheduledMs(), move))
	case state == schemas.StatePreparing:
		soonest(now)
	case state == schemas.StateSending:
		if c.summary().done || c.domains.spent && c.own.flight == 0 {
			soonest(move)
		}
	}
	if settling(r) {
		switch v := c.summary(); {
		case !v.done:
		case v.awaiting == 0 && v.doubtful == 0:
			soonest(move)
		default:
			soonest(max(c.windowEnd(), move))
		}
	}
	return at
}

// waiting reports whether recipients are ready to be dealt again, or to be cancelled.
func (c *Campaign) waiting() bool {
	for _, t := range c.tries {
		for _, s := range t.ready {
			if !s.seqs.IsEmpty() {
				return true
			}
		}
	}
	return false
}

// sleeper is a campaign that sleeps until a time.
type sleeper struct {
	at int64
	c  *Campaign
}

type sleepers []sleeper

func (s sleepers) Len() int           { return len(s) }
func (s sleepers) Less(i, j int) bool { return s[i].at < s[j].at }
func (s sleepers) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }

// Push implements heap.Interface.
func (s *sleepers) Push(x any) {
	v, _ := x.(sleeper)
	*s = append(*s, v)
}

// Pop implements heap.Interface.
func (s *sleepers) Pop() any {
	old := *s
	v := old[len(old)-1]
	old[len(old)-1] = sleeper{}
	*s = old[:len(old)-1]
	return v
}
