package feed

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"fanfare/sinks/analytics"
)

// askEnds asks the broker for the ends of the partitions once per interval. A partition that is stored up to such an
// end is complete as of the time of the question.
func (f *reader) askEnds(ctx context.Context, out chan map[int32]check) error {
	tick := time.NewTicker(f.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		at := f.cfg.Now()
		// A consumer of committed records cannot see an open transaction, so the feed asks for the end of the committed
		// records.
		asked, cancel := context.WithTimeout(ctx, commitTimeout)
		ends, err := f.adm.ListCommittedOffsets(asked, f.topic)
		cancel()
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			if ctx.Err() == nil {
				f.failed(ctx, stepEnds, err)
			}
			continue
		}
		f.outages.OK(ctx, stepEnds)
		checks := map[int32]check{}
		ends.Each(func(o kadm.ListedOffset) { checks[o.Partition] = check{at, o.Offset} })
		select {
		case <-out: // replace an answer that the loop has not taken yet
		default:
		}
		out <- checks
	}
}

// check remembers where the partitions ended at a time.
func (f *reader) check(checks map[int32]check) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, p := range f.partitions {
		c, ok := checks[id]
		switch {
		case !ok:
		case c.end <= p.start:
			p.asOf, p.checks = c.at, nil
		case len(p.checks) < maxChecks:
			p.checks = append(p.checks, c)
		}
	}
}

// mark tells the store up to which time it is complete. If that fails, the next flush tries again.
func (f *reader) mark(ctx context.Context) {
	f.lastMark = f.cfg.Now()
	var least time.Time
	var marks []analytics.Mark
	f.mu.Lock()
	topic, unnamed := f.topicID, f.unnamed
	known := len(f.partitions) > 0
	for id, p := range f.partitions {
		known = known && !p.asOf.IsZero()
		if least.IsZero() || p.asOf.Before(least) {
			least = p.asOf
		}
		marks = append(marks, analytics.Mark{Partition: id, End: p.start, AsOf: p.asOf})
	}
	f.mu.Unlock()
	if known {
		f.asOf.Store(least.UnixMilli())
	}
	if len(marks) == 0 {
		return
	}
	// Marks without a time name the partitions of other processes, so that the store does not claim to be complete
	// without them.
	for _, id := range unnamed {
		marks = append(marks, analytics.Mark{Partition: id})
	}
	if err := f.cfg.Store.Mark(ctx, topic, marks); err != nil {
		if ctx.Err() == nil {
			f.failed(ctx, stepMark, err)
		}
		return
	}
	f.outages.OK(ctx, stepMark)
	f.mu.Lock()
	if len(f.unnamed) == len(unnamed) {
		f.unnamed = nil
	}
	f.mu.Unlock()
}
