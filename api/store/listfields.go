package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"fanfare/api/store/db"
	"fanfare/schemas/audience"
	"fanfare/schemas/text"
)

// FieldCounts say how many contacts of some lists have a value of each merge field. A contact that is in several lists
// counts in each.
type FieldCounts struct {
	Members uint64
	// Names maps each field that a contact has or has had to the number of contacts with a value. Attributes have the
	// names that [text.FieldName] gave them.
	Names map[string]uint64
	// Complete is false when a list has too many names to be counted, or has not been counted yet after an upgrade.
	Complete bool
}

// maxListFields is how many names of a list are counted. A file of JSON objects could have a new name in every object.
const maxListFields = 2000

// Why the counts of a list are not complete: the value of its row with the empty name.
const (
	fieldsUncounted = 1 // Collect counts them
	fieldsTooMany   = 2
)

// ListFields returns the merge fields that the contacts of these lists have. The counts are kept, so it takes no longer
// for a million contacts than for one.
func (s *Store) ListFields(ctx context.Context, tenant string, lists []uint64) (FieldCounts, error) {
	out := FieldCounts{Names: map[string]uint64{}, Complete: true}
	for _, list := range lists {
		l, err := s.List(ctx, tenant, list)
		if err != nil {
			return FieldCounts{}, err
		}
		out.Members += l.Members
		rows, err := s.q.ListFields(ctx, tenant, int64(list))
		if err != nil {
			return FieldCounts{}, fmt.Errorf("fields of %s: %w", l.ID(), err)
		}
		for _, r := range rows {
			if r.Name == "" {
				out.Complete = false
				continue
			}
			out.Names[r.Name] += uint64(max(r.Members, 0))
		}
	}
	return out, nil
}

// listField is a field of a list.
type listField struct {
	list int64
	name string
}

// fieldChanges are the changes of a transaction to the counts.
type fieldChanges map[listField]int64

// add counts the fields of a contact in a list.
func (c fieldChanges) add(list int64, names []string, n int64) {
	for _, name := range names {
		c[listField{list, name}] += n
	}
}

// addFields writes changes of the counts. All transactions write them in the same order, so that two of them do not
// deadlock.
func (t *tx) addFields(ctx context.Context, tenant string, changes fieldChanges) error {
	order := slices.SortedFunc(maps.Keys(changes), func(a, b listField) int {
		return cmp.Or(cmp.Compare(a.list, b.list), cmp.Compare(a.name, b.name))
	})
	for _, f := range order {
		if changes[f] == 0 {
			continue
		}
		if err := t.AddListField(ctx, db.AddListFieldParams{Tenant: tenant, List: f.list, Name: f.name, Added: changes[f]}); err != nil {
			return fmt.Errorf("count fields of %s: %w", ListID(uint64(f.list)), err)
		}
	}
	return nil
}

// appendFields appends the names of the fields that have a value: columns of the contact, and attributes in the form of
// attributeText.
func appendFields(names []string, first, last, email, attributes string, buf []audience.Attr) ([]string, []audience.Attr) {
	for _, f := range [...]struct{ name, value string }{{text.FieldFirstName, first}, {text.FieldLastName, last}, {text.FieldEmail, email}} {
		if f.value != "" {
			names = append(names, f.name)
		}
	}
	buf, _ = appendAttributes(buf[:0], attributes) // attributeText wrote them
	for _, a := range buf {
		if a.Value != "" {
			names = append(names, a.Name)
		}
	}
	return names, buf
}

// fieldsOf returns the fields of a row of contacts.
func fieldsOf(r *db.Contact) []string {
	names, _ := appendFields(nil, r.FirstName, r.LastName, r.Email, r.Attributes, nil)
	return names
}

// fieldsOfContact returns the fields of a contact.
func fieldsOfContact(c *Contact) []string {
	attributes, _ := attributeText(c.Attributes)
	names, _ := appendFields(nil, c.FirstName, c.LastName, c.Email, attributes, nil)
	return names
}

// moveFields corrects the counts of all lists of a contact when its set of fields has changed.
func (t *tx) moveFields(ctx context.Context, tenant string, contact int64, before, after []string) error {
	if slices.Equal(before, after) {
		return nil
	}
	lists, err := t.ListsOfContact(ctx, tenant, contact)
	if err != nil {
		return err
	}
	fields := fieldChanges{}
	for _, list := range lists {
		fields.add(list, before, -1)
		fields.add(list, after, 1)
	}
	return t.addFields(ctx, tenant, fields)
}

// countFields counts the fields of lists that were filled before counts were kept. It reads a list from one snapshot,
// and writes the counts if the list is still the same.
func (s *Store) countFields(ctx context.Context) error {
	rows, err := s.q.UncountedLists(ctx)
	if err != nil {
		return fmt.Errorf("find lists to count: %w", err)
	}
	for _, r := range rows {
		if err := s.countFieldsOf(ctx, r.Tenant, r.List); err != nil {
			return fmt.Errorf("count fields of %s: %w", ListID(uint64(r.List)), err)
		}
	}
	return nil
}

func (s *Store) countFieldsOf(ctx context.Context, tenant string, list int64) error {
	counts := fieldChanges{}
	var version, position int64
	err := s.d.snapshot(ctx, func(raw db.DBTX) error {
		l, err := db.New(raw).GetList(ctx, tenant, list)
		if err != nil {
			return err
		}
		version, position = l.Version, l.NextPosition
		members, err := raw.QueryContext(ctx, `SELECT c.first_name, c.last_name, c.email, c.attributes FROM list_members m
JOIN contacts c ON c.number = m.contact AND c.tenant = m.tenant WHERE m.tenant = ?1 AND m.list = ?2`, tenant, list)
		if err != nil {
			return err
		}
		defer func() { _ = members.Close() }()
		var first, last, email, attributes string
		var names []string
		var buf []audience.Attr
		for members.Next() {
			if err := members.Scan(&first, &last, &email, &attributes); err != nil {
				return err
			}
			names, buf = appendFields(names[:0], first, last, email, attributes, buf)
			if len(counts) <= maxListFields {
				counts.add(list, names, 1)
			}
		}
		return members.Err()
	})
	if err != nil {
		return err
	}
	return s.write(ctx, func(tx *tx) error {
		l, err := tx.GrowList(ctx, 0, tenant, list) // locks the list
		if errors.Is(err, sql.ErrNoRows) {
			return tx.DropListFields(ctx, tenant, list) // it was deleted
		}
		if err != nil || l != position {
			return err
		}
		now, err := tx.GetList(ctx, tenant, list)
		if err != nil || now.Version != version {
			return err // it changed: the next Collect counts it
		}
		if err := tx.DropListFields(ctx, tenant, list); err != nil {
			return err
		}
		if len(counts) > maxListFields {
			return tx.MarkListFields(ctx, tenant, list, fieldsTooMany)
		}
		return tx.addFields(ctx, tenant, counts)
	})
}
