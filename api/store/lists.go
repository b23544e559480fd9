package store

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"fanfare/api/store/db"
)

func listOf(r db.ContactList) List {
	return List{
		Tenant: r.Tenant, Number: uint64(r.Number), Name: r.Name, Test: r.Test, Members: uint64(r.Members), Version: uint64(r.Version),
		Created: fromMS(r.CreatedMs), Updated: fromMS(r.UpdatedMs), Deleted: fromMS(r.DeletedMs),
	}
}

func checkListName(name string) error {
	if name == "" || utf8.RuneCountInString(name) > maxName {
		return &FieldError{"Name", name, fmt.Sprintf("want 1 to %d characters", maxName)}
	}
	if _, isID := ListNumber(name); isID {
		return &FieldError{"Name", name, "looks like the id of a list"} // and a campaign may name either
	}
	return nil
}

// CreateList makes an empty contact list.
func (s *Store) CreateList(ctx context.Context, tenant, name string, test bool) (List, error) {
	name = strings.TrimSpace(name)
	if err := checkListName(name); err != nil {
		return List{}, err
	}
	var out List
	err := s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetTenant(ctx, tenant); err != nil {
			return found(err, "tenant", tenant)
		}
		next, err := tx.Counter(ctx, 1, "list")
		if err != nil {
			return err
		}
		out = List{Tenant: tenant, Number: uint64(next) - 1, Name: name, Test: test, Version: 1, Created: tx.at, Updated: tx.at}
		return tx.InsertList(ctx, db.InsertListParams{
			Number: int64(out.Number), Tenant: tenant, Name: name, Search: fold(name), Test: test, Now: tx.now,
		})
	})
	if isTaken(err) {
		return List{}, &NameError{Kind: "contact list", Name: name}
	}
	if err != nil {
		return List{}, fmt.Errorf("create contact list: %w", err)
	}
	return out, nil
}

// List returns a contact list, a deleted one too.
func (s *Store) List(ctx context.Context, tenant string, number uint64) (List, error) {
	r, err := s.q.GetList(ctx, tenant, int64(number))
	return listOf(r), found(err, "contact list", ListID(number))
}

// FindList returns the list of that id, else of that name (C27); never a deleted one.
func (s *Store) FindList(ctx context.Context, tenant, idOrName string) (List, error) {
	if number, ok := ListNumber(idOrName); ok {
		l, err := s.List(ctx, tenant, number)
		if err == nil && !l.Deleted.IsZero() {
			return List{}, notFound("contact list", idOrName)
		}
		return l, err
	}
	r, err := s.q.GetListByName(ctx, tenant, strings.TrimSpace(idOrName))
	return listOf(r), found(err, "contact list", idOrName)
}

// ListFilter chooses contact lists of a tenant. Newest first.
type ListFilter struct {
	Page
	Search         string // within the name
	IncludeDeleted bool
}

// Lists returns a page of contact lists and how many there are in all.
func (s *Store) Lists(ctx context.Context, tenant string, f ListFilter) ([]List, int, error) {
	total, err := s.q.CountLists(ctx, tenant, f.IncludeDeleted, fold(f.Search))
	if err != nil {
		return nil, 0, fmt.Errorf("count contact lists: %w", err)
	}
	limit, offset := f.bounds()
	rows, err := s.q.ListLists(ctx, db.ListListsParams{
		Tenant: tenant, WithDeleted: f.IncludeDeleted, Search: fold(f.Search), Max: limit, Skip: offset,
	})
	out, err := all(rows, err, listOf)
	if err != nil {
		return nil, 0, fmt.Errorf("contact lists: %w", err)
	}
	return out, int(total), nil
}

// UpdateList changes the name of a list, and whether it is for tests, if it is of version want, 0 for any.
func (s *Store) UpdateList(ctx context.Context, tenant string, number, want uint64, mutate func(*List) error) (List, error) {
	var out List
	err := s.write(ctx, func(tx *tx) error {
		r, err := tx.GetList(ctx, tenant, int64(number))
		if err = found(err, "contact list", ListID(number)); err != nil {
			return err
		}
		before := listOf(r)
		if !before.Deleted.IsZero() {
			return notFound("contact list", ListID(number))
		}
		if want != 0 && want != before.Version {
			return &VersionError{"contact list", want, before.Version}
		}
		changed := before
		if err := mutate(&changed); err != nil {
			return err
		}
		out = before
		out.Name, out.Test, out.Version, out.Updated = strings.TrimSpace(changed.Name), changed.Test, before.Version+1, tx.at
		if err := checkListName(out.Name); err != nil {
			return err
		}
		n, err := tx.UpdateList(ctx, db.UpdateListParams{
			Name: out.Name, Search: fold(out.Name), Test: out.Test, UpdatedMs: tx.now, Tenant: tenant, Number: r.Number, Version: r.Version,
		})
		return one(n, err, "contact list", before.Version)
	})
	if isTaken(err) {
		return List{}, &NameError{Kind: "contact list", Name: out.Name}
	}
	return out, err
}

// DeleteList deletes a list: its name is free again, and nothing can be sent to it. Its contacts stay; campaigns that were
// confirmed with it keep their audience, also if they are about to freeze it. It must be of version want, 0 for any.
func (s *Store) DeleteList(ctx context.Context, tenant string, number, want uint64) error {
	return s.write(ctx, func(tx *tx) error {
		n, err := tx.DeleteList(ctx, tx.now, tenant, int64(number))
		if err == nil && n == 0 {
			return notFound("contact list", ListID(number))
		}
		if err != nil || want == 0 {
			return err
		}
		r, err := tx.GetList(ctx, tenant, int64(number)) // whose row is ours now
		if err != nil {
			return err
		}
		if had := uint64(r.Version) - 1; had != want {
			return &VersionError{"contact list", want, had}
		}
		return nil
	})
}

// AddToList puts contacts at the end of a list, those that are not in it yet, and returns how many that were.
func (s *Store) AddToList(ctx context.Context, tenant string, list uint64, contacts []uint64) (added int, err error) {
	err = s.write(ctx, func(tx *tx) error {
		added = 0
		next, err := tx.GrowList(ctx, int64(len(contacts)), tenant, int64(list))
		if err != nil {
			return found(err, "contact list", ListID(list))
		}
		position := next - int64(len(contacts))
		for _, contact := range contacts {
			row, err := tx.GetContact(ctx, tenant, int64(contact))
			if err != nil || row.DeletedMs > 0 {
				if err == nil {
					return notFound("contact", ContactID(contact))
				}
				return found(err, "contact", ContactID(contact))
			}
			n, err := tx.AddMember(ctx, db.AddMemberParams{Tenant: tenant, List: int64(list), Position: position, Contact: row.Number})
			if err != nil {
				return err
			}
			position += n
			added += int(n)
		}
		if added == 0 {
			return nil
		}
		return tx.ListChanged(ctx, db.ListChangedParams{Added: int64(added), Now: tx.now, Tenant: tenant, Number: int64(list)})
	})
	return added, err
}

// RemoveFromList takes contacts out of a list and returns how many were in it.
func (s *Store) RemoveFromList(ctx context.Context, tenant string, list uint64, contacts []uint64) (removed int, err error) {
	err = s.write(ctx, func(tx *tx) error {
		removed = 0
		if _, err := tx.GrowList(ctx, 0, tenant, int64(list)); err != nil {
			return found(err, "contact list", ListID(list))
		}
		for _, contact := range contacts {
			n, err := tx.RemoveMember(ctx, tenant, int64(list), int64(contact))
			if err != nil {
				return err
			}
			removed += int(n)
		}
		if removed == 0 {
			return nil
		}
		return tx.ListChanged(ctx, db.ListChangedParams{Added: -int64(removed), Now: tx.now, Tenant: tenant, Number: int64(list)})
	})
	return removed, err
}
