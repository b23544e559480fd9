package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// clockMargin is how far the clocks of two leaders may be apart where records are looked for by their time.
const clockMargin = 5 * time.Minute

// saved is what `cursors` holds, by key.
type savedCursors struct {
	cursors map[string]*fanfarev1.Cursor
	sets    map[string]map[uint32]*fanfarev1.CursorSets // by the cursor's key and part
	offsets map[string]map[int32]int64
	newest  int64 // when the last of the records was written, in milliseconds
}

// readToEnd gives every committed record that stands in the topics now.
func (s *Scheduler) readToEnd(ctx context.Context, name string, topics []string, from map[string]map[int32]int64, apply func(*kgo.Record)) error {
	t, err := stream.NewTail(stream.TailConfig{
		Cluster: s.cfg.Cluster.Named(name), Topics: topics, From: from, Every: 100 * time.Millisecond,
	}, func(batch []*kgo.Record) {
		for _, r := range batch {
			apply(r)
		}
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.Run(gctx) })
	g.Go(func() error {
		defer cancel()
		for {
			timer := time.NewTimer(nudgeAfter)
			select {
			case <-gctx.Done():
				timer.Stop()
				return gctx.Err()
			case <-t.Ready():
				timer.Stop()
				return nil
			case <-timer.C:
				s.nudge(gctx, topics)
			}
		}
	})
	return g.Wait()
}

// nudgeAfter is how long the end of a topic is waited for before its partitions are given another one.
const nudgeAfter = time.Second

// nudge ends every partition of topics with the control record of an aborted transaction, which no reader sees and every tail
// passes over. A broker always ends an aborted transaction with such a record, but for the embedded one that was killed: it
// only remembers that the last records do not count, and who waits to read up to the end of them waits until something is
// written behind them. Nothing might ever be: the scheduler deals when it has read all, and what is read comes of its deals.
func (s *Scheduler) nudge(ctx context.Context, topics []string) {
	if err := s.nudgeAll(ctx, topics); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "the ends of topics are not reached, and cannot be moved", "topics", topics, "err", err)
	}
}

func (s *Scheduler) nudgeAll(ctx context.Context, topics []string) error {
	ctx, cancel := context.WithTimeout(ctx, transactionTimeout)
	defer cancel()
	cl, err := s.cfg.Cluster.Named("scheduler.nudge").Client(
		kgo.TransactionalID(s.names.TransactionalID("scheduler", "nudge")),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.ProducerLinger(0),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	there, err := kadm.NewClient(cl).ListTopics(ctx, topics...)
	if err == nil {
		err = there.Error()
	}
	if err != nil {
		return err
	}
	if err := cl.BeginTransaction(); err != nil {
		return err
	}
	var records []*kgo.Record
	there.EachPartition(func(p kadm.PartitionDetail) {
		records = append(records, &kgo.Record{Topic: p.Topic, Partition: p.Partition, Key: []byte("nudge")})
	})
	err = cl.ProduceSync(ctx, records...).FirstErr()
	return errors.Join(err, cl.EndTransaction(ctx, kgo.TryAbort))
}

// readCursors reads all of `cursors`.
func (s *Scheduler) readCursors(ctx context.Context) (*savedCursors, error) {
	out := &savedCursors{
		cursors: map[string]*fanfarev1.Cursor{}, sets: map[string]map[uint32]*fanfarev1.CursorSets{}, offsets: map[string]map[int32]int64{},
	}
	var bad error
	err := s.readToEnd(ctx, "scheduler.cursors", []string{s.names.Cursors()}, nil, func(r *kgo.Record) {
		if err := out.apply(r); err != nil && bad == nil {
			bad = fmt.Errorf("%s/%d offset %d: %w", r.Topic, r.Partition, r.Offset, err)
		}
	})
	return out, errors.Join(err, bad)
}

func (sc *savedCursors) apply(r *kgo.Record) error {
	key := string(r.Key)
	sc.newest = max(sc.newest, r.Timestamp.UnixMilli())
	if key == offsetsKey {
		var o fanfarev1.CursorOffsets
		if err := proto.Unmarshal(r.Value, &o); err != nil {
			return err
		}
		clear(sc.offsets)
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
		if r.Value == nil {
			delete(sc.sets[of], uint32(n))
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
	if r.Value == nil {
		delete(sc.cursors, key)
		return nil
	}
	c := &fanfarev1.Cursor{}
	if err := proto.Unmarshal(r.Value, c); err != nil {
		return err
	}
	sc.cursors[key] = c
	return nil
}

// of returns the parts of the epoch that a cursor names, in order.
func (sc *savedCursors) of(key string, c *fanfarev1.Cursor) []*fanfarev1.CursorSets {
	var parts []*fanfarev1.CursorSets
	for n := range c.GetSetsParts() {
		if p := sc.sets[key][n]; p.GetEpoch() == c.GetSetsEpoch() {
			parts = append(parts, p)
		}
	}
	return parts
}

// restore fills the core from what the predecessor wrote. It returns the deals that must be found in `chunks`.
func (l *leader) restore(sc *savedCursors) (map[dealKey]*fanfarev1.Deal, error) {
	settled := map[uint64]*fanfarev1.Campaign{}
	for _, r := range l.cfg.View.Campaigns() {
		if r.GetSettled() {
			settled[r.GetNumber()] = r
		}
	}
	named := map[dealKey]*fanfarev1.Deal{}
	for key, c := range sc.cursors {
		if r := settled[c.GetCampaignNumber()]; r != nil || c.GetSettled() {
			at := max(c.GetSettledMs(), r.GetSettledMs())
			l.graves[c.GetCampaignNumber()] = &grave{
				key: key, tenant: c.GetTenant(), settledMs: at, marked: c.GetSettled(), parts: c.GetSetsParts(), cursor: c,
			}
			continue
		}
		if err := l.core.restore(c, sc.of(key, c)); err != nil {
			return nil, err
		}
		// Its record may still be on its way here: the predecessor's view was newer, or it would not have dealt.
		l.core.campaigns[c.GetCampaignNumber()].lastSeen = ms(l.cfg.Now())
		for _, d := range c.GetRecent() {
			named[dealKey{c.GetCampaignNumber(), d.GetDeal()}] = d
		}
	}
	return named, nil
}

type dealKey struct{ campaign, deal uint64 }

// checkChunks looks for the deals that the cursors name, and takes every chunk that no cursor names for dealt. It returns the
// deals that are missing. saved is when the newest of the cursors was written.
func (l *leader) checkChunks(ctx context.Context, named map[dealKey]*fanfarev1.Deal, saved int64) ([]deal, error) {
	var since int64
	earlier := func(at int64) {
		if at > 0 && (since == 0 || at < since) {
			since = at
		}
	}
	for _, d := range named {
		earlier(d.GetDealtMs())
	}
	for _, c := range l.core.open {
		// Dealt from, for all we know, and without a cursor: either nothing was dealt yet, or the cursors are gone.
		if r := c.record; r != nil && !r.GetHidden() && r.GetFreezeId() != "" && c.deals == 0 && r.GetState() != fanfarev1.State_STATE_READY &&
			r.GetState() != fanfarev1.State_STATE_SCHEDULED && r.GetState() != fanfarev1.State_STATE_PREPARING {
			earlier(max(r.GetConfirmedMs(), 1))
		}
		if c.deals > 0 { // a chunk whose cursor was torn off is no older than the cursors that are there
			earlier(saved)
		}
	}
	if since == 0 {
		return nil, nil
	}
	from, err := l.offsetsAt(ctx, l.names.Chunks(), max(since-clockMargin.Milliseconds(), 0))
	if err != nil {
		return nil, fmt.Errorf("chunks: %w", err)
	}
	var bad error
	err = l.readToEnd(ctx, "scheduler.chunks", []string{l.names.Chunks()}, from, func(r *kgo.Record) {
		ch := &fanfarev1.Chunk{}
		if err := proto.Unmarshal(r.Value, ch); err != nil {
			return // the expander's dead letter
		}
		delete(named, dealKey{ch.GetCampaignNumber(), ch.GetDeal()})
		news, err := l.core.adopt(ch)
		if err != nil && bad == nil {
			bad = err
		}
		if news {
			l.metrics.adopted.Inc()
			l.log.WarnContext(ctx, "a chunk that no cursor names is taken for dealt", "campaign", ch.GetCampaignId(), "deal", ch.GetDeal())
		}
	})
	if err := errors.Join(err, bad); err != nil {
		return nil, fmt.Errorf("look for deals in chunks: %w", err)
	}
	return l.missing(named)
}

// missing makes the deals again that were not found, in the order of their numbers.
func (l *leader) missing(named map[dealKey]*fanfarev1.Deal) ([]deal, error) {
	var out []deal
	for key, d := range named {
		c := l.core.campaigns[key.campaign]
		if c == nil || c.record == nil {
			continue
		}
		again, err := c.redeal(d)
		if err != nil {
			return nil, err
		}
		out = append(out, again)
		l.metrics.redealt.Inc()
		l.log.Warn("a deal that its cursor names is not in chunks: it is made again", "campaign", c.id, "deal", d.GetDeal())
	}
	slices.SortFunc(out, func(a, b deal) int {
		if a.campaign != b.campaign {
			return byNumber(a.campaign, b.campaign)
		}
		return int(a.number) - int(b.number)
	})
	return out, nil
}

// offsetsAt returns the offsets of the first records at or after a time.
func (l *leader) offsetsAt(ctx context.Context, topic string, at int64) (map[string]map[int32]int64, error) {
	listed, err := kadm.NewClient(l.cl).ListOffsetsAfterMilli(ctx, at, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, err
	}
	out := map[string]map[int32]int64{topic: {}}
	listed.Each(func(o kadm.ListedOffset) { out[topic][o.Partition] = o.Offset })
	return out, nil
}

// heldSince is how far back a tombstone in `held` is looked at: its deal must be found, for a broker that tears transactions may
// show the one without the other.
const heldSince = 10 * time.Minute

// hold takes in a record of `held`.
func (l *leader) hold(r *kgo.Record) {
	key := string(r.Key)
	if r.Value == nil {
		if was := l.core.holding.byKey[key]; was != nil && !l.live && string(schemas.Header(r, "ce_source")) == source &&
			r.Timestamp.After(l.cfg.Now().Add(-heldSince)) {
			l.dealtHeld[key] = was
		}
		l.core.holding.remove(key)
		return
	}
	delete(l.dealtHeld, key)
	m := &fanfarev1.Held{}
	if err := proto.Unmarshal(r.Value, m); err != nil {
		l.poison(r, err)
		return
	}
	msg := m.GetMessage()
	notAfter := msg.GetNotAfterMs()
	if notAfter == 0 {
		notAfter = m.GetDueMs() + maxValidity.Milliseconds()
	}
	l.core.holding.put(&held{
		key: key, tenant: msg.GetTenant(), dueMs: m.GetDueMs(), campaign: msg.GetCampaignNumber(), seq: msg.GetSeq(), try: msg.GetTry(),
		route: msg.GetRoute(), notAfter: notAfter, value: slices.Clone(r.Value),
	})
}

// reholdTorn holds again what was dealt, by its tombstone, and is not on any transactional lane.
func (l *leader) reholdTorn() {
	for _, h := range l.dealtHeld {
		c := l.core.campaigns[h.campaign]
		if c == nil || c.closed {
			continue
		}
		if t := c.have(int(h.try) + 1); t != nil && t.known(h.seq) {
			continue
		}
		l.metrics.redealt.Inc()
		l.log.Warn("a single send that was taken out of held is on no lane: it is dealt again", "campaign", c.id)
		l.core.holding.put(h)
	}
	l.dealtHeld = nil
}
