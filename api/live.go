package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"fanfare/api/compliance"
	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// LiveInput is what can be changed while a campaign is active (C4).
type LiveInput struct {
	Rate                 problem.Optional[int]            `json:"rate,omitzero" doc:"Most messages per second; 0: no own limit."`
	Weight               problem.Optional[int]            `json:"weight,omitzero" doc:"Share relative to the tenant's other campaigns, 1 to 100."`
	CallingHoursStart    problem.Optional[string]         `json:"callingHoursStart,omitzero" doc:"HH:MM; nothing is sent before. Null, with callingHoursEnd null: at any hour."`
	CallingHoursEnd      problem.Optional[string]         `json:"callingHoursEnd,omitzero" doc:"HH:MM; nothing is sent from then on. Null, with callingHoursStart null: at any hour."`
	CallingHoursTimezone problem.Optional[string]         `json:"callingHoursTimezone,omitzero" doc:"IANA zone of the calling hours; null: the tenant's."`
	Variants             problem.Optional[[]VariantInput] `json:"variants,omitzero" doc:"SMS campaigns with variants: new weights, by name. Variants that are not named keep their weights. Recipients that were already sent to keep their variant."`
	Tags                 problem.Optional[[]string]       `json:"tags,omitzero" doc:"Replace all tags before; at most 20, of 1 to 50 characters. Null: none."`
	Notes                problem.Optional[string]         `json:"notes,omitzero" doc:"For people; at most 4,000 characters. Null: none."`
}

func (s *server) patchLive(ctx context.Context, in *liveIn) (*campaignOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	body := &in.Body.Value
	if err := testKeyMay(at.who, at.campaign); err != nil {
		return nil, err
	}
	check, err := s.ruleCheck(ctx, at)
	if err != nil {
		return nil, err
	}
	c, err := s.change(ctx, at.campaign, at.version, func(c *store.Campaign) (schemas.Trigger, error) {
		if err := testKeyMay(at.who, c); err != nil {
			return "", err
		}
		before := c.CallingHours
		if err := body.apply(c, at.who); err != nil || !widens(before, c.CallingHours) {
			return "", err
		}
		return "", check.stays(c, compliance.Hours, "callingHoursStart",
			"Send a callingHoursStart and a callingHoursEnd that stay within {value} on the clocks of all recipients, or leave the hours as they are.")
	})
	check.count(err)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, at, c), nil
}

// apply changes a campaign. Rate, weight and calling hours can be changed only while it is active; tags and notes at
// any time, because the pipeline does not use them.
func (in *LiveInput) apply(c *store.Campaign, who *principal) error {
	var ps problem.List
	if in.Tags.Set {
		tags, p := cleanTags(in.Tags.Value)
		if p != nil {
			ps = append(ps, p)
		}
		c.Tags = tags
	}
	set(&in.Notes, &c.Notes, func(v string) { checkNotes(&ps, v) })
	changesSending := in.Rate.Set || in.Weight.Set || in.Variants.Set || in.CallingHoursStart.Set || in.CallingHoursEnd.Set || in.CallingHoursTimezone.Set
	if changesSending && !schemas.Active(c.State) {
		p := notPossible(c, "a change of rate, weights or calling hours")
		if schemas.Editable(c.State) {
			p = p.WithFix("Change a campaign that is not confirmed with PUT /api/campaigns/%s.", c.ID())
		}
		return p
	}
	if in.Rate.Set {
		checkRate(&ps, in.Rate.Value)
		c.Rate = uint32(max(in.Rate.Value, 0))
	}
	if in.Variants.Set {
		in.applyVariants(c, &ps)
	}
	if in.Weight.Set {
		if !in.Weight.Null {
			checkWeight(&ps, in.Weight.Value)
		}
		c.Weight = uint32(max(in.Weight.Value, 0))
	}
	next, found := hoursPatch{start: in.CallingHoursStart, end: in.CallingHoursEnd, zone: in.CallingHoursTimezone}.apply(c.CallingHours, who.tenant.Timezone)
	ps = append(ps, found...)
	if err := ps.Err(); err != nil {
		return err
	}
	if widens(c.CallingHours, next) && !who.key.Has(store.ScopeConfirm) {
		return problem.New(problem.CodeScopeMissing, "Calling hours that open earlier or close later need the scope %q.", string(store.ScopeConfirm))
	}
	c.CallingHours = next
	return nil
}

// maxWeightChanges limits the size of a campaign's record, which has all weights that the campaign ever had.
const maxWeightChanges = 200

// applyVariants changes the weights of the variants (R38, R57).
func (in *LiveInput) applyVariants(c *store.Campaign, ps *problem.List) {
	if len(c.Variants) == 0 || len(c.Weights) == 0 {
		ps.Add(problem.CodeInvalid, "variants", "The campaign has no variants.")
		return
	}
	next := slices.Clone(c.Weights[len(c.Weights)-1])
	for i, v := range in.Variants.Value {
		at := fmt.Sprintf("variants[%d].", i)
		n := slices.IndexFunc(c.Variants, func(o store.Variant) bool { return strings.EqualFold(o.Name, strings.TrimSpace(v.Name)) })
		switch {
		case n < 0:
			names := make([]string, len(c.Variants))
			for j, o := range c.Variants {
				names[j] = o.Name
			}
			*ps = append(*ps, problem.Field(problem.CodeInvalid, at+"name", "There is no variant %q.", problem.Truncate(v.Name, maxTag)).WithFix("The variants are %s.", strings.Join(names, ", ")))
		case v.Message != "" && v.Message != c.Variants[n].Body:
			ps.Add(problem.CodeInvalid, at+"message", "The text of a variant can't be changed while the campaign is active, only its weight.")
		case v.Weight == nil:
			ps.Add(problem.CodeRequired, at+"weight", "The weight is missing.")
		default:
			checkVariantWeight(ps, at+"weight", *v.Weight)
			next[n] = uint32(max(*v.Weight, 0))
		}
	}
	if !slices.ContainsFunc(next, func(w uint32) bool { return w > 0 }) {
		ps.Add(problem.CodeInvalid, "variants", "The weights of all variants are 0: no recipient would get a text.")
	}
	if len(c.Weights) >= maxWeightChanges {
		ps.Add(problem.CodeInvalid, "variants", "The weights were already changed %d times, which is the maximum.", maxWeightChanges)
	}
	if !slices.Equal(next, c.Weights[len(c.Weights)-1]) {
		c.Weights = append(slices.Clone(c.Weights), next)
	}
}
