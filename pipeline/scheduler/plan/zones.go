package plan

import (
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/schemas/hours"
)

// A campaign that asks for it has calling hours on the clocks of each recipient (X11). The freeze has cut the audience
// into blobs of one zone, in order of zone, so the recipients of a zone are a range of seqs. Of the ranges whose hours
// are open, the planner deals the one that closes first, because its recipients would wait longest. Recipients who are
// dealt again wait in the ready sets until their range opens.

// zoneGroup is the recipients with the same zones.
type zoneGroup struct {
	first, end uint32 // the seqs
	hours      hours.Hours
	next       uint32 // every seq of the group below it was dealt or answered at try 1

	// These are valid before the time until: whether the hours are open, about when they close, and whether they never
	// open because the zones share no minute.
	until  int64
	open   bool
	closes int64
	never  bool
}

// neverAgain is how often hours that never open are computed again: a clock may have changed.
const neverAgain = time.Hour

// regroup finds the ranges of a campaign again: its calling hours or its blobs have changed.
func (c *Campaign) regroup() {
	c.groups = nil
	h := c.record.GetCallingHours()
	if !h.GetRecipientZone() || c.hoursOff || c.hours.Always() {
		return
	}
	zone := ""
	for _, b := range c.blobs {
		if n := len(c.groups); n > 0 && zone == b.Zone {
			c.groups[n-1].end += b.Count
			continue
		}
		zone = b.Zone
		c.groups = append(c.groups, zoneGroup{first: b.First, end: b.First + b.Count, next: b.First, hours: c.hours.On(zone)})
	}
}

// look updates the state of a group's hours.
func (g *zoneGroup) look(now int64) {
	if now < g.until {
		return
	}
	at := time.UnixMilli(now)
	if g.open = g.hours.Open(at); g.open {
		// Hours close on a full minute. The exact minute is computed again each minute, because a clock may change.
		g.never, g.closes, g.until = false, now+g.hours.Left(at).Milliseconds(), ms(at.Truncate(time.Minute).Add(time.Minute))
		return
	}
	opens := g.hours.NextOpen(at)
	if g.never = opens.IsZero(); g.never {
		opens = at.Add(neverAgain)
	}
	g.until = ms(opens)
}

// someOpen reports whether the hours of some group are open.
func (c *Campaign) someOpen(now int64) bool {
	for i := range c.groups {
		if c.groups[i].look(now); c.groups[i].open {
			return true
		}
	}
	return false
}

// allNever reports whether there are groups and the hours of none of them ever open.
func (c *Campaign) allNever(now int64) bool {
	for i := range c.groups {
		if c.groups[i].look(now); !c.groups[i].never {
			return false
		}
	}
	return len(c.groups) > 0
}

// firstUndealt returns the first recipient that may be dealt for the first time now, and the end of those that may be
// with it.
func (c *Campaign) firstUndealt(now int64) (first, end uint32, ok bool) {
	released := c.released(now)
	if len(c.groups) == 0 {
		return c.next, released, c.next < released
	}
	var closes int64
	for i := range c.groups {
		g := &c.groups[i]
		g.look(now)
		if !g.open || g.next >= min(g.end, released) || ok && g.closes >= closes {
			continue
		}
		if g.next = c.untried(max(g.next, min(c.next, g.end)), g.end); g.next < min(g.end, released) {
			first, end, closes, ok = g.next, min(g.end, released), g.closes, true
		}
	}
	return first, end, ok
}

// gatherOpen gathers recipients whose calling hours are open, of the group that closes first.
func (c *Campaign) gatherOpen(n int, from *roaring.Bitmap, size int, now int64) (b audience.Index, seqs *roaring.Bitmap) {
	if len(c.groups) == 0 {
		return c.gather(n, from, 0, schemas.MaxSeq+1, size)
	}
	var tried map[*zoneGroup]bool
	for {
		var first *zoneGroup
		for i := range c.groups {
			g := &c.groups[i]
			if g.look(now); !g.open || tried[g] || first != nil && g.closes >= first.closes {
				continue
			}
			if nextPresent(from, g.first, g.end) < g.end {
				first = g
			}
		}
		if first == nil {
			return audience.Index{}, nil
		}
		if b, seqs = c.gather(n, from, first.first, first.end, size); seqs != nil {
			return b, seqs
		}
		if tried == nil {
			tried = map[*zoneGroup]bool{}
		}
		tried[first] = true // none of the group's recipients may be dealt again, or their blob is not known
	}
}

// holdsOpen reports whether the calling hours of a recipient of the set are open.
func (c *Campaign) holdsOpen(set *roaring.Bitmap, now int64) bool {
	if len(c.groups) == 0 {
		return !set.IsEmpty()
	}
	for i := range c.groups {
		g := &c.groups[i]
		if g.look(now); g.open && nextPresent(set, g.first, g.end) < g.end {
			return true
		}
	}
	return false
}

// endNever ends the recipients whose calling hours never open: their zones share no minute of them. They are dealt as
// chunks that make no messages.
func (pl *Planner) endNever(c *Campaign, now int64, out []Deal) []Deal {
	for i := range c.groups {
		g := &c.groups[i]
		if g.look(now); g.never {
			out = pl.without(c, g.first, min(g.end, c.released(now)), schemas.KindNotSent, schemas.CodeQuietHoursExpired, now, out)
		}
	}
	return out
}

// neverWaits reports whether recipients wait that endNever will end.
func (c *Campaign) neverWaits(now int64) bool {
	released := c.released(now)
	for i := range c.groups {
		g := &c.groups[i]
		if g.look(now); !g.never {
			continue
		}
		if end := min(g.end, released); c.untried(g.first, end) < end {
			return true
		}
		for _, t := range c.tries {
			for _, s := range t.ready {
				if nextPresent(&s.seqs, g.first, g.end) < g.end {
					return true
				}
			}
		}
	}
	return false
}
