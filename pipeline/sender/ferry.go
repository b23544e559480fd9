package sender

import (
	"context"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream/rendezvous"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Rendezvous is where the tracker finds submissions by the provider's id; [rendezvous.Table] is one.
type Rendezvous interface {
	Put(ctx context.Context, entries []rendezvous.Entry) ([][]*fanfarev1.Receipt, error)
	Clear(ctx context.Context, entries []rendezvous.Entry) error
}

var _ Rendezvous = (*rendezvous.Table)(nil)

// maxOwed bounds what waits for Redis beyond its outcome. No token can be had meanwhile, so it is what was in flight; what does
// not fit is found again when the rendezvous is rebuilt from `deliveries`.
const maxOwed = 10 * maxWindow

// ferryPause is the first wait after Redis gave no answer; it doubles up to ferryLongest.
const (
	ferryPause   = 50 * time.Millisecond
	ferryLongest = 2 * time.Second
)

// ferryPatience is how long outcomes wait for Redis to take a chunk of ids: one that hangs must not keep them from their topic.
const ferryPatience = 500 * time.Millisecond

// ferry puts the provider's ids of what was sent where the tracker finds them, for carriers whose receipts do not carry our id,
// and publishes the receipts again that came before.
type ferry struct {
	tasks
	lane *lane
	owed []rendezvous.Entry // their messages have their outcomes; of run alone
}

func newFerry(l *lane) *ferry { return &ferry{tasks: newTasks(), lane: l} }

func (f *ferry) run(ctx context.Context) error {
	for pause := ferryPause; ; {
		list := f.wait(ctx, pause)
		entries := make([]rendezvous.Entry, 0, len(f.owed)+len(list))
		entries = append(entries, f.owed...)
		for _, t := range list {
			entries = append(entries, f.entry(t))
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		parked, err := f.put(ctx, entries)
		// The id is put first: after a crash in between, the receipt still finds the doubtful submission. But an outcome that is
		// known does not wait for Redis.
		for _, t := range list {
			f.lane.finish(t)
		}
		if err != nil {
			if len(f.owed) == 0 && ctx.Err() == nil {
				f.lane.logger.WarnContext(ctx, "provider ids wait: redis gives no answer", slog.Any("error", err))
			}
			f.again(ctx, entries, parked)
			entries = entries[len(parked):]
			if extra := len(entries) - maxOwed; extra > 0 {
				f.lane.metrics.unmatched.Add(float64(extra))
				entries = entries[extra:]
			}
			f.owed, pause = entries, min(2*pause, ferryLongest)
			continue
		}
		f.owed, pause = nil, ferryPause
		f.again(ctx, entries, parked)
	}
}

// ferryChunk is how many ids are put at once.
const ferryChunk = 500

// put puts entries, a chunk after the other, and returns what was parked for those that Redis took. Each chunk has ferryPatience, so
// that a Redis that is slow, and not away, takes some of them each time.
func (f *ferry) put(ctx context.Context, entries []rendezvous.Entry) (parked [][]*fanfarev1.Receipt, err error) {
	for len(parked) < len(entries) {
		putting, cancel := context.WithTimeout(ctx, ferryPatience)
		more, err := f.lane.rendezvous.Put(putting, entries[len(parked):min(len(parked)+ferryChunk, len(entries))])
		cancel()
		if err != nil {
			return parked, err
		}
		parked = append(parked, more...)
	}
	return parked, nil
}

// wait returns what has come; with something owed it does so after pause at the latest.
func (f *ferry) wait(ctx context.Context, pause time.Duration) []task {
	if len(f.owed) == 0 {
		return f.next(ctx)
	}
	sleep(ctx, pause)
	return f.take()
}

func (f *ferry) entry(t task) rendezvous.Entry {
	m := t.entry.msg
	life := schemas.RendezvousTTL
	if ms := m.GetNotAfterMs(); ms > 0 {
		life += max(0, time.UnixMilli(ms).Sub(f.lane.now()))
	}
	return rendezvous.Entry{Route: f.lane.name, ProviderID: t.verdict.ref, To: m.GetTo(), Submission: t.entry.id, Life: life}
}

// again publishes parked receipts with their submission, and forgets them once they are durable.
func (f *ferry) again(ctx context.Context, entries []rendezvous.Entry, parked [][]*fanfarev1.Receipt) {
	l := f.lane
	var recs []*kgo.Record
	var met []rendezvous.Entry
	for i, receipts := range parked {
		if len(receipts) > 0 {
			met = append(met, entries[i])
		}
		for _, r := range receipts {
			rec, err := receiptRecord(l.names, r)
			if err != nil {
				l.logger.ErrorContext(ctx, "a parked receipt could not be encoded", slog.String("submission", entries[i].Submission.String()), slog.Any("error", err))
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
		l.logger.WarnContext(ctx, "parked receipts were not cleared; they expire", slog.Any("error", err))
	}
}
