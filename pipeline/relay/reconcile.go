package relay

import (
	"context"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

const (
	// comparedAtOnce is how many rows are compared in one reading of the topics. One costs about 60 bytes of memory.
	comparedAtOnce = 500_000
	// publishedPage is how many published rows are read from the store, or made unpublished in one transaction, at
	// once.
	publishedPage = 1_000
	// betweenPages slows down every comparison but the first of a lead, so that the store is free for others.
	betweenPages = 10 * time.Millisecond
)

// reconcile compares the store with its topics, at once and then at intervals until ctx ends. Rows that a topic has
// lost are published again. A topic loses its newest records when its broker does: a disk that had not written yet, an
// unclean leader election, a topic that was deleted and created again. Without this, senders would go on with a
// campaign that the store calls paused.
func (r *Relay) reconcile(ctx context.Context) error {
	var between time.Duration
	for ctx.Err() == nil {
		wait := r.cfg.Reconcile
		switch rows, again, err := r.compareAll(ctx, between); {
		case err != nil:
			r.failed(ctx, "store", taskCompare, err)
			wait = 10 * standby
		case again > 0:
			r.outages.OK(ctx, taskCompare)
			r.log.WarnContext(ctx, "topics had lost records; publishing them again", "rows", rows, "republished", again)
		default:
			r.outages.OK(ctx, taskCompare)
			r.log.DebugContext(ctx, "store and topics agree", "rows", rows)
		}
		between = betweenPages
		stream.Sleep(ctx, wait)
	}
	return nil
}

// compareAll compares every published row with its topic and returns how many rows there are and how many it has
// published again.
func (r *Relay) compareAll(ctx context.Context, between time.Duration) (rows, again int, err error) {
	for after, more := "", true; more; {
		want := newExpected()
		first := after
		if after, more, err = r.pages(ctx, after, comparedAtOnce, between, want.add); err != nil {
			return rows, again, err
		}
		rows += len(want.rows)
		lacking, err := r.lacking(ctx, want)
		if err != nil || ctx.Err() != nil {
			return rows, again, err
		}
		if len(lacking) == 0 {
			continue
		}
		n, err := r.republish(ctx, first, lacking)
		again += n
		if err != nil {
			return rows, again, err
		}
	}
	r.metrics.compared.SetToCurrentTime()
	return rows, again, nil
}

// pages calls each with the published rows after a place, until there are no more or most rows were passed on.
func (r *Relay) pages(
	ctx context.Context, after string, most int, between time.Duration, each func(*schemas.PublishedRow),
) (next string, more bool, err error) {
	for n := 0; n < most; {
		asking, cancel := context.WithTimeout(ctx, storePatience)
		rows, next, err := r.outbox.Published(asking, after, publishedPage)
		cancel()
		if err != nil {
			return after, false, fmt.Errorf("published rows: %w", err)
		}
		for i := range rows {
			each(&rows[i])
		}
		if n += len(rows); next == "" {
			return "", false, nil
		}
		after = next
		if between > 0 {
			stream.Sleep(ctx, between)
		}
	}
	return after, true, nil
}

// lacking reads the topics to their present ends and returns the rows that they lack. The rows were read from the store
// first, so Kafka acknowledged their records before the relay begins to read the topics.
func (r *Relay) lacking(ctx context.Context, want *expected) (map[uint64]bool, error) {
	var topics []string
	for typ := range want.types {
		topics = append(topics, r.topic(typ))
	}
	if len(topics) == 0 {
		return nil, nil
	}
	tail, err := stream.NewTail(stream.TailConfig{Cluster: r.cfg.Cluster.Named("relay-compare"), Topics: topics}, func(batch []*kgo.Record) {
		for _, rec := range batch {
			want.seen(r.typeOf(rec.Topic), rec)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- tail.Run(reading) }()
	select {
	case <-tail.Ready():
	case <-ctx.Done():
	}
	stop()
	if err := <-done; err != nil {
		return nil, fmt.Errorf("read the topics: %w", err)
	}
	if ctx.Err() != nil { // the topics were not read to their ends
		return nil, nil
	}
	return want.lacking(), nil
}

// republish makes the rows that a topic lacks unpublished. first is the place from which the rows were read from the
// store.
func (r *Relay) republish(ctx context.Context, first string, lacking map[uint64]bool) (n int, err error) {
	keys := map[schemas.EventType][]string{}
	flush := func(typ schemas.EventType) {
		if len(keys[typ]) == 0 || err != nil {
			return
		}
		asking, cancel := context.WithTimeout(ctx, storePatience)
		defer cancel()
		if err = r.outbox.Republish(asking, typ, keys[typ]...); err == nil {
			n += len(keys[typ])
			r.metrics.republished.WithLabelValues(string(typ)).Add(float64(len(keys[typ])))
		}
		keys[typ] = nil
	}
	_, _, readErr := r.pages(ctx, first, comparedAtOnce, 0, func(row *schemas.PublishedRow) {
		if !lacking[hashKey(row.Type, row.Key)] {
			return
		}
		if keys[row.Type] = append(keys[row.Type], row.Key); len(keys[row.Type]) == publishedPage {
			flush(row.Type)
		}
	})
	for typ := range keys {
		flush(typ)
	}
	if err == nil {
		err = readErr
	}
	return n, err
}

// topic returns the topic of rows of a type.
func (r *Relay) topic(typ schemas.EventType) string {
	switch typ {
	case schemas.TypeCampaign:
		return r.cfg.Cluster.Names.Campaigns()
	case schemas.TypeControl:
		return r.cfg.Cluster.Names.Control()
	default:
		return r.cfg.Cluster.Names.Suppressions()
	}
}

// typeOf returns the type of the rows of a topic.
func (r *Relay) typeOf(topic string) schemas.EventType {
	switch topic {
	case r.cfg.Cluster.Names.Campaigns():
		return schemas.TypeCampaign
	case r.cfg.Cluster.Names.Control():
		return schemas.TypeControl
	default:
		return schemas.TypeSuppression
	}
}

// expected has, for some rows, the versions that the topics must have and those that they have. It identifies a row by
// a hash of its key. Two rows with the same hash are compared as one row; fewer than one in ten million installations
// with a million rows have such a pair.
type expected struct {
	rows  map[uint64]rowVersions
	types map[schemas.EventType]bool
}

// rowVersions are, for one row, the version that its topic must have and the version of the last record there. A value
// is absent when the record is a tombstone or there is none.
type rowVersions struct {
	want, last        uint64
	tombstone, absent bool
}

var keySeed = maphash.MakeSeed()

func hashKey(typ schemas.EventType, key string) uint64 {
	return maphash.String(keySeed, string(typ)+" "+key)
}

func newExpected() *expected {
	return &expected{rows: map[uint64]rowVersions{}, types: map[schemas.EventType]bool{}}
}

func (e *expected) add(row *schemas.PublishedRow) {
	e.types[row.Type] = true
	e.rows[hashKey(row.Type, row.Key)] = rowVersions{want: row.Version, tombstone: row.Tombstone, absent: true}
}

// seen applies a record. Records must come in the order of their topic.
func (e *expected) seen(typ schemas.EventType, rec *kgo.Record) {
	h := hashKey(typ, string(rec.Key))
	f, ok := e.rows[h]
	if !ok {
		return
	}
	// A record without a version was not written by the relay: it counts as older than all others
	f.last, _ = strconv.ParseUint(string(schemas.Header(rec, schemas.HeaderVersion)), 10, 64)
	f.absent = rec.Value == nil
	e.rows[h] = f
}

// lacking returns the rows whose last record is older than what the store has published. A newer record was published
// meanwhile and is no loss.
func (e *expected) lacking() map[uint64]bool {
	out := map[uint64]bool{}
	for h, f := range e.rows {
		if f.last <= f.want && (f.tombstone != f.absent || f.last < f.want && !f.absent) {
			out[h] = true
		}
	}
	return out
}
