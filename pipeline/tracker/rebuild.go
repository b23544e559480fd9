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

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/rendezvous"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// lockLife is how long the process that fills the rendezvous may be silent before another takes over.
const lockLife = time.Minute

// errTaken ends a filling: what it has put may not be there any more.
var errTaken = errors.New("another process took over, or Redis was lost once more")

// viewAge is how old the view may be that says which routes meet here.
const viewAge = 10 * time.Second

// putAtOnce is how many entries go to Redis in one round trip.
const putAtOnce = 1000

// keeper fills the rendezvous again when Redis has lost it. Of several processes one does it.
type keeper struct {
	*handler
	meets func(*fanfarev1.Route) bool
	log   *slog.Logger
	who   string
}

func newKeeper(h *handler, meets func(*fanfarev1.Route) bool) *keeper {
	if meets == nil {
		meets = func(*fanfarev1.Route) bool { return true }
	}
	log := h.cfg.Cluster.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &keeper{handler: h, meets: meets, log: log.With("stage", source), who: rand.Text()}
}

// run looks after the rendezvous until ctx ends.
func (k *keeper) run(ctx context.Context) error {
	for ctx.Err() == nil {
		wait := k.cfg.Watch
		if err := k.ensure(ctx); errors.Is(err, errViewOld) {
			wait = viewWait // as at every start
		} else if err != nil && ctx.Err() == nil {
			k.metrics.rebuilds.WithLabelValues("failed").Inc()
			k.log.WarnContext(ctx, "the rendezvous cannot be looked after; it is tried again", "err", err)
			wait = min(wait, time.Second)
		}
		watch := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-watch.C:
		case <-k.lost:
		}
		watch.Stop()
	}
	return nil
}

// errViewOld: it is not known which routes need a rendezvous.
var errViewOld = errors.New("the view of routes and campaigns is old")

// viewWait is how soon it is looked at again.
const viewWait = 200 * time.Millisecond

// ensure fills the rendezvous if it was lost and nobody else does.
func (k *keeper) ensure(ctx context.Context) error {
	if ready, err := k.table.Ready(ctx); ready || err != nil {
		return err
	}
	if k.view.Age() > viewAge {
		return errViewOld
	}
	if mine, err := k.table.Lock(ctx, k.who, lockLife); !mine || err != nil {
		return err
	}
	began := time.Now()
	f := &filling{keeper: k, since: k.cfg.Now().Add(-k.life())}
	err := f.run(ctx)
	if err == nil {
		var mine bool
		if mine, err = k.table.Filled(ctx, k.who); err == nil && !mine {
			err = errTaken
		}
	}
	if err != nil {
		// Whoever tries next, this process too, need not wait until the lock lapses.
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, unlock := k.table.Hold(release, k.who, 0)
		return fmt.Errorf("fill the rendezvous: %w", errors.Join(err, unlock))
	}
	k.metrics.rebuilds.WithLabelValues("done").Inc()
	k.log.InfoContext(ctx, "the rendezvous was filled again", "submissions", f.put, "receipts_parked", f.parked, "receipts_published", f.published, "took", time.Since(began))
	return nil
}

// filling makes the rendezvous again from what the topics hold of the span in which a receipt may still come.
type filling struct {
	*keeper
	since  time.Time
	locked time.Time
	// Who has had a receipt already: campaign and try -> seqs. What was said of them need not be said again.
	negative, positive, seen map[said]*roaring.Bitmap

	producer               *kgo.Client
	put, parked, published int
}

type said struct {
	campaign uint64
	try      uint8
}

func (f *filling) run(ctx context.Context) error {
	if !slices.ContainsFunc(f.view.Routes(), f.meets) {
		return nil // nobody was ever put
	}
	f.negative, f.positive, f.seen = map[said]*roaring.Bitmap{}, map[said]*roaring.Bitmap{}, map[said]*roaring.Bitmap{}
	var err error
	if f.producer, err = f.cfg.Cluster.Named("tracker-fill").Client(kgo.ProducerLinger(0)); err != nil {
		return err
	}
	defer f.producer.Close()
	// First whose each id is, then who is waiting for one.
	if err := f.follow(ctx, f.names.Deliveries(), f.deliveries); err != nil {
		return err
	}
	return f.follow(ctx, f.names.Receipts(), f.receipts)
}

// follow gives the records of a topic since the span began to apply, up to the end as it is at some time after the beginning.
func (f *filling) follow(ctx context.Context, topic string, apply func(context.Context, []*kgo.Record) error) error {
	starts, err := kadm.NewClient(f.producer).ListOffsetsAfterMilli(ctx, f.since.UnixMilli(), topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fmt.Errorf("where %s began to matter: %w", topic, err)
	}
	from := map[string]map[int32]int64{topic: {}}
	starts.Each(func(o kadm.ListedOffset) { from[topic][o.Partition] = o.Offset })

	reading, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cluster := f.cfg.Cluster.Named("tracker-fill")
	tail, err := stream.NewTail(stream.TailConfig{Cluster: cluster, Topics: []string{topic}, From: from}, func(batch []*kgo.Record) {
		err := context.Cause(reading)
		if err == nil {
			err = f.hold(reading)
		}
		if err == nil {
			err = apply(reading, batch)
		}
		if err != nil {
			stop(err) // the first one stays
		}
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- tail.Run(reading) }()
	select {
	case <-tail.Ready():
		stop(errRead)
	case <-reading.Done():
	}
	if err := <-ended; err != nil {
		return err
	}
	if err := context.Cause(reading); !errors.Is(err, errRead) {
		return err
	}
	return nil
}

// errRead ends a tail that has read to the end.
var errRead = errors.New("read to the end")

// hold keeps the lock.
func (f *filling) hold(ctx context.Context) error {
	if time.Since(f.locked) < lockLife/6 {
		return nil
	}
	mine, err := f.table.Hold(ctx, f.who, lockLife)
	if err != nil {
		return err
	}
	if !mine {
		return errTaken
	}
	f.locked = time.Now()
	return nil
}

// deliveries puts the carriers' ids of what was sent, and notes what was said of it since.
func (f *filling) deliveries(ctx context.Context, batch []*kgo.Record) error {
	var entries []rendezvous.Entry
	d := &fanfarev1.Delivery{}
	for _, r := range batch {
		proto.Reset(d)
		if proto.Unmarshal(r.Value, d) != nil || d.GetProviderId() == "" || !f.meets(f.view.Route(d.GetRoute())) {
			continue
		}
		id, err := f.verified(d.GetSubmissionId())
		if err != nil {
			continue
		}
		key := said{id.CampaignNumber(), id.Try()}
		switch d.GetKind() {
		case fanfarev1.Kind_KIND_SENT:
			left := time.UnixMilli(d.GetTimeMs()).Add(f.life()).Sub(f.cfg.Now())
			if left <= 0 {
				continue
			}
			entries = append(entries, rendezvous.Entry{Route: d.GetRoute(), ProviderID: d.GetProviderId(), To: d.GetTo(), Submission: id, Life: left})
		case fanfarev1.Kind_KIND_BOUNCED, fanfarev1.Kind_KIND_UNDELIVERED:
			note(f.negative, key, id.Seq())
		case fanfarev1.Kind_KIND_DELIVERED:
			note(f.positive, key, id.Seq())
		case fanfarev1.Kind_KIND_READ:
			note(f.positive, key, id.Seq())
			note(f.seen, key, id.Seq())
		default:
		}
	}
	for some := range slices.Chunk(entries, putAtOnce) {
		if _, err := f.table.Put(ctx, some); err != nil { // nothing is parked yet but what came since: it is read below
			return err
		}
		f.put += len(some)
	}
	return nil
}

func note(sets map[said]*roaring.Bitmap, key said, seq uint32) {
	if sets[key] == nil {
		sets[key] = roaring.New()
	}
	sets[key].Add(seq)
}

// receipts parks what waits for its submission, publishes again what waited and may never have been said, and joins the parts.
func (f *filling) receipts(ctx context.Context, batch []*kgo.Record) error {
	items := make([]item, 0, len(batch))
	for _, r := range batch {
		it := item{record: r, receipt: &fanfarev1.Receipt{}}
		if proto.Unmarshal(r.Value, it.receipt) != nil || schemas.ValidRoute(it.receipt.GetRoute()) != nil || !f.meets(f.view.Route(it.receipt.GetRoute())) {
			continue
		}
		it.id, _ = f.verified(it.receipt.GetSubmissionId())
		items = append(items, it)
	}
	if err := f.find(ctx, items); err != nil {
		return err
	}
	var parts []rendezvous.Part
	var again []*kgo.Record
	for i := range items {
		it := &items[i]
		if it.id.IsZero() {
			continue
		}
		if !it.looked {
			if it.campaign = f.view.CampaignByNumber(it.id.CampaignNumber()); it.campaign != nil && it.inParts() {
				if p, ok := f.part(it); ok {
					parts = append(parts, p)
				}
			}
			continue
		}
		if f.unsaid(it) { // also what is known of parts: they are joined when they come again
			it.receipt.SubmissionId = append([]byte(nil), it.id[:]...)
			r, err := receiptRecord(f.names, it.receipt)
			if err != nil {
				return err
			}
			again = append(again, r)
		}
	}
	if _, err := f.table.Join(ctx, parts); err != nil {
		return err
	}
	if err := f.producer.ProduceSync(ctx, again...).FirstErr(); err != nil {
		return fmt.Errorf("publish receipts again: %w", err)
	}
	f.published += len(again)
	return nil
}

// find fills in the submissions of the receipts that do not name theirs, and parks those that are not known.
func (f *filling) find(ctx context.Context, items []item) error {
	var sightings []rendezvous.Sighting
	var asked []*item
	for i := range items {
		it := &items[i]
		if !it.id.IsZero() || it.receipt.GetProviderId() == "" && len(it.receipt.GetAltProviderIds()) == 0 {
			continue
		}
		s := f.sighting(it.receipt, it.record.Value)
		if s.Life = it.record.Timestamp.Add(s.Life).Sub(f.cfg.Now()); s.Life <= 0 {
			continue
		}
		sightings = append(sightings, s)
		asked = append(asked, it)
	}
	for n := 0; n < len(asked); n += putAtOnce {
		end := min(n+putAtOnce, len(asked))
		ids, err := f.table.Find(ctx, sightings[n:end])
		if err != nil {
			return err
		}
		for i, id := range ids {
			if id.IsZero() {
				f.parked++
			}
			asked[n+i].id, asked[n+i].looked = id, !id.IsZero()
		}
	}
	return nil
}

// unsaid reports whether nobody may have said what a receipt says: it was parked, and its submission became known only while
// the rendezvous was lost.
func (f *filling) unsaid(it *item) bool {
	key := said{it.id.CampaignNumber(), it.id.Try()}
	has := func(sets map[said]*roaring.Bitmap) bool { return sets[key] != nil && sets[key].Contains(it.id.Seq()) }
	switch it.receipt.GetStatus() {
	case fanfarev1.ReceiptStatus_RECEIPT_STATUS_READ:
		return !has(f.seen)
	case fanfarev1.ReceiptStatus_RECEIPT_STATUS_DELIVERED:
		return !has(f.positive)
	case fanfarev1.ReceiptStatus_RECEIPT_STATUS_FAILED:
		return !has(f.positive) && !has(f.negative)
	default:
		return false
	}
}

// receiptRecord is a receipt as it lies in the topic.
func receiptRecord(names schemas.Names, r *fanfarev1.Receipt) (*kgo.Record, error) {
	return schemas.Event{
		Topic: names.Receipts(), Key: schemas.ReceiptKey(r.GetRoute(), r.GetProviderId()), Type: schemas.TypeReceipt, Source: source,
		ID: schemas.ReceiptKey(r.GetRoute(), r.GetProviderId()) + "/" + r.GetStatus().String(), Time: time.UnixMilli(r.GetReceivedMs()), Value: r,
	}.Record()
}
