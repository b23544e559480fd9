package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// A resource describes a kind of object of a tenant that has the usual five operations. In is the body of POST and PUT;
// all its fields are [problem.Optional]. Doc is the document that the store keeps as JSON. View is the object in
// answers.
type resource[In, Doc, View any] struct {
	kind      store.Kind
	path      string // /api/templates
	one, many string // the nouns, such as template and templates
	tag       string
	write     store.Scope
	// alias is the prefix of operation names for a second path of the same resource; "" for the first path.
	alias        string
	installation bool // objects belong to the installation, not to a tenant
	// apply checks the input and copies it to the row and its document. For POST both are empty.
	apply func(ctx context.Context, who *principal, in *In, row *store.Resource, doc *Doc) error
	view  func(row *store.Resource, doc *Doc) *View
	// used returns as a sentence what still uses a row that is to be deleted, "" when nothing does. Nil: rows can
	// always be deleted.
	used func(ctx context.Context, who *principal, row *store.Resource) (string, error)
	// fill adds to views what rows and documents do not have. Nil: nothing.
	fill func(ctx context.Context, views ...*View) error
	// written does what follows when a row was created or changed. Nil: nothing follows.
	written func(ctx context.Context, row *store.Resource) error
	// moved does what follows from a change of status. Nil: nothing follows.
	moved func(ctx context.Context, row *store.Resource) error
}

type (
	resourceListIn struct {
		Page           int    `query:"page" minimum:"0" doc:"0-based."`
		Limit          int    `query:"limit" minimum:"1" maximum:"1000" default:"10" doc:"The most rows of the answer."`
		Search         string `query:"search" doc:"Within the name."`
		Status         string `query:"status" doc:"Only those with this status."`
		After          string `query:"after" doc:"Id of the last object of the page before: continues behind it, without gap or repetition when objects are added or removed meanwhile."`
		IncludeDeleted bool   `query:"includeDeleted" doc:"true: deleted ones, too."`
	}
	resourceListOut[View any] struct{ Body *Page[*View] }
	resourceCreateIn[In any]  struct{ Body problem.Body[In] }
	resourceIn                struct {
		ID string `path:"id" doc:"Id or name."`
	}
	resourceChangeIn[In any] struct {
		ID      string `path:"id" doc:"Id or name."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
		Body    problem.Body[In]
	}
	resourceDeleteIn struct {
		ID      string `path:"id" doc:"Id or name."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to delete; 412 when another version is stored. Left out: any version."`
	}
	resourceOut[View any] struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *View
	}
)

// owner returns the tenant whose rows a request can see.
func (r *resource[In, Doc, View]) owner(who *principal) string {
	if r.installation {
		return ""
	}
	return who.tenant.ID
}

// registerResource adds the five operations of a kind.
func registerResource[In, Doc, View any](s *server, r *resource[In, Doc, View]) {
	name := strings.ToUpper(r.one[:1]) + r.one[1:]
	if r.alias != "" {
		name = r.alias
	}
	read := store.ScopeRead
	if r.installation {
		read = store.ScopeAdmin
	}
	register(s, operation{
		id: "list" + name + "s", method: http.MethodGet, path: r.path, summary: "List " + r.many + ", newest first", scope: read,
		errors: []int{422}, tag: r.tag,
	}, func(ctx context.Context, in *resourceListIn) (*resourceListOut[View], error) {
		return r.list(ctx, s, in)
	})
	register(s, operation{
		id: "create" + name, method: http.MethodPost, path: r.path, summary: "Create " + article(r.one), status: http.StatusCreated,
		scope: r.write, errors: []int{400, 409, 422}, tag: r.tag,
	}, func(ctx context.Context, in *resourceCreateIn[In]) (*resourceOut[View], error) {
		return r.create(ctx, s, &in.Body.Value)
	})
	register(s, operation{
		id: "get" + name, method: http.MethodGet, path: r.path + "/{id}", summary: "Get " + article(r.one), scope: read, errors: []int{404}, tag: r.tag,
	}, func(ctx context.Context, in *resourceIn) (*resourceOut[View], error) {
		row, err := r.find(ctx, s, in.ID)
		if err != nil {
			return nil, err
		}
		return r.answer(ctx, row)
	})
	register(s, operation{
		id: "update" + name, method: http.MethodPut, path: r.path + "/{id}", summary: "Change " + article(r.one), scope: r.write,
		errors: []int{400, 404, 409, 412, 422}, tag: r.tag, describe: "Fields that are left out stay as they are.",
	}, func(ctx context.Context, in *resourceChangeIn[In]) (*resourceOut[View], error) {
		return r.change(ctx, s, in.ID, in.IfMatch, func(who *principal, row *store.Resource, doc *Doc) error {
			return r.apply(ctx, who, &in.Body.Value, row, doc)
		})
	})
	register(s, operation{
		id: "delete" + name, method: http.MethodDelete, path: r.path + "/{id}", summary: "Delete " + article(r.one), scope: r.write,
		errors: []int{404, 409, 412}, tag: r.tag,
	}, func(ctx context.Context, in *resourceDeleteIn) (*resourceOut[View], error) {
		return r.remove(ctx, s, in)
	})
}

// registerMove adds an operation that changes the status of a row, such as approving a template.
func registerMove[In, Doc, View, Body any](s *server, r *resource[In, Doc, View], verb, summary string, scope store.Scope,
	move func(ctx context.Context, who *principal, body *Body, row *store.Resource, doc *Doc) error,
) {
	register(s, operation{
		id: verb + strings.ToUpper(r.one[:1]) + r.one[1:], method: http.MethodPost, path: r.path + "/{id}/" + verb, summary: summary, scope: scope,
		errors: []int{400, 404, 409, 412, 422}, tag: r.tag,
	}, func(ctx context.Context, in *moveIn[Body]) (*resourceOut[View], error) {
		var body Body
		if in.Body != nil {
			body = in.Body.Value
		}
		var to *store.Resource
		out, err := r.change(ctx, s, in.ID, in.IfMatch, func(who *principal, row *store.Resource, doc *Doc) error {
			to = row
			return move(ctx, who, &body, row, doc)
		})
		if err == nil && r.moved != nil {
			if err = r.moved(ctx, to); err != nil {
				return nil, s.storeProblem(err)
			}
		}
		return out, err
	})
}

type moveIn[Body any] struct {
	ID      string `path:"id" doc:"Id or name."`
	IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
	Body    *problem.Body[Body]
}

// article puts a or an before a noun.
func article(noun string) string {
	if strings.Contains("aeiou", noun[:1]) {
		return "an " + noun
	}
	return "a " + noun
}

func (r *resource[In, Doc, View]) list(ctx context.Context, s *server, in *resourceListIn) (*resourceListOut[View], error) {
	f := store.ResourceFilter{
		Page: store.Page{Number: in.Page, Limit: in.Limit}, Search: plusInQuery(in.Search), Status: in.Status, IncludeDeleted: in.IncludeDeleted,
	}
	if in.After != "" {
		n, ok := store.ResourceNumber(r.kind, in.After)
		if !ok {
			return nil, problem.Field(problem.CodeInvalid, "after", "%q is not the id of %s.", problem.Truncate(in.After, 40), article(r.one))
		}
		f.After = n
	}
	rows, total, err := s.Store.Resources(ctx, r.owner(requestOf(ctx).who), r.kind, f)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out := &Page[*View]{Data: []*View{}, Page: in.Page, Limit: in.Limit, Total: total}
	for i := range rows {
		doc, err := r.doc(&rows[i])
		if err != nil {
			return nil, err
		}
		out.Data = append(out.Data, r.view(&rows[i], doc))
	}
	if r.fill != nil {
		if err := r.fill(ctx, out.Data...); err != nil {
			return nil, s.storeProblem(err)
		}
	}
	return &resourceListOut[View]{out}, nil
}

func (r *resource[In, Doc, View]) doc(row *store.Resource) (*Doc, error) {
	doc := new(Doc)
	return doc, decodeDoc(row, doc)
}

// decodeDoc reads the document of a row.
func decodeDoc[D any](row *store.Resource, doc *D) error {
	if err := json.Unmarshal(row.Doc, doc); err != nil {
		return fmt.Errorf("read the document of %s: %w", row.ID(), err)
	}
	return nil
}

// find returns a row by its id or name.
func (r *resource[In, Doc, View]) find(ctx context.Context, s *server, ref string) (*store.Resource, error) {
	row, err := s.Store.FindResource(ctx, r.owner(requestOf(ctx).who), r.kind, ref)
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotFound, "There is no %s %q.", r.one, problem.Truncate(ref, 60))
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &row, nil
}

func (r *resource[In, Doc, View]) answer(ctx context.Context, row *store.Resource) (*resourceOut[View], error) {
	doc, err := r.doc(row)
	if err != nil {
		return nil, err
	}
	out := &resourceOut[View]{ETag: etag(row.Version), Body: r.view(row, doc)}
	if r.fill != nil {
		err = r.fill(ctx, out.Body)
	}
	return out, err
}

func (r *resource[In, Doc, View]) create(ctx context.Context, s *server, in *In) (*resourceOut[View], error) {
	who := requestOf(ctx).who
	row, doc := store.Resource{Tenant: r.owner(who), Kind: r.kind, CreatedBy: who.by()}, new(Doc)
	if err := r.apply(ctx, who, in, &row, doc); err != nil {
		return nil, err
	}
	if err := r.put(&row, doc); err != nil {
		return nil, err
	}
	row, err := s.Store.CreateResource(ctx, row)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if r.written != nil {
		if err := r.written(ctx, &row); err != nil {
			return nil, s.storeProblem(err)
		}
	}
	// Of the document that was applied, not of the stored one: a view may show a secret once.
	out := &resourceOut[View]{Location: r.path + "/" + row.ID(), ETag: etag(row.Version), Body: r.view(&row, doc)}
	if r.fill != nil {
		if err := r.fill(ctx, out.Body); err != nil {
			return nil, s.storeProblem(err)
		}
	}
	return out, nil
}

func (r *resource[In, Doc, View]) put(row *store.Resource, doc *Doc) error {
	var ps problem.List
	checkName(&ps, row.Name)
	if _, isID := store.ResourceNumber(r.kind, row.Name); isID {
		ps.Add(problem.CodeInvalid, "name", "The name must not look like the id of %s.", article(r.one))
	}
	if err := ps.Err(); err != nil {
		return err
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("write the document of %s: %w", article(r.one), err)
	}
	row.Doc = raw
	return nil
}

func (r *resource[In, Doc, View]) change(ctx context.Context, s *server, ref, match string, do func(*principal, *store.Resource, *Doc) error) (*resourceOut[View], error) {
	who := requestOf(ctx).who
	version, p := ifMatch(match)
	if p != nil {
		return nil, p
	}
	found, err := r.find(ctx, s, ref)
	if err != nil {
		return nil, err
	}
	row, err := s.Store.ChangeResource(ctx, found.Tenant, r.kind, found.Number, version, func(row *store.Resource) error {
		doc, err := r.doc(row)
		if err != nil {
			return err
		}
		if err := do(who, row, doc); err != nil {
			return err
		}
		return r.put(row, doc)
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	if r.written != nil {
		if err := r.written(ctx, &row); err != nil {
			return nil, s.storeProblem(err)
		}
	}
	return r.answer(ctx, &row)
}

func (r *resource[In, Doc, View]) remove(ctx context.Context, s *server, in *resourceDeleteIn) (*resourceOut[View], error) {
	who := requestOf(ctx).who
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	found, err := r.find(ctx, s, in.ID)
	if err != nil {
		return nil, err
	}
	if r.used != nil {
		why, err := r.used(ctx, who, found)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		if why != "" {
			return nil, problem.New(problem.CodeConflict, "%s", why).WithFix("First change the objects that use the %s.", r.one)
		}
	}
	row, err := s.Store.ChangeResource(ctx, found.Tenant, r.kind, found.Number, version, func(row *store.Resource) error {
		row.Deleted = s.Now()
		return nil
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return r.answer(ctx, &row)
}

// unknownName returns the problem of a field that names a resource which does not exist, with the most similar names.
func (s *server) unknownName(ctx context.Context, field string, kind store.Kind, ref string) error {
	names, err := s.Store.ResourceNames(ctx, requestOf(ctx).who.tenant.ID, kind)
	if err != nil {
		return s.storeProblem(err)
	}
	p := problem.Field(problem.CodeInvalid, field, "There is no %s %q.", kind, problem.Truncate(ref, 60))
	if near := problem.Nearest(ref, names, 3); len(near) > 0 {
		return p.WithFix("Did you mean %s?", strings.Join(near, " or "))
	}
	if len(names) == 0 {
		return p.WithFix("Create one with POST /api/%ss.", kind)
	}
	return p.WithFix("List them with GET /api/%ss.", kind)
}
