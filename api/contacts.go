package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"unicode/utf8"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// List is a contact list.
type List struct {
	ID        string  `json:"id" example:"list_12345"`
	Name      string  `json:"name"`
	IsTest    bool    `json:"isTest"`
	Contacts  uint64  `json:"contacts" doc:"How many it holds."`
	CreatedAt string  `json:"createdAt" format:"date-time"`
	UpdatedAt string  `json:"updatedAt" format:"date-time"`
	DeletedAt *string `json:"deletedAt" format:"date-time"`
	Version   uint64  `json:"version"`
}

// ListInput makes a contact list.
type ListInput struct {
	Name   string `json:"name" doc:"1 to 200 characters, unique among the tenant's lists." example:"active_customers"`
	IsTest bool   `json:"isTest,omitzero" doc:"Its campaigns stay out of statistics over all campaigns, caps and bills."`
}

// ListMembersInput names contacts of a list.
type ListMembersInput struct {
	ListID     string   `json:"listId" doc:"Id or name of the list."`
	ContactIDs []string `json:"contactIds" nullable:"false" doc:"1 to 1,000 ids of contacts."`
}

// ListMembersResult says what changed.
type ListMembersResult struct {
	ListID  string `json:"listId"`
	Changed int    `json:"changed" doc:"Contacts that were not in the list before, or are not in it any more."`
	List    *List  `json:"list"`
}

// ContactInput is what a client says about a contact.
type ContactInput struct {
	PhoneNumber Optional[string]            `json:"phoneNumber,omitzero" doc:"With country code, or as it is dialled in the tenant's region." example:"+393331234567"`
	FirstName   Optional[string]            `json:"firstName,omitzero"`
	LastName    Optional[string]            `json:"lastName,omitzero"`
	Email       Optional[string]            `json:"email,omitzero"`
	Attributes  Optional[map[string]string] `json:"attributes,omitzero" doc:"Merge fields beside the names; on update they replace those there are."`
	ListIDs     []string                    `json:"listIds,omitempty" nullable:"false" doc:"Lists that the contact is put into."`
}

// Contact is a person of the tenant.
type Contact struct {
	ID          string            `json:"id" example:"contact_17"`
	PhoneNumber string            `json:"phoneNumber"`
	FirstName   string            `json:"firstName"`
	LastName    string            `json:"lastName"`
	Email       string            `json:"email"`
	Attributes  map[string]string `json:"attributes"`
	Country     *string           `json:"country"`
	Timezone    *string           `json:"timezone"`
	NumberType  string            `json:"numberType" enum:"unknown,mobile,fixed_line,other"`
	Valid       bool              `json:"valid" doc:"False, as of a fixed line: becomes notSent/INVALID_NUMBER instead of a message."`
	CreatedAt   string            `json:"createdAt" format:"date-time"`
	UpdatedAt   string            `json:"updatedAt" format:"date-time"`
	DeletedAt   *string           `json:"deletedAt" format:"date-time"`
	Version     uint64            `json:"version"`
}

type (
	listCreateIn struct{ Body Body[ListInput] }
	listOneOut   struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *List
	}
	listsIn struct {
		Page           int    `query:"page" minimum:"0"`
		Limit          int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Search         string `query:"search"`
		IncludeDeleted bool   `query:"includeDeleted"`
	}
	listsOut struct{ Body *Page[*List] }
	listIDIn struct {
		ID string `path:"id" doc:"Id or name." example:"list_12345"`
	}
	listDeleteIn struct {
		ID      string `query:"id" doc:"Id or name." required:"true"`
		IfMatch string `header:"If-Match"`
	}
	listRemoveIn struct {
		ID      string `path:"id" doc:"Id or name." example:"list_12345"`
		IfMatch string `header:"If-Match"`
	}
	listMembersIn struct {
		Body Body[ListMembersInput]
	}
	listMembersOut struct{ Body *ListMembersResult }
	membersIn      struct {
		ID     string `path:"id" doc:"Id or name." example:"list_12345"`
		Page   int    `query:"page" minimum:"0"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Search string `query:"search"`
	}
	contactsIn struct {
		Page           int    `query:"page" minimum:"0"`
		Limit          int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Search         string `query:"search" doc:"Within number, names and e-mail."`
		IncludeDeleted bool   `query:"includeDeleted"`
	}
	contactsOut     struct{ Body *Page[*Contact] }
	contactCreateIn struct{ Body Body[ContactInput] }
	contactOut      struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *Contact
	}
	contactIn struct {
		ID string `path:"id" example:"contact_17"`
	}
	contactDeleteIn struct {
		ID      string `path:"id" example:"contact_17"`
		IfMatch string `header:"If-Match"`
	}
	contactDeleteByQueryIn struct {
		ID      string `query:"id" required:"true" example:"contact_17"`
		IfMatch string `header:"If-Match"`
	}
	contactUpdateByQueryIn struct {
		ID      string `query:"id" doc:"Required." example:"contact_17"`
		IfMatch string `header:"If-Match"`
		Body    Body[ContactInput]
	}
	contactUpdateIn struct {
		ID      string `path:"id" example:"contact_17"`
		IfMatch string `header:"If-Match"`
		Body    Body[ContactInput]
	}
)

const contactTag = "Contacts"

func (s *server) registerLists() {
	register(s, operation{
		id: "createList", method: http.MethodPost, path: "/api/contacts/list", summary: "Create a contact list", status: http.StatusCreated,
		scope: store.ScopeContacts, errors: []int{400, 409, 422}, tag: contactTag,
	}, s.createList)
	register(s, operation{
		id: "listLists", method: http.MethodGet, path: "/api/contacts/list", summary: "List contact lists, newest first",
		scope: store.ScopeRead, errors: []int{422}, tag: contactTag,
	}, s.listLists)
	register(s, operation{
		id: "deleteListByQuery", method: http.MethodDelete, path: "/api/contacts/list", summary: "Delete a contact list",
		scope: store.ScopeContacts, errors: []int{404, 412, 422}, tag: contactTag,
	}, func(ctx context.Context, in *listDeleteIn) (*listOneOut, error) {
		return s.deleteList(ctx, &listRemoveIn{in.ID, in.IfMatch})
	})
	register(s, operation{
		id: "getList", method: http.MethodGet, path: "/api/contacts/list/{id}", summary: "Get a contact list",
		scope: store.ScopeRead, errors: []int{404}, tag: contactTag,
	}, s.getList)
	register(s, operation{
		id: "deleteList", method: http.MethodDelete, path: "/api/contacts/list/{id}", summary: "Delete a contact list",
		scope: store.ScopeContacts, errors: []int{404, 412}, tag: contactTag,
		describe: "Its contacts stay, and so does the audience of every campaign that was confirmed with it; one that was not needs another list.",
	}, s.deleteList)
	register(s, operation{
		id: "listContactsOfList", method: http.MethodGet, path: "/api/contacts/list/{id}/contacts", summary: "List the contacts of a list",
		scope: store.ScopeRead, errors: []int{404, 422}, tag: contactTag,
	}, s.contactsOfList)
	register(s, operation{
		id: "addContactsToList", method: http.MethodPost, path: "/api/contacts/list/contacts", summary: "Put contacts into a list",
		scope: store.ScopeContacts, errors: []int{400, 404, 422}, tag: contactTag,
	}, func(ctx context.Context, in *listMembersIn) (*listMembersOut, error) {
		return s.changeMembers(ctx, in, true)
	})
	register(s, operation{
		id: "removeContactsFromList", method: http.MethodDelete, path: "/api/contacts/list/contacts", summary: "Take contacts out of a list",
		scope: store.ScopeContacts, errors: []int{400, 404, 422}, tag: contactTag,
	}, func(ctx context.Context, in *listMembersIn) (*listMembersOut, error) {
		return s.changeMembers(ctx, in, false)
	})
}

func (s *server) registerContacts() {
	register(s, operation{
		id: "createContact", method: http.MethodPost, path: "/api/contacts", summary: "Create a contact", status: http.StatusCreated,
		scope: store.ScopeContacts, errors: []int{400, 409, 422}, tag: contactTag,
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
		id: "updateContact", method: http.MethodPut, path: "/api/contacts/{id}", summary: "Change a contact",
		scope: store.ScopeContacts, errors: []int{400, 404, 409, 412, 422}, tag: contactTag,
	}, s.updateContact)
	register(s, operation{
		id: "updateContactByQuery", method: http.MethodPut, path: "/api/contacts", summary: "Change a contact",
		scope: store.ScopeContacts, errors: []int{400, 404, 409, 412, 422}, tag: contactTag,
	}, func(ctx context.Context, in *contactUpdateByQueryIn) (*contactOut, error) {
		if in.ID == "" { // said after what is wrong with the body
			return nil, fieldProblem(CodeRequired, "id", "id is required.").fixed("PUT /api/contacts?id=contact_17")
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

func viewList(l *store.List) *List {
	return &List{
		ID: l.ID(), Name: l.Name, IsTest: l.Test, Contacts: l.Members, CreatedAt: stamp(l.Created), UpdatedAt: stamp(l.Updated),
		DeletedAt: stampOrNull(l.Deleted), Version: l.Version,
	}
}

var classNames = map[audience.Class]string{audience.Unknown: "unknown", audience.Mobile: "mobile", audience.FixedLine: "fixed_line", audience.Other: "other"}

func viewContact(c *store.Contact) *Contact {
	v := &Contact{
		ID: c.ID(), PhoneNumber: c.Phone, FirstName: c.FirstName, LastName: c.LastName, Email: c.Email, Attributes: c.Attributes,
		Country: orNull(c.Country), Timezone: orNull(c.Zone), NumberType: classNames[c.Class], Valid: c.Valid && c.Class != audience.FixedLine,
		CreatedAt: stamp(c.Created), UpdatedAt: stamp(c.Updated), DeletedAt: stampOrNull(c.Deleted), Version: c.Version,
	}
	if v.Attributes == nil {
		v.Attributes = map[string]string{}
	}
	return v
}

func (s *server) createList(ctx context.Context, in *listCreateIn) (*listOneOut, error) {
	who := requestOf(ctx).who
	name := strings.TrimSpace(in.Body.Value.Name)
	var ps problems
	ps.name(name)
	if _, isID := store.ListNumber(name); isID {
		ps.add(CodeInvalid, "name", "A name may not look like the id of a list.")
	}
	if err := ps.err(); err != nil {
		return nil, err
	}
	l, err := s.Store.CreateList(ctx, who.tenant.ID, name, in.Body.Value.IsTest)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &listOneOut{"/api/contacts/list/" + l.ID(), etag(l.Version), viewList(&l)}, nil
}

func (s *server) listLists(ctx context.Context, in *listsIn) (*listsOut, error) {
	rows, total, err := s.Store.Lists(ctx, requestOf(ctx).who.tenant.ID, store.ListFilter{
		Page: store.Page{Number: in.Page, Limit: in.Limit}, Search: in.Search, IncludeDeleted: in.IncludeDeleted,
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*List]{Data: []*List{}, Page: in.Page, Limit: in.Limit, Total: total}
	for i := range rows {
		out.Data = append(out.Data, viewList(&rows[i]))
	}
	return &listsOut{out}, nil
}

// list finds a list by id or name.
func (s *server) list(ctx context.Context, ref string) (*store.List, error) {
	l, err := s.Store.FindList(ctx, requestOf(ctx).who.tenant.ID, ref)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem(CodeNotFound, "There is no contact list %q.", truncate(ref, 60))
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &l, nil
}

func (s *server) getList(ctx context.Context, in *listIDIn) (*listOneOut, error) {
	l, err := s.list(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &listOneOut{ETag: etag(l.Version), Body: viewList(l)}, nil
}

func (s *server) deleteList(ctx context.Context, in *listRemoveIn) (*listOneOut, error) {
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	l, err := s.list(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.Store.DeleteList(ctx, l.Tenant, l.Number, version); err != nil {
		return nil, s.storeProblem(err)
	}
	l.Deleted = s.Now()
	return &listOneOut{Body: viewList(l)}, nil
}

func (s *server) contactsOfList(ctx context.Context, in *membersIn) (*contactsOut, error) {
	l, err := s.list(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return s.contactPage(ctx, store.ContactFilter{Page: store.Page{Number: in.Page, Limit: in.Limit}, List: l.Number, Search: in.Search})
}

func (s *server) contactPage(ctx context.Context, f store.ContactFilter) (*contactsOut, error) {
	rows, total, err := s.Store.Contacts(ctx, requestOf(ctx).who.tenant.ID, f)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*Contact]{Data: []*Contact{}, Page: f.Number, Limit: f.Limit, Total: total}
	for i := range rows {
		out.Data = append(out.Data, viewContact(&rows[i]))
	}
	return &contactsOut{out}, nil
}

func (s *server) changeMembers(ctx context.Context, in *listMembersIn, add bool) (*listMembersOut, error) {
	body := &in.Body.Value
	if n := len(body.ContactIDs); n < 1 || n > maxDestinations {
		return nil, fieldProblem(CodeInvalid, "contactIds", "%d ids; 1 to %d are taken.", n, maxDestinations)
	}
	numbers := make([]uint64, len(body.ContactIDs))
	for i, id := range body.ContactIDs {
		n, ok := store.ContactNumber(id)
		if !ok {
			return nil, fieldProblem(CodeInvalid, "contactIds", "%q is not the id of a contact.", truncate(id, 40))
		}
		numbers[i] = n
	}
	l, err := s.list(ctx, body.ListID)
	if err != nil {
		return nil, err
	}
	change := cond(add, s.Store.AddToList, s.Store.RemoveFromList)
	n, err := change(ctx, l.Tenant, l.Number, numbers)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if l, err = s.list(ctx, l.ID()); err != nil {
		return nil, err
	}
	return &listMembersOut{&ListMembersResult{l.ID(), n, viewList(l)}}, nil
}

// apply writes what the input says into the contact.
func (in *ContactInput) apply(c *store.Contact, create bool) error {
	var ps problems
	if create || in.PhoneNumber.Set {
		if c.Phone = strings.TrimSpace(in.PhoneNumber.Value); c.Phone == "" {
			ps.add(CodeRequired, "phoneNumber", "phoneNumber is required.")
		}
	}
	text := func(o *Optional[string], dst *string, field string) {
		set(o, dst, func(v string) {
			if !utf8.ValidString(v) || utf8.RuneCountInString(v) > maxName {
				ps.add(CodeTooLong, field, "At most %d characters.", maxName)
			}
		})
	}
	text(&in.FirstName, &c.FirstName, "firstName")
	text(&in.LastName, &c.LastName, "lastName")
	text(&in.Email, &c.Email, "email")
	set(&in.Attributes, &c.Attributes, nil)
	return ps.err()
}

func (s *server) createContact(ctx context.Context, in *contactCreateIn) (*contactOut, error) {
	who := requestOf(ctx).who
	var c store.Contact
	if err := in.Body.Value.apply(&c, true); err != nil {
		return nil, err
	}
	lists, p := s.listFinder(ctx, who)(in.Body.Value.ListIDs)
	if p != nil {
		p.Field = "listIds"
		return nil, p
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
	return s.contactPage(ctx, store.ContactFilter{Page: store.Page{Number: in.Page, Limit: in.Limit}, Search: in.Search, IncludeDeleted: in.IncludeDeleted})
}

func (s *server) contact(ctx context.Context, id string) (*store.Contact, error) {
	number, ok := store.ContactNumber(id)
	if !ok {
		return nil, problem(CodeNotFound, "There is no contact %q.", truncate(id, 40))
	}
	c, err := s.Store.Contact(ctx, requestOf(ctx).who.tenant.ID, number)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem(CodeNotFound, "There is no contact %q.", truncate(id, 40))
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
		return nil, fieldProblem(CodeInvalid, "listIds", "Lists are changed with POST and DELETE /api/contacts/list/contacts.")
	}
	changed, err := s.Store.UpdateContact(ctx, c.Tenant, c.Number, version, func(c *store.Contact) error {
		return in.Body.Value.apply(c, false)
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
