package scheduler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// round is one writing of all sets that have changed.
type round struct {
	began   time.Time
	todo    []*campaign
	offsets map[string]map[int32]int64
}

// grave is a settled campaign whose cursor stays for a while.
type grave struct {
	key, tenant string
	settledMs   int64
	marked      bool // the cursor says settled, and its sets are gone
	parts       uint32
	cursor      *fanfarev1.Cursor
}

// manyUnsaved is how many records that changed nothing may be read before the offsets are written for their sake: clicks, and what
// is said of settled campaigns.
const manyUnsaved = 100_000

// roundDue begins a round of sets when it is time: some have changed, or a cursor names so many deals that its record would
// grow too large.
func (l *leader) roundDue(now time.Time) bool {
	if len(l.redeals) > 0 {
		return false // their cursors are what names them: whoever came next would not look for them
	}
	var todo []*campaign
	heavy := false
	for _, c := range l.core.open {
		if c.touched {
			todo = append(todo, c)
			heavy = heavy || c.heavy > heavyRecent
		}
	}
	if !heavy && (now.Before(l.nextRound) || len(todo) == 0 && l.unsaved < manyUnsaved && !l.toBury(now)) {
		return false
	}
	l.unsaved = 0
	l.round = &round{began: now, todo: todo, offsets: map[string]map[int32]int64{}}
	for topic, at := range l.offsets {
		l.round.offsets[topic] = maps.Clone(at)
	}
	return true
}

// writeRound returns the next records of the round: first the ends that are decided, for who is to be ended stands in no set;
// then the sets, a few MB at a time; last the offsets that all of them cover.
func (l *leader) writeRound(now time.Time) ([]*kgo.Record, error) {
	var records []*kgo.Record
	if !l.core.atRest() {
		for _, e := range l.core.takeEnds(endsPerCommit) {
			r, err := l.endRecord(&e, now)
			if err != nil {
				return nil, err
			}
			records = append(records, r)
			l.metrics.ends.WithLabelValues(kindName(e.kind)).Inc()
		}
		if len(records) > 0 {
			return records, nil
		}
	}
	size := 0
	for len(l.round.todo) > 0 && size < setsPerCommit {
		c := l.round.todo[0]
		l.round.todo = l.round.todo[1:]
		if c.closed || l.core.campaigns[c.number] != c {
			continue
		}
		out, err := l.setsRecords(c, now)
		if err != nil {
			return nil, err
		}
		for _, r := range out {
			size += len(r.Value)
		}
		records = append(records, out...)
	}
	l.metrics.setsBytes.Add(float64(size))
	if len(l.round.todo) > 0 {
		return records, nil
	}
	marks, err := l.bury(now)
	if err != nil {
		return nil, err
	}
	offsets, err := l.cursorRecord(offsetsKey, "", now, offsetsOf(l.round.offsets))
	if err != nil {
		return nil, err
	}
	// A tenth of the time at most goes into sets.
	l.nextRound = now.Add(max(l.cfg.SetsEvery, 10*now.Sub(l.round.began)))
	l.round = nil
	return append(append(records, marks...), offsets), nil
}

// setsRecords writes a campaign's sets, its cursor, and tombstones for parts that are no more.
func (l *leader) setsRecords(c *campaign, now time.Time) ([]*kgo.Record, error) {
	parts, before := c.snapshot()
	records := make([]*kgo.Record, 0, len(parts)+1)
	for i, p := range parts {
		r, err := l.cursorRecord(setsKey(c, uint32(i)), c.tenant, now, p)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	for n := uint32(len(parts)); n < before; n++ {
		r, err := l.cursorRecord(setsKey(c, n), c.tenant, now, nil)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	r, err := l.cursorRecord(c.key(), c.tenant, now, c.cursor())
	return append(records, r), err
}

// bury marks the cursors of settled campaigns and deletes their sets, and deletes cursors whose time is over.
func (l *leader) bury(now time.Time) ([]*kgo.Record, error) {
	var records []*kgo.Record
	add := func(key, tenant string, m proto.Message) error {
		r, err := l.cursorRecord(key, tenant, now, m)
		records = append(records, r)
		return err
	}
	for number, g := range l.graves {
		if !g.marked {
			for n := range g.parts {
				if err := add(fmt.Sprintf("%s/sets/%d", g.key, n), g.tenant, nil); err != nil {
					return nil, err
				}
			}
			cur := proto.CloneOf(g.cursor)
			cur.Settled, cur.SettledMs, cur.Recent, cur.SetsParts = true, g.settledMs, nil, 0
			if err := add(g.key, g.tenant, cur); err != nil {
				return nil, err
			}
			g.marked = true
		}
		if g.over(now) {
			if err := add(g.key, g.tenant, nil); err != nil {
				return nil, err
			}
			delete(l.graves, number)
		}
	}
	return records, nil
}

func (g *grave) over(now time.Time) bool {
	return now.After(time.UnixMilli(g.settledMs).Add(cursorKept))
}

// toBury reports whether a settled campaign's cursor is to be marked or deleted.
func (l *leader) toBury(now time.Time) bool {
	for _, g := range l.graves {
		if !g.marked || g.over(now) {
			return true
		}
	}
	return false
}

// tidyEvery is how often is looked for what nobody needs any more.
const tidyEvery = time.Minute

// tidy forgets settled campaigns that the view has forgotten, and campaigns that never came to have a record.
func (l *leader) tidy(now time.Time) {
	if now.Sub(l.minuteAt) < tidyEvery {
		return
	}
	l.minuteAt = now
	there := map[uint64]bool{}
	for _, r := range l.cfg.View.Campaigns() {
		there[r.GetNumber()] = true
	}
	for number, c := range l.core.campaigns {
		switch {
		case c.closed && !there[number]:
			l.core.CampaignGone(number)
		case c.record == nil && c.lastSeen < ms(now.Add(-orphanKept)) && l.core.holding.count[number] == 0:
			if c.epoch > 0 {
				l.graves[number] = &grave{key: c.key(), tenant: c.tenant, parts: c.parts, cursor: c.cursor()}
			}
			l.core.CampaignGone(number)
			l.log.Warn("a campaign that nobody knows is forgotten", "campaign", c.id)
		}
	}
}

func offsetsOf(at map[string]map[int32]int64) *fanfarev1.CursorOffsets {
	out := &fanfarev1.CursorOffsets{}
	for _, topic := range slices.Sorted(maps.Keys(at)) {
		for _, p := range slices.Sorted(maps.Keys(at[topic])) {
			out.Offsets = append(out.Offsets, &fanfarev1.CursorOffsets_TopicOffset{Topic: topic, Partition: p, Offset: at[topic][p]})
		}
	}
	return out
}

// finish ends a term in peace: what is under way is finished, and the sets are written, so that the successor has little to read.
func (l *leader) finish(work context.Context) error {
	if l.busy {
		if err := <-l.committed; err != nil {
			return err
		}
		l.busy = false
	}
	if !l.live {
		return nil
	}
	l.nextRound = time.Time{}
	for l.round != nil || l.roundDue(l.cfg.Now()) {
		records, err := l.writeRound(l.cfg.Now())
		if err != nil {
			return err
		}
		if err := l.commit(work, l.cl, records); err != nil {
			return fmt.Errorf("write the sets before leaving: %w", err)
		}
		if l.round == nil {
			break
		}
	}
	return nil
}
