package expander

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const source = "expander"

// freshness: if the view was refreshed at least this long after the chunk was written and still lacks the campaign, the
// campaign does not exist. The scheduler deals only campaigns that are published, so an up-to-date view has them;
// clocks of two machines differ by less.
const freshness = 10 * time.Second

// reading is how many blobs are read concurrently.
const reading = 4

// errPoison marks errors that no retry can mend: they wrap it.
var errPoison = errors.New("cannot be expanded")

func poison(err error) error { return fmt.Errorf("%w: %w", errPoison, err) }

// classify makes an error of the store permanent if the store lacks the data; any other error is temporary.
func classify(err error) error {
	if errors.Is(err, schemas.ErrNotFound) {
		return poison(err)
	}
	return err
}

// handler turns chunks into messages and outcomes, one batch at a time.
type handler struct {
	cfg     Config
	names   schemas.Names
	keys    *schemas.Keys
	view    Campaigns
	blobs   *blobCache
	metrics *metrics
	scratch scratch
	arenas  arenas
}

func newHandler(cfg Config, deps Deps) (*handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Keys == nil || deps.Campaigns == nil || deps.Audience == nil {
		return nil, errors.New("expander: keys, campaigns and an audience are needed")
	}
	m, err := newMetrics(cfg.Cluster.Registry)
	if err != nil {
		return nil, err
	}
	return &handler{cfg: cfg, names: cfg.Cluster.Names, keys: deps.Keys, view: deps.Campaigns, blobs: newBlobCache(deps.Audience, cfg.Memory, m), metrics: m, arenas: arenas{most: cfg.Chunks}}, nil
}

// job is one chunk that is being expanded.
type job struct {
	record   *kgo.Record
	chunk    *fanfarev1.Chunk
	campaign *fanfarev1.Campaign
	entries  *audience.Reader
	first    uint32 // seq of the first entry
	seqs     []uint32
	poison   error
}

// Handle implements [stream.Handler]. An error means that the view or the store must catch up first.
func (h *handler) Handle(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
	jobs := make([]*job, len(batch))
	for i, r := range batch {
		jobs[i] = h.decode(r)
	}
	if err := h.awaitCampaigns(ctx, jobs); err != nil {
		h.metrics.waits.WithLabelValues("view").Inc()
		return stream.Result{}, err
	}
	if err := h.readBlobs(ctx, jobs); err != nil {
		h.metrics.waits.WithLabelValues("store").Inc()
		return stream.Result{}, err
	}
	var result stream.Result
	for _, j := range jobs {
		out, err := safely(j, h.expand)
		if err != nil {
			if j.entries != nil {
				h.blobs.forget(blobKey{j.chunk.GetFreezeId(), j.chunk.GetBlob()})
			}
			result.Dead = append(result.Dead, stream.Dead{Record: j.record, Cause: err})
			h.metrics.chunks.WithLabelValues("dead").Inc()
			if out, err = safely(j, h.renderErrors); err != nil {
				out = nil // the tenant or an id is not valid in a record
			}
		}
		if result.Publish == nil {
			result.Publish = out
		} else {
			result.Publish = append(result.Publish, out...)
		}
	}
	return result, nil
}

// decode reads a chunk and checks it as far as that needs neither view nor store.
func (h *handler) decode(r *kgo.Record) *job {
	j := &job{record: r}
	c := &fanfarev1.Chunk{}
	if err := proto.Unmarshal(r.Value, c); err != nil {
		j.poison = poison(fmt.Errorf("decode chunk: %w", err))
		return j
	}
	j.chunk = c
	seqs, err := seqsOf(c)
	switch {
	case err != nil:
		j.poison = poison(err)
	case c.GetTry() > schemas.MaxTry || c.GetTry() < 1 && c.GetPurpose() != schemas.PurposeCancel:
		j.poison = poison(fmt.Errorf("try %d: want 1 to %d", c.GetTry(), schemas.MaxTry))
	case c.GetCampaignNumber() > schemas.MaxCampaignNumber || c.GetCampaignId() != schemas.CampaignID(c.GetCampaignNumber()):
		j.poison = poison(fmt.Errorf("campaign %q does not have number %d", c.GetCampaignId(), c.GetCampaignNumber()))
		return j // no outcomes: they would be those of another campaign's recipients
	}
	j.seqs = seqs
	return j
}

// seqsOf returns the recipients of a chunk, in order.
func seqsOf(c *fanfarev1.Chunk) (seqs []uint32, err error) {
	if len(c.GetSeqs()) == 0 {
		first, end := c.GetFirstSeq(), c.GetEndSeq()
		if first >= end || end-first > audience.BlobSize || end > schemas.MaxSeq+1 {
			return nil, fmt.Errorf("recipients %d to %d: want 1 to %d of them", first, end, audience.BlobSize)
		}
		seqs = make([]uint32, 0, end-first)
		for seq := first; seq < end; seq++ {
			seqs = append(seqs, seq)
		}
		return seqs, nil
	}
	defer func() { // the library panics on bad input
		if p := recover(); p != nil {
			seqs, err = nil, fmt.Errorf("set of recipients: %v", p)
		}
	}()
	set := roaring.New()
	if err := set.UnmarshalBinary(c.GetSeqs()); err != nil {
		return nil, fmt.Errorf("set of recipients: %w", err)
	}
	if n := set.GetCardinality(); n == 0 || n > audience.BlobSize || set.Maximum() > schemas.MaxSeq {
		return nil, fmt.Errorf("set of recipients: got %d of them, want 1 to %d", n, audience.BlobSize)
	}
	return set.ToArray(), nil
}

// awaitCampaigns waits until the view has each chunk's version of its campaign. A chunk of a campaign that does not
// exist is poison.
func (h *handler) awaitCampaigns(ctx context.Context, jobs []*job) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Patience)
	defer cancel()
	for {
		changed := h.view.Changed()
		var behind *fanfarev1.Chunk
		for _, j := range jobs {
			if j.campaign != nil || j.poison != nil && j.seqs == nil {
				continue
			}
			c := h.view.Campaign(j.chunk.GetCampaignId())
			switch {
			case c != nil && c.GetVersion() >= j.chunk.GetCampaignVersion():
				j.campaign = c
			case j.poison != nil:
				// The outcomes of a poison chunk do not need the campaign.
			case c == nil && h.cfg.Now().Add(-h.view.Age()).Sub(j.record.Timestamp) > freshness:
				j.poison = poison(errors.New("no such campaign"))
			default:
				behind = j.chunk
			}
		}
		if behind == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("campaign %s: version %d has not arrived", behind.GetCampaignId(), behind.GetCampaignVersion())
		}
	}
}

// readBlobs reads the blobs of the audience that the chunks need.
func (h *handler) readBlobs(ctx context.Context, jobs []*job) error {
	wanted := map[blobKey][]*job{}
	for _, j := range jobs {
		if j.poison != nil {
			continue
		}
		if f := j.campaign.GetFreezeId(); f != j.chunk.GetFreezeId() {
			j.poison = poison(fmt.Errorf("dealt from audience %q, the campaign has %q", j.chunk.GetFreezeId(), f))
			j.seqs = nil // the chunk's seqs belong to another audience
			continue
		}
		key := blobKey{j.chunk.GetFreezeId(), j.chunk.GetBlob()}
		wanted[key] = append(wanted[key], j)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(reading)
	for key, needed := range wanted {
		group.Go(func() error {
			entries, first, err := h.blobs.blob(ctx, key)
			if err != nil && !errors.Is(err, errPoison) {
				return err
			}
			for _, j := range needed {
				j.entries, j.first = entries, first
				if err != nil && j.chunk.GetPurpose() != schemas.PurposeCancel { // a cancel does not need the blob
					j.poison = err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// safely makes the records of one chunk. A panic makes this chunk poison, and the others of the batch are expanded.
func safely(j *job, records func(*job) ([]*kgo.Record, error)) (out []*kgo.Record, err error) {
	defer func() {
		if p := recover(); p != nil {
			out, err = nil, poison(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	return records(j)
}

// expand makes the records of one chunk.
func (h *handler) expand(j *job) ([]*kgo.Record, error) {
	if j.poison != nil {
		return nil, j.poison
	}
	c := j.chunk
	if c.GetTenant() != j.campaign.GetTenant() {
		j.seqs = nil // no outcomes: the recipients belong to another tenant
		return nil, poison(errors.New("the campaign is another tenant's"))
	}
	began := h.cfg.Now()
	x, err := h.newExpansion(j)
	if err != nil {
		return nil, err
	}
	switch {
	case c.GetPurpose() == schemas.PurposeCancel:
		if _, ok := schemas.LookupKind(c.GetOutcome()); !ok {
			return nil, poison(fmt.Errorf("a cancel without an outcome that is known: %d", c.GetOutcome()))
		}
		// A recipient that may not get a message anyway keeps its own reason. In a stopped campaign all recipients get
		// the same reason.
		own := c.GetTry() <= 1 && !over(j.campaign)
		cancel := func(seq uint32, e *audience.Entry) error {
			kind, code := c.GetOutcome(), c.GetCode()
			if own && e != nil && e.Flag != audience.OK {
				kind, code = flagged(e.Flag)
			}
			return x.outcome(seq, e, kind, code, 0)
		}
		if err = x.each(cancel); errors.Is(err, audience.ErrBlob) { // a cancel does not need the phone numbers
			x.reset()
			err = x.each(cancel)
		}
	case c.GetPurpose() != schemas.PurposeDeal:
		return nil, poison(fmt.Errorf("purpose %d is not known", c.GetPurpose()))
	case over(j.campaign):
		err = x.each(func(seq uint32, e *audience.Entry) error {
			return x.outcome(seq, e, schemas.KindSkipped, schemas.CodeCancelled, 0)
		})
	default:
		if err = x.prepare(); err == nil {
			err = x.each(x.recipient)
		}
	}
	if err != nil {
		return nil, err
	}
	x.count()
	x.span(j, began)
	if j.entries != nil && int(c.GetEndSeq()-j.first) >= j.entries.Len() {
		h.blobs.forget(blobKey{c.GetFreezeId(), c.GetBlob()}) // only retries need the blob from here on
	}
	return x.out, nil
}

// over reports whether nothing more of a campaign is sent.
func over(c *fanfarev1.Campaign) bool {
	switch c.GetState() {
	case schemas.StateAborted, schemas.StateCancelled, schemas.StateFailed, schemas.StateRejected:
		return true
	default:
		return c.GetStopped()
	}
}

// flagged returns the outcome of a recipient that must not get a message.
func flagged(f audience.Flag) (schemas.Kind, schemas.Code) {
	switch f {
	case audience.Duplicate:
		return schemas.KindSkipped, schemas.CodeDuplicateRecipient
	case audience.OptedOut:
		return schemas.KindSkipped, schemas.CodeOptedOut
	case audience.Capped:
		return schemas.KindSkipped, schemas.CodeFrequencyCap
	case audience.NotOptedIn:
		return schemas.KindSkipped, schemas.CodeNotOptedIn
	case audience.OverQuota:
		return schemas.KindSkipped, schemas.CodeQuotaCountry
	default: // includes flags that a newer version wrote: they are not OK either
		return schemas.KindNotSent, schemas.CodeInvalidNumber
	}
}

// renderErrors are the outcomes of a poison chunk, so that its recipients are accounted for.
func (h *handler) renderErrors(j *job) ([]*kgo.Record, error) {
	bare := *j
	bare.entries, bare.seqs = nil, nil
	for _, seq := range j.seqs {
		if total := j.campaign.GetTotal(); total == 0 || seq < total { // seqs beyond the audience need no outcome
			bare.seqs = append(bare.seqs, seq)
		}
	}
	if len(bare.seqs) == 0 || j.chunk.GetTenant() == "" {
		return nil, nil
	}
	x := h.newOutcomes(&bare)
	err := x.each(func(seq uint32, e *audience.Entry) error {
		return x.outcome(seq, e, schemas.KindNotSent, schemas.CodeRenderError, 0)
	})
	x.count()
	return x.out, err
}
