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

// partition is one assignment of one partition. A new assignment of the same partition is a new value.
type partition struct {
	id int32
	// start is the first offset that is not stored yet, next the offset that is read next.
	start, next int64
	// declared is the end of the declared batch [start, declared); 0 if no batch is declared.
	declared int64
	// settled is the offset that the group has committed.
	settled int64
	// Rows from start on, in order. raw holds records that are not decoded yet.
	raw    []*kgo.Record
	events []analytics.Event
	deals  []analytics.Deal
	dead   []stream.Dead
	// stuck: the campaign of raw[0] cannot be resolved now.
	stuck bool
	// lost: the partition was revoked. Guarded by the feed's lock.
	lost bool
	// checks are known ends of the partition that are not stored yet. asOf is the time of the last check that is
	// stored.
	checks []check
	asOf   time.Time
}

// check says where the partition ended at a time.
type check struct {
	at  time.Time
	end int64
}

// maxChecks is how many checks a partition keeps. Further ones are dropped: with so many open checks, the next asOf is
// far away.
const maxChecks = 256

// intentPrefix is the beginning of the metadata that declares a batch. The batch's end follows.
const intentPrefix = "fanfare-batch1:"

func intent(end int64) string { return intentPrefix + strconv.FormatInt(end, 10) }

// parseIntent returns the end of the declared batch; 0 if the metadata declares none. A Kafka client may have written
// other metadata.
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

// fetched remembers offset and metadata of the group's last commit, which kgo fetches when partitions are assigned.
func (f *reader) fetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
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

// assign decides where reading of assigned partitions starts. kgo calls it before it fetches.
func (f *reader) assign(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
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
		f.log.WarnContext(ctx, "describe topic failed; assigned partitions wait", "err", err)
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

// description is what the feed must know about the topic before it reads it.
type description struct {
	id        analytics.TopicID
	bounds    map[int32]logBounds
	positions map[int32]int64 // of the store, if it keeps them
}

func (f *reader) describe(ctx context.Context) (d description, err error) {
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

// begin decides where reading of a partition starts. If the store keeps positions, it starts at the store's position.
// Otherwise it starts at the committed offset, and a declared batch is read again with exactly its bounds. The caller
// holds the lock.
func (f *reader) begin(ctx context.Context, id int32, log logBounds, positions map[int32]int64) (*partition, error) {
	was := f.committed[id]
	delete(f.committed, id)
	p := &partition{id: id, start: max(was.offset, 0), settled: was.offset}
	pending := parseIntent(was.metadata)
	if f.positioner != nil {
		p.start, pending = positions[id], 0 // 0 if the store has none: it is filled from the beginning of the log
	}
	if p.start > log.end {
		f.metrics.gaps.Inc()
		f.log.ErrorContext(ctx, "log ends below the stored position: the broker lost records; continuing at its end", "partition", id, "read_to", p.start, "end", log.end)
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
			f.log.ErrorContext(ctx, "records were deleted from the log before they were stored", "partition", id, "from", p.start, "to", log.start)
		}
		// A declared batch now starts later and has another token, so rows of it that were stored count twice in the
		// timeline.
		p.start = log.start
	}
	if pending = min(pending, log.end); pending > p.start {
		f.metrics.replays.Inc()
		f.log.InfoContext(ctx, "repeating a declared batch", "partition", id, "from", p.start, "to", pending)
		p.declared = pending
	}
	p.next = p.start
	return p, nil
}

// release drops revoked partitions. It waits for a commit in progress: a commit after the revocation would overwrite
// the new owner's.
func (f *reader) release(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
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
