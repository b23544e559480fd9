package storetest

import (
	"fmt"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

var resourceTests = []test{
	{"a resource is found by id and by name, and its name is its tenant's", func(e *env) {
		one, other := e.tenant("one"), e.tenant("other")
		a, err := e.s.CreateResource(e.Context(), store.Resource{Tenant: one.ID, Kind: store.KindTemplate, Name: "Welcome", Status: "draft", Doc: []byte(`{"x":1}`), CreatedBy: "key_1"})
		e.must(err)
		got, err := e.s.FindResource(e.Context(), one.ID, store.KindTemplate, "Welcome")
		e.must(err)
		equal(e, "by name", fmt.Sprint(got), fmt.Sprint(a))
		got, err = e.s.FindResource(e.Context(), one.ID, store.KindTemplate, a.ID())
		e.must(err)
		equal(e, "by id", string(got.Doc), `{"x":1}`)
		_, err = e.s.FindResource(e.Context(), other.ID, store.KindTemplate, a.ID())
		e.wantErr(err, schemas.ErrNotFound)
		_, err = e.s.FindResource(e.Context(), one.ID, store.KindAgent, "Welcome")
		e.wantErr(err, schemas.ErrNotFound)
		_, err = e.s.CreateResource(e.Context(), store.Resource{Tenant: one.ID, Kind: store.KindTemplate, Name: "Welcome"})
		e.wantErr(err, store.ErrNameTaken)
		_, err = e.s.CreateResource(e.Context(), store.Resource{Tenant: other.ID, Kind: store.KindTemplate, Name: "Welcome", Doc: []byte("{}")})
		e.must(err)
	}},
	{"a page after the last row seen skips and repeats no row while rows come and go", func(e *env) {
		t := e.tenant("acme")
		var made []store.Resource
		for i := range 6 {
			r, err := e.s.CreateResource(e.Context(), store.Resource{Tenant: t.ID, Kind: store.KindAgent, Name: fmt.Sprint("Agent ", i), Doc: []byte("{}")})
			e.must(err)
			made = append(made, r)
		}
		first, total, err := e.s.Resources(e.Context(), t.ID, store.KindAgent, store.ResourceFilter{Page: store.Page{Limit: 2}})
		e.must(err)
		equal(e, "total", total, 6)
		_, err = e.s.CreateResource(e.Context(), store.Resource{Tenant: t.ID, Kind: store.KindAgent, Name: "new", Doc: []byte("{}")})
		e.must(err)
		_, err = e.s.ChangeResource(e.Context(), t.ID, store.KindAgent, made[5].Number, 0, func(r *store.Resource) error { r.Deleted = start.Add(time.Hour); return nil })
		e.must(err)
		second, _, err := e.s.Resources(e.Context(), t.ID, store.KindAgent, store.ResourceFilter{Page: store.Page{Limit: 2}, After: first[1].Number})
		e.must(err)
		equal(e, "after the first page", second[0].Name+", "+second[1].Name, "Agent 3, Agent 2")
		found, total, err := e.s.Resources(e.Context(), t.ID, store.KindAgent, store.ResourceFilter{Page: store.Page{Limit: 10}, Search: "AGENT"})
		e.must(err)
		equal(e, "found", fmt.Sprint(len(found), total), "5 5")
	}},
	{"a change names the version it saw, and keeps names apart", func(e *env) {
		t := e.tenant("acme")
		a, err := e.s.CreateResource(e.Context(), store.Resource{Tenant: t.ID, Kind: store.KindAgent, Name: "a", Doc: []byte("{}")})
		e.must(err)
		_, err = e.s.CreateResource(e.Context(), store.Resource{Tenant: t.ID, Kind: store.KindAgent, Name: "b", Doc: []byte("{}")})
		e.must(err)
		rename := func(to string) func(*store.Resource) error {
			return func(r *store.Resource) error { r.Name = to; return nil }
		}
		_, err = e.s.ChangeResource(e.Context(), t.ID, store.KindAgent, a.Number, 7, rename("c"))
		e.wantErr(err, schemas.ErrConflict)
		_, err = e.s.ChangeResource(e.Context(), t.ID, store.KindAgent, a.Number, 1, rename("b"))
		e.wantErr(err, store.ErrNameTaken)
		a, err = e.s.ChangeResource(e.Context(), t.ID, store.KindAgent, a.Number, 1, rename("c"))
		e.must(err)
		equal(e, "version", a.Version, 2)
		names, err := e.s.ResourceNames(e.Context(), t.ID, store.KindAgent)
		e.must(err)
		equal(e, "names", fmt.Sprint(names), "[b c]")
	}},
}
