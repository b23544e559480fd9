package plan

import "fanfare/schemas"

// RouteLoad is how many recipients wait at a route, for metrics.
type RouteLoad struct {
	Route               string
	Bulk, Txn           int64 // in flight
	Undealt, Due, Ready uint64
	Seconds             float64 // how long the undealt and ready recipients take at the route's rate
	OldestMs            int64   // when the recipient that is overdue longest became due, 0: none is overdue
}

// Loads returns the load of every route.
func (pl *Planner) Loads() []RouteLoad {
	of := map[*route]*RouteLoad{}
	out := make([]RouteLoad, len(pl.ordered))
	for i, r := range pl.ordered {
		out[i] = RouteLoad{Route: r.name, Bulk: r.flight, Txn: r.txn}
		of[r] = &out[i]
	}
	for _, c := range pl.open {
		if c.record == nil || c.record.GetHidden() || len(c.flows) == 0 {
			continue
		}
		if c.record.GetState() == schemas.StateSending {
			of[c.flows[0].way()].Undealt += uint64(c.undealt())
		}
		for _, t := range c.tries {
			for key, s := range t.due {
				if l := c.loadOf(of, key.leg); l != nil {
					l.Due += s.GetCardinality()
				}
			}
			for _, s := range t.ready {
				if l := c.loadOf(of, s.leg); l != nil {
					l.Ready += s.seqs.GetCardinality()
					// If recipients have hours of their own, ready recipients may still wait for these hours.
					if len(c.groups) == 0 && s.since > 0 && !s.seqs.IsEmpty() && (l.OldestMs == 0 || s.since < l.OldestMs) {
						l.OldestMs = s.since
					}
				}
			}
		}
	}
	for i, r := range pl.ordered {
		out[i].Seconds = float64(out[i].Undealt+out[i].Ready) / float64(max(r.rate, 1))
	}
	return out
}

func (c *Campaign) loadOf(of map[*route]*RouteLoad, leg uint8) *RouteLoad {
	if leg == 0 || int(leg) > len(c.flows) {
		return nil
	}
	return of[c.flows[leg-1].way()]
}
