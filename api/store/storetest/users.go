package storetest

import (
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

var userTests = []test{
	{"a person is found by e-mail in any case, once", func(e *env) {
		u, err := e.s.CreateUser(e.Context(), store.User{Email: " Anna@Example.com", Name: "Anna Rossi", Password: "hash"})
		e.must(err)
		equal(e, "e-mail", u.Email, "anna@example.com")
		got, err := e.s.UserByEmail(e.Context(), "ANNA@example.com")
		e.must(err)
		equal(e, "user", got, u)
		_, err = e.s.CreateUser(e.Context(), store.User{Email: "anna@example.COM", Name: "Another"})
		e.wantErr(err, store.ErrNameTaken)
		for _, bad := range []store.User{{Email: "anna", Name: "x"}, {Email: "a@b.c", Name: " "}, {Email: "A <a@b.c>", Name: "x"}} {
			_, err := e.s.CreateUser(e.Context(), bad)
			e.wantErr(err, store.ErrInvalid)
		}
		_, err = e.s.UserByEmail(e.Context(), "nobody@example.com")
		e.wantErr(err, schemas.ErrNotFound)
	}},
	{"a change of an older version is refused", func(e *env) {
		u, err := e.s.CreateUser(e.Context(), store.User{Email: "a@example.com", Name: "A"})
		e.must(err)
		newer := u
		newer.Epoch++
		newer, err = e.s.ChangeUser(e.Context(), newer)
		e.must(err)
		u.Name = "B"
		_, err = e.s.ChangeUser(e.Context(), u)
		e.wantErr(err, schemas.ErrConflict)
		got, err := e.s.User(e.Context(), u.ID)
		e.must(err)
		equal(e, "user", got, newer)
	}},
	{"memberships say who sees which tenant (P7)", func(e *env) {
		u, err := e.s.CreateUser(e.Context(), store.User{Email: "a@example.com", Name: "A"})
		e.must(err)
		one, other := e.tenant("one"), e.tenant("other")
		e.must(e.s.SetMembership(e.Context(), u.ID, one.ID, store.RoleViewer))
		e.must(e.s.SetMembership(e.Context(), u.ID, one.ID, store.RoleApprover))
		got, err := e.s.Memberships(e.Context(), u.ID)
		e.must(err)
		equal(e, "memberships", len(got), 1)
		equal(e, "membership", got[0], store.Membership{User: u.ID, Tenant: one.ID, Role: store.RoleApprover})
		members, err := e.s.Users(e.Context(), other.ID)
		e.must(err)
		equal(e, "members of the other tenant", len(members), 0)
		e.wantErr(e.s.SetMembership(e.Context(), u.ID, one.ID, store.RoleOperator), store.ErrInvalid)
		e.wantErr(e.s.SetMembership(e.Context(), u.ID, "tn_none", store.RoleViewer), schemas.ErrNotFound)
		e.must(e.s.SetMembership(e.Context(), u.ID, one.ID, ""))
		got, err = e.s.Memberships(e.Context(), u.ID)
		e.must(err)
		equal(e, "memberships after the last was taken away", len(got), 0)
	}},
	{"a session and a link end in time, a link is used once", func(e *env) {
		u, err := e.s.CreateUser(e.Context(), store.User{Email: "a@example.com", Name: "A"})
		e.must(err)
		e.must(e.s.PutSession(e.Context(), "token", []byte("data"), start.Add(time.Hour)))
		got, ok, err := e.s.Session(e.Context(), "token")
		e.must(err)
		equal(e, "session", string(got), "data")
		equal(e, "session is there", ok, true)
		link, err := e.s.CreateLoginLink(e.Context(), u.ID, time.Minute)
		e.must(err)
		late, err := e.s.CreateLoginLink(e.Context(), u.ID, time.Minute)
		e.must(err)
		who, err := e.s.UseLoginLink(e.Context(), link)
		e.must(err)
		equal(e, "user of the link", who.ID, u.ID)
		_, err = e.s.UseLoginLink(e.Context(), link)
		e.wantErr(err, schemas.ErrNotFound)
		e.clock.add(2 * time.Hour)
		_, ok, err = e.s.Session(e.Context(), "token")
		e.must(err)
		equal(e, "session after its end", ok, false)
		_, err = e.s.UseLoginLink(e.Context(), late)
		e.wantErr(err, schemas.ErrNotFound)
		e.must(e.s.Collect(e.Context()))
	}},
}
