package problem

import (
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
)

// Code names a kind of problem. Codes are stable: clients branch on them.
type Code string

// Codes returns every code, sorted.
func Codes() []Code {
	out := make([]Code, 0, len(catalogue))
	for c := range catalogue {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

// Status returns the HTTP status that a problem of this code is answered with.
func (c Code) Status() int { return catalogue[c].status }

// Schema documents the codes as an enum.
func (Code) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, c := range Codes() {
		s.Enum = append(s.Enum, string(c))
	}
	return s
}

// Codes of problems.
const (
	CodeMalformed           Code = "malformed_request"
	CodeMalformedJSON       Code = "malformed_json"
	CodeBodyRequired        Code = "body_required"
	CodeUnauthenticated     Code = "unauthenticated"
	CodeInsufficientCredit  Code = "insufficient_credit"
	CodeScopeMissing        Code = "scope_missing"
	CodeTestKey             Code = "test_key"
	CodeCampaignsDisabled   Code = "campaigns_disabled"
	CodeNotFound            Code = "not_found"
	CodeNoSuchPath          Code = "no_such_path"
	CodeMethodNotAllowed    Code = "method_not_allowed"
	CodeTimeout             Code = "request_timeout"
	CodeWrongState          Code = "wrong_state"
	CodeCampaignActive      Code = "campaign_active"
	CodeCampaignEnded       Code = "campaign_ended"
	CodePriceChanged        Code = "price_changed"
	CodeTooManyActive       Code = "too_many_active_campaigns"
	CodeNotReplayable       Code = "not_replayable"
	CodeReplayFixed         Code = "fixed_by_replay"
	CodeNameTaken           Code = "name_taken"
	CodeListUsed            Code = "list_in_use"
	CodeApprovalRequired    Code = "approval_required"
	CodeConflict            Code = "changed_meanwhile"
	CodeIdempotencyInFlight Code = "idempotency_in_flight"
	CodeVersionMismatch     Code = "version_mismatch"
	CodeBodyTooLarge        Code = "body_too_large"
	CodeMediaType           Code = "unsupported_media_type"
	CodeRequired            Code = "required"
	CodeUnknownField        Code = "unknown_field"
	CodeUnknownPlaceholder  Code = "unknown_merge_field"
	CodeInvalid             Code = "invalid_value"
	CodeReadOnly            Code = "read_only"
	CodeTooLong             Code = "too_long"
	CodeTooManyContacts     Code = "too_many_contacts"
	CodeInPast              Code = "time_in_past"
	CodeInvalidNumber       Code = "invalid_number"
	CodeOptedOut            Code = "opted_out"
	CodeContentRejected     Code = "content_rejected"
	CodeCompliance          Code = "rule_of_country"
	CodeIdempotencyMismatch Code = "idempotency_mismatch"
	CodeRateLimited         Code = "rate_limited"
	CodeInternal            Code = "internal"
	CodeUnavailable         Code = "unavailable"
)

// entry is what all problems of one code have in common.
type entry struct {
	status int
	title  string
	fix    string // what the client can do; [Problem.WithFix] replaces it when a better fix is known
}

var catalogue = map[Code]entry{
	CodeMalformed:           {http.StatusBadRequest, "The request is malformed", "Correct the request; the detail says what is wrong."},
	CodeMalformedJSON:       {http.StatusBadRequest, "The body is not JSON", "Send one JSON object; the detail has the line and column of the error."},
	CodeBodyRequired:        {http.StatusBadRequest, "The body is missing", "Send a JSON object."},
	CodeUnauthenticated:     {http.StatusUnauthorized, "No valid API key", "Send the key in the header X-Api-Key, or as the password of Basic authentication. `fanfare keys create --tenant NAME` makes one."},
	CodeInsufficientCredit:  {http.StatusPaymentRequired, "Not enough credit", "Add credit, or send to fewer contacts."},
	CodeScopeMissing:        {http.StatusForbidden, "The API key may not do this", "Use a key that has the scope named in the detail: `fanfare keys create --scope`."},
	CodeTestKey:             {http.StatusForbidden, "A test key can change only test data", "Use a live key; or a campaign with testRun, or a list with isTest."},
	CodeCampaignsDisabled:   {http.StatusForbidden, "Campaigns are not enabled", "Ask the system administrator to enable campaigns for this tenant."},
	CodeNotFound:            {http.StatusNotFound, "Not found", "Check the id; it may belong to another tenant or have been removed."},
	CodeNoSuchPath:          {http.StatusNotFound, "No such path", "See /api/openapi.json for the paths that exist."},
	CodeMethodNotAllowed:    {http.StatusMethodNotAllowed, "Method not allowed", "The header Allow lists the methods of this path."},
	CodeTimeout:             {http.StatusRequestTimeout, "The body came too slowly", "Send it again."},
	CodeWrongState:          {http.StatusConflict, "Not possible in this state", "allowedActions lists what is possible now."},
	CodeCampaignActive:      {http.StatusConflict, "The campaign is running", "Stop it with POST /api/campaigns/{id}/abort."},
	CodeCampaignEnded:       {http.StatusConflict, "The campaign has ended", "DELETE with ?remove=true hides it from the list."},
	CodePriceChanged:        {http.StatusConflict, "The price has changed", "Get the price again and confirm with the new one."},
	CodeTooManyActive:       {http.StatusConflict, "Too many active campaigns", "Wait until one has ended, or abort one."},
	CodeNotReplayable:       {http.StatusConflict, "The campaign cannot be replayed now", "GET /api/campaigns/{id}/replay says whether and when it can be."},
	CodeReplayFixed:         {http.StatusConflict, "A replay keeps this from its original", "Leave the field out, or make a campaign of its own."},
	CodeNameTaken:           {http.StatusConflict, "The name is taken", "Choose another name."},
	CodeListUsed:            {http.StatusConflict, "Campaigns use the list", "Wait until they have ended, or DELETE with ?force=true: confirmed campaigns keep their audience."},
	CodeApprovalRequired:    {http.StatusConflict, "Approval is required", "Let a second person confirm the campaign."},
	CodeConflict:            {http.StatusConflict, "Changed meanwhile", "Read it again and repeat the change."},
	CodeIdempotencyInFlight: {http.StatusConflict, "The first request is still running", "Wait, then repeat the request with the same Idempotency-Key."},
	CodeVersionMismatch:     {http.StatusPreconditionFailed, "Another version is stored", "Read it again and send its ETag in If-Match."},
	CodeBodyTooLarge:        {http.StatusRequestEntityTooLarge, "The body is too large", "Send less at once."},
	CodeMediaType:           {http.StatusUnsupportedMediaType, "Unsupported media type", "Send application/json, or what the path's documentation names."},
	CodeRequired:            {http.StatusUnprocessableEntity, "A field is missing", "Send the field."},
	CodeUnknownPlaceholder:  {http.StatusUnprocessableEntity, "No contact has a value for a merge field", "Check the spelling of the field, or import contacts with a column of that name."},
	CodeUnknownField:        {http.StatusUnprocessableEntity, "Unknown field", "Remove the field, or check its spelling."},
	CodeInvalid:             {http.StatusUnprocessableEntity, "Invalid value", "Correct the field; the detail says what is expected."},
	CodeReadOnly:            {http.StatusUnprocessableEntity, "The field cannot be written", "Leave the field out."},
	CodeTooLong:             {http.StatusUnprocessableEntity, "The text is too long", "Shorten the text."},
	CodeTooManyContacts:     {http.StatusUnprocessableEntity, "Too many contacts", "Send to a smaller list, or split it."},
	CodeInPast:              {http.StatusUnprocessableEntity, "The time is in the past", "Choose a later time, or sendImmediately."},
	CodeInvalidNumber:       {http.StatusUnprocessableEntity, "Not a phone number", "Send it with country code, such as +393331234567."},
	CodeOptedOut:            {http.StatusUnprocessableEntity, "The recipient has opted out", "Do not send to this number."},
	CodeContentRejected:     {http.StatusUnprocessableEntity, "The content was rejected", "Change the content; the campaign is a draft again once it is edited."},
	CodeCompliance:          {http.StatusUnprocessableEntity, "A rule of a country is not kept", "Change the campaign as the detail says, or ask the operator to set compliance of the policy to warn."},
	CodeIdempotencyMismatch: {http.StatusUnprocessableEntity, "The Idempotency-Key was used for another request", "Use a new key for a new request."},
	CodeRateLimited:         {http.StatusTooManyRequests, "Too many requests", "Wait as long as Retry-After says. Up to 1,000 destinations fit in one send."},
	CodeInternal:            {http.StatusInternalServerError, "Something went wrong on our side", "Try again; if the error persists, report the requestId."},
	CodeUnavailable:         {http.StatusServiceUnavailable, "Temporarily unavailable", "Try again after Retry-After seconds."},
}
