package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// partBits is how many bits of a seq stand for its place within a part: a container of a Roaring bitmap.
const partBits = 16

// appender sorts the events of one Append by what is to be written. It is used again and again.
type appender struct {
	works    map[campaignKey]*work
	byRef    map[*analytics.Campaign]*work
	entries  map[entryKey]*entry
	lastWork *work
	lastFrom *analytics.Campaign
	last     *entry
	serial   int
	writer   pieceWriter
}

// work is one campaign of the batches.
type work struct {
	*campaignSets
	fresh   bool
	entries []*entry
	blocks  map[uint32]*bucket
	lastNo  uint32
	last    *bucket
	minutes map[minuteKey]uint64
	refs    map[refKey]struct{}
}

type (
	minuteKey struct {
		minute int64
		kind   fanfarev1.Kind
	}
	refKey struct {
		ref string
		seq uint32
	}
	entryKey struct {
		w *work
		s shape
	}
)

// entry is one shape of one campaign and everybody that it happened to.
type entry struct {
	entryKey
	prec schemas.Precedence
	seqs []uint32
	// Its number within the piece that is being written: that of serial.
	serial, number int
	minute         int64
	events         uint64 // of that minute, not yet in the work's minutes
}

// bucket is the events of one block of one campaign.
type bucket struct {
	events []placed
}

type placed struct {
	e *analytics.Event
	x *entry
}

func (a *appender) reset() {
	// Made anew: what a busy batch needed is not kept for quiet ones.
	a.works = make(map[campaignKey]*work)
	a.byRef = make(map[*analytics.Campaign]*work)
	a.entries = make(map[entryKey]*entry)
	a.lastWork, a.lastFrom, a.last = nil, nil, nil
}

// Append adds batches in one transaction.
func (s *Store) Append(ctx context.Context, batches ...analytics.Batch) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	t, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer t.rollback()
	a := &s.appender
	a.reset()
	defer a.reset()
	for i := range batches {
		if err := s.take(t, &batches[i]); err != nil {
			return err
		}
	}
	// In a fixed order, for the sake of whoever looks for the difference between two runs.
	keys := slices.SortedFunc(maps.Keys(a.works), func(x, y campaignKey) int {
		return cmp.Or(cmp.Compare(x.tenant, y.tenant), cmp.Compare(x.id, y.id))
	})
	next := make([]*campaignSets, 0, len(keys))
	for _, key := range keys {
		w := a.works[key]
		c, err := s.writeCampaign(t, w)
		if err != nil {
			s.forget(keys)
			return fmt.Errorf("append to %s: %w", key.id, err)
		}
		next = append(next, c)
	}

	s.visible.Lock()
	defer s.visible.Unlock()
	if err := t.commit(); err != nil {
		s.forget(keys)
		return fmt.Errorf("append: %w", err)
	}
	for _, c := range next {
		s.cache.put(c)
	}
	return nil
}

// forget drops what memory holds of campaigns whose transaction failed: their pieces are miscounted.
func (s *Store) forget(keys []campaignKey) {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	for _, key := range keys {
		s.cache.remove(key)
	}
}

// take sorts the events of one batch, and moves its position.
func (s *Store) take(t *tx, b *analytics.Batch) error {
	from := int64(-1 << 62)
	if !b.Topic.IsZero() {
		err := s.conn.QueryRowContext(t.ctx, "SELECT next FROM positions WHERE topic = ? AND partition = ?", b.Topic[:], b.Partition).Scan(&from)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("read position of partition %d: %w", b.Partition, err)
		}
		if b.End <= from {
			return nil
		}
		const upsert = `INSERT INTO positions (topic, partition, next) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next`
		if err := t.exec(upsert, b.Topic[:], b.Partition, b.End); err != nil {
			return fmt.Errorf("move position of partition %d: %w", b.Partition, err)
		}
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Offset < from && !b.Topic.IsZero() {
			continue
		}
		if err := s.place(t, e); err != nil {
			return err
		}
	}
	return nil
}

// place puts one event where it belongs. It runs once per event: no statement, no allocation but for growth.
func (s *Store) place(t *tx, e *analytics.Event) error {
	if err := e.Check(); err != nil {
		return err
	}
	a := &s.appender
	if e.Campaign != a.lastFrom || a.lastWork == nil {
		w, err := s.work(t, e.Campaign)
		if err != nil {
			return err
		}
		a.lastFrom, a.lastWork = e.Campaign, w
	}
	w := a.lastWork

	key := entryKey{w, shapeOf(e, w.number)}
	x := a.last
	if x == nil || x.entryKey != key {
		if x = a.entries[key]; x == nil {
			x = &entry{entryKey: key, prec: e.Precedence(), serial: -1, minute: -1}
			a.entries[key] = x
			w.entries = append(w.entries, x)
		}
		a.last = x
	}
	x.seqs = append(x.seqs, e.Seq)
	if minute := e.TimeMS - e.TimeMS%60_000; minute != x.minute {
		w.count(x)
		x.minute = minute
	}
	x.events++

	block := e.Seq / blockSize
	if w.last == nil || w.lastNo != block {
		if w.last = w.blocks[block]; w.last == nil {
			w.last = &bucket{}
			w.blocks[block] = w.last
		}
		w.lastNo = block
	}
	w.last.events = append(w.last.events, placed{e, x})
	if e.CustomerRef != "" {
		if w.refs == nil {
			w.refs = map[refKey]struct{}{}
		}
		w.refs[refKey{e.CustomerRef, e.Seq}] = struct{}{}
	}
	return nil
}

func (w *work) count(x *entry) {
	if x.events > 0 {
		w.minutes[minuteKey{x.minute, x.s.kind}] += x.events
		x.events = 0
	}
}

// work returns the campaign of some events, reading or making it.
func (s *Store) work(t *tx, from *analytics.Campaign) (*work, error) {
	a := &s.appender
	if w := a.byRef[from]; w != nil {
		return w, nil
	}
	key := campaignKey{from.Tenant, from.ID}
	w := a.works[key]
	if w == nil {
		c := s.cache.get(key)
		if c == nil {
			var err error
			if c, err = load(t.ctx, s.conn, key); err != nil {
				return nil, err
			}
		}
		w = &work{campaignSets: c, blocks: map[uint32]*bucket{}, minutes: map[minuteKey]uint64{}}
		if c == nil {
			s.nextID++
			w.fresh = true
			w.campaignSets = &campaignSets{
				id: s.nextID, key: key, number: campaignNumber(key.id), month: analytics.MonthOf(from.Month),
				sets: map[setKey]*set{}, pieces: map[uint32]levels{}, bytes: campaignBytes,
			}
		}
		a.works[key] = w
	}
	a.byRef[from] = w
	return w, nil
}

// writeCampaign writes what happened in one campaign and returns the campaign as it is then.
func (s *Store) writeCampaign(t *tx, w *work) (*campaignSets, error) {
	if w.fresh {
		if err := t.exec("INSERT INTO campaigns (id, tenant, campaign, month) VALUES (?, ?, ?, ?)", w.id, w.key.tenant, w.key.id, w.month.Format(dateLayout)); err != nil {
			return nil, err
		}
	}
	for _, x := range w.entries {
		w.count(x)
	}
	for _, block := range slices.Sorted(maps.Keys(w.blocks)) {
		if err := s.writePiece(t, w, block, w.blocks[block].events); err != nil {
			return nil, err
		}
	}
	for k, n := range w.minutes {
		const add = `INSERT INTO timeline (campaign, minute, kind, n) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n`
		if err := t.exec(add, w.id, k.minute, int32(k.kind), n); err != nil {
			return nil, err
		}
	}
	for k := range w.refs {
		if err := t.exec("INSERT OR IGNORE INTO customer_refs (ref, campaign, seq) VALUES (?, ?, ?)", k.ref, w.id, k.seq); err != nil {
			return nil, err
		}
	}
	return s.writeSets(t, w)
}

// writeSets adds everybody to their sets and returns the campaign with them.
func (s *Store) writeSets(t *tx, w *work) (*campaignSets, error) {
	next := *w.campaignSets
	next.sets = maps.Clone(w.sets)
	add := func(key setKey, number uint32, delta *roaring.Bitmap) error {
		known := next.sets[key]
		if known == nil {
			s.nextID++
			known = &set{id: s.nextID, key: key}
			const insert = `INSERT INTO sets (id, campaign, family, prec, link, sent, variant, channel, country, route, try, leg, segments, price_micros, currency) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
			if err := t.exec(insert, known.id, w.id, key.family, uint32(key.prec), key.link, key.sent, key.variant, int32(key.channel), key.country, key.route, key.try, key.leg, key.segments, key.price, key.currency); err != nil {
				return err
			}
			next.bytes += setBytes
		}
		old := known.part(number)
		if old != nil {
			delta = roaring.Or(old, delta)
			if delta.GetCardinality() == old.GetCardinality() {
				return nil
			}
		}
		delta.RunOptimize()
		blob, err := delta.ToBytes()
		if err != nil {
			return err
		}
		if err := t.exec("INSERT INTO parts (set_id, part, members) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET members = excluded.members", known.id, number, blob); err != nil {
			return err
		}
		next.bytes += partSize(delta) - partSize(old)
		next.sets[key] = known.with(number, delta)
		return nil
	}
	for _, d := range w.deltas() {
		if err := add(d.key, d.part, d.members); err != nil {
			return nil, err
		}
	}
	return &next, nil
}

// delta is who is new to a part of a set, some perhaps not.
type delta struct {
	key     setKey
	part    uint32
	members *roaring.Bitmap
}

// deltas gathers the seqs of all shapes by set and part.
func (w *work) deltas() []delta {
	type place struct {
		key  setKey
		part uint32
	}
	index := map[place]int{}
	var out []delta
	put := func(key setKey, number uint32, members *roaring.Bitmap) {
		at := place{key, number}
		if i, ok := index[at]; ok {
			// Not in place: the same bitmap may stand in another set.
			out[i].members = roaring.Or(out[i].members, members)
			return
		}
		index[at] = len(out)
		out = append(out, delta{key, number, members})
	}
	for _, x := range w.entries {
		if !slices.IsSorted(x.seqs) {
			slices.Sort(x.seqs)
		}
		for i := 0; i < len(x.seqs); {
			number := x.seqs[i] >> partBits
			n, _ := slices.BinarySearchFunc(x.seqs[i:], number, func(seq, number uint32) int {
				if seq>>partBits <= number {
					return -1
				}
				return 1
			})
			members := roaring.New()
			members.AddMany(x.seqs[i : i+n])
			i += n
			put(statusKey(x), number, members)
			if x.s.kind == fanfarev1.Kind_KIND_SENT || x.s.kind == fanfarev1.Kind_KIND_NOT_SENT {
				put(sendKey(x), number, members)
			}
		}
	}
	return out
}

func statusKey(x *entry) setKey {
	return setKey{family: familyStatus, prec: x.prec, link: x.s.link}
}

func sendKey(x *entry) setKey {
	return setKey{
		family: familySend, sent: x.s.kind == fanfarev1.Kind_KIND_SENT, variant: x.s.variant, channel: x.s.channel, country: x.s.country,
		route: x.s.route, try: x.s.try, leg: x.s.leg, segments: x.s.segments, price: x.s.price, currency: x.s.currency,
	}
}

// writePiece writes the events of one block, and merges pieces when there are many.
func (s *Store) writePiece(t *tx, w *work, block uint32, events []placed) error {
	a := &s.appender
	a.serial++
	a.writer.reset()
	for _, p := range events {
		if p.x.serial != a.serial {
			p.x.serial, p.x.number = a.serial, a.writer.shape(&p.x.s)
		}
		a.writer.add(p.e, p.x.number, p.x.s.holds)
	}
	who, rest := a.writer.finish()
	if err := insertPiece(t, w, block, 0, len(events), who, rest); err != nil {
		return err
	}
	l := w.pieces[block]
	l[0]++
	for level := 0; level < len(l)-1 && l[level] >= fan; level++ {
		if err := s.merge(t, w, block, level); err != nil {
			return fmt.Errorf("merge pieces of block %d: %w", block, err)
		}
		l[level] = 0
		l[level+1]++
	}
	w.pieces[block] = l
	return nil
}

// fan is how many pieces of a level become one of the next. A block that is dealt and answered within seconds never gets
// so many; one that takes hours has each event written again at most three times, and never more than a few dozen pieces to read
// for each 20,000 batches.
const fan = 12

func insertPiece(t *tx, w *work, block uint32, level, events int, who, rest []byte) error {
	return t.exec("INSERT INTO pieces (campaign, block, level, events, who, rest) VALUES (?, ?, ?, ?, ?, ?)", w.id, block, level, events, who, rest)
}

// merge puts the pieces of one level of a block together, in order of seq, without what came twice.
func (s *Store) merge(t *tx, w *work, block uint32, level int) error {
	public := w.public()
	var events []analytics.Event
	everybody := func(uint32) bool { return true }
	keep := func(e *analytics.Event) { events = append(events, *e) }
	rows, err := s.conn.QueryContext(t.ctx, "SELECT who, rest FROM pieces WHERE campaign = ? AND block = ? AND level = ?", w.id, block, level)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var who, rest sql.RawBytes
		if err := rows.Scan(&who, &rest); err != nil {
			return err
		}
		if err := readPiece(who, rest, public, w.number, everybody, keep); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := t.exec("DELETE FROM pieces WHERE campaign = ? AND block = ? AND level = ?", w.id, block, level); err != nil {
		return err
	}
	slices.SortStableFunc(events, func(x, y analytics.Event) int { return cmp.Or(cmp.Compare(x.Seq, y.Seq), compareEvents(&x, &y)) })
	events = slices.CompactFunc(events, func(x, y analytics.Event) bool { return x.Seq == y.Seq && compareEvents(&x, &y) == 0 })
	writer := &s.appender.writer
	writer.reset()
	numbers := map[shape]int{}
	for i := range events {
		sh := shapeOf(&events[i], w.number)
		number, ok := numbers[sh]
		if !ok {
			number = writer.shape(&sh)
			numbers[sh] = number
		}
		writer.add(&events[i], number, sh.holds)
	}
	who, rest := writer.finish()
	return insertPiece(t, w, block, level+1, len(events), who, rest)
}
