package api

import (
	"context"
	"slices"
	"strings"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/pricing"
)

// Statuses of a sender. Only an approved sender can send.
const (
	senderPending  = "pending"
	senderApproved = "approved"
	senderRejected = "rejected"
	senderDisabled = "disabled"
)

// Sender is an SMS sender id with its rules (R36).
type Sender struct {
	ID        string   `json:"id" example:"sender_10001" doc:"Given by the installation; it never changes."`
	Name      string   `json:"name" doc:"What recipients see." example:"ACME"`
	Type      string   `json:"type" enum:"alphanumeric,number,short_code" doc:"What recipients see: a name, a number with country code, or a number of 3 to 8 digits."`
	Countries []string `json:"countries" nullable:"false" doc:"ISO 3166-1 alpha-2: the only countries that it may send to; empty: all."`
	TwoWay    bool     `json:"twoWay" doc:"Recipients can reply. An alphanumeric sender cannot receive replies."`
	Rate      uint32   `json:"rate" doc:"Most messages per second; 0: no own limit."`
	Status    string   `json:"status" enum:"pending,approved,rejected,disabled" doc:"Only an approved sender can send."`
	Reason    *string  `json:"reason" doc:"Why it is rejected or disabled."`
	CreatedBy string   `json:"createdBy" doc:"Id of the person or API key that created it."`
	CreatedAt string   `json:"createdAt" format:"date-time" doc:"When it was created."`
	UpdatedAt string   `json:"updatedAt" format:"date-time" doc:"When it was last changed."`
	DeletedAt *string  `json:"deletedAt" format:"date-time" doc:"When it was deleted; null: not deleted."`
	Version   uint64   `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match."`
}

// SenderInput creates or changes a sender.
type SenderInput struct {
	Name      problem.Optional[string]   `json:"name,omitzero" doc:"At most 11 letters and digits, with blanks and . - _ & between them; or a number with country code; or a short code of 3 to 8 digits. It cannot be changed later."`
	Type      problem.Optional[string]   `json:"type,omitzero" doc:"alphanumeric, number or short_code; default: derived from the name."`
	Countries problem.Optional[[]string] `json:"countries,omitzero" doc:"ISO 3166-1 alpha-2: the only countries that it may send to; empty or null: all."`
	TwoWay    problem.Optional[bool]     `json:"twoWay,omitzero" doc:"true: recipients can reply, which an alphanumeric sender does not allow. Default: false."`
	Rate      problem.Optional[uint32]   `json:"rate,omitzero" doc:"Most messages a second, up to 1,000,000; 0 (the default) or null: no own limit."`

	Status problem.Optional[any] `json:"status,omitzero" hidden:"true"`
}

func (s *server) senders() *resource[SenderInput, store.SenderDoc, Sender] {
	return &resource[SenderInput, store.SenderDoc, Sender]{
		kind: store.KindSender, path: "/api/senders", one: "sender", many: "senders", tag: templateTag, write: store.ScopeCampaigns,
		apply: s.applySender,
		view: func(row *store.Resource, d *store.SenderDoc) *Sender {
			return &Sender{
				ID: row.ID(), Name: row.Name, Type: d.Type, Countries: orEmpty(d.Countries), TwoWay: d.TwoWay, Rate: d.Rate, Status: row.Status, Reason: orNull(d.Reason),
				CreatedBy: row.CreatedBy, CreatedAt: stamp(row.Created), UpdatedAt: stamp(row.Updated), DeletedAt: stampOrNull(row.Deleted), Version: row.Version,
			}
		},
	}
}

func (s *server) registerSenders() {
	r := s.senders()
	registerResource(s, r)
	for _, m := range []struct {
		verb, summary, to string
		from              []string
		reason            bool
	}{
		{"approve", "Approve a sender", senderApproved, []string{senderPending, senderRejected, senderDisabled}, false},
		{"reject", "Reject a sender", senderRejected, []string{senderPending}, true},
		{"disable", "Disable a sender: no campaign that uses it starts", senderDisabled, []string{senderPending, senderApproved, senderRejected}, true},
	} {
		registerMove(s, r, m.verb, m.summary, store.ScopeAdmin, func(_ context.Context, _ *principal, body *TemplateVerdict, row *store.Resource, doc *store.SenderDoc) error {
			if !slices.Contains(m.from, row.Status) {
				return problem.New(problem.CodeWrongState, "A sender that is %s cannot become %s.", row.Status, m.to).WithFix("It must be %s.", strings.Join(m.from, ", "))
			}
			if m.reason && strings.TrimSpace(body.Reason) == "" {
				return problem.Field(problem.CodeRequired, "reason", "A reason is required; users of the sender see it.")
			}
			var ps problem.List
			if checkText(&ps, "reason", body.Reason, maxWhy); len(ps) > 0 {
				return ps.Err()
			}
			row.Status, doc.Reason = m.to, strings.TrimSpace(body.Reason)
			return nil
		})
	}
}

// senderType derives the type of a sender from its name.
func senderType(name string) string {
	digits := strings.TrimPrefix(name, "+")
	switch {
	case digits == "" || strings.Trim(digits, "0123456789") != "":
		return "alphanumeric"
	case len(digits) <= 8 && !strings.HasPrefix(name, "+"):
		return "short_code"
	}
	return "number"
}

func (s *server) applySender(_ context.Context, who *principal, in *SenderInput, row *store.Resource, d *store.SenderDoc) error {
	var ps problem.List
	if in.Status.Set {
		ps.Add(problem.CodeReadOnly, "status", "The status can be changed only by approve, reject and disable.")
	}
	if row.Version == 0 {
		row.Status = senderPending
		row.Name = strings.TrimSpace(in.Name.Value)
		d.Type = senderType(row.Name)
	} else if in.Name.Set && in.Name.Value != row.Name {
		ps.Add(problem.CodeReadOnly, "name", "A sender cannot be renamed: create another one.")
	}
	if fault := badSender(row.Name, schemas.ChannelSMS); fault != "" {
		ps.Add(problem.CodeInvalid, "name", "%s", fault)
	}
	before := *d
	set(&in.Type, &d.Type, func(v string) { allowedWord(&ps, "type", v, "alphanumeric", "number", "short_code") })
	if looks := senderType(row.Name); d.Type != looks && len(ps) == 0 && (d.Type != "number" || looks != "short_code") {
		ps.Add(problem.CodeInvalid, "type", "%q is not a valid name for a sender of type %s.", row.Name, d.Type)
	}
	switch number, err := s.phones.Parse(row.Name, who.tenant.Region); {
	case d.Type != "number" || len(ps) > 0:
	case err != nil:
		ps = append(ps, wrongNumber("name", err))
	case row.Version == 0:
		row.Name = number.E164
	}
	if n := len(row.Name); d.Type == "short_code" && (n < 3 || n > 8) {
		ps.Add(problem.CodeInvalid, "name", "A short code has 3 to 8 digits.")
	}
	if in.Countries.Set {
		d.Countries = nil
		for _, c := range in.Countries.Value {
			c = strings.ToUpper(strings.TrimSpace(c))
			if c == "" || !pricing.ValidCountry(c) {
				ps.Add(problem.CodeInvalid, "countries", "%q is not a country: want codes of two letters such as IT.", problem.Truncate(c, 40))
				continue
			}
			if !slices.Contains(d.Countries, c) {
				d.Countries = append(d.Countries, c)
			}
		}
		slices.Sort(d.Countries)
	}
	set(&in.TwoWay, &d.TwoWay, nil)
	if d.TwoWay && d.Type == "alphanumeric" {
		ps.Add(problem.CodeInvalid, "twoWay", "An alphanumeric sender can't take replies: use a number or a short code.")
	}
	set(&in.Rate, &d.Rate, func(v uint32) { checkRate(&ps, int(v)) })
	// A change of countries, replies or type needs a new approval.
	if row.Version > 0 && row.Status == senderApproved && !who.key.Has(store.ScopeAdmin) && (!slices.Equal(before.Countries, d.Countries) || before.TwoWay != d.TwoWay || before.Type != d.Type) {
		row.Status = senderPending
	}
	return ps.Err()
}
