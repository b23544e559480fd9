package plan

import (
	"cmp"
	"slices"
)

// tenantTurn is a tenant's place in the ring of a route, campaignTurn a campaign's place within it. Both rings use
// deficit round robin: at its turn a place may deal its quantum; what it deals beyond that is subtracted from its next
// turn, and unused credit expires. Only campaigns with recipients to deal are in a ring; places are sorted by tenant
// and by campaign number.
type tenantTurn struct {
	tenant  *tenant
	deficit int64
	begun   bool
	places  []*campaignTurn
	turn    int
}

type campaignTurn struct {
	campaign *Campaign
	deficit  int64
	begun    bool
}

// updateRing lets a campaign join the rings of its routes when it has recipients to deal, and leave them when it has
// none.
func (pl *Planner) updateRing(c *Campaign) {
	wants := pl.tracks(c) && c.record != nil && dealing(c.record) && (c.undealt() > 0 || c.waiting())
	switch {
	case wants && !c.inRing:
		c.inRing = true
		for i := range c.flows {
			c.flows[i].way().join(c) // joining twice is harmless
		}
	case !wants:
		pl.leaveRings(c)
	}
}

// leaveRings takes a campaign out of the rings of its routes.
func (pl *Planner) leaveRings(c *Campaign) {
	if !c.inRing {
		return
	}
	c.inRing = false
	for i := range c.flows {
		for _, r := range c.flows[i].routes() {
			r.leave(c)
		}
	}
}

// rejoinRings moves the campaigns to the rings of the routes that carry them now.
func (pl *Planner) rejoinRings() {
	for _, c := range pl.open {
		if c.inRing && c.hasOthers() {
			pl.leaveRings(c)
			pl.updateRing(c)
		}
	}
}

func (r *route) join(c *Campaign) {
	i, there := slices.BinarySearchFunc(r.shares, c.owner.id, func(s *tenantTurn, id string) int { return cmp.Compare(s.tenant.id, id) })
	if !there {
		if r.shares = slices.Insert(r.shares, i, &tenantTurn{tenant: c.owner}); i <= r.turn && len(r.shares) > 1 {
			r.turn++ // the insertion must not move the turn to another tenant
		}
	}
	s := r.shares[i]
	j, there := slices.BinarySearchFunc(s.places, c.number, func(p *campaignTurn, n uint64) int { return cmp.Compare(p.campaign.number, n) })
	if there {
		return
	}
	if s.places = slices.Insert(s.places, j, &campaignTurn{campaign: c}); j <= s.turn && len(s.places) > 1 {
		s.turn++
	}
}

func (r *route) leave(c *Campaign) {
	i, there := slices.BinarySearchFunc(r.shares, c.owner.id, func(s *tenantTurn, id string) int { return cmp.Compare(s.tenant.id, id) })
	if !there {
		return
	}
	s := r.shares[i]
	j, there := slices.BinarySearchFunc(s.places, c.number, func(p *campaignTurn, n uint64) int { return cmp.Compare(p.campaign.number, n) })
	if !there {
		return
	}
	if s.places = slices.Delete(s.places, j, j+1); j < s.turn {
		s.turn--
	}
	if s.turn >= len(s.places) {
		s.turn = 0
	}
	if len(s.places) > 0 {
		return
	}
	if r.shares = slices.Delete(r.shares, i, i+1); i < r.turn {
		r.turn--
	}
	if r.turn >= len(r.shares) {
		r.turn = 0
	}
}
