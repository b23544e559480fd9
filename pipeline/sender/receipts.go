package sender

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// receipts brings what a carrier says on its session to topic `receipts`. emit returns when Kafka has acknowledged, and only
// then the carrier is told: its redelivery is our durability.
func (c *core) receipts(ctx context.Context, src carrier.ReceiptSource, cl *kgo.Client) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		started := c.now()
		err := src.Receipts(ctx, func(batch []carrier.Receipt) error { return c.publishReceipts(ctx, cl, batch) })
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		if c.now().Sub(started) > time.Minute {
			pause = 100 * time.Millisecond
		}
		c.logger.WarnContext(ctx, "receipts are taken up again", slog.Any("error", err))
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

func (c *core) publishReceipts(ctx context.Context, cl *kgo.Client, batch []carrier.Receipt) error {
	now := c.now()
	recs := make([]*kgo.Record, 0, len(batch))
	for i := range batch {
		r, err := receiptRecord(c.names, receipt(c.name, &batch[i], now))
		if err != nil {
			// It comes again for ever and would block those behind it, so it is let go, and said.
			c.logger.ErrorContext(ctx, "a receipt could not be encoded", slog.Any("error", err))
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

// receipt is a carrier's receipt as topic `receipts` has it.
func receipt(route string, r *carrier.Receipt, now time.Time) *fanfarev1.Receipt {
	out := &fanfarev1.Receipt{
		Route: route, ProviderId: clean(r.Ref), To: clean(r.To), Status: r.Status, Code: r.Sub, RawCode: clean(r.Code),
		Part: uint32(r.Part), Parts: uint32(r.Parts), Raw: r.Raw, ReceivedMs: now.UnixMilli(),
	}
	for _, ref := range r.AltRefs {
		out.AltProviderIds = append(out.AltProviderIds, clean(ref))
	}
	if !r.Key.IsZero() {
		key := r.Key
		out.SubmissionId = key[:]
	}
	if !r.At.IsZero() {
		out.TimeMs = r.At.UnixMilli()
	}
	return out
}
