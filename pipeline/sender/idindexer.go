package sender

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/dlrindex"
	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Rendezvous is the index in which the tracker finds submissions by the provider's id; [dlrindex.Index] implements it.
type Rendezvous interface {
	Put(ctx context.Context, entries []dlrindex.Entry) ([][]*fanfarev1.Receipt, error)
	Clear(ctx context.Context, entries []dlrindex.Entry) error
}

var _ Rendezvous = (*dlrindex.Index)(nil)

// maxOwed is the most ids that wait for Redis after their outcomes were written. Without Redis there are no tokens, so
// only messages that were in flight add to these ids. Ids that do not fit are found again when the index is rebuilt
// from `deliveries`.
const maxOwed = 10 * maxWindow

// indexPause is the first wait after Redis gave no answer; it doubles up to indexPauseMax.
const (
	indexPause    = 50 * time.Millisecond
	indexPauseMax = 2 * time.Second
)

// indexTimeout is how long outcomes wait for Redis to take a chunk of ids: a Redis that hangs must not hold them up.
const indexTimeout = 500 * time.Millisecond

// idIndexer indexes provider ids for carriers whose receipts do not carry our id, and publishes receipts again that
// came before their provider id was known.
type idIndexer struct {
	tasks
	lane  *lane
	redis *ratelimit.State
	// owed and rereads are entries whose outcomes are written but which are not indexed yet: owed are of this process,
	// rereads of earlier owners. Only run uses them.
	owed, rereads []dlrindex.Entry
}

func newIDIndexer(l *lane) *idIndexer {
	return &idIndexer{tasks: newTasks(), lane: l, redis: ratelimit.NewState(l.logger.With("waiting_for", "index of provider ids"))}
}

func (x *idIndexer) run(ctx context.Context) error {
	for pause := indexPause; ; {
		list := x.wait(ctx, pause)
		entries := make([]dlrindex.Entry, 0, len(x.owed)+len(x.rereads)+len(list))
		entries = append(entries, x.owed...)
		for _, t := range list {
			if t.found == nil {
				entries = x.entries(entries, t)
			}
		}
		own := len(entries)
		entries = append(entries, x.rereads...)
		for _, t := range list {
			if t.found != nil {
				entries = x.entries(entries, t)
			}
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopping
		}
		parked, err := x.put(ctx, entries[:own])
		// The id is indexed before the outcome is written: after a crash in between, the receipt still finds the
		// submission. But a known outcome waits for Redis no longer than indexTimeout.
		for _, t := range list {
			if t.found == nil {
				x.lane.finish(t)
			}
		}
		if err == nil {
			var more [][]*fanfarev1.Receipt
			more, err = x.put(ctx, entries[own:])
			parked = append(parked, more...)
		}
		if err != nil {
			if ctx.Err() == nil {
				x.redis.Failed(ctx, err)
			}
			x.again(ctx, entries, parked)
			entries, own = entries[len(parked):], max(0, own-len(parked))
			owed, rereads := entries[:own], entries[own:]
			if extra := len(owed) - maxOwed; extra > 0 {
				x.lane.metrics.unmatched.Add(float64(extra))
				owed = owed[extra:]
			}
			// Entries of earlier owners have a separate limit, so that they never displace entries of this process.
			if extra := len(rereads) - maxReread; extra > 0 {
				x.lane.metrics.unmatched.Add(float64(extra))
				rereads = rereads[extra:]
			}
			x.owed, x.rereads, pause = owed, rereads, min(2*pause, indexPauseMax)
			continue
		}
		if len(entries) > 0 {
			x.redis.OK(ctx)
		}
		x.owed, x.rereads, pause = nil, nil, indexPause
		x.again(ctx, entries, parked)
	}
}

// maxReread is how many entries of earlier owners are kept: a takeover reads at most that many outcomes.
const maxReread = 400_000

// rereadFor is the greatest age of an outcome whose id is indexed again at a takeover: the longest validity of a
// message. The last owner may have failed to index ids for as long as Redis was away.
const rereadFor = 48 * time.Hour

// reread indexes the id of an outcome again that an earlier owner of the partition wrote. The sender does not wait for
// Redis before it writes a known outcome, so the earlier owner may have died before it had indexed the id. Receipts for
// this id would then wait for ever.
func (x *idIndexer) reread(r *kgo.Record) {
	d := &fanfarev1.Delivery{}
	if err := proto.Unmarshal(r.Value, d); err != nil || d.GetKind() != schemas.KindSent || d.GetProviderId() == "" || d.GetRoute() != x.lane.name {
		return
	}
	var id schemas.ID
	if copy(id[:], d.GetSubmissionId()) != len(id) || x.lane.keys.Verify(id) != nil {
		return
	}
	age := x.lane.now().Sub(time.UnixMilli(d.GetTimeMs()))
	if age > rereadFor {
		return
	}
	e := dlrindex.Entry{Route: x.lane.name, ProviderID: d.GetProviderId(), To: d.GetTo(), Submission: id, Life: schemas.DLRIndexTTL + rereadFor}
	for _, e := range e.WithParts(nil, d.GetPartProviderIds()) {
		x.add(task{found: &e})
	}
}

// indexChunk is how many ids are indexed in one call.
const indexChunk = 500

// put indexes entries chunk by chunk, and returns the receipts that were parked for those that Redis took. Each chunk
// has its own indexTimeout, so that a slow Redis still makes progress at each attempt.
func (x *idIndexer) put(ctx context.Context, entries []dlrindex.Entry) (parked [][]*fanfarev1.Receipt, err error) {
	for len(parked) < len(entries) {
		putting, cancel := context.WithTimeout(ctx, indexTimeout)
		more, err := x.lane.rendezvous.Put(putting, entries[len(parked):min(len(parked)+indexChunk, len(entries))])
		cancel()
		if err != nil {
			return parked, err
		}
		parked = append(parked, more...)
	}
	return parked, nil
}

// wait returns the next tasks; while ids are owed it returns after pause.
func (x *idIndexer) wait(ctx context.Context, pause time.Duration) []task {
	if len(x.owed)+len(x.rereads) == 0 {
		return x.next(ctx)
	}
	stream.Sleep(ctx, pause)
	return x.take()
}

// entries appends the entries of what was sent: one, or one for each part that has an id of its own.
func (x *idIndexer) entries(to []dlrindex.Entry, t task) []dlrindex.Entry {
	if t.found != nil {
		return append(to, *t.found)
	}
	m := t.entry.msg
	life := schemas.DLRIndexTTL
	if ms := m.GetNotAfterMs(); ms > 0 {
		life += max(0, time.UnixMilli(ms).Sub(x.lane.now()))
	}
	e := dlrindex.Entry{Route: x.lane.name, ProviderID: t.verdict.ref, To: m.GetTo(), Submission: t.entry.id, Life: life}
	return e.WithParts(to, t.verdict.parts)
}

// again publishes parked receipts with their submission, and clears them from the index once they are durable.
func (x *idIndexer) again(ctx context.Context, entries []dlrindex.Entry, parked [][]*fanfarev1.Receipt) {
	l := x.lane
	var recs []*kgo.Record
	var met []dlrindex.Entry
	for i, receipts := range parked {
		if len(receipts) > 0 {
			met = append(met, entries[i])
		}
		for _, r := range receipts {
			rec, err := schemas.ReceiptEvent(l.names.Receipts(), source, r).Record()
			if err != nil {
				l.logger.ErrorContext(ctx, "encode parked receipt failed; receipt dropped", slog.String("submission", entries[i].Submission.String()), slog.Any("err", err))
				continue
			}
			recs = append(recs, rec)
		}
	}
	if len(met) == 0 || !l.publish(ctx, recs) {
		return // they stay parked
	}
	l.metrics.rejoined.Add(float64(len(recs)))
	if err := l.rendezvous.Clear(ctx, met); err != nil && ctx.Err() == nil {
		l.logger.WarnContext(ctx, "clear parked receipts failed; they expire by themselves", slog.Any("err", err))
	}
}
