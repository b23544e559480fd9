package api

import (
	"context"

	"fanfare/api/store"
	"fanfare/schemas"
)

// LiveInput is what may be changed while a campaign is active (C4).
type LiveInput struct {
	Rate                 Optional[int]      `json:"rate,omitzero" doc:"Most messages per second; 0: no limit of its own."`
	Weight               Optional[int]      `json:"weight,omitzero" doc:"Share against the tenant's other campaigns, 1 to 100."`
	CallingHoursStart    Optional[string]   `json:"callingHoursStart,omitzero"`
	CallingHoursEnd      Optional[string]   `json:"callingHoursEnd,omitzero"`
	CallingHoursTimezone Optional[string]   `json:"callingHoursTimezone,omitzero"`
	Tags                 Optional[[]string] `json:"tags,omitzero"`
	Notes                Optional[string]   `json:"notes,omitzero"`
}

func (s *server) patchLive(ctx context.Context, in *liveIn) (*campaignOut, error) {
	at, err := s.at(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	body := &in.Body.Value
	c, err := s.change(ctx, at.campaign, at.version, func(c *store.Campaign) (schemas.Trigger, error) {
		return "", body.apply(c, at.who)
	})
	if err != nil {
		return nil, err
	}
	return at.answer(c), nil
}

// apply changes what may be changed while a campaign runs. What a sender looks at needs a campaign that sends; tags and notes
// are for people and may be changed at any time.
func (in *LiveInput) apply(c *store.Campaign, who *principal) error {
	var ps problems
	if in.Tags.Set {
		tags, p := cleanTags(in.Tags.Value)
		if p != nil {
			ps = append(ps, p)
		}
		c.Tags = tags
	}
	set(&in.Notes, &c.Notes, func(v string) { ps.notes(v) })
	steers := in.Rate.Set || in.Weight.Set || in.CallingHoursStart.Set || in.CallingHoursEnd.Set || in.CallingHoursTimezone.Set
	if steers && !schemas.Active(c.State) {
		p := wrongState(c.State, "a change of rate, weight or calling hours")
		if schemas.Editable(c.State) {
			p = p.fixed("PUT /api/campaigns/%s changes a campaign that is not confirmed.", c.ID())
		}
		return p
	}
	if in.Rate.Set {
		ps.rate(in.Rate.Value)
		c.Rate = uint32(max(in.Rate.Value, 0))
	}
	if in.Weight.Set {
		if v := in.Weight.Value; !in.Weight.Null && (v < 1 || v > 100) {
			ps.add(CodeInvalid, "weight", "%d is not between 1 and 100.", v)
		}
		c.Weight = uint32(max(in.Weight.Value, 0))
	}
	next, found := hoursPatch{start: in.CallingHoursStart, end: in.CallingHoursEnd, zone: in.CallingHoursTimezone}.apply(c.CallingHours, who.tenant.Timezone)
	ps = append(ps, found...)
	if err := ps.err(); err != nil {
		return err
	}
	if widens(c.CallingHours, next) && !who.key.Has(store.ScopeConfirm) {
		return problem(CodeScopeMissing, "Calling hours that open earlier or close later need the scope %q.", string(store.ScopeConfirm))
	}
	c.CallingHours = next
	return nil
}
