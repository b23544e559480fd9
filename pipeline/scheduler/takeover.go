package scheduler

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/scheduler/plan"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// clockMargin is how far the clocks of two leaders may differ when records are looked up by their time.
const clockMargin = 5 * time.Minute

// savedCursors is the content of topic `cursors`, by key.
type savedCursors struct {
	cursors map[string]*fanfarev1.Cursor
	sets    map[string]map[uint32]*fanfarev1.CursorSets // by the cursor's key and part
	offsets map[string]map[int32]int64
	newest  int64 // when the newest record was written, in milliseconds
	// unreadable are records that are the newest of their key and cannot be read.
	unreadable map[string]unreadable
}

type unreadable struct {
	record *kgo.Record
	err    error
}

func newSavedCursors() *savedCursors {
	return &savedCursors{
		cursors: map[string]*fanfarev1.Cursor{}, sets: map[string]map[uint32]*fanfarev1.CursorSets{}, offsets: map[string]map[int32]int64{},
		unreadable: map[string]unreadable{},
	}
}

// readCursors reads all of topic `cursors`.
func (s *Scheduler) readCursors(ctx context.Context) (*savedCursors, error) {
	out := newSavedCursors()
	err := s.readToEnd(ctx, "scheduler.cursors", []string{s.names.Cursors()}, nil, func(r *kgo.Record) {
		delete(out.unreadable, string(r.Key))
		if err := out.apply(r); err != nil {
			out.unreadable[string(r.Key)] = unreadable{cloneOf(r), err}
		}
	})
	return out, err
}

// apply applies one record. After an error its key has no value: an older record of the key must not count.
func (sc *savedCursors) apply(r *kgo.Record) error {
	key := string(r.Key)
	sc.newest = max(sc.newest, r.Timestamp.UnixMilli())
	if key == offsetsKey {
		clear(sc.offsets)
		var o fanfarev1.CursorOffsets
		if err := proto.Unmarshal(r.Value, &o); err != nil {
			return err
		}
		for _, t := range o.GetOffsets() {
			if sc.offsets[t.GetTopic()] == nil {
				sc.offsets[t.GetTopic()] = map[int32]int64{}
			}
			sc.offsets[t.GetTopic()][t.GetPartition()] = t.GetOffset()
		}
		return nil
	}
	if of, part, ok := strings.Cut(key, "/sets/"); ok {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			return fmt.Errorf("key %q: %w", key, err)
		}
		delete(sc.sets[of], uint32(n))
		if r.Value == nil {
			return nil
		}
		p := &fanfarev1.CursorSets{}
		if err := proto.Unmarshal(r.Value, p); err != nil {
			return err
		}
		if sc.sets[of] == nil {
			sc.sets[of] = map[uint32]*fanfarev1.CursorSets{}
		}
		sc.sets[of][uint32(n)] = p
		return nil
	}
	delete(sc.cursors, key)
	if r.Value == nil {
		return nil
	}
	c := &fanfarev1.Cursor{}
	if err := proto.Unmarshal(r.Value, c); err != nil {
		return err
	}
	if want := schemas.CampaignKey(c.GetTenant(), c.GetCampaignId()); key != want {
		return fmt.Errorf("key %q holds the cursor of %s", key, want)
	}
	sc.cursors[key] = c
	return nil
}

// partsOf returns the parts of the epoch that a cursor names, in order.
func (sc *savedCursors) partsOf(key string, c *fanfarev1.Cursor) []*fanfarev1.CursorSets {
	var parts []*fanfarev1.CursorSets
	for n := range c.GetSetsParts() {
		if p := sc.sets[key][n]; p.GetEpoch() == c.GetSetsEpoch() {
			parts = append(parts, p)
		}
	}
	return parts
}

// restore loads into the planner what the predecessor wrote. It returns the deals that the cursors list: each must be
// found in topic `chunks`. A campaign with a record that cannot be read is set aside, and holds up no other.
func (l *leader) restore(sc *savedCursors) map[plan.DealID]*fanfarev1.Deal {
	settled := map[uint64]*fanfarev1.Campaign{}
	for _, r := range l.cfg.View.Campaigns() {
		if r.GetSettled() {
			settled[r.GetNumber()] = r
		}
	}
	listed := map[plan.DealID]*fanfarev1.Deal{}
	for key, c := range sc.cursors {
		if r := settled[c.GetCampaignNumber()]; r != nil || c.GetSettled() {
			at := max(c.GetSettledMs(), r.GetSettledMs())
			l.tombstones[c.GetCampaignNumber()] = &tombstone{key: key, tenant: c.GetTenant(), settledMs: at, marked: c.GetSettled(), cursor: c}
			if c.GetSettled() {
				l.planner.RestoreSettled(c)
			}
			continue
		}
		if err := l.planner.Restore(c, sc.partsOf(key, c), l.cfg.Now()); err != nil {
			l.setAside(key, err)
			continue
		}
		for _, d := range c.GetRecent() {
			listed[plan.DealID{Campaign: c.GetCampaignNumber(), Number: d.GetDeal()}] = d
		}
	}
	for key, u := range sc.unreadable {
		l.deadLetter(u.record, u.err)
		if !strings.Contains(key, "/sets/") { // a part that is missing was noticed above
			l.setAside(key, u.err)
		}
	}
	return listed
}

// setAside suspends the campaign that a cursor's key names, so that it holds up no other.
func (l *leader) setAside(cursorKey string, err error) {
	tenant, id, _ := strings.Cut(cursorKey, "/")
	number, nerr := schemas.CampaignNumber(id)
	if nerr != nil {
		return // such as `offsets`: without it the leader reads topic deliveries from its beginning
	}
	if r := l.viewRecord(number); r.GetSettled() {
		return // settled: nothing more is dealt
	}
	l.planner.SetAside(number, tenant, id)
	l.log.Error("campaign set aside: unreadable record", "campaign", id, "err", err)
}

func (l *leader) viewRecord(number uint64) *fanfarev1.Campaign {
	for _, r := range l.cfg.View.Campaigns() {
		if r.GetNumber() == number {
			return r
		}
	}
	return nil
}

// checkChunks looks in topic `chunks` for the deals that the cursors list, and counts the recipients of every chunk
// that no cursor lists as dealt. It returns the deals that are missing. written is when the newest cursor was written.
func (l *leader) checkChunks(ctx context.Context, listed map[plan.DealID]*fanfarev1.Deal, written int64) ([]plan.Deal, error) {
	since := l.planner.ChunksSince(listed, written)
	if since == 0 {
		return nil, nil
	}
	from, err := l.offsetsAt(ctx, l.names.Chunks(), max(since-clockMargin.Milliseconds(), 0))
	if err != nil {
		return nil, fmt.Errorf("chunks: %w", err)
	}
	err = l.readToEnd(ctx, "scheduler.chunks", []string{l.names.Chunks()}, from, func(r *kgo.Record) {
		ch := &fanfarev1.Chunk{}
		if err := proto.Unmarshal(r.Value, ch); err != nil {
			return // the expander writes its dead letter
		}
		delete(listed, plan.DealID{Campaign: ch.GetCampaignNumber(), Number: ch.GetDeal()})
		unlisted, err := l.planner.AdoptChunk(ch)
		if err != nil {
			l.deadLetter(r, err)
			l.setAside(schemas.CampaignKey(ch.GetTenant(), ch.GetCampaignId()), err)
		}
		if unlisted {
			l.metrics.adopted.Inc()
			l.log.WarnContext(ctx, "chunk without a cursor; counted as dealt", "campaign", ch.GetCampaignId(), "deal", ch.GetDeal())
		}
	})
	if err != nil {
		return nil, fmt.Errorf("look for deals in chunks: %w", err)
	}
	missing, err := l.planner.RepeatDeals(listed)
	for i := range missing {
		l.metrics.redealt.Inc()
		l.log.WarnContext(ctx, "deal without a chunk; dealt again", "campaign", missing[i].Campaign.ID(), "deal", missing[i].Number)
	}
	return missing, err
}

// offsetsAt returns the offsets of the first records at or after a time.
func (l *leader) offsetsAt(ctx context.Context, topic string, at int64) (map[string]map[int32]int64, error) {
	offsets, err := kadm.NewClient(l.cl).ListOffsetsAfterMilli(ctx, at, topic)
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, err
	}
	out := map[string]map[int32]int64{topic: {}}
	offsets.Each(func(o kadm.ListedOffset) { out[topic][o.Partition] = o.Offset })
	return out, nil
}

// heldSince is how old a tombstone in topic `held` may be for its deal to be looked for: a broker that tears
// transactions may show the tombstone without the deal.
const heldSince = 10 * time.Minute

// maxValidity is how long a single send without a not_after may be handed over after it was due.
const maxValidity = 48 * time.Hour

// readHeld applies a record of topic `held`.
func (l *leader) readHeld(r *kgo.Record) {
	key := string(r.Key)
	if r.Value == nil {
		if h := l.planner.Unhold(key); h != nil && !l.live && string(schemas.Header(r, "ce_source")) == source &&
			r.Timestamp.After(l.cfg.Now().Add(-heldSince)) {
			l.recentHeld[key] = h
		}
		return
	}
	delete(l.recentHeld, key)
	m := &fanfarev1.Held{}
	if err := proto.Unmarshal(r.Value, m); err != nil {
		l.deadLetter(r, err)
		return
	}
	msg := m.GetMessage()
	notAfter := msg.GetNotAfterMs()
	if notAfter == 0 {
		notAfter = m.GetDueMs() + maxValidity.Milliseconds()
	}
	l.planner.Hold(&plan.Held{
		Key: key, Tenant: msg.GetTenant(), DueMs: m.GetDueMs(), Campaign: msg.GetCampaignNumber(), Seq: msg.GetSeq(), Try: msg.GetTry(),
		Route: msg.GetRoute(), NotAfterMs: notAfter, Value: slices.Clone(r.Value),
	})
}

// reholdTorn holds single sends again whose tombstone was written and whose deal is on no transactional lane.
func (l *leader) reholdTorn() {
	for _, h := range l.recentHeld {
		if l.planner.Rehold(h) {
			l.metrics.redealt.Inc()
			l.log.Warn("held message on no lane; dealt again", "campaign", schemas.CampaignID(h.Campaign))
		}
	}
	l.recentHeld = nil
}
