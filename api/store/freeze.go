package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"fanfare/api/phone"
	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/schemas/hours"
	"fanfare/schemas/text"
)

// Reasons why a campaign cannot be frozen.
const (
	ReasonListGone = "list_gone"
	ReasonContacts = string(LimitContacts)
)

// States of a freeze.
const (
	freezeWriting = iota
	freezePublished
	freezeDropped
)

// Freeze writes the audience of a confirmed campaign: the members of its lists, first list first, or the recipients
// that it replays. The audience is cut into blobs of one time zone each; recipients that cannot be sent to are in it
// with a flag. The blobs are written under a random id, from one snapshot. Then one compare-and-set on version gives
// the campaign that id and its total. A campaign that has an audience keeps it, so Freeze may be called again. When two
// processes freeze a campaign at once, one of them wins and both return without error.
//
// Errors: [schemas.ErrConflict] when the campaign was changed meanwhile, [schemas.ErrTransition] when it is not active.
// A [schemas.FreezeError] is permanent: one of the lists was deleted ([ErrListGone]), the audience that it replays was
// removed, or there are more contacts than the tenant may send to at once ([LimitError]).
func (s *Store) Freeze(ctx context.Context, tenant, campaign string, version uint64) error {
	err := s.freeze(ctx, tenant, campaign, version)
	for range 3 { // other audiences of the tenant may be frozen at the same time, and errCapsMoved asks to begin again
		if !errors.Is(err, errCapsMoved) {
			break
		}
		err = s.freeze(ctx, tenant, campaign, version)
	}
	if err != nil && isConflict(err) {
		// Another process may have frozen it meanwhile: that is a success too.
		if c, readErr := s.Campaign(ctx, tenant, campaign); readErr == nil && c.FreezeID != "" {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("freeze %s: %w", campaign, err)
	}
	return nil
}

// AudienceSize returns about how many recipients the audience of a campaign will have: the members of its lists, or the
// recipients that it replays. A list that was deleted counts as it was.
func (s *Store) AudienceSize(ctx context.Context, tenant, campaign string) (n uint64, err error) {
	c, err := s.Campaign(ctx, tenant, campaign)
	if err != nil {
		return 0, err
	}
	if c.takesReplayed() {
		r, err := s.ReplayOf(ctx, tenant, c.Number)
		return uint64(r.Selected), err
	}
	for _, list := range c.Lists {
		l, err := s.q.GetList(ctx, tenant, int64(list))
		if errors.Is(err, sql.ErrNoRows) { // Freeze says so
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("size of %s: %w", ListID(list), err)
		}
		n += uint64(max(l.Members, 0))
	}
	return n, nil
}

func isConflict(err error) bool { return errors.Is(err, schemas.ErrConflict) }

func (s *Store) freeze(ctx context.Context, tenant, campaign string, version uint64) error {
	c, err := s.Campaign(ctx, tenant, campaign)
	switch {
	case err != nil:
		return err
	case c.FreezeID != "":
		return nil
	case !schemas.Active(c.State) || c.Hidden:
		return &StateError{State: c.State, To: c.State, Trigger: "freeze"}
	case c.Version != version:
		return &VersionError{"campaign", version, c.Version}
	}
	f := &freezer{s: s, c: &c, zones: map[string]*zoneWriter{}, most: maxHeld}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	f.id = hex.EncodeToString(id[:])
	err = s.write(ctx, func(tx *tx) error {
		return tx.InsertFreeze(ctx, db.InsertFreezeParams{ID: f.id, Tenant: tenant, Campaign: int64(c.Number), SeenMs: tx.now})
	})
	if err != nil {
		return err
	}
	err = s.d.snapshot(ctx, func(raw db.DBTX) error { return f.read(ctx, raw) })
	if err == nil {
		err = f.publish(ctx)
	}
	if err != nil {
		// Remove the blobs now if possible. Collect removes what is left.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), freezeSilent)
		defer cancel()
		if dropErr := s.dropFreeze(clean, f.id, freezeWriting); dropErr != nil {
			s.log.WarnContext(ctx, "removing an abandoned freeze failed", "freeze", f.id, "err", dropErr)
		}
	}
	return err
}

// freezer writes one frozen audience. It holds one unfinished blob for each time zone, and at most `most` bytes of all
// of them.
type freezer struct {
	s     *Store
	c     *Campaign
	id    string
	max   uint32
	total uint32
	parts int64
	zones map[string]*zoneWriter
	held  int // bytes, at most most
	most  int
	index []part
	entry audience.Entry
	text  []byte // for addSearchable
	rules *rules
	sent  contacted
}

// maxHeld is the most bytes of unfinished blobs: enough for 30 zones of usual contacts. Beyond it, the largest
// unfinished blob is written although it is not full.
const maxHeld = 16 << 20

// entryBytes is the size of an entry without its texts.
const entryBytes = 24

type zoneWriter struct {
	audience.Writer
	filter audience.Filter
	bytes  int
}

// part is a blob that was written. Its number is known only when all are written.
type part struct {
	part, count int64
	zone        string
}

// read streams the lists into blobs.
func (f *freezer) read(ctx context.Context, raw db.DBTX) error {
	q := db.New(raw)
	t, err := q.GetTenant(ctx, f.c.Tenant)
	if err != nil {
		return found(err, "tenant", f.c.Tenant)
	}
	f.max = uint32(t.MaxContacts)
	if f.c.takesReplayed() {
		if err := f.readReplay(ctx, q); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		return f.flushAll(ctx)
	}
	if f.rules, err = f.s.rulesOf(ctx, q, f.c); err != nil {
		return err
	}
	for i, list := range f.c.Lists {
		// A list that was deleted after confirm is still read, until Collect removes its members.
		row, err := q.GetList(ctx, f.c.Tenant, int64(list))
		since := max(ms(f.c.Confirmed), f.s.now().Add(-goneListLife/2).UnixMilli())
		if err != nil || row.DeletedMs > 0 && row.DeletedMs < since {
			if err = found(err, "contact list", ListID(list)); err == nil || isNotFound(err) {
				err = &schemas.FreezeError{Reason: ReasonListGone, Err: fmt.Errorf("%s: %w", ListID(list), ErrListGone)}
			}
			return err
		}
		if err := f.readList(ctx, raw, i); err != nil {
			return fmt.Errorf("%s: %w", ListID(list), err)
		}
	}
	return f.flushAll(ctx)
}

// flushAll writes the unfinished blobs.
func (f *freezer) flushAll(ctx context.Context) error {
	for zone := range f.zones {
		if err := f.flush(ctx, zone); err != nil {
			return err
		}
	}
	return nil
}

func (f *freezer) readList(ctx context.Context, raw db.DBTX, i int) error {
	rows, err := raw.QueryContext(ctx, membersQuery(i), memberArgs(f.c.Tenant, f.c.Lists, i, &confirmed{f.c.ListEnds, ms(f.c.Counted)})...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	var first, last, email, attributes string
	var m member
	var id, class, optedOut int64 // for other integer types database/sql uses reflection, which is slower
	e := &f.entry
	for rows.Next() {
		if err := rows.Scan(&id, &e.To, &first, &last, &email, &attributes, &e.Country, &e.Zone, &class,
			&m.valid, &optedOut, &m.optedIn, &m.repeated); err != nil {
			return err
		}
		e.ContactID, e.Class = uint64(id), audience.Class(class)
		m.class, m.optedOut = e.Class, ChannelSet(optedOut)
		m.contact = e.ContactID
		e.Flag = f.rules.flagOne(&m, e.Country)
		e.Attrs = e.Attrs[:0]
		for _, a := range [...]audience.Attr{{Name: text.FieldFirstName, Value: first}, {Name: text.FieldLastName, Value: last}, {Name: text.FieldEmail, Value: email}} {
			if a.Value != "" {
				e.Attrs = append(e.Attrs, a)
			}
		}
		if e.Attrs, err = appendAttributes(e.Attrs, attributes); err != nil {
			return fmt.Errorf("%s: %w", ContactID(e.ContactID), err)
		}
		if err := f.add(ctx); err != nil {
			return err
		}
	}
	return rows.Err()
}

// zonesOf returns the time zones in which the recipient of the entry may be: its own, otherwise those of its number,
// otherwise that of the tenant, which the entry has already (X11).
func (f *freezer) zonesOf(e *audience.Entry) string {
	if own, ok := e.Value(AttributeTimezone); ok && own != "" {
		if _, err := hours.Zone(own); err == nil {
			return own
		}
	}
	return orElse(hours.Join(phone.Zones(e.To, e.Country)), e.Zone)
}

// add puts the entry into the blob of its zone.
func (f *freezer) add(ctx context.Context) error {
	if f.total++; f.total > f.max || f.total > schemas.MaxSeq+1 {
		return &schemas.FreezeError{Reason: ReasonContacts, Err: &LimitError{LimitContacts, uint64(f.max), uint64(f.total)}}
	}
	if f.c.CallingHours.ofRecipients() {
		f.entry.Zone = f.zonesOf(&f.entry)
	}
	w := f.zones[f.entry.Zone]
	if w == nil {
		w = &zoneWriter{}
		f.zones[f.entry.Zone] = w
	}
	w.Add(&f.entry)
	f.text = addSearchable(&w.filter, &f.entry, f.text)
	f.sent.add(&f.entry)
	bytes := entryBytes + len(f.entry.To)
	for _, a := range f.entry.Attrs {
		bytes += len(a.Value) + 3
	}
	w.bytes += bytes
	f.held += bytes
	if w.Len() == audience.BlobSize {
		return f.flush(ctx, f.entry.Zone)
	}
	if f.held > f.most {
		largest := f.entry.Zone
		for zone, w := range f.zones {
			if w.bytes > f.zones[largest].bytes {
				largest = zone
			}
		}
		return f.flush(ctx, largest)
	}
	return nil
}

// flush writes the blob of a zone.
func (f *freezer) flush(ctx context.Context, zone string) error {
	w := f.zones[zone]
	if w.Len() == 0 {
		return nil
	}
	p := part{part: f.parts, count: int64(w.Len()), zone: zone}
	f.parts++
	f.held -= w.bytes
	w.bytes = 0
	blob, filter := w.Flush(), w.filter.Flush()
	f.index = append(f.index, p)
	return f.s.write(ctx, func(tx *tx) error {
		if n, err := tx.TouchFreeze(ctx, tx.now, f.id); err != nil || n != 1 {
			return f.taken(err)
		}
		if err := tx.InsertFilter(ctx, f.id, p.part, filter); err != nil {
			return err
		}
		return tx.InsertBlob(ctx, f.id, p.part, blob)
	})
}

// taken returns the error of a freezer that wrote nothing for so long that Collect removed its blobs.
func (f *freezer) taken(err error) error {
	if err != nil {
		return err
	}
	return fmt.Errorf("freeze %s was given up: %w", f.id, schemas.ErrConflict)
}

// publish numbers the blobs, one zone after the other, and gives the campaign its audience.
func (f *freezer) publish(ctx context.Context) error {
	slices.SortStableFunc(f.index, func(a, b part) int { return cmp.Compare(a.zone, b.zone) })
	return f.s.write(ctx, func(tx *tx) error {
		row, err := campaignRow(ctx, tx.Queries, f.c.Tenant, f.c.ID())
		if err != nil {
			return err
		}
		c := campaignOf(row)
		if c.Version != f.c.Version {
			return &VersionError{"campaign", f.c.Version, c.Version}
		}
		first := int64(0)
		for i, p := range f.index {
			if err := tx.InsertIndex(ctx, db.InsertIndexParams{
				FreezeID: f.id, Blob: int64(i), Part: p.part, FirstSeq: first, Count: p.count, Zone: p.zone,
			}); err != nil {
				return err
			}
			first += p.count
		}
		if n, err := tx.PublishFreeze(ctx, tx.now, f.id); err != nil || n != 1 {
			return f.taken(err)
		}
		if err := tx.keepContacted(ctx, &c, f.id, f.rules, &f.sent); err != nil {
			return err
		}
		c.FreezeID, c.Total = f.id, f.total
		return tx.save(ctx, &c, f.c.Version)
	})
}

// dropFreeze removes a freeze that is in the given state, in several short transactions. The first marks it as dropped,
// so that no process publishes it or reads half of it.
func (s *Store) dropFreeze(ctx context.Context, id string, state int64) error {
	marked := false
	if err := s.write(ctx, func(tx *tx) error {
		n, err := tx.DropFreeze(ctx, id, state)
		if marked = n == 1; err != nil || !marked {
			return err
		}
		if err := tx.DropContacted(ctx, id); err != nil {
			return err
		}
		if err := tx.DropFilters(ctx, id); err != nil {
			return err
		}
		return tx.DropIndex(ctx, id)
	}); err != nil || !marked {
		return err
	}
	for more := true; more; {
		err := s.write(ctx, func(tx *tx) error {
			const atOnce = 20 // some megabytes
			n, err := tx.DropBlobs(ctx, id, atOnce)
			if more = n == atOnce; err != nil || more {
				return err
			}
			return tx.ForgetFreeze(ctx, id)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Blobs returns the index of the blobs of a frozen audience, in order of seq. An empty audience has none.
func (s *Store) Blobs(ctx context.Context, freezeID string) ([]audience.Index, error) {
	rows, err := s.q.ListIndex(ctx, freezeID)
	if err != nil {
		return nil, fmt.Errorf("audience %s: %w", freezeID, err)
	}
	// Checked after the index is read: dropFreeze takes the published mark away before it removes blobs, so an index
	// with the mark still there is complete.
	if n, err := s.q.FreezePublished(ctx, freezeID); err != nil {
		return nil, fmt.Errorf("audience %s: %w", freezeID, err)
	} else if n == 0 {
		return nil, notFound("audience", freezeID)
	}
	return all(rows, nil, func(r db.ListIndexRow) audience.Index {
		return audience.Index{Blob: uint32(r.Blob), First: uint32(r.FirstSeq), Count: uint32(r.Count), Zone: r.Zone}
	})
}

// Blob returns one blob of a frozen audience in the encoding of package audience.
func (s *Store) Blob(ctx context.Context, freezeID string, blob uint32) ([]byte, error) {
	data, err := s.q.GetBlob(ctx, freezeID, int64(blob))
	return data, found(err, "audience blob", fmt.Sprintf("%s/%d", freezeID, blob))
}
