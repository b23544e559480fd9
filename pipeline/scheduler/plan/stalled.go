package plan

import "time"

// stalledAfter is how long a campaign may have work that could be done and make no progress before it counts as
// stalled.
const stalledAfter = 5 * time.Minute

// Stalled is a campaign whose recipients wait although the planner knows no reason for it.
type Stalled struct {
	Campaign *Campaign
	SinceMs  int64
	Undealt  uint32
	InFlight int64 // dealt and never answered
}

// Stalled returns the campaigns that have made no progress for [stalledAfter]: nothing was dealt and nothing answered,
// although recipients wait, the campaign is sending, its calling hours are open, and its route, tenant and limits have
// room. It is to be called about once a second.
func (pl *Planner) Stalled(now time.Time) []Stalled {
	var out []Stalled
	for _, c := range pl.open {
		if c.record == nil || !dealing(c.record) {
			continue
		}
		if waits := pl.waits(c, ms(now)); !waits || c.progress != c.stallMark || c.stallSince == 0 {
			c.stallMark, c.stallSince = c.progress, ms(now)
			continue
		}
		if ms(now)-c.stallSince >= stalledAfter.Milliseconds() {
			out = append(out, Stalled{Campaign: c, SinceMs: c.stallSince, Undealt: c.undealt(), InFlight: c.flight})
		}
	}
	return out
}

// waits reports whether a campaign has recipients in flight, or recipients that could be dealt now.
func (pl *Planner) waits(c *Campaign, now int64) bool {
	if !c.isOpen(now) || c.owner == nil || !c.owner.enabled {
		return false
	}
	if c.flight > 0 {
		return true
	}
	for leg := range c.flows {
		f := &c.flows[leg]
		r := f.way()
		if !r.enabled || now < r.stopUntil || !r.hasRoom() || !c.owner.room(r) || !c.own.room(r) || !f.sender.room(r) {
			continue
		}
		if free, limited := c.freeCalls(uint8(leg)+1, now); limited && free <= 0 {
			continue // a call may take as long as its lease
		}
		if leg == 0 && c.undealt() > 0 {
			if _, _, ok := c.firstUndealt(now); ok {
				return true
			}
		}
		for _, t := range c.tries {
			for _, s := range t.ready {
				if int(s.leg) == leg+1 && c.holdsOpen(&s.seqs, now) && (!s.retry || r.retries >= 1) {
					return true
				}
			}
		}
	}
	return false
}
