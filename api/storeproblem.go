package api

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"fanfare/api/store"
	"fanfare/schemas"
)

// storeFields maps the fields of package store to the API's names of them.
var storeFields = map[string]string{
	store.FieldFirstName: "firstName", store.FieldLastName: "lastName", store.FieldEmail: "email", "Attributes": "attributes", "Name": "name",
	"Lists": "contactList", "List": "contactList", "Chain": "channel", "Body": "message", "TemplateID": "message", "Sender": "sender", "Route": "route",
	"Tags": "tags", "Notes": "notes", "Schedule": "scheduledTime", "CallingHours": "callingHoursStart", "Rate": "rate", "Weight": "weight",
	"Region": "region", "Columns": "columns",
}

// storeProblem says an error of the store in the API's words.
func (s *server) storeProblem(err error) error {
	var own *Problem
	var field *store.FieldError
	var limit *store.LimitError
	var credit *store.CreditError
	var name *store.NameError
	var state *store.StateError
	var version *store.VersionError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.As(err, &field) && field.Field == store.FieldPhone:
		return fieldProblem(CodeInvalidNumber, "phoneNumber", "phoneNumber is not a phone number.").because(err)
	case errors.As(err, &field):
		f := cmp.Or(storeFields[field.Field], field.Field)
		if strings.HasPrefix(field.Reason, "is ") {
			return fieldProblem(CodeInvalid, f, "The %s %s.", f, field.Reason)
		}
		return fieldProblem(CodeInvalid, f, "%s: %s.", f, field.Reason)
	case errors.As(err, &limit) && limit.Limit == store.LimitActive:
		return problem(CodeTooManyActive, "%d campaigns are active already; at most %d may be.", limit.Max, limit.Max).because(err)
	case errors.As(err, &limit):
		return fieldProblem(CodeTooManyContacts, "contactList", "%d contacts; at most %d are allowed.", limit.Want, limit.Max).because(err)
	case errors.As(err, &credit):
		return problem(CodeInsufficientCredit, "It may cost %s; %s is available.", Money(credit.Need), Money(credit.Have)).because(err)
	case errors.As(err, &name) && strings.HasPrefix(name.Kind, "number"):
		return fieldProblem(CodeNameTaken, "phoneNumber", "There is a contact with this number already: %s.", name.Name).
			fixed("Change that contact with PUT /api/contacts/{id}.").because(err)
	case errors.As(err, &name):
		return fieldProblem(CodeNameTaken, "name", "There is a %s of that name already.", name.Kind).because(err)
	case errors.Is(err, store.ErrFeatureOff):
		return problem(CodeCampaignsDisabled, "The tenant does not have campaigns_enabled.").because(err)
	case errors.Is(err, store.ErrListGone):
		return fieldProblem(CodeInvalid, "contactList", "A contact list of the campaign has been deleted.").because(err)
	case errors.As(err, &state):
		return wrongState(state.State, state.Trigger).because(err)
	case errors.As(err, &version):
		return problem(CodeVersionMismatch, "Version %d was expected; version %d is stored.", version.Want, version.Have).because(err)
	case errors.Is(err, schemas.ErrNotFound), errors.Is(err, schemas.ErrConflict), errors.Is(err, schemas.ErrTransition):
		return asProblem(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return asProblem(err)
	}
	return unavailable(storeRetry, err, "The store cannot be reached at present; nothing was changed.")
}
