package scheduler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/scheduler/plan"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// snapshotWrite is the state of writing one snapshot: all sets that have changed, in several transactions.
type snapshotWrite struct {
	began   time.Time
	todo    []*plan.Campaign
	offsets map[string]map[int32]int64
}

// tombstone is a settled campaign: its sets are deleted at once, its cursor after a while.
type tombstone struct {
	key, tenant string
	settledMs   int64
	marked      bool // the cursor says settled, and the sets are deleted
	cursor      *fanfarev1.Cursor
}

// manyUnsaved is how many records that change no set, such as clicks and late events of settled campaigns, may be read
// before the offsets are written because of them.
const manyUnsaved = 100_000

// snapshotDue starts a snapshot if it is time: sets have changed, or a cursor lists so many deals that its record would
// grow too large.
func (l *leader) snapshotDue(now time.Time) bool {
	if len(l.missingDeals) > 0 {
		return false // only the cursors list the missing deals: after a snapshot a successor would not look for them
	}
	todo, urgent := l.planner.UnsavedCampaigns()
	if !urgent && (now.Before(l.nextSnapshot) || len(todo) == 0 && l.unsaved < manyUnsaved && !l.cursorsToExpire(now)) {
		return false
	}
	l.unsaved = 0
	l.snapshot = &snapshotWrite{began: now, todo: todo, offsets: map[string]map[int32]int64{}}
	for topic, at := range l.offsets {
		l.snapshot.offsets[topic] = maps.Clone(at)
	}
	return true
}

// writeSnapshot returns the next records of the snapshot: first the ends that are decided, because no set holds them;
// then the sets, a few MB at a time; last the offsets that all sets cover.
func (l *leader) writeSnapshot(now time.Time) ([]*kgo.Record, error) {
	var records []*kgo.Record
	if l.planner.EndsPending() {
		ends, err := l.endRecords(l.planner.TakeEnds(endsPerCommit), now)
		if err != nil || len(ends) > 0 {
			return ends, err
		}
	}
	size := 0
	for len(l.snapshot.todo) > 0 && size < setsPerCommit {
		c := l.snapshot.todo[0]
		l.snapshot.todo = l.snapshot.todo[1:]
		if !l.planner.IsOpen(c) {
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
	if len(l.snapshot.todo) > 0 {
		return records, nil
	}
	expired, err := l.expireCursors(now)
	if err != nil {
		return nil, err
	}
	offsets, err := l.cursorRecord(offsetsKey, "", now, offsetsOf(l.snapshot.offsets))
	if err != nil {
		return nil, err
	}
	// A tenth of the time at most is spent on snapshots.
	l.nextSnapshot = now.Add(max(l.cfg.SetsEvery, 10*now.Sub(l.snapshot.began)))
	l.snapshot = nil
	return append(append(records, expired...), offsets), nil
}

// setsRecords returns the records of a campaign's sets, its cursor, and tombstones for the parts that are no longer
// used.
func (l *leader) setsRecords(c *plan.Campaign, now time.Time) ([]*kgo.Record, error) {
	parts, before := c.Snapshot()
	records := make([]*kgo.Record, 0, len(parts)+1)
	for i, p := range parts {
		r, err := l.cursorRecord(setsKey(c.Key(), uint32(i)), c.Tenant(), now, p)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	for n := uint32(len(parts)); n < before; n++ {
		r, err := l.cursorRecord(setsKey(c.Key(), n), c.Tenant(), now, nil)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	r, err := l.cursorRecord(c.Key(), c.Tenant(), now, c.Cursor())
	return append(records, r), err
}

// expireCursors marks the cursors of settled campaigns and deletes their sets, and deletes the cursors that were kept
// long enough.
func (l *leader) expireCursors(now time.Time) ([]*kgo.Record, error) {
	var records []*kgo.Record
	add := func(key, tenant string, m proto.Message) error {
		r, err := l.cursorRecord(key, tenant, now, m)
		records = append(records, r)
		return err
	}
	for number, t := range l.tombstones {
		if !t.marked {
			for n := range t.cursor.GetSetsParts() {
				if err := add(setsKey(t.key, n), t.tenant, nil); err != nil {
					return nil, err
				}
			}
			cur := proto.CloneOf(t.cursor)
			cur.Settled, cur.SettledMs, cur.Recent, cur.SetsParts = true, t.settledMs, nil, 0
			if err := add(t.key, t.tenant, cur); err != nil {
				return nil, err
			}
			t.marked = true
		}
		if t.expired(now) {
			if err := add(t.key, t.tenant, nil); err != nil {
				return nil, err
			}
			delete(l.tombstones, number)
		}
	}
	return records, nil
}

func (t *tombstone) expired(now time.Time) bool {
	return now.After(time.UnixMilli(t.settledMs).Add(cursorKept))
}

// cursorsToExpire reports whether the cursor of a settled campaign is to be marked or deleted.
func (l *leader) cursorsToExpire(now time.Time) bool {
	for _, t := range l.tombstones {
		if !t.marked || t.expired(now) {
			return true
		}
	}
	return false
}

// forgetEvery is how often campaigns that are no longer needed are dropped from memory.
const forgetEvery = time.Minute

// forgetUnknown drops settled campaigns that are no longer published, and campaigns whose record never arrived.
func (l *leader) forgetUnknown(now time.Time) {
	if now.Sub(l.minuteAt) < forgetEvery {
		return
	}
	l.minuteAt = now
	published := map[uint64]bool{}
	for _, r := range l.cfg.View.Campaigns() {
		published[r.GetNumber()] = true
	}
	for _, c := range l.planner.Forget(now, func(number uint64) bool { return published[number] }) {
		if c.HasCursor() {
			l.tombstones[c.Number()] = &tombstone{key: c.Key(), tenant: c.Tenant(), cursor: c.Cursor()}
		}
		l.log.Warn("campaign without a record forgotten", "campaign", c.ID())
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

// shutDown ends a leadership without an error: it waits for the transaction under way and writes the sets, so that the
// successor has little to read.
func (l *leader) shutDown(work context.Context) error {
	if l.busy {
		if err := <-l.committed; err != nil {
			return err
		}
		l.busy = false
	}
	if !l.live {
		return nil
	}
	l.nextSnapshot = time.Time{}
	for l.snapshot != nil || l.snapshotDue(l.cfg.Now()) {
		records, err := l.writeSnapshot(l.cfg.Now())
		if err != nil {
			return err
		}
		if err := l.commit(work, l.cl, records); err != nil {
			return fmt.Errorf("write the sets before leaving: %w", err)
		}
		if l.snapshot == nil {
			break
		}
	}
	return nil
}
