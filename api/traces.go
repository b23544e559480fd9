package api

import (
	"context"

	"go.opentelemetry.io/otel/attribute"

	"fanfare/api/store"
	"fanfare/schemas/trace"
)

// traceSend makes the span of a single send whose recipient is traced. Err says that Kafka did not acknowledge it.
func (s *server) traceSend(ctx context.Context, m *single, t *target, err error) {
	campaign, seq := t.id.CampaignNumber(), t.id.Seq()
	if !s.Traces.Samples(campaign, seq) {
		return
	}
	failed := ""
	if err != nil {
		failed = reasonNotAcked
	}
	req := requestOf(ctx)
	began := req.began
	if began.IsZero() { // no request asked for it, such as for the confirmation of an opt-out
		began = m.now
	}
	s.Traces.Record(trace.Span{
		Name: trace.NameSend, At: s.Traces.OfSingle(campaign, seq).Root(), Kind: trace.Server, Start: began, End: s.Now(),
		Caller: req.trace, Failed: failed,
		Attributes: []attribute.KeyValue{trace.Tenant(m.who.tenant.ID), trace.Message(t.id), trace.Route(m.route.Name), attribute.String("fanfare.request", req.id)},
	})
}

// traceConfirm makes the first span of a campaign's trace.
func (s *server) traceConfirm(ctx context.Context, c *store.Campaign) {
	if s.Traces == nil {
		return
	}
	req := requestOf(ctx)
	s.Traces.Record(trace.Span{
		Name: trace.NameConfirm, At: s.Traces.OfCampaign(c.Number).Root(), Kind: trace.Server, Start: req.began, End: s.Now(), Caller: req.trace,
		Attributes: []attribute.KeyValue{
			trace.Tenant(c.Tenant), trace.Campaign(c.ID()), trace.Recipients(int(c.Quote.Contacts)), attribute.String("fanfare.request", req.id), //nolint:gosec // at most 2^24
		},
	})
}
