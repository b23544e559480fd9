package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// Never is the age of a tail that has never reached the end of its topics.
const Never = 100 * 365 * 24 * time.Hour

// TailConfig of a [Tail].
type TailConfig struct {
	Cluster Cluster
	Topics  []string
	// From has the first offset to read of each partition. The tail reads partitions that are not in From from their
	// beginning, and also those whose log no longer has the offset.
	From map[string]map[int32]int64
	// Every is how often the tail looks up the ends of the topics; default 1 s. [Tail.Age] is exact to this interval.
	Every time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Tail follows topics without a group and knows how up to date it is. It reads committed records only. It counts the
// control records that end transactions without applying them: otherwise it would never reach the end of a topic
// written by transactions.
type Tail struct {
	cfg   TailConfig
	apply func([]*kgo.Record)
	ready chan struct{}

	mu        sync.Mutex
	positions map[topicPartition]int64 // records below this offset are applied; absent: none yet
	asked     map[topicPartition]int64 // ends to reach, nil once reached
	askedAt   time.Time
	fresh     time.Time // all records that existed at this time are applied; zero: not yet
	caughtUp  bool
}

type topicPartition struct {
	topic     string
	partition int32
}

// NewTail returns a tail that calls apply with the records that it reads: in order per partition, one call at a time,
// never with an empty batch.
func NewTail(cfg TailConfig, apply func(batch []*kgo.Record)) (*Tail, error) {
	if len(cfg.Topics) == 0 || apply == nil {
		return nil, errors.New("tail: topics and a function to apply are needed")
	}
	if err := cfg.Cluster.Validate(); err != nil {
		return nil, fmt.Errorf("tail: %w", err)
	}
	if cfg.Every <= 0 {
		cfg.Every = time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Tail{cfg: cfg, apply: apply, ready: make(chan struct{}), positions: map[topicPartition]int64{}}, nil
}

// Ready is closed once everything has been read to its end and applied.
func (t *Tail) Ready() <-chan struct{} { return t.ready }

// Age is how long ago the topics were last known to be read to their ends: what was acknowledged before that has been
// applied. [Never] before [Tail.Ready].
func (t *Tail) Age() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fresh.IsZero() {
		return Never
	}
	return max(0, t.cfg.Now().Sub(t.fresh))
}

// Run follows the topics until ctx ends. It waits for topics that do not exist yet and for a broker that is
// unreachable.
func (t *Tail) Run(ctx context.Context) error {
	cl, err := t.cfg.Cluster.Client(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // a truncated log is read again: apply is idempotent
	)
	if err != nil {
		return fmt.Errorf("tail %v: %w", t.cfg.Topics, err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	if err := t.assign(ctx, cl, adm); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { t.ask(ctx, adm); return nil })
	g.Go(func() error { t.poll(ctx, cl); return nil })
	return g.Wait()
}

// assign begins to consume once all topics exist.
func (t *Tail) assign(ctx context.Context, cl *kgo.Client, adm *kadm.Client) error {
	retry := NewBackoff(50*time.Millisecond, 2*time.Second)
	for {
		topics, err := Answer(adm.ListTopics(ctx, t.cfg.Topics...))
		if err == nil {
			offsets := map[string]map[int32]kgo.Offset{}
			for _, topic := range t.cfg.Topics {
				offsets[topic] = map[int32]kgo.Offset{}
				for p := range topics[topic].Partitions {
					offsets[topic][p] = kgo.NewOffset().AtStart()
					if from, ok := t.cfg.From[topic][p]; ok {
						offsets[topic][p] = kgo.NewOffset().At(from)
						t.positions[topicPartition{topic, p}] = from
					}
				}
			}
			cl.AddConsumePartitions(offsets)
			return nil
		}
		t.cfg.Cluster.Logger.WarnContext(ctx, "tail waits for its topics", "topics", t.cfg.Topics, "err", err)
		if !retry.Wait(ctx) {
			return ctx.Err()
		}
	}
}

func (t *Tail) poll(ctx context.Context, cl *kgo.Client) {
	var batch []*kgo.Record
	for ctx.Err() == nil {
		fetches := cl.PollRecords(ctx, 10_000)
		fetches.EachError(func(topic string, p int32, err error) {
			if ctx.Err() == nil {
				t.cfg.Cluster.Logger.WarnContext(ctx, "fetch failed", "topic", topic, "partition", p, "err", err)
			}
		})
		batch = batch[:0]
		read := map[topicPartition]int64{}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) == 0 {
				return
			}
			for _, r := range p.Records {
				if !r.Attrs.IsControl() {
					batch = append(batch, r)
				}
			}
			read[topicPartition{p.Topic, p.Partition}] = p.Records[len(p.Records)-1].Offset + 1
		})
		if len(batch) > 0 {
			t.apply(batch)
			clear(batch) // let go of the records
		}
		if len(read) > 0 {
			t.advance(read)
		}
	}
}

// ask looks up the ends of the topics at intervals.
func (t *Tail) ask(ctx context.Context, adm *kadm.Client) {
	tick := time.NewTicker(t.cfg.Every)
	defer tick.Stop()
	for {
		if t.reached() {
			at := t.cfg.Now()
			switch ends, err := t.ends(ctx, adm); {
			case err == nil:
				t.await(ends, at)
			case ctx.Err() == nil:
				t.cfg.Cluster.Logger.WarnContext(ctx, "list end offsets failed", "topics", t.cfg.Topics, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// askTimeout bounds one lookup, so that an unreachable broker is asked again.
const askTimeout = 5 * time.Second

// ends returns where the committed records of each partition end. It leaves out partitions whose records have all
// expired: the tail would wait for them in vain.
func (t *Tail) ends(ctx context.Context, adm *kadm.Client) (map[topicPartition]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	listed, err := Answer(adm.ListCommittedOffsets(ctx, t.cfg.Topics...))
	if err != nil {
		return nil, err
	}
	ends := map[topicPartition]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[topicPartition{o.Topic, o.Partition}] = o.Offset })
	for _, topic := range t.cfg.Topics {
		if len(listed[topic]) == 0 {
			return nil, fmt.Errorf("topic %s: %w", topic, kerr.UnknownTopicOrPartition)
		}
	}
	t.mu.Lock()
	unread := false
	for tp, end := range ends {
		unread = unread || t.positions[tp] < end
	}
	t.mu.Unlock()
	if !unread {
		return ends, nil
	}
	starts, err := Answer(adm.ListStartOffsets(ctx, t.cfg.Topics...))
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for tp, end := range ends {
		if s, ok := starts.Lookup(tp.topic, tp.partition); ok && s.Offset >= end {
			if t.positions[tp] < end {
				delete(ends, tp) // nothing to read
			}
		}
	}
	return ends, nil
}

// reached reports whether the ends looked up last are reached, or are so old that they may no longer exist.
func (t *Tail) reached() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.asked == nil || t.cfg.Now().Sub(t.askedAt) > max(5*t.cfg.Every, askTimeout)
}

func (t *Tail) await(ends map[topicPartition]int64, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked, t.askedAt = ends, at
	t.settle()
}

func (t *Tail) advance(read map[topicPartition]int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.Copy(t.positions, read)
	t.settle()
}

// settle marks the tail as up to date once every end looked up is reached. The caller holds the lock.
func (t *Tail) settle() {
	if t.asked == nil {
		return
	}
	for tp, end := range t.asked {
		if t.positions[tp] < end {
			return
		}
	}
	t.fresh, t.asked = t.askedAt, nil
	if !t.caughtUp {
		t.caughtUp = true
		close(t.ready)
	}
}

// Positions returns the offsets below which every record is applied. Partitions of which nothing was read are missing.
func (t *Tail) Positions() map[string]map[int32]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]map[int32]int64, len(t.cfg.Topics))
	for tp, at := range t.positions {
		if out[tp.topic] == nil {
			out[tp.topic] = map[int32]int64{}
		}
		out[tp.topic][tp.partition] = at
	}
	return out
}
