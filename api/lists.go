package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// List is a contact list.
type List struct {
	ID        string  `json:"id" doc:"Names it in paths and in campaigns." example:"list_12345"`
	Name      string  `json:"name" doc:"Unique among the tenant's lists."`
	IsTest    bool    `json:"isTest" doc:"Campaigns to a test list are not counted in statistics over all campaigns, caps and bills."`
	Contacts  uint64  `json:"contacts" doc:"Number of contacts in it."`
	CreatedAt string  `json:"createdAt" format:"date-time"`
	UpdatedAt string  `json:"updatedAt" format:"date-time"`
	DeletedAt *string `json:"deletedAt" format:"date-time"`
	Version   uint64  `json:"version"`
}

// ListInput creates a contact list.
type ListInput struct {
	Name   string `json:"name" doc:"1 to 200 characters, unique among the tenant's lists." example:"active_customers"`
	IsTest bool   `json:"isTest,omitzero" doc:"Campaigns to a test list are not counted in statistics over all campaigns, caps and bills."`
}

// ListUpdateInput is what a change of a list may have.
type ListUpdateInput struct {
	Name   *string `json:"name,omitempty" doc:"1 to 200 characters, unique among the tenant's lists." example:"active_customers"`
	IsTest *bool   `json:"isTest,omitempty" doc:"Counts for campaigns that are confirmed from now on."`
}

// ListMembersInput names contacts to add to a list, or to remove from it.
type ListMembersInput struct {
	ListID     string   `json:"listId" doc:"Id or name of the list."`
	ContactIDs []string `json:"contactIds" nullable:"false" doc:"1 to 1,000 ids of contacts."`
}

// ListMembersResult counts the changes.
type ListMembersResult struct {
	ListID  string `json:"listId" doc:"Id of the list, also when the request named it by its name."`
	Changed int    `json:"changed" doc:"Contacts that were added, or removed."`
	List    *List  `json:"list" doc:"The list after the change."`
}

type (
	listCreateIn struct{ Body problem.Body[ListInput] }
	listOneOut   struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *List
	}
	listsIn struct {
		Page           int    `query:"page" minimum:"0"`
		Limit          int    `query:"limit" minimum:"1" maximum:"1000" default:"10"`
		Search         string `query:"search" doc:"Within the name."`
		IncludeDeleted bool   `query:"includeDeleted"`
		Cursor         string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row. Unlike with page, rows that are added or removed meanwhile cause no gap and no repetition."`
	}
	listsOut struct{ Body *Page[*List] }
	listIDIn struct {
		ID string `path:"id" doc:"Id or name." example:"list_12345"`
	}
	listDeleteIn struct {
		Force   bool   `query:"force" doc:"Also when campaigns use it that have not ended."`
		ID      string `query:"id" doc:"Id or name." required:"true"`
		IfMatch string `header:"If-Match"`
	}
	listRemoveIn struct {
		Force   bool   `query:"force" doc:"Also when campaigns use it that have not ended."`
		ID      string `path:"id" doc:"Id or name." example:"list_12345"`
		IfMatch string `header:"If-Match"`
	}
	listUpdateIn struct {
		ID      string `path:"id" doc:"Id or name." example:"list_12345"`
		IfMatch string `header:"If-Match"`
		Body    problem.Body[ListUpdateInput]
	}
	listMembersIn struct {
		Body problem.Body[ListMembersInput]
	}
	listMembersOut struct{ Body *ListMembersResult }
)

func (s *server) registerLists() {
	register(s, operation{
		id: "createList", method: http.MethodPost, path: "/api/contacts/list", summary: "Create a contact list", status: http.StatusCreated,
		scope: store.ScopeContacts, errors: []int{400, 409, 422}, testKeys: testKeysConfined, tag: contactTag,
	}, s.createList)
	register(s, operation{
		id: "listLists", method: http.MethodGet, path: "/api/contacts/list", summary: "List contact lists, newest first",
		scope: store.ScopeRead, errors: []int{422}, tag: contactTag,
	}, s.listLists)
	register(s, operation{
		id: "deleteListByQuery", method: http.MethodDelete, path: "/api/contacts/list", summary: "Delete a contact list",
		scope: store.ScopeContacts, errors: []int{404, 409, 412, 422}, testKeys: testKeysConfined, tag: contactTag,
	}, func(ctx context.Context, in *listDeleteIn) (*listOneOut, error) {
		return s.deleteList(ctx, (*listRemoveIn)(in))
	})
	register(s, operation{
		id: "getList", method: http.MethodGet, path: "/api/contacts/list/{id}", summary: "Get a contact list",
		scope: store.ScopeRead, errors: []int{404}, tag: contactTag,
	}, s.getList)
	register(s, operation{
		id: "updateList", method: http.MethodPut, path: "/api/contacts/list/{id}", summary: "Change a contact list",
		scope: store.ScopeContacts, errors: []int{400, 404, 409, 412, 422}, testKeys: testKeysConfined, tag: contactTag,
	}, s.updateList)
	register(s, operation{
		id: "deleteList", method: http.MethodDelete, path: "/api/contacts/list/{id}", summary: "Delete a contact list",
		scope: store.ScopeContacts, errors: []int{404, 409, 412}, testKeys: testKeysConfined, tag: contactTag,
		describe: "Contacts are kept, and so is the audience of every confirmed campaign. A list that unfinished campaigns use is deleted only with " +
			"force=true; the answer names these campaigns. Campaigns that are not confirmed then need another list.",
	}, s.deleteList)
	register(s, operation{
		id: "listContactsOfList", method: http.MethodGet, path: "/api/contacts/list/{id}/contacts", summary: "List the contacts of a list",
		scope: store.ScopeRead, errors: []int{404, 422}, tag: contactTag,
	}, s.contactsOfList)
	register(s, operation{
		id: "addContactsToList", method: http.MethodPost, path: "/api/contacts/list/contacts", summary: "Add contacts to a list",
		scope: store.ScopeContacts, errors: []int{400, 404, 422}, testKeys: testKeysConfined, tag: contactTag,
	}, func(ctx context.Context, in *listMembersIn) (*listMembersOut, error) {
		return s.changeMembers(ctx, in, true)
	})
	register(s, operation{
		id: "removeContactsFromList", method: http.MethodDelete, path: "/api/contacts/list/contacts", summary: "Remove contacts from a list",
		scope: store.ScopeContacts, errors: []int{400, 404, 422}, testKeys: testKeysConfined, tag: contactTag,
	}, func(ctx context.Context, in *listMembersIn) (*listMembersOut, error) {
		return s.changeMembers(ctx, in, false)
	})
}

func viewList(l *store.List) *List {
	return &List{
		ID: l.ID(), Name: l.Name, IsTest: l.Test, Contacts: l.Members, CreatedAt: stamp(l.Created), UpdatedAt: stamp(l.Updated),
		DeletedAt: stampOrNull(l.Deleted), Version: l.Version,
	}
}

func (s *server) createList(ctx context.Context, in *listCreateIn) (*listOneOut, error) {
	who := requestOf(ctx).who
	name := strings.TrimSpace(in.Body.Value.Name)
	if err := checkListName(name); err != nil {
		return nil, err
	}
	// A test key creates only test lists: any other list could become the audience of a real campaign (X14).
	l, err := s.Store.CreateList(ctx, who.tenant.ID, name, in.Body.Value.IsTest || who.key.Test)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &listOneOut{"/api/contacts/list/" + l.ID(), etag(l.Version), viewList(&l)}, nil
}

func checkListName(name string) error {
	var ps problem.List
	checkName(&ps, name)
	if _, isID := store.ListNumber(name); isID {
		ps.Add(problem.CodeInvalid, "name", "The name must not look like the id of a list.")
	}
	return ps.Err()
}

func (s *server) updateList(ctx context.Context, in *listUpdateIn) (*listOneOut, error) {
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	l, err := s.listToChange(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	to := in.Body.Value
	if to.IsTest != nil && !*to.IsTest && requestOf(ctx).who.key.Test {
		return nil, problem.New(problem.CodeTestKey, "A test key cannot make a list one of real campaigns.")
	}
	if to.Name != nil {
		if err := checkListName(strings.TrimSpace(*to.Name)); err != nil {
			return nil, err
		}
	}
	changed, err := s.Store.UpdateList(ctx, l.Tenant, l.Number, version, func(l *store.List) error {
		if to.Name != nil {
			l.Name = *to.Name
		}
		if to.IsTest != nil {
			l.Test = *to.IsTest
		}
		return nil
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &listOneOut{ETag: etag(changed.Version), Body: viewList(&changed)}, nil
}

func (s *server) listLists(ctx context.Context, in *listsIn) (*listsOut, error) {
	after, p := readNumberCursor("lists", in.Cursor)
	if p != nil {
		return nil, p
	}
	if after != 0 {
		in.Page = 0
	}
	rows, total, err := s.Store.Lists(ctx, requestOf(ctx).who.tenant.ID, store.ListFilter{
		Page: store.Page{Number: in.Page, Limit: in.Limit}, Search: plusInQuery(in.Search), IncludeDeleted: in.IncludeDeleted, After: after,
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*List]{Data: []*List{}, Page: in.Page, Limit: in.Limit, Total: total}
	for i := range rows {
		out.Data = append(out.Data, viewList(&rows[i]))
	}
	if n := len(rows); n > 0 {
		out.Next = nextCursor("lists", n, in.Limit, numberCursor(rows[n-1].Number))
	}
	return &listsOut{out}, nil
}

// list finds a list by id or name.
func (s *server) list(ctx context.Context, ref string) (*store.List, error) {
	l, err := s.Store.FindList(ctx, requestOf(ctx).who.tenant.ID, ref)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotFound, "There is no contact list %q.", problem.Truncate(ref, 60))
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &l, nil
}

// listToChange finds a list that the key may change: a test key changes test lists only (X14).
func (s *server) listToChange(ctx context.Context, ref string) (*store.List, error) {
	l, err := s.list(ctx, ref)
	if err == nil && requestOf(ctx).who.key.Test && !l.Test {
		return nil, problem.New(problem.CodeTestKey, "List %s is not a test list, and a test key can change only test lists.", l.ID())
	}
	return l, err
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
	l, err := s.listToChange(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	remove := s.Store.DeleteUnusedList
	if in.Force {
		remove = s.Store.DeleteList
	}
	if err := remove(ctx, l.Tenant, l.Number, version); err != nil {
		return nil, s.storeProblem(err)
	}
	l.Deleted = s.Now()
	return &listOneOut{Body: viewList(l)}, nil
}

func (s *server) changeMembers(ctx context.Context, in *listMembersIn, add bool) (*listMembersOut, error) {
	body := &in.Body.Value
	if n := len(body.ContactIDs); n < 1 || n > maxDestinations {
		return nil, problem.Field(problem.CodeInvalid, "contactIds", "%d ids; want 1 to %d.", n, maxDestinations)
	}
	numbers := make([]uint64, len(body.ContactIDs))
	for i, id := range body.ContactIDs {
		n, ok := store.ContactNumber(id)
		if !ok {
			return nil, problem.Field(problem.CodeInvalid, "contactIds", "%q is not the id of a contact.", problem.Truncate(id, 40))
		}
		numbers[i] = n
	}
	l, err := s.listToChange(ctx, body.ListID)
	if err != nil {
		return nil, err
	}
	change := pick(add, s.Store.AddToList, s.Store.RemoveFromList)
	n, err := change(ctx, l.Tenant, l.Number, numbers)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if l, err = s.list(ctx, l.ID()); err != nil {
		return nil, err
	}
	return &listMembersOut{&ListMembersResult{l.ID(), n, viewList(l)}}, nil
}
