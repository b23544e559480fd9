package sqlite

import (
	"container/list"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// campaignKey identifies a campaign. The tenant is always part of the key.
type campaignKey struct{ tenant, id string }

// setKey identifies a set of a campaign. Sets of statuses use prec, try and link; sets of messages use all but prec and
// link, sets of dealt recipients use try and leg.
type setKey struct {
	family   uint8
	prec     schemas.Precedence
	link     string
	kind     schemas.Kind
	variant  uint8
	try, leg uint8
	segments uint8
	channel  schemas.Channel
	price    uint32
	country  string
	route    string
	currency string
}

const (
	familyStatus  = 0
	familyMessage = 1
	familyDealt   = 2
)

// part holds the members of a set within 65,536 consecutive seqs. Its bitmap is never modified.
type part struct {
	number  uint32
	members *roaring.Bitmap
}

// set is one version of a set, as a batch left it. It is never modified.
type set struct {
	id    int64
	key   setKey
	parts []part // by number
}

func (s *set) part(number uint32) *roaring.Bitmap {
	i, ok := slices.BinarySearchFunc(s.parts, number, func(p part, n uint32) int { return int(p.number) - int(n) })
	if !ok {
		return nil
	}
	return s.parts[i].members
}

// with returns a copy of the set in which one part is replaced or added.
func (s *set) with(number uint32, members *roaring.Bitmap) *set {
	out := &set{id: s.id, key: s.key, parts: slices.Clone(s.parts)}
	i, ok := slices.BinarySearchFunc(out.parts, number, func(p part, n uint32) int { return int(p.number) - int(n) })
	if ok {
		out.parts[i].members = members
	} else {
		out.parts = slices.Insert(out.parts, i, part{number, members})
	}
	return out
}

// levels counts the runs of a block by level.
type levels [4]uint16

// campaignSets is one version of a campaign, as a batch left it. It is never modified, except for runs, which only the
// writer uses.
type campaignSets struct {
	id     int64
	key    campaignKey
	number uint64
	month  time.Time
	sets   map[setKey]*set
	runs   map[uint32]levels
	bytes  int
}

// public returns the campaign in the form of the contract.
func (c *campaignSets) public() *analytics.Campaign {
	return &analytics.Campaign{Tenant: c.key.tenant, ID: c.key.id, Month: c.month}
}

func campaignNumber(id string) uint64 {
	n, err := schemas.CampaignNumber(id)
	if err != nil {
		return 0 // the message ids of such a campaign are stored in full
	}
	return n
}

// Rough sizes in memory, without the bitmaps themselves.
const (
	campaignBytes = 512
	setBytes      = 256
	partBytes     = 160
)

func partSize(members *roaring.Bitmap) int {
	if members == nil {
		return 0
	}
	return partBytes + int(members.GetSizeInBytes())
}

// algebras returns the sets of statuses, as one Algebra for each part of the audience.
func (c *campaignSets) algebras() map[uint32]analytics.Algebra {
	out := map[uint32]analytics.Algebra{}
	for key, s := range c.sets {
		if key.family != familyStatus {
			continue
		}
		for _, p := range s.parts {
			a := out[p.number]
			if a == nil {
				a = analytics.Algebra{}
				out[p.number] = a
			}
			// Each try and each link has its own set.
			if known := a[key.prec]; known != nil {
				a[key.prec] = roaring.Or(known, p.members)
			} else {
				a[key.prec] = p.members
			}
		}
	}
	return out
}

// cache keeps the most recently used campaigns in memory.
type cache struct {
	mu    sync.Mutex
	limit int
	bytes int
	order *list.List // of *campaignSets, most recently used first
	index map[campaignKey]*list.Element
}

func newCache(limit int) *cache {
	return &cache{limit: limit, order: list.New(), index: map[campaignKey]*list.Element{}}
}

func (c *cache) get(key campaignKey) *campaignSets {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.index[key]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	found, _ := e.Value.(*campaignSets)
	return found
}

func (c *cache) put(x *campaignSets) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(x.key)
	c.index[x.key] = c.order.PushFront(x)
	c.bytes += x.bytes
	for c.bytes > c.limit && c.order.Len() > 1 {
		last, _ := c.order.Back().Value.(*campaignSets)
		c.remove(last.key)
	}
}

func (c *cache) remove(key campaignKey) {
	if e := c.index[key]; e != nil {
		x, _ := c.order.Remove(e).(*campaignSets)
		c.bytes -= x.bytes
		delete(c.index, key)
	}
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

const dateLayout = "2006-01-02"

// find reads the row of a campaign; nil if the store does not have it.
func find(ctx context.Context, q querier, key campaignKey) (*campaignSets, error) {
	c := &campaignSets{key: key, number: campaignNumber(key.id), sets: map[setKey]*set{}, runs: map[uint32]levels{}}
	var month string
	err := q.QueryRowContext(ctx, "SELECT id, month FROM campaigns WHERE tenant = ? AND campaign = ?", key.tenant, key.id).Scan(&c.id, &month)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err == nil {
		c.month, err = time.Parse(dateLayout, month)
	}
	if err != nil {
		return nil, fmt.Errorf("read campaign %s: %w", key.id, err)
	}
	return c, nil
}

// load reads a campaign with its sets; nil if the store does not have it.
func load(ctx context.Context, q querier, key campaignKey) (*campaignSets, error) {
	c, err := find(ctx, q, key)
	if c == nil || err != nil {
		return nil, err
	}
	c.bytes = campaignBytes
	if err := c.loadSets(ctx, q); err != nil {
		return nil, fmt.Errorf("read sets of %s: %w", key.id, err)
	}
	if err := c.loadRuns(ctx, q); err != nil {
		return nil, fmt.Errorf("read runs of %s: %w", key.id, err)
	}
	return c, nil
}

func (c *campaignSets) loadSets(ctx context.Context, q querier) error {
	rows, err := q.QueryContext(ctx, `SELECT s.id, s.family, s.prec, s.link, s.kind, s.variant, s.channel, s.country, s.route, s.try, s.leg, s.segments, s.price_micros, s.currency, p.part, p.members
		FROM sets s JOIN parts p ON p.set_id = s.id WHERE s.campaign = ? ORDER BY s.id, p.part`, c.id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var s set
		var p part
		var blob sql.RawBytes
		k := &s.key
		if err := rows.Scan(&s.id, &k.family, &k.prec, &k.link, &k.kind, &k.variant, &k.channel, &k.country, &k.route, &k.try, &k.leg, &k.segments, &k.price, &k.currency, &p.number, &blob); err != nil {
			return err
		}
		p.members = roaring.New()
		if err := p.members.UnmarshalBinary(blob); err != nil {
			return fmt.Errorf("set %d part %d: %w", s.id, p.number, err)
		}
		known := c.sets[s.key]
		if known == nil {
			known = &s
			c.sets[s.key] = known
			c.bytes += setBytes
		}
		c.bytes += partSize(p.members)
		known.parts = append(known.parts, p)
	}
	return rows.Err()
}

func (c *campaignSets) loadRuns(ctx context.Context, q querier) error {
	rows, err := q.QueryContext(ctx, "SELECT block, level, count(*) FROM runs WHERE campaign = ? GROUP BY block, level", c.id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var block uint32
		var level, n int
		if err := rows.Scan(&block, &level, &n); err != nil {
			return err
		}
		l := c.runs[block]
		l[min(level, len(l)-1)] = uint16(n)
		c.runs[block] = l
	}
	return rows.Err()
}

// campaign returns a campaign as of the last commit; nil if the store does not have it.
func (s *Store) campaign(ctx context.Context, tenant, id string) (*campaignSets, error) {
	key := campaignKey{tenant, id}
	if c, err := s.cached(key); c != nil || err != nil {
		return c, err
	}
	// Take the connection before the lock: a goroutine that holds visible must not wait for anything.
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", id, err)
	}
	defer conn.Close()
	s.visible.RLock()
	defer s.visible.RUnlock()
	if c := s.cache.get(key); c != nil {
		return c, nil
	}
	c, err := load(ctx, conn, key)
	if c != nil {
		s.cache.put(c)
	}
	return c, err
}

func (s *Store) cached(key campaignKey) (*campaignSets, error) {
	if s.closed.Load() {
		return nil, analytics.ErrClosed
	}
	s.visible.RLock()
	defer s.visible.RUnlock()
	return s.cache.get(key), nil
}
