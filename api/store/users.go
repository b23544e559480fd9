package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

// Role is what a person may do in a tenant.
type Role string

// Roles. Each role may also do everything that the one before it may do.
const (
	RoleViewer   Role = "viewer"   // sees everything
	RoleEditor   Role = "editor"   // edits campaigns and contacts, sends single messages
	RoleApprover Role = "approver" // confirms campaigns
	RoleOperator Role = "operator" // runs the installation: every tenant, routes, credit
)

// Scopes returns the scopes of API keys that correspond to a role.
func (r Role) Scopes() []Scope {
	switch r {
	case RoleViewer:
		return []Scope{ScopeRead}
	case RoleEditor:
		return []Scope{ScopeRead, ScopeCampaigns, ScopeContacts, ScopeSend}
	case RoleApprover:
		return []Scope{ScopeRead, ScopeCampaigns, ScopeContacts, ScopeSend, ScopeConfirm}
	case RoleOperator:
		return slices.Clone(Scopes)
	}
	return nil
}

// User is a person who logs in to the console.
type User struct {
	ID    string
	Email string // lower case
	Name  string
	// Password is the argon2id hash, "" when the person has none.
	Password string
	// Subject is the OIDC issuer and subject, "" when the person has not logged in that way.
	Subject  string
	Operator bool
	Disabled bool
	// Epoch is incremented when the person logs out of all sessions.
	Epoch                  uint64
	Version                uint64
	Created, Updated, Seen time.Time
}

// Membership is a person's role in a tenant.
type Membership struct {
	User, Tenant string
	Role         Role
}

func userOf(r db.User) User {
	return User{
		ID: r.ID, Email: r.Email, Name: r.Name, Password: r.Password, Subject: r.Subject, Operator: r.Operator, Disabled: r.Disabled,
		Epoch: uint64(r.Epoch), Version: uint64(r.Version), Created: fromMS(r.CreatedMs), Updated: fromMS(r.UpdatedMs), Seen: fromMS(r.SeenMs),
	}
}

func checkUser(u *User) error {
	u.Email, u.Name = strings.ToLower(strings.TrimSpace(u.Email)), strings.TrimSpace(u.Name)
	if at, err := mail.ParseAddress(u.Email); err != nil || at.Address != u.Email || len(u.Email) > 200 {
		return &FieldError{"Email", u.Email, "want an e-mail address such as anna@example.com"}
	}
	if u.Name == "" || len(u.Name) > 200 {
		return &FieldError{"Name", u.Name, "want a name of 1 to 200 bytes"}
	}
	return nil
}

// CreateUser adds a person. [ErrNameTaken] when the e-mail address is in use.
func (s *Store) CreateUser(ctx context.Context, u User) (User, error) {
	if err := checkUser(&u); err != nil {
		return User{}, err
	}
	u.ID, u.Epoch, u.Version = "user_"+randomText(16), 1, 1
	err := s.write(ctx, func(tx *tx) error {
		if _, err := tx.UserByEmail(ctx, u.Email); !errors.Is(err, sql.ErrNoRows) {
			if err != nil {
				return err
			}
			return &NameError{"user", u.Email}
		}
		u.Created, u.Updated = tx.at, tx.at
		return tx.InsertUser(ctx, db.InsertUserParams{
			ID: u.ID, Email: u.Email, Name: u.Name, Password: u.Password, Subject: u.Subject, Operator: u.Operator, Now: tx.now,
		})
	})
	if err != nil {
		return User{}, fmt.Errorf("create user: %w", err)
	}
	return u, nil
}

// User returns a person; [schemas.ErrNotFound] when there is none.
func (s *Store) User(ctx context.Context, id string) (User, error) {
	row, err := s.q.GetUser(ctx, id)
	return userOf(row), found(err, "user", id)
}

// UserByEmail returns the person with that e-mail address, in any case.
func (s *Store) UserByEmail(ctx context.Context, email string) (User, error) {
	row, err := s.q.UserByEmail(ctx, strings.ToLower(strings.TrimSpace(email)))
	return userOf(row), found(err, "user", email)
}

// UserBySubject returns the person who logs in by OIDC as subject.
func (s *Store) UserBySubject(ctx context.Context, subject string) (User, error) {
	row, err := s.q.UserBySubject(ctx, subject)
	return userOf(row), found(err, "user", subject)
}

// Users returns all people, or with a tenant its members, sorted by e-mail address.
func (s *Store) Users(ctx context.Context, tenant string) ([]User, error) {
	if tenant == "" {
		rows, err := s.q.ListUsers(ctx)
		return all(rows, err, userOf)
	}
	rows, err := s.q.ListTenantUsers(ctx, tenant)
	return all(rows, err, userOf)
}

// ChangeUser writes a person that the caller has read before. The error is [schemas.ErrConflict] when the row has
// changed since.
func (s *Store) ChangeUser(ctx context.Context, u User) (User, error) {
	if err := checkUser(&u); err != nil {
		return User{}, err
	}
	err := s.write(ctx, func(tx *tx) error {
		if other, err := tx.UserByEmail(ctx, u.Email); err == nil && other.ID != u.ID {
			return &NameError{"user", u.Email}
		}
		n, err := tx.UpdateUser(ctx, db.UpdateUserParams{
			Email: u.Email, Name: u.Name, Password: u.Password, Subject: u.Subject, Operator: u.Operator, Disabled: u.Disabled,
			Epoch: int64(u.Epoch), UpdatedMs: tx.now, ID: u.ID, Version: int64(u.Version),
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("user %q: %w", u.ID, schemas.ErrConflict)
		}
		u.Updated = tx.at
		return nil
	})
	if err != nil {
		return User{}, fmt.Errorf("change user: %w", err)
	}
	u.Version++
	return u, nil
}

// UserSeen stores that a person has just logged in.
func (s *Store) UserSeen(ctx context.Context, id string) error {
	return s.write(ctx, func(tx *tx) error { return tx.UserSeen(ctx, tx.now, id) })
}

// SetMembership gives a person a role in a tenant; "" takes it away.
func (s *Store) SetMembership(ctx context.Context, user, tenant string, role Role) error {
	switch role {
	case "", RoleViewer, RoleEditor, RoleApprover:
	default:
		return &FieldError{"Role", string(role), "want viewer, editor or approver"}
	}
	return s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetUser(ctx, user); err != nil {
			return found(err, "user", user)
		}
		if _, err := tx.GetTenant(ctx, tenant); err != nil {
			return found(err, "tenant", tenant)
		}
		if role == "" {
			_, err := tx.DeleteMembership(ctx, user, tenant)
			return err
		}
		return tx.SetMembership(ctx, db.SetMembershipParams{UserID: user, Tenant: tenant, Role: string(role), Now: tx.now})
	})
}

// Memberships returns the tenants of a person, with the role in each.
func (s *Store) Memberships(ctx context.Context, user string) ([]Membership, error) {
	rows, err := s.q.ListMemberships(ctx, user)
	return all(rows, err, func(r db.Membership) Membership { return Membership{r.UserID, r.Tenant, Role(r.Role)} })
}

// PutSession stores a browser session until it expires. token is a hash: the cookie itself is not stored.
func (s *Store) PutSession(ctx context.Context, token string, data []byte, expires time.Time) error {
	return s.write(ctx, func(tx *tx) error { return tx.PutSession(ctx, token, data, expires.UnixMilli()) })
}

// Session returns the data of a session; false when there is none or it has expired.
func (s *Store) Session(ctx context.Context, token string) ([]byte, bool, error) {
	data, err := s.q.GetSession(ctx, token, s.now().UnixMilli())
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return data, err == nil, err
}

// DeleteSession deletes a session.
func (s *Store) DeleteSession(ctx context.Context, token string) error {
	return s.write(ctx, func(tx *tx) error { return tx.DeleteSession(ctx, token) })
}

// CreateLoginLink returns the secret of a link that logs a person in once, within life.
func (s *Store) CreateLoginLink(ctx context.Context, user string, life time.Duration) (secret string, err error) {
	secret = randomText(secretLetters)
	err = s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetUser(ctx, user); err != nil {
			return found(err, "user", user)
		}
		return tx.InsertLink(ctx, hashSecret(secret), user, tx.now+life.Milliseconds())
	})
	return secret, err
}

// UseLoginLink returns the person of a link and deletes the link. The error is [schemas.ErrNotFound] when the link was
// used or has expired.
func (s *Store) UseLoginLink(ctx context.Context, secret string) (User, error) {
	hash := sha256.Sum256([]byte(secret))
	var u User
	err := s.write(ctx, func(tx *tx) error {
		id, err := tx.GetLink(ctx, hash[:], tx.now)
		if err != nil {
			return found(err, "login link", "")
		}
		if n, err := tx.DeleteLink(ctx, hash[:]); err != nil || n == 0 {
			return errors.Join(err, notFound("login link", ""))
		}
		row, err := tx.GetUser(ctx, id)
		u = userOf(row)
		return err
	})
	return u, err
}
