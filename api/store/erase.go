package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// Answers reads the stored answers for repeated requests.
type Answers struct {
	// Open returns the text of a stored answer.
	Open func(response []byte) ([]byte, error)
	// Erased returns the text that replaces an answer that named the person.
	Erased func(response []byte) ([]byte, error)
}

// EraseRows removes a person (E.164 with +) from every table except exports ([Store.EraseExports]): contacts, opt-outs,
// frozen audiences, uploads, refused rows, answers to repeated requests, and events for webhooks. It returns which
// recipients of frozen audiences the person was, by campaign. It may be repeated. An opt-out stays with its hash, so
// that senders still refuse the number.
func (s *Store) EraseRows(ctx context.Context, tenant, phone string, kept Answers) (removed Removed, recipients map[string]*roaring.Bitmap, err error) {
	if s.keys == nil {
		return removed, nil, errNoKeys
	}
	e := &eraser{s: s, kept: kept, tenant: tenant, phone: phone, key: schemas.NumberKey(phone), hash: s.erasureHash(tenant, phone), recipients: map[string]*roaring.Bitmap{}}
	for _, step := range []func(context.Context) error{e.contact, e.optOuts, e.audiences, e.uploads, e.answers, e.webhooks, e.conversations, e.emptyContact} {
		if err := step(ctx); err != nil {
			return e.Removed, nil, fmt.Errorf("erase: %w", err)
		}
	}
	return e.Removed, e.recipients, nil
}

// eraser erases one person.
type eraser struct {
	s                *Store
	kept             Answers
	tenant           string
	phone, key, hash string
	contactNumber    uint64 // 0: there is none
	email            string // of the contact
	recipients       map[string]*roaring.Bitmap
	Removed
}

// contact deletes the contact. Its row stays unchanged until the end, so that a repeated erasure has the same data of
// the person.
func (e *eraser) contact(ctx context.Context) error {
	row, err := e.s.q.GetContactByKey(ctx, e.tenant, e.key)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	e.contactNumber, e.email = uint64(row.Number), row.Email
	if row.DeletedMs == 0 {
		if err := e.s.DeleteContact(ctx, e.tenant, e.contactNumber, 0); err != nil && !isNotFound(err) {
			return err
		}
	}
	return nil
}

// emptyContact empties the row of the contact. It keeps the row, because frozen audiences and lists may still name it.
func (e *eraser) emptyContact(ctx context.Context) error {
	if e.contactNumber == 0 {
		return nil
	}
	e.Contacts++
	return e.s.write(ctx, func(tx *tx) error {
		_, err := tx.raw.ExecContext(ctx, `UPDATE contacts SET phone = ?, number_key = ?, first_name = '', last_name = '', email = '', attributes = '', search = '',
  opt_in_ms = 0, opt_in_source = '', valid = FALSE, version = version + 1, updated_ms = ? WHERE tenant = ? AND number = ? AND deleted_ms > 0`,
			erasedMark+fmt.Sprint(e.contactNumber), erasedMark+fmt.Sprint(e.contactNumber), tx.now, e.tenant, int64(e.contactNumber))
		return err
	})
}

// optOuts replaces the number by the hash.
func (e *eraser) optOuts(ctx context.Context) error {
	return e.s.write(ctx, func(tx *tx) error {
		e.OptOuts = 0
		for _, query := range []string{
			"UPDATE suppressions SET phone = '', number_key = ?, reason = '' WHERE tenant = ? AND number_key = ?",
			"UPDATE suppression_log SET phone = '', number_key = ?, reason = '' WHERE tenant = ? AND number_key = ?",
		} {
			n, err := affected(tx.raw.ExecContext(ctx, query, erasedMark+e.hash, e.tenant, e.key))
			if err != nil {
				return err
			}
			e.OptOuts += n
		}
		return nil
	})
}

// conversations removes the messages of the person, and the answers to them.
func (e *eraser) conversations(ctx context.Context) error {
	return e.s.write(ctx, func(tx *tx) error {
		const of = "(SELECT c.id FROM conversations c WHERE c.tenant = ? AND c.number_key = ?)"
		var err error
		if e.Messages, err = affected(tx.raw.ExecContext(ctx, "DELETE FROM conversation_messages WHERE tenant = ? AND conversation IN "+of, e.tenant, e.tenant, e.key)); err != nil {
			return err
		}
		if _, err := tx.raw.ExecContext(ctx, "DELETE FROM confirmations WHERE tenant = ? AND conversation IN "+of, e.tenant, e.tenant, e.key); err != nil {
			return err
		}
		_, err = tx.raw.ExecContext(ctx, "DELETE FROM conversations WHERE tenant = ? AND number_key = ?", e.tenant, e.key)
		return err
	})
}

func affected(r sql.Result, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}

// adoptErased stores the number of an erased opt-out, and of its log, again, because a request that changes the opt-out
// names the number.
func (s *Store) adoptErased(ctx context.Context, tx *tx, tenant, phone, key string) error {
	for _, query := range []string{
		"UPDATE suppressions SET phone = ?1, number_key = ?2 WHERE tenant = ?3 AND number_key = ?4",
		"UPDATE suppression_log SET phone = ?1, number_key = ?2 WHERE tenant = ?3 AND number_key = ?4",
	} {
		n, err := affected(tx.raw.ExecContext(ctx, query, phone, key, tenant, erasedMark+s.erasureHash(tenant, phone)))
		if err != nil || n == 0 { // without an opt-out there is no log
			return err
		}
	}
	return nil
}

// frozenBlob is a part of a frozen audience.
type frozenBlob struct {
	freeze         string
	campaign       uint64
	part, firstSeq int64
}

// audiences empties the entries of the person. If the person was not dealt yet, the entry becomes opted out. An
// audience that is published meanwhile is emptied, too. An audience that starts to freeze now finds neither the contact
// nor, in a replay, an entry of the person.
func (e *eraser) audiences(ctx context.Context) error {
	seen := map[string]bool{}
	for {
		if err := e.freezing(ctx); err != nil {
			return err
		}
		blobs, err := e.frozen(ctx)
		if err != nil {
			return err
		}
		more := false
		for _, b := range blobs {
			key := fmt.Sprintf("%s/%d", b.freeze, b.part)
			if seen[key] {
				continue
			}
			seen[key], more = true, true
			if err := e.empty(ctx, b); err != nil {
				return fmt.Errorf("audience %s, part %d: %w", b.freeze, b.part, err)
			}
		}
		if !more {
			return nil
		}
	}
}

// freezing returns [errFreezing] while an audience of the tenant is being written: its writer may have read the contact
// before it was deleted, and its blobs are in no index yet. [Store.Collect] removes an audience that no process writes
// any more within about two minutes.
func (e *eraser) freezing(ctx context.Context) error {
	var writing int
	if err := e.s.d.read.QueryRowContext(ctx, "SELECT COUNT(*) FROM freezes WHERE tenant = ? AND state = ?", e.tenant, freezeWriting).Scan(&writing); err != nil {
		return err
	}
	if writing > 0 {
		return errFreezing
	}
	return nil
}

// frozen returns the blobs of all audiences of the tenant.
func (e *eraser) frozen(ctx context.Context) (blobs []frozenBlob, err error) {
	rows, err := e.s.d.read.QueryContext(ctx, `SELECT f.id, f.campaign, i.part, i.first_seq FROM freezes f JOIN freeze_index i ON i.freeze_id = f.id
WHERE f.tenant = ? ORDER BY f.id, i.blob`, e.tenant)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var b frozenBlob
		var campaign int64
		if err := rows.Scan(&b.freeze, &campaign, &b.part, &b.firstSeq); err != nil {
			return nil, err
		}
		b.campaign = uint64(campaign)
		blobs = append(blobs, b)
	}
	return blobs, rows.Err()
}

// empty empties the entries of the person in one blob. Most blobs have none. A blob that has one is read again in the
// transaction that writes it, because another erasure may have written it meanwhile.
func (e *eraser) empty(ctx context.Context, b frozenBlob) error {
	read := func(q interface {
		QueryRowContext(context.Context, string, ...any) *sql.Row
	},
	) (clean, filter []byte, places []uint32, err error) {
		var data []byte
		err = q.QueryRowContext(ctx, "SELECT data FROM freeze_blobs WHERE freeze_id = ? AND part = ?", b.freeze, b.part).Scan(&data)
		if errors.Is(err, sql.ErrNoRows) { // collected meanwhile
			return nil, nil, nil, nil
		}
		if err != nil {
			return nil, nil, nil, err
		}
		return e.emptied(data)
	}
	if _, _, places, err := read(e.s.d.read); err != nil || len(places) == 0 {
		return err
	}
	var places []uint32
	err := e.s.write(ctx, func(tx *tx) error {
		if err := tx.lockMembers(ctx, e.tenant); err != nil {
			return err
		}
		var clean, filter []byte
		var err error
		if clean, filter, places, err = read(tx.raw); err != nil || len(places) == 0 {
			return err
		}
		// An audience that was frozen before there were filters has no row, which is right
		if err := tx.UpdateFilter(ctx, filter, b.freeze, b.part); err != nil {
			return err
		}
		_, err = tx.raw.ExecContext(ctx, "UPDATE freeze_blobs SET data = ? WHERE freeze_id = ? AND part = ?", clean, b.freeze, b.part)
		return err
	})
	if err != nil || len(places) == 0 {
		return err
	}
	e.Audiences += len(places)
	id := schemas.CampaignID(b.campaign)
	if e.recipients[id] == nil {
		e.recipients[id] = roaring.New()
	}
	for _, place := range places {
		e.recipients[id].Add(uint32(b.firstSeq) + place)
	}
	return nil
}

// emptied returns a blob without the person, its filter, and the places in which the person was.
func (e *eraser) emptied(data []byte) (clean, filter []byte, places []uint32, err error) {
	r, err := audience.NewReader(data)
	if err != nil {
		return nil, nil, nil, err
	}
	var w audience.Writer
	var f audience.Filter
	var text []byte
	var entry audience.Entry
	for i := uint32(0); r.Next(&entry); i++ {
		if entry.To == e.phone || e.contactNumber != 0 && entry.ContactID == e.contactNumber || schemas.NumberKey(entry.To) == e.key {
			places = append(places, i)
			entry.To, entry.ContactID, entry.Attrs = "", 0, append(entry.Attrs[:0], audience.Attr{Name: audience.ErasedHash, Value: e.hash})
			if entry.Flag == audience.OK {
				entry.Flag = audience.OptedOut
			}
		}
		w.Add(&entry)
		text = addSearchable(&f, &entry, text)
	}
	if err := r.Err(); err != nil || len(places) == 0 {
		return nil, nil, nil, err
	}
	return w.Flush(), f.Flush(), places, nil
}

// Data that must be removed is still being written. The erasure continues later.
var (
	errStillOpen = errors.New("an export is still being cancelled")
	errFreezing  = errors.New("an audience of the tenant is being frozen")
)

// EraseExports removes all exports of a tenant that were ordered so far, because a file cannot be changed, and returns
// how many. The data from which exports are made must be erased before. While an export is still being cancelled,
// EraseExports returns an error and must be called again.
func (s *Store) EraseExports(ctx context.Context, tenant string) (n int, err error) {
	rows, err := s.d.read.QueryContext(ctx, "SELECT id, finished_ms FROM jobs WHERE tenant = ? AND kind = ?", tenant, string(JobExport))
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	ids := map[string]int64{}
	for rows.Next() {
		var id string
		var finished int64
		if err := rows.Scan(&id, &finished); err != nil {
			return 0, err
		}
		ids[id] = finished
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return 0, err
	}
	open := 0
	for id, finished := range ids {
		if finished == 0 {
			if err := s.CancelJob(ctx, tenant, JobExport, id); err != nil && !errors.Is(err, schemas.ErrTransition) && !isNotFound(err) {
				return n, err
			}
			j, err := s.Job(ctx, tenant, JobExport, id)
			if err != nil && !isNotFound(err) {
				return n, err
			}
			if err == nil && j.Finished.IsZero() { // the process that runs it ends it at its next step
				open++
				continue
			}
		}
		if err := s.RemoveJob(ctx, tenant, JobExport, id); err != nil && !isNotFound(err) {
			return n, err
		}
		n++
	}
	if open > 0 {
		return n, errStillOpen
	}
	return n, nil
}

// uploads removes files that wait for their import, and the rows that imports refused, because a refused row does not
// say which person it is about.
func (e *eraser) uploads(ctx context.Context) error {
	return e.s.write(ctx, func(tx *tx) error {
		e.Uploads, e.Rejects = 0, 0
		var running int
		if err := tx.raw.QueryRowContext(ctx, openImports, e.tenant).Scan(&running); err != nil {
			return err
		}
		if running > 0 {
			return ErrImportRuns
		}
		for _, q := range []struct {
			query string
			count *int
		}{
			{"DELETE FROM upload_parts WHERE upload IN (SELECT id FROM uploads WHERE tenant = ?)", nil},
			{"DELETE FROM uploads WHERE tenant = ?", &e.Uploads},
			{"DELETE FROM import_rejects WHERE import IN (SELECT id FROM imports WHERE tenant = ?)", &e.Rejects},
			{"UPDATE imports SET rejected = '[]' WHERE tenant = ? AND rejected <> '[]' AND rejected <> ''", &e.Rejects},
		} {
			n, err := affected(tx.raw.ExecContext(ctx, q.query, e.tenant))
			if err != nil {
				return err
			}
			if q.count != nil {
				*q.count += n
			}
		}
		return nil
	})
}

// names reports whether a text names the person: the digits of the number, or the e-mail address of the contact.
func (e *eraser) names(text []byte) bool {
	if bytes.Contains(text, []byte(strings.TrimPrefix(e.phone, "+"))) || bytes.Contains(text, []byte(strings.TrimPrefix(e.key, "+"))) {
		return true
	}
	return e.email != "" && bytes.Contains(bytes.ToLower(text), bytes.ToLower([]byte(e.email)))
}

// answers empties the stored answers for repeated requests. The keys stay, so a repeated request is still not run
// twice.
func (e *eraser) answers(ctx context.Context) error {
	rows, err := e.s.d.read.QueryContext(ctx, "SELECT route, key, response FROM idempotency WHERE tenant = ? AND done AND response IS NOT NULL", e.tenant)
	if err != nil {
		return err
	}
	defer rows.Close()
	type claim struct {
		route, key string
		emptied    []byte
	}
	var found []claim
	for rows.Next() {
		var c claim
		var response []byte
		if err := rows.Scan(&c.route, &c.key, &response); err != nil {
			return err
		}
		text, err := e.kept.Open(response)
		if err != nil {
			return errors.Join(fmt.Errorf("answer to %s: %w", c.route, err), rows.Close())
		}
		if !e.names(text) {
			continue
		}
		if c.emptied, err = e.kept.Erased(response); err != nil {
			return errors.Join(fmt.Errorf("answer to %s: %w", c.route, err), rows.Close())
		}
		found = append(found, c)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, c := range found {
		err := e.s.write(ctx, func(tx *tx) error {
			_, err := tx.raw.ExecContext(ctx, "UPDATE idempotency SET response = ? WHERE tenant = ? AND route = ? AND key = ?", c.emptied, e.tenant, c.route, c.key)
			return err
		})
		if err != nil {
			return err
		}
		e.Answers++
	}
	return nil
}

// webhooks removes the events about the person that wait for an endpoint, or that an endpoint refused.
func (e *eraser) webhooks(ctx context.Context) error {
	rows, err := e.s.d.read.QueryContext(ctx, "SELECT id, data FROM webhook_items WHERE tenant = ? AND data <> ''", e.tenant)
	if err != nil {
		return err
	}
	defer rows.Close()
	var found []int64
	for rows.Next() {
		var id int64
		var data []byte
		if err := rows.Scan(&id, &data); err != nil {
			return err
		}
		if e.names(data) {
			found = append(found, id)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, id := range found {
		err := e.s.write(ctx, func(tx *tx) error {
			_, err := tx.raw.ExecContext(ctx, "DELETE FROM webhook_items WHERE tenant = ? AND id = ?", e.tenant, id)
			return err
		})
		if err != nil {
			return err
		}
		e.Webhooks++
	}
	return nil
}

// EraseWebhooks removes the events about a number that were queued for an endpoint since [Store.EraseRows], and returns
// how many.
func (s *Store) EraseWebhooks(ctx context.Context, tenant, phone string) (int, error) {
	e := &eraser{s: s, tenant: tenant, phone: phone, key: schemas.NumberKey(phone)}
	if err := e.webhooks(ctx); err != nil {
		return e.Webhooks, fmt.Errorf("erase: %w", err)
	}
	return e.Webhooks, nil
}

// EraseReferences removes the clients' references of the messages to these recipients, by campaign, and returns how
// many there were.
func (s *Store) EraseReferences(ctx context.Context, tenant string, recipients map[string]*roaring.Bitmap) (n int, err error) {
	for campaign, seqs := range recipients {
		number, err := schemas.CampaignNumber(campaign)
		if err != nil {
			return n, err
		}
		for it := seqs.Iterator(); it.HasNext(); {
			id := s.keys.Message(number, it.Next()).String()
			err := s.write(ctx, func(tx *tx) error {
				gone, err := affected(tx.raw.ExecContext(ctx, "DELETE FROM webhook_references WHERE tenant = ? AND message = ?", tenant, id))
				n += gone
				return err
			})
			if err != nil {
				return n, fmt.Errorf("erase references: %w", err)
			}
		}
	}
	return n, nil
}

// compactPatience is how long [Store.Compact] waits for readers of the log.
const compactPatience = 10 * time.Second

// Compact rewrites a SQLite file, so that its free pages have no deleted data, and empties its log. Writers wait
// meanwhile, about a second for each 200 MB. Callers that wait for the same turn share one rewrite. Postgres does this
// by itself (autovacuum).
func (s *Store) Compact(ctx context.Context) error {
	if s.d.postgres {
		return nil
	}
	return s.compactAfter(ctx, s.d.rewrites.begun.Load())
}

// compactAfter compacts the file, unless a rewrite with a number above begun has done it.
func (s *Store) compactAfter(ctx context.Context, begun uint64) error {
	select {
	case s.d.turn <- struct{}{}:
		defer func() { <-s.d.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.d.rewrites.done > begun {
		return nil
	}
	number := s.d.rewrites.begun.Add(1)
	if err := s.rewrite(ctx); err != nil {
		return err
	}
	s.d.rewrites.done = number
	return nil
}

// rewrite compacts the file and empties its log. The caller has the turn.
func (s *Store) rewrite(ctx context.Context) error {
	if _, err := s.d.writer.ExecContext(ctx, "VACUUM"); err != nil {
		return fmt.Errorf("compact the store: %w", err)
	}
	for deadline := time.Now().Add(compactPatience); ; {
		var busy, pages, copied int
		if err := s.d.writer.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &copied); err != nil {
			return fmt.Errorf("empty the log of the store: %w", err)
		}
		if busy == 0 || time.Now().After(deadline) {
			return nil // if readers still need the log, it is overwritten later
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
