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
	"fanfare/sinks/analytics"
)

// partBits is how many low bits of a seq give its place within a part. A part has the size of one container of a
// Roaring bitmap.
const partBits = 16

// appender groups the events of one Append by the rows that they go into. All Appends use the same appender.
type appender struct {
	works    map[campaignKey]*work
	byRef    map[*analytics.Campaign]*work
	entries  map[entryKey]*entry
	lastWork *work
	lastFrom *analytics.Campaign
	last     *entry
	serial   int
	writer   runWriter
}

// work collects what the batches of one Append hold about one campaign.
type work struct {
	*campaignSets
	fresh   bool
	entries []*entry
	blocks  map[uint32]*bucket
	lastNo  uint32
	last    *bucket
	seconds map[secondKey]uint64
	refs    map[refKey]struct{}
	deals   []*analytics.Deal
}

type (
	secondKey struct {
		second int64
		kind   schemas.Kind
		route  string
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

// entry collects the recipients of all events that have one shape, in one campaign.
type entry struct {
	entryKey
	prec    schemas.Precedence
	message bool // the events describe a message
	seqs    []uint32
	// number is the shape's number within the run whose serial is serial.
	serial, number int
	second         int64
	events         uint64 // of that second, not yet added to work.seconds
}

// bucket holds the events of one block of one campaign.
type bucket struct {
	events []placed
}

type placed struct {
	e *analytics.Event
	x *entry
}

func (a *appender) reset() {
	// The maps are replaced, not cleared, so that the memory of one busy batch is released.
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
	// The order is fixed, so that two executions with the same input write the same file.
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

// forget removes the campaigns of a failed transaction from the cache, because their counts of runs may be wrong.
func (s *Store) forget(keys []campaignKey) {
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	for _, key := range keys {
		s.cache.remove(key)
	}
}

// take groups the events of one batch and advances the position of its partition.
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
	for i := range b.Deals {
		d := &b.Deals[i]
		if d.Offset < from && !b.Topic.IsZero() {
			continue
		}
		if err := d.Check(); err != nil {
			return err
		}
		w, err := s.work(t, d.Campaign)
		if err != nil {
			return err
		}
		w.deals = append(w.deals, d)
	}
	return nil
}

// place adds one event to its groups. It runs once per event, so it executes no SQL and allocates only when a slice
// grows.
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
			x = &entry{entryKey: key, prec: e.Precedence(), message: e.DescribesMessage(), serial: -1, second: -1}
			a.entries[key] = x
			w.entries = append(w.entries, x)
		}
		a.last = x
	}
	x.seqs = append(x.seqs, e.Seq)
	if second := e.TimeMS / 1000; second != x.second {
		w.count(x)
		x.second = second
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
		w.seconds[secondKey{x.second, x.s.kind, x.s.route}] += x.events
		x.events = 0
	}
}

// work returns the work of a campaign. It loads the campaign, or creates it if the store does not have it.
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
		w = &work{campaignSets: c, blocks: map[uint32]*bucket{}, seconds: map[secondKey]uint64{}}
		if c == nil {
			s.nextID++
			w.fresh = true
			w.campaignSets = &campaignSets{
				id: s.nextID, key: key, number: campaignNumber(key.id), month: analytics.MonthOf(from.Month),
				sets: map[setKey]*set{}, runs: map[uint32]levels{}, bytes: campaignBytes,
			}
		}
		a.works[key] = w
	}
	a.byRef[from] = w
	return w, nil
}

// writeCampaign writes the events of one campaign and returns the campaign's new sets.
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
		if err := s.writeRun(t, w, block, w.blocks[block].events); err != nil {
			return nil, err
		}
	}
	for k, n := range w.seconds {
		const add = `INSERT INTO timeline (campaign, second, kind, route, n) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n`
		if err := t.exec(add, w.id, k.second, int32(k.kind), k.route, n); err != nil {
			return nil, err
		}
	}
	for k := range w.refs {
		if err := t.exec("INSERT OR IGNORE INTO customer_refs (ref, campaign, seq) VALUES (?, ?, ?)", k.ref, w.id, k.seq); err != nil {
			return nil, err
		}
	}
	for _, d := range w.deals {
		members, err := d.Members.ToBytes()
		if err != nil {
			return nil, err
		}
		const insert = `INSERT OR IGNORE INTO deals (campaign, deal, dealt_ms, try, leg, cancel, members) VALUES (?, ?, ?, ?, ?, ?, ?)`
		if err := t.exec(insert, w.id, d.Number, d.TimeMS, d.Try, d.Leg, d.Cancel, members); err != nil {
			return nil, err
		}
	}
	return s.writeSets(t, w)
}

// writeSets adds the recipients to their sets and returns the campaign with the new sets.
func (s *Store) writeSets(t *tx, w *work) (*campaignSets, error) {
	next := *w.campaignSets
	next.sets = maps.Clone(w.sets)
	add := func(key setKey, number uint32, delta *roaring.Bitmap) error {
		known := next.sets[key]
		if known == nil {
			s.nextID++
			known = &set{id: s.nextID, key: key}
			const insert = `INSERT INTO sets (id, campaign, family, prec, link, kind, variant, channel, country, route, try, leg, segments, price_micros, currency) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
			if err := t.exec(insert, known.id, w.id, key.family, uint32(key.prec), key.link, int32(key.kind), key.variant, int32(key.channel), key.country, key.route, key.try, key.leg, key.segments, key.price, key.currency); err != nil {
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

// delta holds recipients to add to one part of a set. Some of them may already be in it.
type delta struct {
	key     setKey
	part    uint32
	members *roaring.Bitmap
}

// deltas groups the seqs of all shapes by set and part.
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
			// Or returns a new bitmap: the old one may be shared with another set.
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
			if x.message {
				put(messageKey(x), number, members)
			}
		}
	}
	for _, d := range w.deals {
		if d.Cancel {
			continue // nothing is in flight
		}
		for number, members := range cut(d.Members) {
			put(setKey{family: familyDealt, try: d.Try, leg: d.Leg}, number, members)
		}
	}
	return out
}

// cut returns the parts of a bitmap. They share no memory with it.
func cut(b *roaring.Bitmap) map[uint32]*roaring.Bitmap {
	out := map[uint32]*roaring.Bitmap{}
	for it := b.Iterator(); it.HasNext(); {
		number := it.PeekNext() >> partBits
		part := roaring.New()
		part.AddRange(uint64(number)<<partBits, uint64(number+1)<<partBits)
		part.And(b)
		out[number] = part
		it.AdvanceIfNeeded((number + 1) << partBits)
	}
	return out
}

func statusKey(x *entry) setKey {
	key := setKey{family: familyStatus, prec: x.prec, link: x.s.link}
	if x.prec < schemas.PrecedenceFacts {
		key.try = x.s.try
	}
	return key
}

func messageKey(x *entry) setKey {
	return setKey{
		family: familyMessage, kind: x.s.kind, variant: x.s.variant, channel: x.s.channel, country: x.s.country,
		route: x.s.route, try: x.s.try, leg: x.s.leg, segments: x.s.segments, price: x.s.price, currency: x.s.currency,
	}
}

// writeRun writes the events of one block as a run, and merges runs when a level has too many.
func (s *Store) writeRun(t *tx, w *work, block uint32, events []placed) error {
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
	if err := insertRun(t, w, block, 0, len(events), who, rest); err != nil {
		return err
	}
	l := w.runs[block]
	l[0]++
	for level := 0; level < len(l)-1 && l[level] >= fan; level++ {
		if err := s.merge(t, w, block, level); err != nil {
			return fmt.Errorf("merge runs of block %d: %w", block, err)
		}
		l[level] = 0
		l[level+1]++
	}
	w.runs[block] = l
	return nil
}

// fan is how many runs of one level are merged into one run of the next level. A block whose recipients are all sent to
// and answered within seconds has fewer runs than that. In a block that receives events for hours, each event is
// rewritten at most three times, and after 20,000 batches a reader must read at most a few dozen runs.
const fan = 12

func insertRun(t *tx, w *work, block uint32, level, events int, who, rest []byte) error {
	return t.exec("INSERT INTO runs (campaign, block, level, events, who, rest) VALUES (?, ?, ?, ?, ?, ?)", w.id, block, level, events, who, rest)
}

// merge replaces the runs of one level of a block by one run of the next level, sorted by seq and without duplicates.
func (s *Store) merge(t *tx, w *work, block uint32, level int) error {
	public := w.public()
	var events []analytics.Event
	all := func(uint32) bool { return true }
	keep := func(e *analytics.Event) { events = append(events, *e) }
	rows, err := s.conn.QueryContext(t.ctx, "SELECT who, rest FROM runs WHERE campaign = ? AND block = ? AND level = ?", w.id, block, level)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var who, rest sql.RawBytes
		if err := rows.Scan(&who, &rest); err != nil {
			return err
		}
		if err := readRun(who, rest, public, w.number, all, keep); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := t.exec("DELETE FROM runs WHERE campaign = ? AND block = ? AND level = ?", w.id, block, level); err != nil {
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
	return insertRun(t, w, block, level+1, len(events), who, rest)
}
