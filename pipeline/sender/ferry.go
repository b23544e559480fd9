package sender

import (
	"context"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// maxOwed bounds what waits for Redis beyond its outcome. No token can be had meanwhile, so it is what was in flight; what does
// not fit is found again when the rendezvous is rebuilt from `deliveries`.
const maxOwed = 10 * maxWindow

// ferry puts the provider's ids of what was sent where the tracker finds them, for carriers whose receipts do not carry our id,
// and publishes the receipts again that came before.
type ferry struct {
	tasks
	lane  *lane
	put   *redis.Script
	clear *redis.Script
	owed  []task // have their outcomes; of run alone
}

func newFerry(l *lane) *ferry {
	return &ferry{tasks: newTasks(), lane: l, put: redis.NewScript(schemas.RendezvousPut), clear: redis.NewScript(schemas.RendezvousClear)}
}

func (f *ferry) run(ctx context.Context) error {
	pause := 50 * time.Millisecond
	for {
		var list []task
		if len(f.owed) == 0 {
			list = f.next(ctx)
		} else {
			list = f.soon(ctx, pause)
		}
		if ctx.Err() != nil {
			for _, t := range list { // the window has ended; what it still takes is taken
				f.lane.finish(t)
			}
			return nil
		}
		parked, err := f.store(ctx, append(f.owed, list...))
		if err != nil {
			if len(f.owed) == 0 {
				f.lane.logger.Warn("provider ids wait: redis gives no answer", slog.Any("error", err))
			}
			pause = min(2*pause, 2*time.Second)
		} else {
			pause = 50 * time.Millisecond
		}
		// The id is put first: after a crash in between, the receipt still finds the doubtful submission. But an outcome that is
		// known does not wait for Redis.
		for _, t := range list {
			f.lane.finish(t)
		}
		if err != nil {
			f.owed = append(f.owed, list...)
			if extra := len(f.owed) - maxOwed; extra > 0 {
				f.lane.metrics.unmatched.Add(float64(extra))
				f.owed = f.owed[extra:]
			}
			continue
		}
		f.owed = nil
		f.again(ctx, parked)
	}
}

// soon returns what has come, at the latest after d.
func (f *ferry) soon(ctx context.Context, d time.Duration) []task {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f.next(ctx)
}

// meeting is a submission whose receipts came first.
type meeting struct {
	task     task
	receipts []string
}

// store puts the ids in one round trip and returns those for which receipts are parked.
func (f *ferry) store(ctx context.Context, list []task) ([]meeting, error) {
	l := f.lane
	now := l.now()
	pipe := l.rendezvous.Pipeline()
	cmds := make([]*redis.Cmd, len(list))
	for i, t := range list {
		ttl := schemas.RendezvousTTL
		if ms := t.entry.msg.GetNotAfterMs(); ms > 0 {
			ttl += max(0, time.UnixMilli(ms).Sub(now))
		}
		keys := l.names.RendezvousKeys(l.name, t.verdict.ref)
		cmds[i] = f.put.Eval(ctx, pipe, keys[:], string(t.entry.id[:]), ttl.Milliseconds())
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	var met []meeting
	for i, c := range cmds {
		receipts, err := c.StringSlice()
		if err != nil {
			return nil, err
		}
		if len(receipts) > 0 {
			met = append(met, meeting{list[i], receipts})
		}
	}
	return met, nil
}

// again publishes parked receipts with their submission, and forgets them once they are durable.
func (f *ferry) again(ctx context.Context, met []meeting) {
	l := f.lane
	var recs []*kgo.Record
	for _, m := range met {
		for _, raw := range m.receipts {
			r := &fanfarev1.Receipt{}
			if err := proto.Unmarshal([]byte(raw), r); err != nil {
				l.logger.Error("a parked receipt does not decode", slog.String("submission", m.task.entry.id.String()), slog.Any("error", err))
				continue
			}
			r.SubmissionId = m.task.entry.id[:]
			rec, err := receiptRecord(l.names, r)
			if err != nil {
				l.logger.Error("a parked receipt could not be encoded", slog.String("submission", m.task.entry.id.String()), slog.Any("error", err))
				continue
			}
			recs = append(recs, rec)
		}
	}
	if !l.publish(ctx, recs) {
		return // they stay parked
	}
	l.metrics.rejoined.Add(float64(len(recs)))
	for _, m := range met {
		keys := l.names.RendezvousKeys(l.name, m.task.verdict.ref)
		if err := f.clear.Run(ctx, l.rendezvous, keys[:]).Err(); err != nil && ctx.Err() == nil {
			l.logger.Warn("parked receipts were not cleared; they expire", slog.Any("error", err))
		}
	}
}
