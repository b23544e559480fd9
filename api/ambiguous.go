package api

import (
	"context"
	"errors"
	"net/http"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// AmbiguousInput is a person's order about the ambiguous recipients of a campaign.
type AmbiguousInput struct {
	Action string `json:"action" enum:"resend,give_up" example:"give_up" doc:"resend: send to them again; a recipient that already has the message gets it twice. give_up: end them as not sent with the code GIVEN_UP; they are not billed, and a receipt that comes later takes precedence."`
}

type ambiguousIn struct {
	ID      string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
	IfMatch string `header:"If-Match"`
	Vocab   string `query:"vocab"`
	Body    problem.Body[AmbiguousInput]
}

func (s *server) registerAmbiguous() {
	register(s, operation{
		id: "decideAmbiguous", method: http.MethodPost, path: "/api/campaigns/{id}/ambiguous",
		summary: "Decide about ambiguous recipients: send again, or give up",
		scope:   store.ScopeConfirm, errors: []int{400, 404, 409, 412, 422}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "A recipient is ambiguous when it is not known whether the carrier has the message, and only a receipt can tell. " +
			"The order applies to the recipients that are ambiguous when the scheduler reads it, a moment after the answer; it is recorded in the " +
			"history of the campaign with the person who gave it. Orders are accepted until the campaign settles; after an abort, resend is refused.",
	}, s.decideAmbiguous)
}

func (s *server) decideAmbiguous(ctx context.Context, in *ambiguousIn) (*campaignOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, in.IfMatch, in.Vocab)
	if err != nil {
		return nil, err
	}
	if err := testKeyMay(at.who, at.campaign); err != nil {
		return nil, err
	}
	var action schemas.AmbiguousAction
	switch in.Body.Value.Action {
	case "resend":
		action = schemas.AmbiguousActionResend
	case "give_up":
		action = schemas.AmbiguousActionGiveUp
	default:
		return nil, problem.Field(problem.CodeInvalid, "action", "want resend or give_up, got %q", in.Body.Value.Action)
	}
	c, err := s.Store.OrderAmbiguous(ctx, at.campaign.Tenant, at.campaign.ID(), at.version, action, s.cause(ctx))
	if stated, ok := errors.AsType[*store.StateError](err); ok {
		return nil, wrongState(stated.State, stated.Trigger)
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return s.answer(ctx, at, &c), nil
}
