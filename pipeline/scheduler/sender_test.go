package scheduler

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// fakeSender replaces expander, sender and carrier: it consumes chunks and writes outcomes at the route's rate. It
// records which recipients were really dealt.
type fakeSender struct {
	p    *kafkaEnv
	cl   *kgo.Client
	says func(submission) []schemas.Kind // the events of a submission, in order; nil: sent, delivered

	badChunks atomic.Bool // a test writes chunks that cannot be read

	mu      sync.Mutex
	taken   map[submission]int
	answers int
	acked   int
	refused error // the last one
	skipped int
	faults  []string
	mute    bool // answers nothing
}

func newFakeSender(p *kafkaEnv) *fakeSender {
	c := &fakeSender{p: p, taken: map[submission]int{}}
	c.cl = p.client(
		kgo.ConsumeTopics(p.cluster.Names.Chunks()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(50*time.Millisecond),
	)
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	queue := make(chan *fanfarev1.Chunk, 10_000)
	g.Go(func() error { return c.consume(ctx, queue) })
	g.Go(func() error { return c.answer(ctx, queue) })
	p.t.Cleanup(func() {
		cancel()
		_ = g.Wait()
	})
	return c
}

func (c *fakeSender) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%d submissions, %d answered, %d acknowledged (last refusal: %v), %d skipped", len(c.taken), c.answers, c.acked, c.refused, c.skipped)
}

func (c *fakeSender) submissions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.taken)
}

func (c *fakeSender) setMute(mute bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mute = mute
}

func (c *fakeSender) consume(ctx context.Context, queue chan<- *fanfarev1.Chunk) error {
	for ctx.Err() == nil {
		c.cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			ch := &fanfarev1.Chunk{}
			if err := proto.Unmarshal(r.Value, ch); err != nil {
				c.fault("chunk: %v", err)
				return
			}
			if want := schemas.CampaignKey(ch.GetTenant(), ch.GetCampaignId()) + "#" + fmt.Sprint(ch.GetBlob()); string(r.Key) != want {
				c.fault("chunk has key %s, want %s", r.Key, want)
			}
			queue <- ch
		})
	}
	return nil
}

func (c *fakeSender) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// answer takes carrierRate submissions a second.
func (c *fakeSender) answer(ctx context.Context, queue <-chan *fanfarev1.Chunk) error {
	const beat = 10 * time.Millisecond
	tick := time.NewTicker(beat)
	defer tick.Stop()
	var pending []submission
	cancels := map[uint64]*fanfarev1.Chunk{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case ch := <-queue:
			seqs, err := membersOf(ch)
			if err != nil {
				if !c.badChunks.Load() {
					c.fault("chunk: %v", err)
				}
				continue
			}
			seqs.Iterate(func(seq uint32) bool {
				s := submission{ch.GetCampaignNumber(), seq, uint8(ch.GetTry()), uint8(ch.GetLeg())}
				c.mu.Lock()
				if c.taken[s]++; c.taken[s] > 1 {
					c.faults = append(c.faults, fmt.Sprintf("campaign %d seq %d try %d was dealt twice", s.campaign, s.seq, s.try))
				}
				c.mu.Unlock()
				if ch.GetPurpose() == schemas.PurposeCancel {
					cancels[s.campaign] = ch
					c.write(ctx, s, ch.GetOutcome(), ch.GetCode())
				} else {
					pending = append(pending, s)
				}
				return true
			})
		case <-tick.C:
			c.mu.Lock()
			mute := c.mute
			c.mu.Unlock()
			if mute {
				continue
			}
			n := min(len(pending), int(carrierRate*beat/time.Second))
			for _, s := range pending[:n] {
				c.outcome(ctx, s)
			}
			pending = pending[n:]
		}
	}
}

func (c *fakeSender) outcome(ctx context.Context, s submission) {
	r := c.p.control.campaign(s.campaign)
	switch {
	case r.GetState() == schemas.StatePaused:
		c.write(ctx, s, returnedKind, schemas.CodePaused)
	case r.GetState() == schemas.StateAborted || r.GetStopped():
		c.write(ctx, s, schemas.KindSkipped, schemas.CodeCancelled)
	default:
		kinds := []schemas.Kind{sentKind, deliveredKind}
		if c.says != nil {
			kinds = c.says(s)
		}
		for _, kind := range kinds {
			code := schemas.CodeDelivered
			switch kind {
			case sentKind:
				code = schemas.CodeAwaitingDLR
			case bouncedKind:
				code = schemas.CodeAbsentSubscriber
			case returnedKind:
				code = schemas.CodeRate
			case ambiguousKind:
				code = schemas.CodeTimeout
			default:
			}
			c.write(ctx, s, kind, code)
		}
	}
}

func (c *fakeSender) write(ctx context.Context, s submission, kind schemas.Kind, code schemas.Code) {
	c.mu.Lock()
	c.answers++
	if kind == schemas.KindSkipped {
		c.skipped++
	}
	c.mu.Unlock()
	message, sub := c.p.keys.Message(s.campaign, s.seq), c.p.keys.Submission(s.campaign, s.seq, s.try)
	r, err := schemas.DeliveryEvent(c.p.cluster.Names.Deliveries(), "sender", &fanfarev1.Delivery{
		Tenant: testTenant, CampaignId: schemas.CampaignID(s.campaign), CampaignNumber: s.campaign, Seq: s.seq, Try: uint32(s.try), Leg: uint32(s.leg),
		Kind: kind, Code: code, TimeMs: ms(time.Now()), Segments: 1, PriceMicros: 50_000, MessageId: message[:], SubmissionId: sub[:],
	}, "").Record()
	if err != nil {
		c.fault("event: %v", err)
		return
	}
	c.produce(ctx, r)
}

// produce writes an outcome until it is acknowledged.
func (c *fakeSender) produce(ctx context.Context, r *kgo.Record) {
	again := *r
	c.cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case err == nil:
			c.acked++
		case ctx.Err() == nil:
			c.refused = err
			go c.produce(ctx, &again) // a promise must not produce
		}
	})
}
