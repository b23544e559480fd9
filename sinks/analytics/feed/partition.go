package feed

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream"
	"fanfare/sinks/analytics"
)

// partition is one assignment of one partition: assigned again, it is another value.
type partition struct {
	id int32
	// start is the offset of the first row not yet stored, next the one that is read next.
	start, next int64
	// declared is the end of the batch that the offset commit names as begun: [start, declared) are its bounds, for whoever appends it. 0: none.
	declared int64
	// settled is what the group has committed.
	settled int64
	// Rows at start and above, in order. raw is not decoded yet.
	raw    []*kgo.Record
	events []analytics.Event
	dead   []stream.Dead
	// stuck: the campaign of the first of raw cannot be found out now.
	stuck bool
	// lost says that the partition has gone to somebody else. It is set under the feed's lock.
	lost bool
	// checks are the ends of the partition that were asked for and not reached yet, asOf the time of the last one reached.
	checks []check
	asOf   time.Time
}

// check says that at a time the partition ended there.
type check struct {
	at  time.Time
	end int64
}

// maxChecks bounds the checks of a partition. Beyond it new ones wait: what is behind by so many is not nearly complete.
const maxChecks = 256

// intentPrefix begins the metadata of a commit that declares a batch; its end follows.
const intentPrefix = "fanfare-batch1:"

func intent(end int64) string { return intentPrefix + strconv.FormatInt(end, 10) }

// parseIntent reads the metadata of a commit; 0 when it declares nothing. What a client puts there by itself is not ours.
func parseIntent(metadata string) int64 {
	digits, ok := strings.CutPrefix(metadata, intentPrefix)
	if !ok {
		return 0
	}
	end, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0
	}
	return end
}

// fetched remembers what the group had committed, when kgo asks for it on being assigned partitions.
func (f *Feed) fetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, p := range t.Partitions {
				c := committed{offset: -1}
				if p.ErrorCode == 0 {
					c.offset = p.Offset
					if p.Metadata != nil {
						c.metadata = *p.Metadata
					}
				}
				f.committed[p.Partition] = c
			}
		}
	}
	return nil
}

type committed struct {
	offset   int64
	metadata string
}

// assign decides where reading begins in partitions that have been assigned, before any of it is read.
func (f *Feed) assign(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	given := offsets[f.topic]
	if len(given) == 0 {
		return offsets, nil
	}
	select {
	case <-f.connected:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	log, err := f.describe(ctx)
	if err != nil {
		f.log.WarnContext(ctx, "assigned partitions wait", "error", err)
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.topicID, f.unnamed = log.id, f.unnamed[:0:0]
	for id := range log.bounds {
		f.unnamed = append(f.unnamed, id)
	}
	for id := range given {
		bounds, ok := log.bounds[id]
		if !ok {
			return nil, fmt.Errorf("partition %d of %s has no bounds", id, f.topic)
		}
		p, err := f.begin(ctx, id, bounds, log.positions)
		if err != nil {
			return nil, err
		}
		f.partitions[id] = p
		given[id] = kgo.NewOffset().At(p.start).WithEpoch(-1)
	}
	return offsets, nil
}

type logBounds struct{ start, end int64 }

// description is what must be known of the topic before partitions are read.
type description struct {
	id        analytics.TopicID
	bounds    map[int32]logBounds
	positions map[int32]int64 // of a store that keeps them
}

func (f *Feed) describe(ctx context.Context) (d description, err error) {
	topics, err := f.adm.ListTopics(ctx, f.topic)
	if err == nil {
		err = topics.Error()
	}
	if err != nil {
		return d, fmt.Errorf("describe %s: %w", f.topic, err)
	}
	d.id = analytics.TopicID(topics[f.topic].ID)
	if d.id.IsZero() {
		return d, fmt.Errorf("describe %s: the broker gives topics no ids; it must be Kafka 2.8 or later", f.topic)
	}
	starts, err := f.adm.ListStartOffsets(ctx, f.topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return d, fmt.Errorf("list the beginning of %s: %w", f.topic, err)
	}
	ends, err := f.adm.ListEndOffsets(ctx, f.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return d, fmt.Errorf("list the end of %s: %w", f.topic, err)
	}
	d.bounds = map[int32]logBounds{}
	starts.Each(func(o kadm.ListedOffset) {
		end, _ := ends.Lookup(f.topic, o.Partition)
		d.bounds[o.Partition] = logBounds{o.Offset, max(end.Offset, o.Offset)}
	})
	if f.positioner != nil {
		if d.positions, err = f.positioner.Positions(ctx, d.id); err != nil {
			return d, fmt.Errorf("ask the store where it is: %w", err)
		}
	}
	return d, nil
}

// begin says where reading begins in a partition. A store that keeps positions is believed before the group. Else the group's
// offset counts, and a batch that was declared is read again to exactly its bounds. The caller holds the lock.
func (f *Feed) begin(ctx context.Context, id int32, log logBounds, positions map[int32]int64) (*partition, error) {
	was := f.committed[id]
	delete(f.committed, id)
	p := &partition{id: id, start: max(was.offset, 0), settled: was.offset}
	pending := parseIntent(was.metadata)
	if f.positioner != nil {
		p.start, pending = positions[id], 0 // 0 when the store has nothing: it is filled from the beginning of the log
	}
	if p.start > log.end {
		f.metrics.gaps.Inc()
		f.log.ErrorContext(ctx, "the log ends before what was read of it: the broker has lost records; going on at its end", "partition", id, "read_to", p.start, "end", log.end)
		if f.positioner != nil {
			if err := f.positioner.Rewind(ctx, f.topicID, id, log.end); err != nil {
				return nil, fmt.Errorf("rewind partition %d: %w", id, err)
			}
		}
		p.start = log.end
	}
	if p.start < log.start {
		if p.start > 0 || pending > 0 {
			f.metrics.gaps.Inc()
			f.log.ErrorContext(ctx, "records were deleted before they were stored", "partition", id, "from", p.start, "to", log.start)
		}
		// A pending batch begins later now and so has another token: what was stored of it already counts again in charts.
		p.start = log.start
	}
	if pending = min(pending, log.end); pending > p.start {
		f.metrics.replays.Inc()
		f.log.InfoContext(ctx, "reading a declared batch again", "partition", id, "from", p.start, "to", pending)
		p.declared = pending
	}
	p.next = p.start
	return p, nil
}

// release gives partitions up. It returns only when no commit for them is on its way: one that came later would be taken for the new owner's.
func (f *Feed) release(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range gone[f.topic] {
		if p := f.partitions[id]; p != nil {
			p.lost = true
			delete(f.partitions, id)
			f.log.InfoContext(ctx, "released partition", "partition", id, "stored_to", p.start)
		}
	}
}
