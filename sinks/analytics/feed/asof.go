package feed

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"fanfare/sinks/analytics"
)

// askEnds asks again and again where the partitions end, and when: whoever has stored up to there is complete as of then.
func (f *Feed) askEnds(ctx context.Context, out chan map[int32]check) error {
	tick := time.NewTicker(f.cfg.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		at := f.cfg.Now()
		// What an open transaction has written is not there yet for anybody who reads what is committed.
		asked, cancel := context.WithTimeout(ctx, commitTimeout)
		ends, err := f.adm.ListCommittedOffsets(asked, f.topic)
		cancel()
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			if ctx.Err() == nil {
				f.metrics.retries.WithLabelValues(stepEnds).Inc()
				f.log.WarnContext(ctx, "cannot ask how far the topic goes", "error", err)
			}
			continue
		}
		checks := map[int32]check{}
		ends.Each(func(o kadm.ListedOffset) { checks[o.Partition] = check{at, o.Offset} })
		select {
		case <-out: // nobody has looked at the one before
		default:
		}
		out <- checks
	}
}

// check takes note of where the partitions ended at a time.
func (f *Feed) check(checks map[int32]check) {
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

// mark tells the store how far it is complete. When the store cannot take it the next flush tells it.
func (f *Feed) mark(ctx context.Context) {
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
	// Also those of others: a store that does not know them would take itself for complete without them.
	for _, id := range unnamed {
		marks = append(marks, analytics.Mark{Partition: id})
	}
	if err := f.cfg.Store.Mark(ctx, topic, marks); err != nil {
		if ctx.Err() == nil {
			f.metrics.retries.WithLabelValues(stepMark).Inc()
			f.log.WarnContext(ctx, "cannot mark how far the store is", "error", err)
		}
		return
	}
	f.mu.Lock()
	if len(f.unnamed) == len(unnamed) {
		f.unnamed = nil
	}
	f.mu.Unlock()
}
