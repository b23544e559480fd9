package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/scheduler/plan"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/trace"
)

const source = "scheduler"

// offsetsKey is the key of the only record of `cursors` that belongs to no campaign.
const offsetsKey = "offsets"

// chunkRecord returns the record of a deal.
func (s *Scheduler) chunkRecord(d *plan.Deal) (*kgo.Record, error) {
	c, ch := d.Campaign, d.Chunk()
	// The chunks of one blob go to one expander, which has the blob in memory after the first of them.
	traceparent := ""
	if s.traced(d) {
		traceparent = s.cfg.Traces.OfCampaign(c.Number()).Deal(d.Number).Traceparent()
	}
	return schemas.Event{
		Topic: s.names.Chunks(), Key: c.Key() + "#" + strconv.FormatUint(uint64(ch.GetBlob()), 10), Tenant: c.Tenant(),
		Type: schemas.TypeChunk, Source: source, ID: c.Key() + "#" + strconv.FormatUint(d.Number, 10),
		Time: time.UnixMilli(d.DealtMs), Value: ch, Traceparent: traceparent,
	}.Record()
}

// traced reports whether a deal has a recipient that is traced.
func (s *Scheduler) traced(d *plan.Deal) bool {
	return s.cfg.Traces != nil && d.Any(func(seq uint32) bool { return s.cfg.Traces.Samples(d.Campaign.Number(), seq) })
}

// record makes the spans of deals whose transaction has ended.
func (s *Scheduler) record(spans []trace.Span, err error) {
	now := s.cfg.Now()
	for i := range spans {
		if spans[i].End = now; err != nil {
			spans[i].Failed = "not_committed"
		}
		s.cfg.Traces.Record(spans[i])
	}
}

// dealSpans returns the spans of the deals that are traced, without an end.
func (s *Scheduler) dealSpans(deals []plan.Deal) (spans []trace.Span) {
	for i := range deals {
		d := &deals[i]
		if !s.traced(d) {
			continue
		}
		way := s.cfg.Traces.OfCampaign(d.Campaign.Number())
		spans = append(spans, trace.Span{
			Name: trace.NameDeal, At: way.Deal(d.Number), Parent: way.Root(), Kind: trace.Producer, Start: time.UnixMilli(d.DealtMs),
			Attributes: []attribute.KeyValue{
				trace.Tenant(d.Campaign.Tenant()), trace.Campaign(d.Campaign.ID()), trace.Deal(d.Number), trace.Recipients(int(d.Size())),
			},
		})
	}
	return spans
}

// cursorRecord returns a record of `cursors`; with a nil value, a tombstone.
func (s *Scheduler) cursorRecord(key, tenant string, now time.Time, value proto.Message) (*kgo.Record, error) {
	e := schemas.Event{Topic: s.names.Cursors(), Key: key, Tenant: tenant, Type: schemas.TypeCursor, Source: source, ID: key, Time: now, Value: value}
	if value == nil {
		return e.Raw(nil), nil
	}
	return e.Record()
}

func setsKey(cursorKey string, part uint32) string {
	return cursorKey + "/sets/" + strconv.FormatUint(uint64(part), 10)
}

// endRecord returns the delivery event of an end.
func (s *Scheduler) endRecord(e *plan.End, now time.Time) (*kgo.Record, error) {
	c, record := e.Campaign, e.Campaign.Record()
	message, submission := s.cfg.Keys.Message(c.Number(), e.Seq), s.cfg.Keys.Submission(c.Number(), e.Seq, e.Try)
	d := &fanfarev1.Delivery{
		Tenant: c.Tenant(), CampaignId: c.ID(), CampaignNumber: c.Number(), Seq: e.Seq, Try: uint32(e.Try), Leg: uint32(e.Leg),
		Kind: e.Kind, Code: e.Code, TimeMs: now.UnixMilli(), Currency: record.GetCurrency(), Test: record.GetTest(),
		MessageId: message[:], SubmissionId: submission[:],
	}
	if legs := record.GetLegs(); e.Leg >= 1 && int(e.Leg) <= len(legs) {
		l := legs[e.Leg-1]
		d.Channel, d.Route, d.Sender = l.GetChannel(), cmp.Or(e.Route, l.GetRoute()), l.GetSender()
	}
	return schemas.DeliveryEvent(s.names.Deliveries(), source, d, "").Record()
}

// heldRecords returns the message of a held deal and the tombstone that replaces the held record. A deal at try 0 is
// the tombstone only.
func (s *Scheduler) heldRecords(h plan.HeldDeal, now time.Time) ([]*kgo.Record, error) {
	tomb := s.heldTombstone(h.Held, now)
	if h.DealtTry == 0 {
		return []*kgo.Record{tomb}, nil
	}
	m := &fanfarev1.Held{}
	if err := proto.Unmarshal(h.Value, m); err != nil {
		return nil, fmt.Errorf("held message: %w", err)
	}
	msg := m.GetMessage()
	msg.Try = h.DealtTry
	msg.NotAfterMs = h.NotAfterMs
	id := s.cfg.Keys.Submission(msg.GetCampaignNumber(), msg.GetSeq(), uint8(h.DealtTry)).String()
	r, err := schemas.Event{
		Topic: s.names.Messages(msg.GetRoute(), schemas.LaneTxn), Key: schemas.MessageKey(msg.GetTenant(), msg.GetTo()), Tenant: msg.GetTenant(),
		Type: schemas.TypeMessage, Source: source, ID: id, Time: now, Value: msg,
	}.Record()
	if err != nil {
		return nil, err
	}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: schemas.HeaderSubmission, Value: []byte(id)})
	return []*kgo.Record{r, tomb}, nil
}

func (s *Scheduler) heldTombstone(h *plan.Held, now time.Time) *kgo.Record {
	return schemas.Event{Topic: s.names.Held(), Key: h.Key, Tenant: h.Tenant, Type: schemas.TypeHeld, Source: source, ID: h.Key, Time: now}.Raw(nil)
}

// commit writes records in one transaction. After an error the outcome of the transaction is unknown, and the client
// must not be used again: it might take a new producer epoch and fence its successor.
func (s *Scheduler) commit(ctx context.Context, cl *kgo.Client, records []*kgo.Record) error {
	began := time.Now()
	if err := cl.BeginTransaction(); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	promise := kgo.AbortingFirstErrPromise(cl)
	for _, r := range records {
		cl.Produce(ctx, r, promise.Promise())
	}
	err := cl.Flush(ctx)
	if perr := promise.Err(); perr != nil {
		err = perr
	}
	if err != nil {
		s.metrics.aborted.Inc()
		if aerr := cl.EndTransaction(ctx, kgo.TryAbort); aerr != nil {
			s.log.WarnContext(ctx, "abort of a transaction failed, the broker will time it out", "err", aerr)
		}
		return fmt.Errorf("produce %d records: %w", len(records), err)
	}
	if err := cl.EndTransaction(ctx, kgo.TryCommit); err != nil {
		s.metrics.aborted.Inc()
		return fmt.Errorf("commit %d records: %w", len(records), err)
	}
	s.metrics.commit.Observe(time.Since(began).Seconds())
	return nil
}
