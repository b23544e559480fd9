package api

import (
	"context"
	"net/http"

	"fanfare/api/compliance"
	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// RescheduleInput is a new time for a campaign that has not started (X9).
type RescheduleInput struct {
	ScheduledTime problem.Optional[When] `json:"scheduledTime,omitzero"`
}

type rescheduleIn struct {
	ID      string `path:"id" example:"camp_12345" doc:"Id of the campaign."`
	IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
	Vocab   string `query:"vocab" doc:"Vocabulary of status: e (default), a, b, c or d."`
	Body    problem.Body[RescheduleInput]
}

func (s *server) registerReschedule() {
	register(s, operation{
		id: "rescheduleCampaign", method: http.MethodPost, path: "/api/campaigns/{id}/reschedule", summary: "Change the time of a campaign that has not started",
		scope: store.ScopeConfirm, errors: []int{400, 404, 409, 412, 422}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "The campaign stays confirmed and keeps its reservation, its price and its audience. A campaign that waits for a manual start becomes scheduled. All batches move by the same duration.",
	}, s.reschedule)
}

func (s *server) reschedule(ctx context.Context, in *rescheduleIn) (*campaignOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	var ps problem.List
	when := &in.Body.Value.ScheduledTime
	next := when.Value.in(at.who.tenant.Timezone)
	if !when.Set || when.Null {
		ps.Add(problem.CodeRequired, "scheduledTime", "scheduledTime is required.")
	} else {
		checkNotPast(&ps, next.At, s.Now(), false)
	}
	if err := ps.Err(); err != nil {
		return nil, err
	}
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
		if !schemas.CanTransition(c.State, schemas.StateScheduled, schemas.TriggerReschedule) {
			return "", notPossible(c, schemas.TriggerReschedule)
		}
		moveBatches(&c.Spec, next.At)
		c.State, c.Schedule, c.Scheduled, c.SendImmediately = schemas.StateScheduled, &next, next.At, false
		return schemas.TriggerReschedule, check.stays(c, compliance.Closed, "scheduledTime", "Choose a scheduledTime with which it ends before that day or starts after it.")
	})
	check.count(err)
	if err != nil {
		return nil, err
	}
	out := s.answer(ctx, at, c)
	late, err := s.timeWarnings(ctx, at.who, c)
	if err != nil {
		return nil, err
	}
	out.Body.Warning = append(out.Body.Warning, late...)
	return out, nil
}
