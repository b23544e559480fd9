package api

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/text"
)

// storeFields maps fields of package store to their names in the API.
var storeFields = map[string]string{
	text.FieldFirstName: "firstName", text.FieldLastName: "lastName", text.FieldEmail: "email", "Attributes": "attributes", "Name": "name",
	"Lists": "contactList", "List": "contactList", "Chain": "channel", "Body": "message", "TemplateID": "message", "Sender": "sender", "Route": "route",
	"Tags": "tags", "Notes": "notes", "Schedule": "scheduledTime", "CallingHours": "callingHoursStart", "Rate": "rate", "Weight": "weight",
	"Region": "region", "Columns": "columns", "Channels": "channels", "Connector": "connector", "ReceiptWindow": "receiptWindow", "Priority": "priority",
	"Share": "share", "Configuration": "configuration", "DownAfter": "care.downAfter", "FailurePercent": "care.failurePercent", "FailureSample": "care.failureSample",
	"Timezone": "timezone", "Currency": "currency", "DefaultRoute": "defaultRoute", "MaxActive": "maxActiveCampaigns", "MaxContacts": "maxContacts",
	"MaxSegments": "maxSegments", "Scopes": "scopes", "Email": "email", "Role": "role", "Action": "action", "Micros": "amount",
}

// storeProblem turns an error of the store into a problem.
func (s *server) storeProblem(err error) error {
	var own *problem.Problem
	var number *store.NumberError
	var field *store.FieldError
	var limit *store.LimitError
	var credit *store.CreditError
	var name *store.NameError
	var state *store.StateError
	var version *store.VersionError
	var used *store.ListUsedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case errors.As(err, &used):
		return problem.New(problem.CodeListUsed, "%s", used.Sentence()).Because(err)
	case errors.As(err, &number):
		return wrongNumber("phoneNumber", number.Err).Because(err)
	case errors.As(err, &field):
		f := cmp.Or(storeFields[field.Field], field.Field)
		if strings.HasPrefix(field.Reason, "is ") {
			return problem.Field(problem.CodeInvalid, f, "The %s %s.", f, field.Reason)
		}
		return problem.Field(problem.CodeInvalid, f, "%s: %s.", f, field.Reason)
	case errors.As(err, &limit) && limit.Limit == store.LimitActive:
		return problem.New(problem.CodeTooManyActive, "%d campaigns are active already; at most %d are allowed.", limit.Max, limit.Max).Because(err)
	case errors.As(err, &limit):
		return problem.Field(problem.CodeTooManyContacts, "contactList", "%d contacts; at most %d are allowed.", limit.Want, limit.Max).Because(err)
	case errors.As(err, &credit):
		return problem.New(problem.CodeInsufficientCredit, "The campaign may cost %s; %s is available, %s is missing.", Money(credit.Need), Money(credit.Have), Money(credit.Need-min(credit.Have, credit.Need))).Because(err)
	case errors.As(err, &name) && strings.HasPrefix(name.Kind, "number"):
		return problem.Field(problem.CodeNameTaken, "phoneNumber", "A contact with this number exists already: %s.", name.Name).
			WithFix("Change that contact with PUT /api/contacts/{id}.").Because(err)
	case errors.As(err, &name):
		return problem.Field(problem.CodeNameTaken, "name", "A %s with that name exists already.", name.Kind).Because(err)
	case errors.Is(err, store.ErrFeatureOff):
		return problem.New(problem.CodeCampaignsDisabled, "The tenant does not have campaigns_enabled.").Because(err)
	case errors.Is(err, store.ErrErasureRuns):
		return problem.New(problem.CodeConflict, "A person is being erased, whom the import could bring back.").WithFix("Wait until GET /api/erasures shows none that runs.").Because(err)
	case errors.Is(err, store.ErrListGone):
		return problem.Field(problem.CodeInvalid, "contactList", "A contact list of the campaign has been deleted.").Because(err)
	case errors.As(err, &state):
		return wrongState(state.State, state.Trigger).Because(err)
	case errors.As(err, &version):
		return problem.New(problem.CodeVersionMismatch, "Version %d was expected; version %d is stored.", version.Want, version.Have).Because(err)
	case errors.Is(err, schemas.ErrNotFound), errors.Is(err, schemas.ErrConflict), errors.Is(err, schemas.ErrTransition):
		return problem.From(err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problem.From(err)
	}
	if errors.Is(err, store.ErrUnknown) {
		return problem.Unavailable(storeRetry, err, "The connection to the database failed while it saved the change; the change may or may not be saved.")
	}
	return problem.Unavailable(storeRetry, err, "The database does not answer; nothing was changed.")
}
