package sender

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// receipts writes the receipts of a carrier's session to topic `receipts`. emit returns when Kafka has acknowledged
// them, and only then the connector acknowledges to the carrier: until then the carrier keeps them and delivers them
// again.
func (c *routeSender) receipts(ctx context.Context, src carrier.ReceiptSource, cl *kgo.Client) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		started := c.now()
		err := src.Receipts(ctx, func(batch []carrier.Receipt) error { return c.publishReceipts(ctx, cl, batch) })
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopping
		}
		if c.now().Sub(started) > time.Minute {
			pause = 100 * time.Millisecond
		}
		c.logger.WarnContext(ctx, "receipt session ended; it is started again", slog.Any("err", err))
		if !stream.Sleep(ctx, pause) {
			return nil
		}
	}
}

func (c *routeSender) publishReceipts(ctx context.Context, cl *kgo.Client, batch []carrier.Receipt) error {
	now := c.now()
	recs := make([]*kgo.Record, 0, len(batch))
	for i := range batch {
		r, err := schemas.ReceiptEvent(c.names.Receipts(), source, batch[i].Record(c.name, now)).Record()
		if err != nil {
			// The carrier would deliver this receipt again for ever and block those behind it, so the sender drops it.
			c.logger.ErrorContext(ctx, "encode receipt failed; receipt dropped", slog.Any("err", err))
			continue
		}
		recs = append(recs, r)
	}
	if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return fmt.Errorf("publish receipts: %w", err)
	}
	c.metrics.receipts.WithLabelValues(c.name).Add(float64(len(recs)))
	return nil
}

// inbound writes what recipients wrote on a carrier's session to topic `inbound`. The connector answers the carrier
// when Kafka has acknowledged it.
func (c *routeSender) inbound(ctx context.Context, src carrier.InboundSource, cl *kgo.Client) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		started := c.now()
		err := src.Inbound(ctx, func(batch []carrier.Inbound) error { return c.publishInbound(ctx, cl, batch) })
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopping
		}
		if c.now().Sub(started) > time.Minute {
			pause = 100 * time.Millisecond
		}
		c.logger.WarnContext(ctx, "session of inbound messages ended; it is started again", slog.Any("err", err))
		if !stream.Sleep(ctx, pause) {
			return nil
		}
	}
}

func (c *routeSender) publishInbound(ctx context.Context, cl *kgo.Client, batch []carrier.Inbound) error {
	now := c.now()
	recs := make([]*kgo.Record, 0, len(batch))
	for i := range batch {
		r, err := batch[i].Event(c.names.Inbound(), source, c.name, now).Record()
		if err != nil {
			// The carrier would deliver it again for ever
			c.logger.ErrorContext(ctx, "encode inbound message failed; message dropped", slog.Any("err", err))
			continue
		}
		recs = append(recs, r)
	}
	if err := cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return fmt.Errorf("publish inbound messages: %w", err)
	}
	c.metrics.inbound.WithLabelValues(c.name).Add(float64(len(recs)))
	return nil
}
