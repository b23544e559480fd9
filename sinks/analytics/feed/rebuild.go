package feed

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Rebuilt says what a rebuild found.
type Rebuilt struct {
	// Events stored, and records that are no delivery event that can be stored.
	Events, Refused int
}

// Rebuild fills a store with everything that the topic holds at the moment of the call, from its beginning, and returns. It
// belongs to no group and so may run beside a feed. The store should be empty; one that keeps positions goes on from them.
// What is refused is counted and not written to the dead letters again.
func Rebuild(ctx context.Context, cfg Config) (Rebuilt, error) {
	var out Rebuilt
	cfg.Cluster.Registry = nil // these are not the role's figures
	f, err := New(cfg)
	if err != nil {
		return out, err
	}
	if f.cl, err = cfg.Cluster.Named(Stage+"-rebuild").Client(kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.WithPools(&pool{})); err != nil {
		return out, fmt.Errorf("rebuild analytics: %w", err)
	}
	defer f.cl.Close()
	f.adm = kadm.NewClient(f.cl)
	ends, err := f.adm.ListCommittedOffsets(ctx, f.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return out, fmt.Errorf("rebuild analytics: list the end of %s: %w", f.topic, err)
	}
	log, err := f.describe(ctx)
	if err != nil {
		return out, fmt.Errorf("rebuild analytics: %w", err)
	}
	f.topicID = log.id
	offsets := map[int32]kgo.Offset{}
	for id, bounds := range log.bounds {
		p, err := f.begin(ctx, id, bounds, log.positions)
		if err != nil {
			return out, fmt.Errorf("rebuild analytics: %w", err)
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
				f.log.WarnContext(ctx, "waiting for the campaign of an event", "error", err)
			}
			if ctx.Err() != nil {
				return out, fmt.Errorf("rebuild analytics: %w", ctx.Err())
			}
			continue
		}
		batches := f.gather()
		if !f.append(ctx, batches) {
			return out, fmt.Errorf("rebuild analytics: %w", ctx.Err())
		}
		for _, b := range batches {
			out.Events += len(b.batch.Events)
			out.Refused += len(b.dead)
			b.p.done(b.batch.End)
		}
		if !left {
			return out, nil
		}
		if f.full() && !pause(ctx, f.cfg.Interval) { // a record has to wait for its campaign
			return out, fmt.Errorf("rebuild analytics: %w", ctx.Err())
		}
	}
}
