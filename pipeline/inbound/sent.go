package inbound

import (
	"bytes"
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/inbound/recent"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/schemas/wire"
)

// noter keeps the index of recent messages: it reads of `deliveries` what was sent by senders that recipients can write
// to.
type noter struct{ index Recent }

// sentMark is in the id of every event of a hand-over (see [schemas.DeliveryEvent]), and of few others.
var sentMark = []byte("/sent")

// Handle implements [stream.Handler]. What does not decode is left to the readers that need it.
func (n *noter) Handle(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
	var list []recent.Sent
	for _, r := range batch {
		if !bytes.Contains(schemas.Header(r, "ce_id"), sentMark) {
			continue
		}
		var f wire.Fields
		if f.Read(r.Value, wire.DeliveryLayout) != nil || schemas.Kind(f.Number(wire.DeliveryKind)) != schemas.KindSent { //nolint:gosec // a small number
			continue
		}
		if f.Number(wire.DeliveryTest) != 0 { // recipients do not get messages of tests
			continue
		}
		channel, from := schemas.Channel(f.Number(wire.DeliveryChannel)), string(f.Bytes(wire.DeliverySender)) //nolint:gosec // a small number
		if !schemas.MayReceive(channel, from) {
			continue
		}
		id, err := schemas.IDFromBytes(f.Bytes(wire.DeliveryMessageID))
		if err != nil {
			continue
		}
		list = append(list, recent.Sent{
			Tenant: string(f.Bytes(wire.DeliveryTenant)), Sender: from, Route: string(f.Bytes(wire.DeliveryRoute)), Channel: channel, To: string(f.Bytes(wire.DeliveryTo)),
			Message: id, Time: time.UnixMilli(int64(f.Number(wire.DeliveryTimeMs))), //nolint:gosec // a time
		})
	}
	return stream.Result{}, n.index.Put(ctx, list)
}
