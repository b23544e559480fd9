package feed

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Rebuilt is the result of a rebuild.
type Rebuilt struct {
	// Events and Deals are how many were stored. Refused is how many records are not of their topic's type or cannot be
	// stored.
	Events, Deals, Refused int
}

// Rebuild fills a store with everything that topics deliveries and chunks have at the time of the call, and returns. It
// does not join a group, so a feed may run at the same time. The store should be empty; if it keeps positions, Rebuild
// continues at them. It counts refused records, but does not write them to the dead letters a second time.
func Rebuild(ctx context.Context, cfg Config) (Rebuilt, error) {
	var out Rebuilt
	cfg.Cluster.Registry = nil // a rebuild must not count in the role's metrics
	if err := cfg.Validate(); err != nil {
		return out, err
	}
	for _, from := range []source{dealSource, eventSource} {
		if err := newReader(cfg, from).rebuild(ctx, &out); err != nil {
			return out, fmt.Errorf("rebuild analytics: %w", err)
		}
	}
	return out, nil
}

func (f *reader) rebuild(ctx context.Context, out *Rebuilt) (err error) {
	opts := []kgo.Opt{kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.WithPools(&pool{})}
	if f.cl, err = f.cfg.Cluster.Named(f.stage + "-rebuild").Client(opts...); err != nil {
		return err
	}
	defer f.cl.Close()
	f.adm = kadm.NewClient(f.cl)
	ends, err := f.adm.ListCommittedOffsets(ctx, f.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("list the end of %s: %w", f.topic, err)
	}
	log, err := f.describe(ctx)
	if err != nil {
		return err
	}
	f.topicID = log.id
	offsets := map[int32]kgo.Offset{}
	for id, bounds := range log.bounds {
		p, err := f.begin(ctx, id, bounds, log.positions)
		if err != nil {
			return err
		}
		f.partitions[id] = p
		offsets[id] = kgo.NewOffset().At(p.start)
	}
	f.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{f.topic: offsets})
	for {
		left := false
		for _, p := range f.owned() {
			end, _ := ends.Lookup(f.topic, p.id)
			left = left || p.next < end.Offset
		}
		if left && !f.full() {
			f.poll(ctx, time.Second)
			if err := f.decode(ctx); err != nil && ctx.Err() == nil {
				f.log.WarnContext(ctx, "campaign lookup failed; the partition waits", "err", err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		batches := f.gather()
		if !f.append(ctx, batches) {
			return ctx.Err()
		}
		for _, b := range batches {
			out.Events += len(b.batch.Events)
			out.Deals += len(b.batch.Deals)
			out.Refused += len(b.dead)
			b.p.done(b.batch.End)
		}
		if !left {
			return nil
		}
		if f.full() && !pause(ctx, f.cfg.Interval) { // a record waits for its campaign
			return ctx.Err()
		}
	}
}
