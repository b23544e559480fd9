package scheduler

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

const source = "scheduler"

// offsetsKey is the key of the one record of `cursors` that is no campaign's.
const offsetsKey = "offsets"

// chunkRecord makes the record of a deal.
func (s *Scheduler) chunkRecord(d *deal) (*kgo.Record, error) {
	c := d.campaign
	ch := &fanfarev1.Chunk{
		Tenant: c.tenant, CampaignId: c.id, CampaignNumber: c.number, CampaignVersion: d.record.GetVersion(), Deal: d.number,
		Purpose: fanfarev1.Chunk_PURPOSE_DEAL, Try: uint32(d.try), Leg: uint32(d.leg), FreezeId: d.record.GetFreezeId(), Blob: d.blob,
		FirstSeq: d.first, EndSeq: d.end, NotAfterMs: d.notAfter,
	}
	if d.cancel {
		ch.Purpose, ch.Outcome, ch.Code = fanfarev1.Chunk_PURPOSE_CANCEL, d.outcome, d.code
	}
	if d.seqs != nil {
		ch.Seqs = portable(d.seqs)
	}
	key := c.key() + "#" + strconv.FormatUint(d.number, 10)
	return schemas.Event{
		Topic: s.names.Chunks(), Key: key, Tenant: c.tenant, Type: schemas.TypeChunk, Source: source, ID: key,
		Time: time.UnixMilli(d.dealt), Value: ch,
	}.Record()
}

// cursorRecord makes a record of `cursors`; a nil value is a tombstone.
func (s *Scheduler) cursorRecord(key, tenant string, now time.Time, value proto.Message) (*kgo.Record, error) {
	e := schemas.Event{Topic: s.names.Cursors(), Key: key, Tenant: tenant, Type: schemas.TypeCursor, Source: source, ID: key, Time: now, Value: value}
	if value == nil {
		return e.Raw(nil), nil
	}
	return e.Record()
}

func setsKey(c *campaign, part uint32) string {
	return c.key() + "/sets/" + strconv.FormatUint(uint64(part), 10)
}

// endRecord makes the delivery event of an end.
func (s *Scheduler) endRecord(e *ending, now time.Time) (*kgo.Record, error) {
	c := e.campaign
	message, submission := s.cfg.Keys.Message(c.number, e.seq), s.cfg.Keys.Submission(c.number, e.seq, e.try)
	d := &fanfarev1.Delivery{
		Tenant: c.tenant, CampaignId: c.id, CampaignNumber: c.number, Seq: e.seq, Try: uint32(e.try), Leg: uint32(e.leg),
		Kind: e.kind, Code: e.code, TimeMs: ms(now), Currency: c.record.GetCurrency(), Test: c.record.GetTest(),
		MessageId: message[:], SubmissionId: submission[:],
	}
	if legs := c.record.GetLegs(); e.leg >= 1 && int(e.leg) <= len(legs) {
		l := legs[e.leg-1]
		d.Channel, d.Route, d.Sender = l.GetChannel(), l.GetRoute(), l.GetSender()
	}
	return schemas.DeliveryEvent(s.names.Deliveries(), source, d, "").Record()
}

// heldRecords make the deal of a held message and the tombstone in its place.
func (s *Scheduler) heldRecords(h *held, n uint32, now time.Time) ([]*kgo.Record, error) {
	tomb := s.tombstone(h, now)
	if n == 0 {
		return []*kgo.Record{tomb}, nil
	}
	m := &fanfarev1.Held{}
	if err := proto.Unmarshal(h.value, m); err != nil {
		return nil, fmt.Errorf("held message: %w", err)
	}
	msg := m.GetMessage()
	msg.Try = n
	msg.NotAfterMs = h.notAfter
	id := s.cfg.Keys.Submission(msg.GetCampaignNumber(), msg.GetSeq(), uint8(n)).String()
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

func (s *Scheduler) tombstone(h *held, now time.Time) *kgo.Record {
	return schemas.Event{Topic: s.names.Held(), Key: h.key, Tenant: h.tenant, Type: schemas.TypeHeld, Source: source, ID: h.key, Time: now}.Raw(nil)
}

// commit writes records in one transaction. Whatever error it returns, nobody knows what came of the transaction: the client is
// not to be used again, for it might give itself a new epoch and fence its successor.
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
			s.log.WarnContext(ctx, "transaction is left to its time-out", "err", aerr)
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
