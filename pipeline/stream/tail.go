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

// Never is the age of what was never read to its end.
const Never = 100 * 365 * 24 * time.Hour

// TailConfig of a [Tail].
type TailConfig struct {
	Cluster Cluster
	Topics  []string
	// From says where to begin in a topic's partitions; what it does not name is read from its beginning. An offset that the
	// log does not have any more begins at its beginning.
	From map[string]map[int32]int64
	// Every is how often the ends of the topics are asked for, and so how exact [Tail.Age] is; default 1 s.
	Every time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Tail follows topics without a group and knows how fresh it is. It reads committed records only, and passes over the control
// records that end transactions: without them the end of a topic that is written by transactions is never reached.
type Tail struct {
	cfg   TailConfig
	apply func([]*kgo.Record)
	ready chan struct{}

	mu        sync.Mutex
	positions map[topicPartition]int64 // what was applied: offsets below are done; absent: nothing yet
	asked     map[topicPartition]int64 // ends to be reached, nil when they are
	askedAt   time.Time
	fresh     time.Time // every end that stood then is reached; zero: never
	caughtUp  bool
}

type topicPartition struct {
	topic     string
	partition int32
}

// NewTail returns a tail that gives what it reads to apply: in order per partition, one call at a time, never an empty batch.
func NewTail(cfg TailConfig, apply func(batch []*kgo.Record)) (*Tail, error) {
	if len(cfg.Topics) == 0 || apply == nil {
		return nil, errors.New("tail: topics and a function to apply are needed")
	}
	if err := cfg.Cluster.validate(); err != nil {
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

// Run follows the topics until ctx ends; it waits for topics that do not exist yet and for a broker that is away.
func (t *Tail) Run(ctx context.Context) error {
	cl, err := t.cfg.Cluster.Client(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // a log that was cut is read again: what is applied is idempotent
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
	retry := newBackoff(50*time.Millisecond, 2*time.Second)
	for {
		topics, err := adm.ListTopics(ctx, t.cfg.Topics...)
		if err == nil {
			err = topics.Error()
		}
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
		if !retry.wait(ctx) {
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
				t.cfg.Cluster.Logger.WarnContext(ctx, "tail cannot fetch", "topic", topic, "partition", p, "err", err)
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

// ask learns the ends of the topics, again and again.
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
				t.cfg.Cluster.Logger.WarnContext(ctx, "tail cannot ask for the ends of its topics", "topics", t.cfg.Topics, "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// askTimeout bounds one asking, so that a broker that is away is asked again.
const askTimeout = 5 * time.Second

// ends returns where the committed records of each partition end; partitions that are empty are left out unless they were read
// to there: what has expired will never be read.
func (t *Tail) ends(ctx context.Context, adm *kadm.Client) (map[topicPartition]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	listed, err := adm.ListCommittedOffsets(ctx, t.cfg.Topics...)
	if err == nil {
		err = listed.Error()
	}
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
	starts, err := adm.ListStartOffsets(ctx, t.cfg.Topics...)
	if err == nil {
		err = starts.Error()
	}
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

// reached reports whether the ends asked for last are reached, or are so old that they may not exist any more.
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

// settle makes the tail fresh when every end asked for is reached; the lock is held.
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

// Positions returns where the tail stands: every record below has been applied. Partitions of which nothing was read are missing.
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
