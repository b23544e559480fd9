package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// ContactInput is the body of creating or changing a contact.
type ContactInput struct {
	PhoneNumber problem.Optional[string]            `json:"phoneNumber,omitzero" doc:"With country code, or as dialled in the tenant's region." example:"+393331234567"`
	FirstName   problem.Optional[string]            `json:"firstName,omitzero" doc:"Fills {{first_name}}. Null: empty."`
	LastName    problem.Optional[string]            `json:"lastName,omitzero" doc:"Fills {{last_name}}. Null: empty."`
	Email       problem.Optional[string]            `json:"email,omitzero" doc:"Fills {{email}}; it is not checked. Null: empty."`
	Attributes  problem.Optional[map[string]string] `json:"attributes,omitzero" doc:"Merge fields other than names and e-mail. On update they replace all existing ones."`
	OptIn       problem.Optional[OptInInput]        `json:"optIn,omitzero" doc:"The person's consent to receive messages; null removes it."`
	ListIDs     []string                            `json:"listIds,omitempty" nullable:"false" doc:"Lists to add the contact to."`
}

// OptInInput is a person's consent to receive messages (R43).
type OptInInput struct {
	Time   *string `json:"time,omitzero" format:"date-time" doc:"When the person opted in; default: now."`
	Source string  `json:"source,omitzero" doc:"Where the consent comes from, at most 200 characters; default: api." example:"web form"`
}

// OptIn is a person's consent to receive messages.
type OptIn struct {
	Time   string `json:"time" format:"date-time" doc:"When the person opted in, in UTC."`
	Source string `json:"source" doc:"Where the consent comes from." example:"web form"`
}

// Contact is a person of the tenant.
type Contact struct {
	ID          string            `json:"id" doc:"Names it in paths." example:"contact_17"`
	PhoneNumber string            `json:"phoneNumber" doc:"E.164; unique among the tenant's contacts."`
	FirstName   string            `json:"firstName" doc:"Fills {{first_name}}; may be empty."`
	LastName    string            `json:"lastName" doc:"Fills {{last_name}}; may be empty."`
	Email       string            `json:"email" doc:"Fills {{email}}; may be empty."`
	Attributes  map[string]string `json:"attributes" doc:"Merge fields other than names and e-mail, by name."`
	Country     *string           `json:"country" doc:"ISO 3166-1 alpha-2, of the number; null for a number that belongs to no country."`
	Timezone    *string           `json:"timezone" doc:"IANA zone: that of the attribute timezone, else of the number, else the tenant's; null when none is known."`
	NumberType  string            `json:"numberType" enum:"unknown,mobile,fixed_line,other,premium_rate,freephone,shared_cost,voip,personal,pager,uan,voicemail,satellite" doc:"Kind of line, as the numbering plan of the country has it."`
	Valid       bool              `json:"valid" doc:"False for a number that cannot receive messages. In a campaign it becomes notSent/INVALID_NUMBER."`
	OptIn       *OptIn            `json:"optIn" doc:"When the person opted in, and where the consent comes from; null: no consent known. Campaigns with requireOptIn send only to contacts that have it."`
	CreatedAt   string            `json:"createdAt" format:"date-time"`
	UpdatedAt   string            `json:"updatedAt" format:"date-time"`
	DeletedAt   *string           `json:"deletedAt" format:"date-time"`
	Version     uint64            `json:"version"`
}

type (
	membersIn struct {
		ID     string `path:"id" doc:"Id or name." example:"list_12345"`
		Page   int    `query:"page" minimum:"0"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Search string `query:"search" doc:"Within number, names and e-mail."`
		Cursor string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row. Unlike with page, rows that are added or removed meanwhile cause no gap and no repetition."`
	}
	contactsIn struct {
		Page           int    `query:"page" minimum:"0"`
		Limit          int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Search         string `query:"search" doc:"Within number, names and e-mail."`
		IncludeDeleted bool   `query:"includeDeleted"`
		Cursor         string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row. Unlike with page, rows that are added or removed meanwhile cause no gap and no repetition."`
	}
	contactsOut     struct{ Body *Page[*Contact] }
	contactCreateIn struct{ Body problem.Body[ContactInput] }
	contactOut      struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *Contact
	}
	contactIn struct {
		ID string `path:"id" doc:"Id of the contact." example:"contact_17"`
	}
	contactDeleteIn struct {
		ID      string `path:"id" doc:"Id of the contact." example:"contact_17"`
		IfMatch string `header:"If-Match"`
	}
	contactDeleteByQueryIn struct {
		ID      string `query:"id" required:"true" doc:"Id of the contact." example:"contact_17"`
		IfMatch string `header:"If-Match"`
	}
	contactUpdateByQueryIn struct {
		ID      string `query:"id" doc:"Required." example:"contact_17"`
		IfMatch string `header:"If-Match"`
		Body    problem.Body[ContactInput]
	}
	contactUpdateIn struct {
		ID      string `path:"id" doc:"Id of the contact." example:"contact_17"`
		IfMatch string `header:"If-Match"`
		Body    problem.Body[ContactInput]
	}
)

const contactTag = "Contacts"

func (s *server) registerContacts() {
	register(s, operation{
		id: "createContact", method: http.MethodPost, path: "/api/contacts", summary: "Create a contact", status: http.StatusCreated,
		scope: store.ScopeContacts, errors: []int{400, 409, 422}, testKeys: testKeysConfined, tag: contactTag,
	}, s.createContact)
	register(s, operation{
		id: "listContacts", method: http.MethodGet, path: "/api/contacts", summary: "List contacts",
		scope: store.ScopeRead, errors: []int{422}, tag: contactTag,
	}, s.listContacts)
	register(s, operation{
		id: "getContact", method: http.MethodGet, path: "/api/contacts/{id}", summary: "Get a contact",
		scope: store.ScopeRead, errors: []int{404}, tag: contactTag,
	}, s.getContact)
	register(s, operation{
		id: "getContactHistory", method: http.MethodGet, path: "/api/contacts/{id}/history", summary: "Get what was sent to a contact, and its opt-outs",
		scope: store.ScopeRead, errors: []int{404, 422}, tag: contactTag,
		describe: "Messages of campaigns and single sends to the contact's number, newest first, also those from before the number was a contact, and every change of its opt-outs.",
	}, s.contactHistory)
	register(s, operation{
		id: "updateContact", method: http.MethodPut, path: "/api/contacts/{id}", summary: "Change a contact",
		scope: store.ScopeContacts, errors: []int{400, 404, 409, 412, 422}, tag: contactTag,
	}, s.updateContact)
	register(s, operation{
		id: "updateContactByQuery", method: http.MethodPut, path: "/api/contacts", summary: "Change a contact",
		scope: store.ScopeContacts, errors: []int{400, 404, 409, 412, 422}, tag: contactTag,
	}, func(ctx context.Context, in *contactUpdateByQueryIn) (*contactOut, error) {
		if in.ID == "" { // checked here so that problems of the body are reported first
			return nil, problem.Field(problem.CodeRequired, "id", "id is required.").WithFix("PUT /api/contacts?id=contact_17")
		}
		return s.updateContact(ctx, (*contactUpdateIn)(in))
	})
	register(s, operation{
		id: "deleteContactByQuery", method: http.MethodDelete, path: "/api/contacts", summary: "Delete a contact",
		scope: store.ScopeContacts, errors: []int{404, 412, 422}, tag: contactTag,
	}, func(ctx context.Context, in *contactDeleteByQueryIn) (*contactOut, error) {
		return s.deleteContact(ctx, (*contactDeleteIn)(in))
	})
	register(s, operation{
		id: "deleteContact", method: http.MethodDelete, path: "/api/contacts/{id}", summary: "Delete a contact",
		scope: store.ScopeContacts, errors: []int{404, 412}, tag: contactTag,
	}, s.deleteContact)
}

func viewContact(c *store.Contact) *Contact {
	v := &Contact{
		ID: c.ID(), PhoneNumber: c.Phone, FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Attributes: c.Attributes,
		Country: orNull(c.Country), Timezone: orNull(c.Zone), NumberType: c.Class.Name(), Valid: c.Valid && c.Class.TakesText(),
		CreatedAt: stamp(c.Created), UpdatedAt: stamp(c.Updated), DeletedAt: stampOrNull(c.Deleted), Version: c.Version,
	}
	if !c.OptIn.IsZero() {
		v.OptIn = &OptIn{stamp(c.OptIn), c.OptInSource}
	}
	if v.Attributes == nil {
		v.Attributes = map[string]string{}
	}
	return v
}

func (s *server) contactsOfList(ctx context.Context, in *membersIn) (*contactsOut, error) {
	l, err := s.list(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return s.contactPage(ctx, store.ContactFilter{Page: store.Page{Number: in.Page, Limit: in.Limit}, List: l.Number, Search: plusInQuery(in.Search)}, in.Cursor)
}

// contactPage answers with a page of contacts. A list is in the order of positions, and all contacts are in the order
// of numbers, so their cursors have different names.
func (s *server) contactPage(ctx context.Context, f store.ContactFilter, cursor string) (*contactsOut, error) {
	name := "contacts"
	if f.List != 0 {
		name = "contacts of " + store.ListID(f.List)
	}
	var p *problem.Problem
	if f.After, p = readNumberCursor(name, cursor); p != nil {
		return nil, p
	}
	if f.After != 0 {
		f.Number = 0
	}
	rows, total, err := s.Store.Contacts(ctx, requestOf(ctx).who.tenant.ID, f)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*Contact]{Data: []*Contact{}, Page: f.Number, Limit: f.Limit, Total: total}
	for i := range rows {
		out.Data = append(out.Data, viewContact(&rows[i]))
	}
	if n := len(rows); n > 0 {
		out.Next = nextCursor(name, n, f.Limit, numberCursor(rows[n-1].Position))
	}
	return &contactsOut{out}, nil
}

// apply writes the input into the contact.
func (in *ContactInput) apply(c *store.Contact, create bool, now time.Time) error {
	var ps problem.List
	if create || in.PhoneNumber.Set {
		if c.Phone = strings.TrimSpace(in.PhoneNumber.Value); c.Phone == "" {
			ps.Add(problem.CodeRequired, "phoneNumber", "phoneNumber is required.")
		}
	}
	text := func(o *problem.Optional[string], dst *string, field string) {
		set(o, dst, func(v string) {
			if !utf8.ValidString(v) || utf8.RuneCountInString(v) > maxName {
				ps.Add(problem.CodeTooLong, field, "At most %d characters.", maxName)
			}
		})
	}
	text(&in.FirstName, &c.FirstName, "firstName")
	text(&in.LastName, &c.LastName, "lastName")
	text(&in.Email, &c.Email, "email")
	set(&in.Attributes, &c.Attributes, nil)
	in.applyOptIn(c, now, &ps)
	return ps.Err()
}

func (in *ContactInput) applyOptIn(c *store.Contact, now time.Time, ps *problem.List) {
	if !in.OptIn.Set {
		return
	}
	c.OptIn, c.OptInSource = time.Time{}, ""
	if in.OptIn.Null {
		return
	}
	v := &in.OptIn.Value
	c.OptIn, c.OptInSource = now, cmp.Or(strings.TrimSpace(v.Source), sourceAPI)
	if !utf8.ValidString(v.Source) || utf8.RuneCountInString(v.Source) > maxName {
		ps.Add(problem.CodeTooLong, "optIn.source", "At most %d characters.", maxName)
	}
	if v.Time == nil {
		return
	}
	at, err := time.Parse(time.RFC3339, *v.Time)
	switch {
	case err != nil:
		ps.Add(problem.CodeInvalid, "optIn.time", "%q is not a time such as 2025-04-15T09:00:00Z.", problem.Truncate(*v.Time, 40))
	case at.After(now.Add(inPastBy)):
		ps.Add(problem.CodeInvalid, "optIn.time", "%s is in the future: it is %s.", stamp(at), stamp(now))
	case at.UnixMilli() <= 0:
		ps.Add(problem.CodeInvalid, "optIn.time", "%s is before 1970.", stamp(at))
	default:
		c.OptIn = at.UTC()
	}
}

func (s *server) createContact(ctx context.Context, in *contactCreateIn) (*contactOut, error) {
	who := requestOf(ctx).who
	var c store.Contact
	if err := in.Body.Value.apply(&c, true, s.Now()); err != nil {
		return nil, err
	}
	lists, p := s.findLists(ctx, who)(in.Body.Value.ListIDs)
	if p != nil {
		p.Field = "listIds"
		return nil, p
	}
	if who.key.Test {
		for _, ref := range in.Body.Value.ListIDs {
			if _, err := s.listToChange(ctx, ref); err != nil {
				return nil, err
			}
		}
	}
	c.Tenant = who.tenant.ID
	made, err := s.Store.CreateContact(ctx, c)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	for _, list := range lists {
		if _, err := s.Store.AddToList(ctx, made.Tenant, list, []uint64{made.Number}); err != nil {
			return nil, s.storeProblem(err)
		}
	}
	return &contactOut{"/api/contacts/" + made.ID(), etag(made.Version), viewContact(&made)}, nil
}

func (s *server) listContacts(ctx context.Context, in *contactsIn) (*contactsOut, error) {
	return s.contactPage(ctx, store.ContactFilter{Page: store.Page{Number: in.Page, Limit: in.Limit}, Search: plusInQuery(in.Search), IncludeDeleted: in.IncludeDeleted}, in.Cursor)
}

func (s *server) contact(ctx context.Context, id string) (*store.Contact, error) {
	number, ok := store.ContactNumber(id)
	if !ok {
		return nil, problem.New(problem.CodeNotFound, "There is no contact %q.", problem.Truncate(id, 40))
	}
	c, err := s.Store.Contact(ctx, requestOf(ctx).who.tenant.ID, number)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotFound, "There is no contact %q.", problem.Truncate(id, 40))
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &c, nil
}

func (s *server) getContact(ctx context.Context, in *contactIn) (*contactOut, error) {
	c, err := s.contact(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &contactOut{ETag: etag(c.Version), Body: viewContact(c)}, nil
}

func (s *server) updateContact(ctx context.Context, in *contactUpdateIn) (*contactOut, error) {
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	c, err := s.contact(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if len(in.Body.Value.ListIDs) > 0 {
		return nil, problem.Field(problem.CodeInvalid, "listIds", "Change the lists of a contact with POST and DELETE /api/contacts/list/contacts.")
	}
	changed, err := s.Store.UpdateContact(ctx, c.Tenant, c.Number, version, func(c *store.Contact) error {
		return in.Body.Value.apply(c, false, s.Now())
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &contactOut{ETag: etag(changed.Version), Body: viewContact(&changed)}, nil
}

func (s *server) deleteContact(ctx context.Context, in *contactDeleteIn) (*contactOut, error) {
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	c, err := s.contact(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.Store.DeleteContact(ctx, c.Tenant, c.Number, version); err != nil {
		return nil, s.storeProblem(err)
	}
	c.Deleted = s.Now()
	return &contactOut{Body: viewContact(c)}, nil
}
