package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"fanfare/api/store/db"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
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
		// A campaign may give either the name or the id of a list
		return &FieldError{"Name", name, "looks like the id of a list"}
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
	err := s.write(ctx, func(tx *tx) (err error) {
		out, err = tx.createList(ctx, tenant, name, test)
		return err
	})
	if isTaken(err) {
		return List{}, &NameError{Kind: "contact list", Name: name}
	}
	if err != nil {
		return List{}, fmt.Errorf("create contact list: %w", err)
	}
	return out, nil
}

// createList makes an empty list; its name was checked.
func (t *tx) createList(ctx context.Context, tenant, name string, test bool) (List, error) {
	if _, err := t.GetTenant(ctx, tenant); err != nil {
		return List{}, found(err, "tenant", tenant)
	}
	next, err := t.Counter(ctx, 1, "list")
	if err != nil {
		return List{}, err
	}
	out := List{Tenant: tenant, Number: uint64(next) - 1, Name: name, Test: test, Version: 1, Created: t.at, Updated: t.at}
	return out, t.InsertList(ctx, db.InsertListParams{
		Number: int64(out.Number), Tenant: tenant, Name: name, Search: fold(name), Test: test, Now: t.now,
	})
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
	// After continues after the list of this number, instead of at a page. 0: from the newest.
	After uint64
}

// Lists returns a page of contact lists and how many there are in all.
func (s *Store) Lists(ctx context.Context, tenant string, f ListFilter) ([]List, int, error) {
	total, err := s.q.CountLists(ctx, tenant, f.IncludeDeleted, fold(f.Search))
	if err != nil {
		return nil, 0, fmt.Errorf("count contact lists: %w", err)
	}
	limit, offset := f.bounds()
	below := int64(math.MaxInt64)
	if f.After != 0 {
		below, offset = int64(min(f.After, math.MaxInt64)), 0
	}
	rows, err := s.q.ListLists(ctx, db.ListListsParams{
		Tenant: tenant, WithDeleted: f.IncludeDeleted, Search: fold(f.Search), Below: below, Max: limit, Skip: offset,
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

// DeleteList deletes a list: its name is free again, and nothing can be sent to it. Its contacts stay; campaigns that
// were confirmed with it keep their audience, also if they are about to freeze it. want is its version, 0 for any.
func (s *Store) DeleteList(ctx context.Context, tenant string, number, want uint64) error {
	return s.deleteList(ctx, tenant, number, want, false)
}

// DeleteUnusedList is [Store.DeleteList] for a list that no unfinished campaign uses. The error is a [ListUsedError]
// when a campaign that may still be sent uses the list.
func (s *Store) DeleteUnusedList(ctx context.Context, tenant string, number, want uint64) error {
	return s.deleteList(ctx, tenant, number, want, true)
}

func (s *Store) deleteList(ctx context.Context, tenant string, number, want uint64, unused bool) error {
	return s.write(ctx, func(tx *tx) error {
		if unused {
			if err := tx.listUnused(ctx, tenant, number); err != nil {
				return err
			}
		}
		n, err := tx.DeleteList(ctx, tx.now, tenant, int64(number))
		if err == nil && n == 0 {
			return notFound("contact list", ListID(number))
		}
		if err != nil || want == 0 {
			return err
		}
		r, err := tx.GetList(ctx, tenant, int64(number)) // its row is locked now
		if err != nil {
			return err
		}
		if had := uint64(r.Version) - 1; had != want {
			return &VersionError{"contact list", want, had}
		}
		return nil
	})
}

// listUnused returns a [ListUsedError] when a campaign that has not ended names a list.
func (t *tx) listUnused(ctx context.Context, tenant string, number uint64) error {
	var unfinished int64
	for state := range fanfarev1.State_name {
		if state != 0 && !schemas.Terminal(schemas.State(state)) {
			unfinished |= 1 << state
		}
	}
	rows, err := t.CampaignsNaming(ctx, tenant, unfinished, strconv.FormatUint(number, 10))
	if err != nil {
		return fmt.Errorf("campaigns of %s: %w", ListID(number), err)
	}
	var used []UsingCampaign
	for _, r := range rows {
		var spec Spec
		if err := json.Unmarshal([]byte(r.Spec), &spec); err != nil {
			return fmt.Errorf("%s: %w", schemas.CampaignID(uint64(r.Number)), err)
		}
		if slices.Contains(spec.Lists, number) {
			used = append(used, UsingCampaign{ID: schemas.CampaignID(uint64(r.Number)), Name: r.Name, State: schemas.State(r.State)})
		}
	}
	if len(used) > 0 {
		return &ListUsedError{List: number, Campaigns: used}
	}
	return nil
}

// AddToList adds the contacts that are not in a list yet to its end, and returns how many it added.
func (s *Store) AddToList(ctx context.Context, tenant string, list uint64, contacts []uint64) (added int, err error) {
	err = s.write(ctx, func(tx *tx) (err error) {
		added, err = tx.addToList(ctx, tenant, list, contacts)
		return err
	})
	return added, err
}

// addToList does the work of [Store.AddToList].
func (t *tx) addToList(ctx context.Context, tenant string, list uint64, contacts []uint64) (added int, err error) {
	if err := t.lockMembers(ctx, tenant); err != nil {
		return 0, err
	}
	next, err := t.GrowList(ctx, 0, tenant, int64(list))
	if err != nil {
		return 0, found(err, "contact list", ListID(list))
	}
	rows, order, err := t.contactsOf(ctx, tenant, contacts)
	if err != nil {
		return 0, err
	}
	if err := t.dropMembersOf(ctx, tenant, int64(list), rows); err != nil {
		return 0, err
	}
	fields := fieldChanges{}
	var join []int64
	for _, number := range order {
		if r := rows[number]; r != nil {
			join = append(join, number)
			fields.add(int64(list), fieldsOf(r), 1)
		}
	}
	if len(join) == 0 {
		return 0, nil
	}
	if err := t.join(ctx, tenant, int64(list), next, join); err != nil {
		return 0, err
	}
	return len(join), t.addFields(ctx, tenant, fields)
}

// contactsOf reads contacts by number, and returns their numbers without repeats. For a contact that does not exist or
// is deleted, the error is [schemas.ErrNotFound].
func (t *tx) contactsOf(ctx context.Context, tenant string, contacts []uint64) (rows map[int64]*db.Contact, order []int64, err error) {
	rows = map[int64]*db.Contact{}
	for _, c := range contacts {
		if _, ok := rows[int64(c)]; !ok {
			rows[int64(c)] = nil
			order = append(order, int64(c))
		}
	}
	err = inPieces(order, func(part []int64) error {
		found, err := t.ContactsByNumber(ctx, tenant, part)
		for i := range found {
			rows[found[i].Number] = &found[i]
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for _, number := range order {
		if rows[number] == nil {
			return nil, nil, notFound("contact", ContactID(uint64(number)))
		}
	}
	return rows, order, nil
}

// dropMembersOf sets the rows of contacts that are members of a list to nil.
func (t *tx) dropMembersOf(ctx context.Context, tenant string, list int64, rows map[int64]*db.Contact) error {
	return inPieces(slices.Collect(maps.Keys(rows)), func(part []int64) error {
		members, err := t.MembersAmong(ctx, tenant, list, part)
		for _, m := range members {
			rows[m] = nil
		}
		return err
	})
}

// join adds contacts that are not members yet to a list. The caller has locked the list's row; next is the position
// after its last member.
func (t *tx) join(ctx context.Context, tenant string, list, next int64, contacts []int64) error {
	n := int64(len(contacts))
	if _, err := t.GrowList(ctx, n, tenant, list); err != nil {
		return found(err, "contact list", ListID(uint64(list)))
	}
	args := make([]any, 2, 2+2*manyRows)
	args[0], args[1] = tenant, list
	err := chunks(len(contacts), func(from, to int) error {
		args = args[:2]
		for i := from; i < to; i++ {
			args = append(args, next+int64(i), contacts[i])
		}
		_, err := t.raw.ExecContext(ctx, memberQuery(to-from), args...)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.joined(ctx, tenant, list, next, next+n); err != nil {
		return err
	}
	return t.ListChanged(ctx, db.ListChangedParams{Added: n, Now: t.now, Tenant: tenant, Number: list})
}

// RemoveFromList takes contacts out of a list and returns how many were in it.
func (s *Store) RemoveFromList(ctx context.Context, tenant string, list uint64, contacts []uint64) (removed int, err error) {
	err = s.write(ctx, func(tx *tx) error {
		removed = 0
		if err := tx.lockMembers(ctx, tenant); err != nil {
			return err
		}
		if _, err := tx.GrowList(ctx, 0, tenant, int64(list)); err != nil {
			return found(err, "contact list", ListID(list))
		}
		numbers := make([]int64, len(contacts))
		for i, c := range contacts {
			numbers[i] = int64(c)
		}
		slices.Sort(numbers)
		numbers = slices.Compact(numbers)
		fields := fieldChanges{}
		err := inPieces(numbers, func(part []int64) error {
			members, err := tx.MembersAmong(ctx, tenant, int64(list), part)
			if err != nil || len(members) == 0 {
				return err
			}
			leaving := padded(members)
			rows, err := tx.ContactsByNumber(ctx, tenant, leaving)
			if err != nil {
				return err
			}
			for i := range rows {
				fields.add(int64(list), fieldsOf(&rows[i]), -1)
			}
			if err := tx.leaving(ctx, tenant, int64(list), leaving); err != nil {
				return err
			}
			n, err := tx.RemoveMembers(ctx, tenant, int64(list), leaving)
			removed += int(n)
			return err
		})
		if err != nil || removed == 0 {
			return err
		}
		if err := tx.addFields(ctx, tenant, fields); err != nil {
			return err
		}
		return tx.ListChanged(ctx, db.ListChangedParams{Added: -int64(removed), Now: tx.now, Tenant: tenant, Number: int64(list)})
	})
	return removed, err
}
