package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/alexedwards/argon2id"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
)

// minPassword is the shortest password, in bytes.
const minPassword = 10

// linkLife is how long a log-in link works.
const linkLife = 24 * time.Hour

// User is a person who uses the console.
type User struct {
	ID        string       `json:"id" example:"user_5n2k8s1x4z7b9m3q" doc:"Given by the installation; it never changes."`
	Email     string       `json:"email" doc:"Log-in name in lower case; unique in the installation."`
	Name      string       `json:"name" doc:"For other people to read; the e-mail address when none was given."`
	Operator  bool         `json:"operator" doc:"Runs the installation: sees every tenant and has every permission."`
	Disabled  bool         `json:"disabled" doc:"True: the person cannot log in."`
	Roles     []Membership `json:"roles" nullable:"false" doc:"One for each tenant that the person works for; empty: none."`
	LoginLink string       `json:"loginLink,omitempty" doc:"Path that logs the person in once, within 24 hours. Only in the answer that creates it."`
	CreatedAt string       `json:"createdAt" format:"date-time" doc:"When it was created."`
	SeenAt    *string      `json:"seenAt" format:"date-time" doc:"The last log-in."`
	Version   uint64       `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match."`
}

// Membership is a person's role in a tenant.
type Membership struct {
	Tenant string `json:"tenant" doc:"Id of the tenant."`
	Role   string `json:"role" enum:"viewer,editor,approver" doc:"viewer: reads. editor: also changes campaigns and contacts, and sends single messages. approver: also confirms campaigns."`
}

// UserInput creates or changes a person.
type UserInput struct {
	Email    problem.Optional[string] `json:"email,omitzero" example:"anna@example.com" doc:"Log-in name; unique in the installation."`
	Name     problem.Optional[string] `json:"name,omitzero" doc:"For other people to read; default: the e-mail address."`
	Password problem.Optional[string] `json:"password,omitzero" doc:"At least 10 bytes; a change ends the person's sessions."`
	Role     problem.Optional[string] `json:"role,omitzero" doc:"In the tenant of this request: viewer, editor, approver, or null for none."`
	Operator problem.Optional[bool]   `json:"operator,omitzero" doc:"true: the person sees every tenant and has every permission. Default: false."`
	Disabled problem.Optional[bool]   `json:"disabled,omitzero" doc:"Ends the person's sessions."`
}

type (
	usersIn struct {
		All bool `query:"all" doc:"People of all tenants, including operators."`
	}
	usersOut     struct{ Body *Page[*User] }
	userCreateIn struct{ Body problem.Body[UserInput] }
	userIn       struct {
		ID string `path:"id" doc:"Id or e-mail address."`
	}
	userChangeIn struct {
		ID      string `path:"id" doc:"Id or e-mail address."`
		IfMatch string `header:"If-Match" doc:"ETag of the version to change; 412 when another version is stored. Left out: any version."`
		Body    problem.Body[UserInput]
	}
	userOut struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *User
	}
)

func (s *server) registerUsers() {
	register(s, operation{
		id: "listUsers", method: http.MethodGet, path: "/api/users", summary: "List the people of a tenant", scope: store.ScopeAdmin, tag: operatorTag,
	}, func(ctx context.Context, in *usersIn) (*usersOut, error) {
		tenant := requestOf(ctx).who.tenant.ID
		if in.All {
			tenant = ""
		}
		rows, err := s.Store.Users(ctx, tenant)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		out := &Page[*User]{Data: []*User{}, Limit: len(rows), Total: len(rows)}
		for i := range rows {
			v, err := s.viewUser(ctx, &rows[i])
			if err != nil {
				return nil, err
			}
			out.Data = append(out.Data, v)
		}
		return &usersOut{out}, nil
	})
	register(s, operation{
		id: "createUser", method: http.MethodPost, path: "/api/users", summary: "Add a person", status: http.StatusCreated, scope: store.ScopeAdmin,
		errors: []int{400, 409, 422}, tag: operatorTag, describe: "Without a password the answer has a link that logs the person in once.",
	}, s.createUser)
	register(s, operation{
		id: "getUser", method: http.MethodGet, path: "/api/users/{id}", summary: "Get a person", scope: store.ScopeAdmin, errors: []int{404}, tag: operatorTag,
	}, func(ctx context.Context, in *userIn) (*userOut, error) {
		u, err := s.findUser(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return s.answerUser(ctx, u)
	})
	register(s, operation{
		id: "updateUser", method: http.MethodPut, path: "/api/users/{id}", summary: "Change a person", scope: store.ScopeAdmin,
		errors: []int{400, 404, 409, 412, 422}, tag: operatorTag, describe: "Fields that are left out stay as they are.",
	}, s.updateUser)
	register(s, operation{
		id: "linkUser", method: http.MethodPost, path: "/api/users/{id}/link", summary: "Make a link that logs a person in once", scope: store.ScopeAdmin,
		errors: []int{404}, tag: operatorTag,
	}, func(ctx context.Context, in *userIn) (*userOut, error) {
		u, err := s.findUser(ctx, in.ID)
		if err != nil {
			return nil, err
		}
		return s.answerLinked(ctx, u)
	})
}

func (s *server) findUser(ctx context.Context, ref string) (*store.User, error) {
	u, err := s.Store.User(ctx, ref)
	if errors.Is(err, schemas.ErrNotFound) {
		u, err = s.Store.UserByEmail(ctx, ref)
	}
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotFound, "There is no user %q.", problem.Truncate(ref, 60))
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &u, nil
}

func (s *server) viewUser(ctx context.Context, u *store.User) (*User, error) {
	members, err := s.Store.Memberships(ctx, u.ID)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	v := &User{
		ID: u.ID, Email: u.Email, Name: u.Name, Operator: u.Operator, Disabled: u.Disabled, Roles: []Membership{}, CreatedAt: stamp(u.Created),
		SeenAt: stampOrNull(u.Seen), Version: u.Version,
	}
	for _, m := range members {
		v.Roles = append(v.Roles, Membership{m.Tenant, string(m.Role)})
	}
	return v, nil
}

func (s *server) answerUser(ctx context.Context, u *store.User) (*userOut, error) {
	v, err := s.viewUser(ctx, u)
	if err != nil {
		return nil, err
	}
	return &userOut{ETag: etag(u.Version), Body: v}, nil
}

// answerLinked is answerUser with a new log-in link.
func (s *server) answerLinked(ctx context.Context, u *store.User) (*userOut, error) {
	secret, err := s.Store.CreateLoginLink(ctx, u.ID, linkLife)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	out, err := s.answerUser(ctx, u)
	if err == nil {
		out.Body.LoginLink = "/login/" + secret
	}
	return out, err
}

// apply copies the fields that were given to a person, and ends the person's sessions when password or disabled change.
func (in *UserInput) apply(u *store.User) error {
	set(&in.Email, &u.Email, nil)
	set(&in.Name, &u.Name, nil)
	set(&in.Operator, &u.Operator, nil)
	if in.Disabled.Set {
		u.Disabled = in.Disabled.Value
		u.Epoch++
	}
	if in.Password.Set {
		if len(in.Password.Value) < minPassword {
			return problem.Field(problem.CodeInvalid, "password", "The password has %d bytes; want at least %d.", len(in.Password.Value), minPassword)
		}
		hash, err := argon2id.CreateHash(in.Password.Value, argon2id.DefaultParams)
		if err != nil {
			return err
		}
		u.Password = hash
		u.Epoch++
	}
	if u.Name == "" {
		u.Name = u.Email
	}
	return nil
}

// setRole gives a person the role that the input names, in the tenant of the request.
func (s *server) setRole(ctx context.Context, u *store.User, in *UserInput) error {
	if !in.Role.Set {
		return nil
	}
	err := s.Store.SetMembership(ctx, u.ID, requestOf(ctx).who.tenant.ID, store.Role(in.Role.Value))
	if _, wrong := errors.AsType[*store.FieldError](err); wrong {
		return problem.Field(problem.CodeInvalid, "role", "%q is not a role: want viewer, editor or approver.", problem.Truncate(in.Role.Value, 40))
	}
	return err
}

func (s *server) createUser(ctx context.Context, in *userCreateIn) (*userOut, error) {
	body := &in.Body.Value
	var u store.User
	if !body.Role.Set && !body.Operator.Value {
		return nil, problem.Field(problem.CodeRequired, "role", "The role is missing: viewer, editor or approver; or operator true.")
	}
	if err := checkRole(body); err != nil {
		return nil, err
	}
	if err := body.apply(&u); err != nil {
		return nil, err
	}
	u, err := s.Store.CreateUser(ctx, u)
	if err != nil {
		return nil, s.userProblem(err)
	}
	if err := s.setRole(ctx, &u, body); err != nil {
		return nil, s.storeProblem(err)
	}
	var out *userOut
	if body.Password.Set {
		out, err = s.answerUser(ctx, &u)
	} else {
		out, err = s.answerLinked(ctx, &u)
	}
	if err == nil {
		out.Location = "/api/users/" + u.ID
	}
	return out, err
}

// checkRole refuses a role before anything is written.
func checkRole(in *UserInput) error {
	if in.Role.Set && in.Role.Value != "" && store.Role(in.Role.Value).Scopes() == nil || in.Role.Value == string(store.RoleOperator) {
		return problem.Field(problem.CodeInvalid, "role", "%q is not a role: want viewer, editor or approver.", problem.Truncate(in.Role.Value, 40))
	}
	return nil
}

// userProblem converts an error of the store about a person, with the API's name of the field.
func (s *server) userProblem(err error) error {
	var name *store.NameError
	var field *store.FieldError
	switch {
	case errors.As(err, &name):
		return problem.Field(problem.CodeNameTaken, "email", "A user with this e-mail address exists already.").Because(err)
	case errors.As(err, &field) && field.Field == "Email":
		return problem.Field(problem.CodeInvalid, "email", "%q is not an e-mail address such as anna@example.com.", problem.Truncate(field.Value, 60)).Because(err)
	}
	return s.storeProblem(err)
}

func (s *server) updateUser(ctx context.Context, in *userChangeIn) (*userOut, error) {
	version, p := ifMatch(in.IfMatch)
	if p != nil {
		return nil, p
	}
	body := &in.Body.Value
	u, err := s.findUser(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if version != 0 && version != u.Version {
		return nil, problem.New(problem.CodeVersionMismatch, "If-Match is version %d; version %d is stored.", version, u.Version)
	}
	if err := checkRole(body); err != nil {
		return nil, err
	}
	if err := body.apply(u); err != nil {
		return nil, err
	}
	next, err := s.Store.ChangeUser(ctx, *u)
	if err != nil {
		return nil, s.userProblem(err)
	}
	if err := s.setRole(ctx, &next, body); err != nil {
		return nil, s.storeProblem(err)
	}
	return s.answerUser(ctx, &next)
}
