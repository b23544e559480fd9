package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fanfare/api/phone"
	"fanfare/api/store/db"
	"fanfare/schemas/audience"
	"fanfare/schemas/hours"
)

// flush writes the batch in one transaction.
func (im *importer) flush(ctx context.Context) error {
	if err := im.takeNumbers(ctx); err != nil {
		return err
	}
	began := time.Now()
	before, next, shown := im.report, im.next, im.shown
	var err error
	for range 5 {
		err = im.s.write(ctx, func(tx *tx) error {
			im.report, im.next, im.shown = before, next, shown // on Postgres the transaction may run again
			if err := im.write(ctx, tx); err != nil {
				return err
			}
			// Another process would continue an uploaded file at these figures, so they are written with the rows.
			if im.file != nil || len(im.rejects) > 0 || time.Since(im.shown) >= showEvery {
				return im.show(ctx, tx)
			}
			return nil
		})
		if !errors.Is(err, errRace) {
			break
		}
	}
	if err != nil {
		im.report, im.next = before, next
		return fmt.Errorf("write %d rows: %w", im.batch.size(), err)
	}
	im.pace(time.Since(began))
	im.rejects = im.rejects[:0]
	im.batch.entries = im.batch.entries[:0]
	clear(im.batch.known)
	if im.progress != nil {
		im.progress(im.report)
	}
	return nil
}

// takeNumbers reserves numbers for the new contacts of a batch, in a separate short transaction: all writers take
// numbers from one row, and must not wait for the batch.
func (im *importer) takeNumbers(ctx context.Context) error {
	if im.last-im.next >= int64(im.batch.size()) {
		return nil
	}
	return im.s.write(ctx, func(tx *tx) error {
		const block = mostBatch
		next, err := tx.Counter(ctx, block, "contact")
		im.next, im.last = next-block, next
		return err
	})
}

// pace adapts the size of a batch so that a transaction takes about batchTime.
func (im *importer) pace(took time.Duration) {
	if im.batch.size() < im.most/2 {
		return // too few rows to judge by
	}
	wish := batchTime
	if im.s.d.postgres {
		wish = batchTimePostgres
	}
	want := float64(im.most) * float64(wish) / float64(max(took, time.Millisecond))
	im.most = min(max(int(min(want, 2*float64(im.most))), leastBatch), mostBatch)
}

// errRace means that another writer changed one of the contacts between our read and our write. The batch is tried
// again.
var errRace = errors.New("contacts changed meanwhile")

// existing is a contact that is in the database.
type existing struct {
	db.Contact
	member bool
	fresh  bool // created by this batch
}

// Lookups, inserts and memberships take manyRows rows in one statement, and the remaining ones one by one. Statements
// of only two lengths can stay prepared.
const (
	manyRows = 100
	oneRow   = 1
)

// chunks calls fn for manyRows elements at a time, then one at a time.
func chunks(n int, fn func(from, to int) error) error {
	for from := 0; from < n; {
		size := manyRows
		if n-from < manyRows {
			size = oneRow
		}
		if err := fn(from, from+size); err != nil {
			return err
		}
		from += size
	}
	return nil
}

// repeat returns a text n times, separated by commas.
func repeat(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+", ", n), ", ") }

// lookupQuery finds n contacts of a tenant by the keys of their numbers, and whether they are members of a list.
func lookupQuery(n int) string {
	return `SELECT c.number, c.phone, c.number_key, c.first_name, c.last_name, c.email, c.attributes, c.country, c.zone, c.class, c.valid,
  c.version, c.deleted_ms, c.opt_in_ms, c.opt_in_source, m.contact IS NOT NULL
FROM contacts c LEFT JOIN list_members m ON m.tenant = c.tenant AND m.list = ?2 AND m.contact = c.number
WHERE c.tenant = ?1 AND c.number_key IN (` + repeat("?", n) + ")"
}

// insertQuery inserts n contacts. It leaves numbers that exist already as they are; the number of rows affected shows
// whether there were any.
func insertQuery(n int) string {
	return `INSERT INTO contacts (tenant, created_ms, updated_ms, version, deleted_ms, number, phone, number_key, first_name, last_name, email,
  attributes, country, zone, class, valid, search, opt_in_ms, opt_in_source)
VALUES ` + repeat("(?1, ?2, ?2, 1, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", n) + "\nON CONFLICT (tenant, number_key) DO NOTHING"
}

// memberQuery adds n members to a list.
func memberQuery(n int) string {
	return "INSERT INTO list_members (tenant, list, position, contact) VALUES " + repeat("(?1, ?2, ?, ?)", n)
}

// write writes the entries of the batch.
func (im *importer) write(ctx context.Context, tx *tx) error {
	r := &im.report
	if err := tx.lockMembers(ctx, r.Tenant); err != nil {
		return err
	}
	// Locks the list, so that imports into it take turns and no request deletes it meanwhile.
	if _, err := tx.GrowList(ctx, 0, r.Tenant, int64(r.List)); err != nil {
		return found(err, "contact list", ListID(r.List))
	}
	entries := im.batch.entries
	if len(entries) == 0 {
		return nil
	}
	there, err := im.bring(ctx, tx)
	if err != nil {
		return err
	}
	join := make([]int64, 0, len(entries)) // contacts to add to the list
	fields := importFields{changes: fieldChanges{}, moved: map[int64]movedFields{}}
	for i := range entries {
		e := &entries[i]
		old := &there[i]
		changed := old.fresh
		now := *e
		if !old.fresh {
			if now, err = im.change(ctx, tx, old, e); err != nil {
				return err
			}
			changed = now.changed
			fields.move(old, &now)
		}
		if !old.member {
			join = append(join, old.Number)
			fields.join(int64(r.List), &now)
		}
		im.count(e, !old.member, changed)
	}
	if err := im.countFields(ctx, tx, &fields); err != nil {
		return err
	}
	return im.join(ctx, tx, join)
}

// importFields are the changes of a batch to the counts of merge fields.
type importFields struct {
	changes       fieldChanges
	moved         map[int64]movedFields // by contact
	before, after []string
	attributes    []audience.Attr
}

// movedFields are the merge fields that a contact had before a change and has after it.
type movedFields struct{ before, after []string }

// join counts the fields of a new member of a list.
func (f *importFields) join(list int64, e *entry) {
	f.after, f.attributes = appendFields(f.after[:0], e.first, e.last, e.email, e.attributes, f.attributes)
	f.changes.add(list, f.after, 1)
}

// move notes a contact whose set of fields has changed.
func (f *importFields) move(old *existing, now *entry) {
	if !now.changed || old.DeletedMs > 0 { // a deleted contact is in no list
		return
	}
	f.before, f.attributes = appendFields(f.before[:0], old.FirstName, old.LastName, old.Email, old.Attributes, f.attributes)
	f.after, f.attributes = appendFields(f.after[:0], now.first, now.last, now.email, now.attributes, f.attributes)
	if !slices.Equal(f.before, f.after) {
		f.moved[old.Number] = movedFields{slices.Clone(f.before), slices.Clone(f.after)}
	}
}

// countFields writes the counts of fields: of the list, and of all lists that have a contact whose fields changed.
func (im *importer) countFields(ctx context.Context, tx *tx, f *importFields) error {
	r := &im.report
	contacts := slices.Sorted(maps.Keys(f.moved))
	args := make([]any, 1, 1+manyRows)
	args[0] = r.Tenant
	err := chunks(len(contacts), func(from, to int) error {
		args = args[:1]
		for _, contact := range contacts[from:to] {
			args = append(args, contact)
		}
		rows, err := tx.raw.QueryContext(ctx, "SELECT contact, list FROM list_members WHERE tenant = ?1 AND contact IN ("+repeat("?", to-from)+")", args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var contact, list int64
			if err := rows.Scan(&contact, &list); err != nil {
				return err
			}
			f.changes.add(list, f.moved[contact].before, -1)
			f.changes.add(list, f.moved[contact].after, 1)
		}
		return rows.Err()
	})
	if err != nil {
		return err
	}
	if im.boundFields(f.changes) {
		if err := tx.MarkListFields(ctx, r.Tenant, int64(r.List), fieldsTooMany); err != nil {
			return err
		}
	}
	return tx.addFields(ctx, r.Tenant, f.changes)
}

// boundFields drops the counts of names beyond [maxListFields] of this import, and reports whether there are any.
func (im *importer) boundFields(changes fieldChanges) (over bool) {
	for f := range changes {
		switch {
		case f.list != int64(im.report.List) || im.names[f.name]:
		case len(im.names) < maxListFields:
			im.names[f.name] = true
		default:
			over = true
			delete(changes, f)
		}
	}
	return over
}

// bring creates the contacts that do not exist yet, and returns the contacts of all entries.
//
// It goes through the entries in the order of their phone numbers, because neighbours share pages of the index, and the
// pages make up most of the cost of a transaction. Whether to read first or to insert first depends on the previous
// batch: inserting contacts that exist wastes reserved numbers, and looking up contacts that do not exist costs as much
// as the insert.
func (im *importer) bring(ctx context.Context, tx *tx) ([]existing, error) {
	entries := im.batch.entries
	out := make([]existing, len(entries))
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(entries[a].number.Key, entries[b].number.Key) })
	if im.known {
		if err := im.lookup(ctx, tx, order, out); err != nil {
			return nil, err
		}
		order = slices.DeleteFunc(order, func(i int) bool { return out[i].Number != 0 })
	}
	if err := im.insert(ctx, tx, order, out); err != nil {
		return nil, err
	}
	fresh := 0
	for i := range out {
		if out[i].fresh {
			fresh++
		}
	}
	im.known = fresh*2 < len(out)
	return out, tx.countContacts(ctx, im.report.Tenant, int64(fresh), 0)
}

// count counts an entry, unless add counted it as a duplicate.
func (im *importer) count(e *entry, joined, changed bool) {
	if e.repeated {
		return
	}
	switch {
	case joined:
		im.report.Imported++
	case changed:
		im.report.Updated++
	default:
		im.report.Unchanged++
	}
	if !e.number.Valid || !e.number.Class.TakesText() {
		im.report.Unreachable++
	}
	if e.optedOut {
		im.report.OptedOut++
	}
}

// lookup reads the contacts of the entries that order lists into out.
func (im *importer) lookup(ctx context.Context, tx *tx, order []int, out []existing) error {
	args := make([]any, 2, 2+manyRows)
	args[0], args[1] = im.report.Tenant, int64(im.report.List)
	return chunks(len(order), func(from, to int) error {
		args = args[:2]
		for _, i := range order[from:to] {
			args = append(args, im.batch.entries[i].number.Key)
		}
		rows, err := tx.raw.QueryContext(ctx, lookupQuery(to-from), args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var e existing
			if err := rows.Scan(&e.Number, &e.Phone, &e.NumberKey, &e.FirstName, &e.LastName, &e.Email, &e.Attributes, &e.Country, &e.Zone, &e.Class,
				&e.Valid, &e.Version, &e.DeletedMs, &e.OptInMs, &e.OptInSource, &e.member); err != nil {
				return err
			}
			out[im.batch.known[e.NumberKey]] = e
		}
		return rows.Err()
	})
}

// zoneOf returns the time zone of a contact.
func (im *importer) zoneOf(e *entry) string {
	if strings.Contains(e.attributes, `"`+AttributeTimezone+`"`) {
		attributes, _ := parseAttributes(e.attributes)
		if zone := attributes[AttributeTimezone]; zone != "" {
			if _, err := hours.Zone(zone); err == nil {
				return zone
			}
		}
	}
	return orElse(e.number.Zone, im.zone)
}

// change updates a contact from a row, and returns its fields as they are then.
func (im *importer) change(ctx context.Context, tx *tx, old *existing, e *entry) (entry, error) {
	was := entry{number: e.number, first: old.FirstName, last: old.LastName, email: old.Email, attributes: old.Attributes, optIn: old.OptInMs, optInSource: old.OptInSource}
	now := was
	if old.DeletedMs > 0 {
		now = *e // the contact was deleted: the row creates it again, without its old fields
	} else if e.repeated {
		now.fill(e)
	} else {
		now.first, now.last, now.email = orElse(e.first, was.first), orElse(e.last, was.last), orElse(e.email, was.email)
		now.attributes = overlay(was.attributes, e.attributes)
		if now.size() > audience.MaxAttributes {
			now = was // both together are too large, so the contact stays as it is
		}
		if e.optIn != 0 {
			now.optIn, now.optInSource = e.optIn, e.consent()
			// The row only says yes, so the known time of the opt-in is the better proof
			if e.optIn > 0 && was.optIn > 0 && e.optIn >= im.report.Started.UnixMilli() {
				now.optIn, now.optInSource = was.optIn, was.optInSource
			}
		}
	}
	if now.optIn < 0 {
		now.optIn, now.optInSource = 0, ""
	}
	n := numberOf(old, e.number)
	now.number, was.number = n, n
	zone := im.zoneOf(&now)
	if old.DeletedMs == 0 && now == was && zone == old.Zone && n.E164 == old.Phone && n.Country == old.Country && int64(n.Class) == old.Class && n.Valid == old.Valid {
		return now, nil
	}
	arg := db.UpdateContactParams{
		Phone: n.E164, NumberKey: n.Key, FirstName: now.first, LastName: now.last, Email: now.email, Attributes: now.attributes, Country: n.Country,
		Zone: zone, Class: int64(n.Class), Valid: n.Valid, Search: searchText(now.first, now.last, now.email),
		OptInMs: now.optIn, OptInSource: now.consent(), UpdatedMs: tx.now, DeletedMs: 0,
		Tenant: im.report.Tenant, Number: old.Number, Version: old.Version,
	}
	write := func() error {
		rows, err := tx.UpdateContact(ctx, arg)
		if err == nil && rows != 1 {
			err = errRace
		}
		return err
	}
	now.changed = true
	if old.DeletedMs > 0 { // it is in no list
		if err := tx.countContacts(ctx, im.report.Tenant, 0, -1); err != nil {
			return now, err
		}
		return now, write()
	}
	// The counts of its lists depend on these alone
	if n.Country == old.Country && int64(n.Class) == old.Class && n.Valid == old.Valid && now.optIn > 0 == (old.OptInMs > 0) {
		return now, write()
	}
	return now, tx.recount(ctx, im.report.Tenant, old.Number, write)
}

// consent returns the source of the opt-in of a row.
func (e *entry) consent() string {
	if e.optIn <= 0 {
		return ""
	}
	return orElse(e.optInSource, "import")
}

// numberOf returns which form of its phone number a contact keeps when a row has another form: the one that can receive
// messages, else the stored one.
func numberOf(old *existing, row phone.Number) phone.Number {
	if row.E164 == old.Phone || row.Class.TakesText() && row.Valid {
		return row
	}
	stored := phone.Number{
		E164: old.Phone, Key: old.NumberKey, Country: old.Country, Zone: old.Zone, Class: audience.Class(old.Class), Valid: old.Valid,
	}
	if old.DeletedMs > 0 && !stored.Class.TakesText() {
		return row
	}
	return stored
}

// insert creates contacts of the entries that order lists. When some of a chunk exist already, it reads those.
func (im *importer) insert(ctx context.Context, tx *tx, order []int, out []existing) error {
	if len(order) == 0 {
		return nil
	}
	first, next := im.next, im.next+int64(len(order))
	im.next = next
	args := make([]any, 2, 2+14*manyRows)
	args[0], args[1] = im.report.Tenant, tx.now
	return chunks(len(order), func(from, to int) error {
		args = args[:2]
		for at, i := range order[from:to] {
			e := &im.batch.entries[i]
			n := &e.number
			number := first + int64(from+at)
			out[i] = existing{Contact: db.Contact{Number: number}, fresh: true}
			args = append(args, number, n.E164, n.Key, e.first, e.last, e.email, e.attributes, n.Country, im.zoneOf(e), int64(n.Class), n.Valid, searchText(e.first, e.last, e.email),
				max(e.optIn, 0), e.consent())
		}
		result, err := tx.raw.ExecContext(ctx, insertQuery(to-from), args...)
		if err != nil {
			return err
		}
		if wrote, err := result.RowsAffected(); err != nil || wrote == int64(to-from) {
			return err
		}
		if err := im.lookup(ctx, tx, order[from:to], out); err != nil {
			return err
		}
		for _, i := range order[from:to] {
			out[i].fresh = out[i].Number >= first && out[i].Number < next
		}
		return nil
	})
}

// join adds contacts to the end of the list.
func (im *importer) join(ctx context.Context, tx *tx, contacts []int64) error {
	if len(contacts) == 0 {
		return nil
	}
	tenant, list := im.report.Tenant, int64(im.report.List)
	next, err := tx.GrowList(ctx, 0, tenant, list)
	if err != nil {
		return found(err, "contact list", ListID(im.report.List))
	}
	return tx.join(ctx, tenant, list, next, contacts)
}
