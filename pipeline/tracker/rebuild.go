package tracker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/dlrindex"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// lockLife is how long the process that rebuilds the index may be silent before another one takes over.
const lockLife = time.Minute

// errTaken ends a rebuild: the entries that it has put into Redis may be lost.
var errTaken = errors.New("redis lost the index again, or another process took over")

// errViewOld means that the view is too old to say which routes are indexed.
var errViewOld = errors.New("the view of routes and campaigns is old")

const (
	// maxViewAge is how old the view may be that says which routes are indexed.
	maxViewAge = 10 * time.Second
	// viewRetry is the wait after errViewOld. Every start of a process meets it.
	viewRetry = 200 * time.Millisecond
	// putAtOnce is how many entries go to Redis in one round trip.
	putAtOnce = 1000
)

// rebuilder rebuilds the index of provider ids when Redis has lost it. Of several processes one does it at a time.
type rebuilder struct {
	*handler
	log   *slog.Logger
	owner string // of the lock
}

func newRebuilder(h *handler) *rebuilder {
	log := h.cfg.Cluster.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &rebuilder{handler: h, log: log.With("stage", source), owner: rand.Text()}
}

// run watches the index until ctx ends.
func (b *rebuilder) run(ctx context.Context) error {
	failing := false
	for ctx.Err() == nil {
		wait := b.cfg.Watch
		err := b.ensure(ctx)
		switch {
		case errors.Is(err, errViewOld):
			wait = viewRetry
		case err != nil && ctx.Err() == nil:
			b.metrics.rebuilds.WithLabelValues("failed").Inc()
			if !failing {
				b.log.WarnContext(ctx, "index of provider ids not available; retrying", "err", err)
			}
			failing = true
			wait = min(wait, time.Second)
		default:
			failing = false
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-b.lost:
		}
		timer.Stop()
	}
	return nil
}

// ensure rebuilds the index if Redis has lost it and no other process is rebuilding it.
func (b *rebuilder) ensure(ctx context.Context) error {
	if ready, err := b.index.Ready(ctx); ready || err != nil {
		return err
	}
	if b.view.Age() > maxViewAge {
		return errViewOld
	}
	if mine, err := b.index.Lock(ctx, b.owner, lockLife); !mine || err != nil {
		return err
	}
	began := time.Now()
	r := &rebuild{rebuilder: b, since: b.cfg.Now().Add(-b.life())}
	err := r.run(ctx)
	if err == nil {
		var mine bool
		if mine, err = b.index.Filled(ctx, b.owner); err == nil && !mine {
			err = errTaken
		}
	}
	if err != nil {
		// Release the lock, so that the next attempt need not wait until it expires.
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, unlock := b.index.Hold(release, b.owner, 0)
		return fmt.Errorf("rebuild the index of provider ids: %w", errors.Join(err, unlock))
	}
	b.metrics.rebuilds.WithLabelValues("done").Inc()
	b.log.InfoContext(ctx, "index of provider ids rebuilt", "submissions", r.put, "receipts_parked", r.parked, "receipts_published", r.published,
		"took_ms", time.Since(began).Milliseconds())
	return nil
}

// rebuild reads the deliveries and the receipts of the span in which a receipt may still come, and puts the index
// together again.
type rebuild struct {
	*rebuilder
	since  time.Time
	locked time.Time // when the lock was last extended
	// Seqs by campaign and try whose receipts have their events: negative, delivered or read, read.
	negative, positive, read map[try]*roaring.Bitmap

	producer               *kgo.Client
	put, parked, published int
}

type try struct {
	campaign uint64
	number   uint8
}

func (r *rebuild) run(ctx context.Context) error {
	if !slices.ContainsFunc(r.view.Routes(), r.indexed) {
		return nil // no route needs the index
	}
	r.negative, r.positive, r.read = map[try]*roaring.Bitmap{}, map[try]*roaring.Bitmap{}, map[try]*roaring.Bitmap{}
	var err error
	if r.producer, err = r.cfg.Cluster.Named("tracker-fill").Client(kgo.ProducerLinger(0)); err != nil {
		return err
	}
	defer r.producer.Close()
	// First the entries, then the receipts that wait for one.
	if err := r.follow(ctx, r.names.Deliveries(), r.deliveries); err != nil {
		return err
	}
	return r.follow(ctx, r.names.Receipts(), r.receipts)
}

// follow passes the records of a topic to apply, from the beginning of the span to the end of the topic.
func (r *rebuild) follow(ctx context.Context, topic string, apply func(context.Context, []*kgo.Record) error) error {
	starts, err := stream.Answer(kadm.NewClient(r.producer).ListOffsetsAfterMilli(ctx, r.since.UnixMilli(), topic))
	if err != nil {
		return fmt.Errorf("list offsets of %s: %w", topic, err)
	}
	from := map[string]map[int32]int64{topic: {}}
	starts.Each(func(o kadm.ListedOffset) { from[topic][o.Partition] = o.Offset })

	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cluster := r.cfg.Cluster.Named("tracker-fill")
	tail, err := stream.NewTail(stream.TailConfig{Cluster: cluster, Topics: []string{topic}, From: from}, func(batch []*kgo.Record) {
		err := context.Cause(reading)
		if err == nil {
			err = r.hold(reading)
		}
		if err == nil {
			err = apply(reading, batch)
		}
		if err != nil {
			stop(err) // stop keeps the first error
		}
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- tail.Run(reading) }()
	select {
	case <-tail.Ready():
		stop(errEnd)
	case <-reading.Done():
	}
	if err := <-ended; err != nil {
		return err
	}
	if err := context.Cause(reading); !errors.Is(err, errEnd) {
		return err
	}
	return nil
}

// errEnd ends a tail that has read to the end.
var errEnd = errors.New("read to the end")

// hold extends the lock.
func (r *rebuild) hold(ctx context.Context) error {
	if time.Since(r.locked) < lockLife/6 {
		return nil
	}
	mine, err := r.index.Hold(ctx, r.owner, lockLife)
	if err != nil {
		return err
	}
	if !mine {
		return errTaken
	}
	r.locked = time.Now()
	return nil
}

// deliveries puts the provider ids of what was sent into the index, and notes which receipts have their events.
func (r *rebuild) deliveries(ctx context.Context, batch []*kgo.Record) error {
	var entries []dlrindex.Entry
	d := &fanfarev1.Delivery{}
	for _, rec := range batch {
		proto.Reset(d)
		if proto.Unmarshal(rec.Value, d) != nil || d.GetProviderId() == "" || !r.indexed(r.view.Route(d.GetRoute())) {
			continue
		}
		id, err := r.verified(d.GetSubmissionId())
		if err != nil {
			continue
		}
		key := try{id.CampaignNumber(), id.Try()}
		switch d.GetKind() {
		case schemas.KindSent:
			left := time.UnixMilli(d.GetTimeMs()).Add(r.life()).Sub(r.cfg.Now())
			if left <= 0 {
				continue
			}
			e := dlrindex.Entry{Route: d.GetRoute(), ProviderID: d.GetProviderId(), To: d.GetTo(), Submission: id, Life: left}
			entries = e.WithParts(entries, d.GetPartProviderIds())
		case schemas.KindBounced, schemas.KindUndelivered:
			add(r.negative, key, id.Seq())
		case schemas.KindDelivered:
			add(r.positive, key, id.Seq())
		case schemas.KindRead:
			add(r.positive, key, id.Seq())
			add(r.read, key, id.Seq())
		default:
		}
	}
	for some := range slices.Chunk(entries, putAtOnce) {
		// this process reads the receipts that wait for these entries afterwards
		if _, err := r.index.Put(ctx, some); err != nil {
			return err
		}
		r.put += len(some)
	}
	return nil
}

func add(sets map[try]*roaring.Bitmap, key try, seq uint32) {
	if sets[key] == nil {
		sets[key] = roaring.New()
	}
	sets[key].Add(seq)
}

// receipts parks the receipts whose submission is not known, republishes the receipts that may never have become
// events, and joins parts.
func (r *rebuild) receipts(ctx context.Context, batch []*kgo.Record) error {
	items := make([]item, 0, len(batch))
	for _, rec := range batch {
		it := item{record: rec, receipt: &fanfarev1.Receipt{}}
		if proto.Unmarshal(rec.Value, it.receipt) != nil || schemas.ValidRoute(it.receipt.GetRoute()) != nil || !r.indexed(r.view.Route(it.receipt.GetRoute())) {
			continue
		}
		it.submission, _ = r.verified(it.receipt.GetSubmissionId())
		items = append(items, it)
	}
	if err := r.find(ctx, items); err != nil {
		return err
	}
	var parts []dlrindex.Part
	var again []*kgo.Record
	for i := range items {
		it := &items[i]
		switch {
		case it.submission.IsZero():
		case it.match.IsZero():
			if it.campaign = r.view.CampaignByNumber(it.submission.CampaignNumber()); it.campaign != nil && it.inParts() {
				if p, ok := r.part(it); ok {
					parts = append(parts, p)
				}
			}
		case !r.hasEvent(it): // also for parts: the tracker joins them when they arrive again
			it.receipt.SubmissionId = append([]byte(nil), it.submission[:]...)
			rec, err := schemas.ReceiptEvent(r.names.Receipts(), source, it.receipt).Record()
			if err != nil {
				return err
			}
			again = append(again, rec)
		}
	}
	if _, err := r.index.Join(ctx, parts); err != nil {
		return err
	}
	if err := r.producer.ProduceSync(ctx, again...).FirstErr(); err != nil {
		return fmt.Errorf("publish receipts again: %w", err)
	}
	r.published += len(again)
	return nil
}

// find looks up the submissions of receipts without our id, and parks the receipts whose submission is not known.
func (r *rebuild) find(ctx context.Context, items []item) error {
	var sightings []dlrindex.Sighting
	var asked []*item
	for i := range items {
		it := &items[i]
		if !it.submission.IsZero() || it.receipt.GetProviderId() == "" && len(it.receipt.GetAltProviderIds()) == 0 {
			continue
		}
		s := r.sighting(it.receipt, it.record.Value)
		if s.Life = it.record.Timestamp.Add(s.Life).Sub(r.cfg.Now()); s.Life <= 0 {
			continue
		}
		sightings = append(sightings, s)
		asked = append(asked, it)
	}
	for n := 0; n < len(asked); n += putAtOnce {
		end := min(n+putAtOnce, len(asked))
		found, err := r.index.Find(ctx, sightings[n:end])
		if err != nil {
			return err
		}
		for i, f := range found {
			if f.IsZero() {
				r.parked++
				continue
			}
			asked[n+i].matched(f)
		}
	}
	return nil
}

// hasEvent reports whether a receipt need not be republished: `deliveries` has its event or a greater one, or the
// receipt gives no event. A receipt without an event was parked, and its submission became known only while the index
// was lost.
func (r *rebuild) hasEvent(it *item) bool {
	key := try{it.submission.CampaignNumber(), it.submission.Try()}
	in := func(sets map[try]*roaring.Bitmap) bool {
		return sets[key] != nil && sets[key].Contains(it.submission.Seq())
	}
	switch it.receipt.GetStatus() {
	case schemas.ReceiptStatusRead:
		return in(r.read)
	case schemas.ReceiptStatusDelivered:
		return in(r.positive)
	case schemas.ReceiptStatusFailed:
		return in(r.positive) || in(r.negative)
	default:
		return true
	}
}
