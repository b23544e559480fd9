package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	before, next := im.report, im.next
	var err error
	for range 5 {
		err = im.s.write(ctx, func(tx *tx) error {
			im.report, im.next = before, next // Postgres may ask for the transaction again
			if err := im.write(ctx, tx); err != nil {
				return err
			}
			if time.Since(im.shown) >= showEvery {
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
	im.batch.entries = im.batch.entries[:0]
	clear(im.batch.known)
	if im.progress != nil {
		im.progress(im.report)
	}
	return nil
}

// takeNumbers sees to it that there are numbers for a batch of new contacts. They are taken in a transaction of their own: the
// row they come from is everybody's.
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

// pace keeps transactions near batchTime, as fast as the database is just now.
func (im *importer) pace(took time.Duration) {
	if im.batch.size() < im.most/2 {
		return // says little
	}
	wish := batchTime
	if im.s.d.postgres {
		wish = batchTimePostgres
	}
	want := float64(im.most) * float64(wish) / float64(max(took, time.Millisecond))
	im.most = min(max(int(min(want, 2*float64(im.most))), leastBatch), mostBatch)
}

// errRace: somebody else wrote one of the contacts between our look and our write. Look again.
var errRace = errors.New("contacts changed meanwhile")

// existing is a contact that is there.
type existing struct {
	db.Contact
	member bool
	fresh  bool // made by this import just now
}

// lookups, inserts and memberships are done for so many rows in one statement, and the rest for one at a time: statements of
// few lengths stay prepared.
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

// repeat is n times the text, with commas between.
func repeat(text string, n int) string { return strings.TrimSuffix(strings.Repeat(text+", ", n), ", ") }

// Finds the contacts of a tenant by number, and whether they are in a list.
func lookupQuery(n int) string {
	return `SELECT c.number, c.phone, c.first_name, c.last_name, c.email, c.attributes, c.country, c.zone, c.class, c.valid,
  c.version, c.deleted_ms, m.contact IS NOT NULL
FROM contacts c LEFT JOIN list_members m ON m.tenant = c.tenant AND m.list = ?2 AND m.contact = c.number
WHERE c.tenant = ?1 AND c.phone IN (` + repeat("?", n) + ")"
}

// A number that came in between is left alone: the rows written say so.
func insertQuery(n int) string {
	return `INSERT INTO contacts (tenant, created_ms, updated_ms, version, deleted_ms, number, phone, first_name, last_name, email,
  attributes, country, zone, class, valid, search)
VALUES ` + repeat("(?1, ?2, ?2, 1, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", n) + "\nON CONFLICT (tenant, phone) DO NOTHING"
}

func memberQuery(n int) string {
	return "INSERT INTO list_members (tenant, list, position, contact) VALUES " + repeat("(?1, ?2, ?, ?)", n)
}

// write brings the entries of the batch into the tables.
func (im *importer) write(ctx context.Context, tx *tx) error {
	r := &im.report
	// Locks the list: its imports take turns, and it cannot be deleted under us.
	if _, err := tx.GrowList(ctx, 0, r.Tenant, int64(r.List)); err != nil {
		return found(err, "contact list", ListID(r.List))
	}
	entries := im.batch.entries
	there, err := im.bring(ctx, tx)
	if err != nil {
		return err
	}
	join := make([]int64, 0, len(entries)) // contacts that are to become members
	for i := range entries {
		e := &entries[i]
		old := &there[i]
		changed := old.fresh
		if !old.fresh {
			if changed, err = im.change(ctx, tx, old, e); err != nil {
				return err
			}
		}
		if !old.member {
			join = append(join, old.Number)
		}
		im.count(e, !old.member, changed)
	}
	return im.join(ctx, tx, join)
}

// bring makes a contact of each entry that is none yet, and returns the contacts of all of them.
//
// They are gone through by number: neighbours in the index share its pages, which are what a transaction costs. Whether it is
// quicker to look first or to insert first depends on the file, and the batch before tells: inserting what is there already
// wastes numbers of contacts, looking for what is not there costs as much as the insert.
func (im *importer) bring(ctx context.Context, tx *tx) ([]existing, error) {
	entries := im.batch.entries
	out := make([]existing, len(entries))
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(entries[a].number.E164, entries[b].number.E164) })
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
	return out, nil
}

// count counts an entry that was not counted as a repeat.
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
	if !e.number.Valid || e.number.Class == audience.FixedLine {
		im.report.Unreachable++
	}
}

// lookup finds the contacts of the entries that order names, and puts them into out.
func (im *importer) lookup(ctx context.Context, tx *tx, order []int, out []existing) error {
	args := make([]any, 2, 2+manyRows)
	args[0], args[1] = im.report.Tenant, int64(im.report.List)
	return chunks(len(order), func(from, to int) error {
		args = args[:2]
		for _, i := range order[from:to] {
			args = append(args, im.batch.entries[i].number.E164)
		}
		rows, err := tx.raw.QueryContext(ctx, lookupQuery(to-from), args...)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var e existing
			if err := rows.Scan(&e.Number, &e.Phone, &e.FirstName, &e.LastName, &e.Email, &e.Attributes, &e.Country, &e.Zone, &e.Class,
				&e.Valid, &e.Version, &e.DeletedMs, &e.member); err != nil {
				return err
			}
			out[im.batch.known[e.Phone]] = e
		}
		return rows.Err()
	})
}

// zoneOf is where a contact lives.
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

// change brings what a row says into a contact that is there, and reports whether that changed anything.
func (im *importer) change(ctx context.Context, tx *tx, old *existing, e *entry) (bool, error) {
	was := entry{number: e.number, first: old.FirstName, last: old.LastName, email: old.Email, attributes: old.Attributes}
	now := was
	if old.DeletedMs > 0 {
		now = *e // it was deleted: what it said is not asked for any more
	} else if e.repeated {
		now.fill(e)
	} else {
		now.first, now.last, now.email = orElse(e.first, was.first), orElse(e.last, was.last), orElse(e.email, was.email)
		now.attributes = overlay(was.attributes, e.attributes)
		if now.size() > audience.MaxAttributes {
			now = was // together they are too large: what is there stands
		}
	}
	zone := im.zoneOf(&now)
	n := &e.number
	if old.DeletedMs == 0 && now == was && zone == old.Zone && n.Country == old.Country && int64(n.Class) == old.Class && n.Valid == old.Valid {
		return false, nil
	}
	rows, err := tx.UpdateContact(ctx, db.UpdateContactParams{
		Phone: old.Phone, FirstName: now.first, LastName: now.last, Email: now.email, Attributes: now.attributes, Country: n.Country,
		Zone: zone, Class: int64(n.Class), Valid: n.Valid, Search: searchText(now.first, now.last, now.email), UpdatedMs: tx.now, DeletedMs: 0,
		Tenant: im.report.Tenant, Number: old.Number, Version: old.Version,
	})
	if err == nil && rows != 1 {
		err = errRace
	}
	return true, err
}

// insert makes contacts of the entries that order names. Where some of a chunk are there already, it looks which.
func (im *importer) insert(ctx context.Context, tx *tx, order []int, out []existing) error {
	if len(order) == 0 {
		return nil
	}
	first, next := im.next, im.next+int64(len(order))
	im.next = next
	args := make([]any, 2, 2+11*manyRows)
	args[0], args[1] = im.report.Tenant, tx.now
	return chunks(len(order), func(from, to int) error {
		args = args[:2]
		for at, i := range order[from:to] {
			e := &im.batch.entries[i]
			n := &e.number
			number := first + int64(from+at)
			out[i] = existing{Contact: db.Contact{Number: number}, fresh: true}
			args = append(args, number, n.E164, e.first, e.last, e.email, e.attributes, n.Country, im.zoneOf(e), int64(n.Class), n.Valid, searchText(e.first, e.last, e.email))
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

// join puts contacts at the end of the list.
func (im *importer) join(ctx context.Context, tx *tx, contacts []int64) error {
	if len(contacts) == 0 {
		return nil
	}
	tenant, list := im.report.Tenant, int64(im.report.List)
	next, err := tx.GrowList(ctx, int64(len(contacts)), tenant, list)
	if err != nil {
		return found(err, "contact list", ListID(im.report.List))
	}
	position := next - int64(len(contacts))
	args := make([]any, 2, 2+2*manyRows)
	args[0], args[1] = tenant, list
	err = chunks(len(contacts), func(from, to int) error {
		args = args[:2]
		for i := from; i < to; i++ {
			args = append(args, position+int64(i), contacts[i])
		}
		_, err := tx.raw.ExecContext(ctx, memberQuery(to-from), args...)
		return err
	})
	if err != nil {
		return err
	}
	return tx.ListChanged(ctx, db.ListChangedParams{Added: int64(len(contacts)), Now: tx.now, Tenant: tenant, Number: list})
}
