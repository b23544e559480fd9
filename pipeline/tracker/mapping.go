package tracker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/trace"
)

// decode reads a receipt and makes the checks that need neither Redis nor the view.
func (h *handler) decode(record *kgo.Record) item {
	r := &fanfarev1.Receipt{}
	it := item{record: record, receipt: r}
	if err := proto.Unmarshal(record.Value, r); err != nil {
		it.dead = fmt.Errorf("decode receipt: %w", err)
		return it
	}
	switch {
	case r.GetStatus() <= schemas.ReceiptStatusUnspecified || r.GetStatus() > schemas.ReceiptStatusUnknown:
		it.dead = fmt.Errorf("status %d is not known", r.GetStatus())
	case schemas.ValidRoute(r.GetRoute()) != nil:
		it.dead = errors.New("the receipt has no valid route")
	case r.GetPart() > r.GetParts() || r.GetParts() > 255:
		it.dead = fmt.Errorf("part %d of %d", r.GetPart(), r.GetParts())
	case r.GetStatus() == schemas.ReceiptStatusUnknown:
		it.ignored, it.result = true, "unknown"
	case len(r.GetSubmissionId()) > 0:
		if it.submission, it.dead = h.verified(r.GetSubmissionId()); it.dead != nil {
			it.result = "forged"
		}
	case r.GetProviderId() == "" && len(r.GetAltProviderIds()) == 0:
		it.dead = errors.New("the receipt names no submission")
	}
	return it
}

// verified returns a submission id whose signature is ours.
func (h *handler) verified(b []byte) (schemas.ID, error) {
	id, err := schemas.IDFromBytes(b)
	if err != nil {
		return schemas.ID{}, fmt.Errorf("submission id: %w", err)
	}
	if err := h.keys.Verify(id); err != nil {
		return schemas.ID{}, fmt.Errorf("submission id is forged: %w", err)
	}
	if id.Try() == 0 {
		return schemas.ID{}, errors.New("submission id is that of a message")
	}
	return id, nil
}

// event returns the delivery event of a receipt; nil while other parts of the message are awaited.
func (h *handler) event(it *item) (*kgo.Record, error) {
	r, c := it.receipt, it.campaign
	kind, code := h.outcome(it)
	if kind == schemas.KindUnspecified {
		it.result = "part"
		return nil, nil
	}
	message := h.keys.MessageOf(it.submission)
	number, leg := legOf(c, r.GetRoute())
	d := &fanfarev1.Delivery{
		Tenant: c.GetTenant(), CampaignId: c.GetId(), CampaignNumber: c.GetNumber(), Seq: it.submission.Seq(), Try: uint32(it.submission.Try()), Leg: number,
		Kind: kind, Code: code, RawCode: strings.ToValidUTF8(r.GetRawCode(), ""), TimeMs: eventTime(it), Channel: leg.GetChannel(), Route: r.GetRoute(),
		Sender: leg.GetSender(), To: r.GetTo(), ProviderId: r.GetProviderId(), MessageId: message[:], SubmissionId: it.submission[:], Test: c.GetTest(),
	}
	e := schemas.DeliveryEvent(h.names.Deliveries(), source, d, "")
	e.Traceparent = h.span(it, kind, code)
	out, err := e.Record()
	if err != nil {
		return nil, err
	}
	info, _ := schemas.LookupKind(kind)
	it.result, it.kind = info.Name, kind
	if at := r.GetReceivedMs(); at > 0 {
		h.metrics.delay.Observe(h.cfg.Now().Sub(time.UnixMilli(at)).Seconds())
	}
	return out, nil
}

// span makes the span of a receipt whose recipient is traced, and returns the traceparent of its event: without a span,
// that of the receipt's record.
func (h *handler) span(it *item, kind schemas.Kind, code schemas.Code) string {
	t, id := h.cfg.Traces, it.submission
	if !t.Samples(id.CampaignNumber(), id.Seq()) {
		return string(schemas.Header(it.record, schemas.HeaderTraceparent))
	}
	way := t.Of(it.campaign.GetHidden(), id.CampaignNumber(), id.Seq())
	at, now := way.Receipt(id, kind, code), h.cfg.Now()
	came := it.record.Timestamp
	if ms := it.receipt.GetReceivedMs(); ms > 0 {
		came = time.UnixMilli(ms)
	}
	if came.After(now) {
		came = now
	}
	t.Record(trace.Span{
		Name: trace.NameReceipt, At: at, Parent: way.Submit(id, false), Kind: trace.Consumer, Start: came, End: now,
		Attributes: append(trace.Outcome(kind, code), trace.Tenant(it.campaign.GetTenant()), trace.Campaign(it.campaign.GetId()), trace.Submission(id), trace.Route(it.receipt.GetRoute())),
	})
	return at.Traceparent()
}

// outcome returns the kind and the sub-status of a receipt's event; no kind while other parts are awaited.
func (h *handler) outcome(it *item) (schemas.Kind, schemas.Code) {
	r := it.receipt
	if r.GetStatus() == schemas.ReceiptStatusBuffered {
		return schemas.KindBuffered, schemas.CodeEnroute
	}
	if it.inParts() {
		switch {
		case r.GetStatus() == schemas.ReceiptStatusFailed:
			return negative(it, schemas.CodePartial), schemas.CodePartial
		case it.parts.Delivered < int(r.GetParts()):
			return schemas.KindUnspecified, 0
		case it.parts.Read > 0:
			return schemas.KindRead, schemas.CodeRead
		default:
			return schemas.KindDelivered, schemas.CodeDelivered
		}
	}
	switch r.GetStatus() {
	case schemas.ReceiptStatusDelivered:
		switch r.GetCode() {
		case schemas.CodeAnswered, schemas.CodeVoicemailLeft:
			return schemas.KindDelivered, r.GetCode()
		default:
			return schemas.KindDelivered, schemas.CodeDelivered
		}
	case schemas.ReceiptStatusRead:
		return schemas.KindRead, schemas.CodeRead
	default:
		code := h.codes.failure(h.view.Route(r.GetRoute()).GetConnector(), r.GetCode(), r.GetRawCode())
		return negative(it, code), code
	}
}

// negative returns the kind of a negative receipt: bounced when the campaign's policy allows a retry or a fallback
// after code, else undelivered. It reads nothing that changes while the campaign runs, so that the same receipt always
// gives the same event. The scheduler ends a bounce that no other try follows.
func negative(it *item, code schemas.Code) schemas.Kind {
	c := it.campaign
	if c.GetHidden() || c.GetSettled() {
		return schemas.KindUndelivered
	}
	info, _ := schemas.LookupCode(code)
	// The legs of that route. Without one, as after a route was renamed, any leg may have been meant.
	anyLeg := !slices.ContainsFunc(c.GetLegs(), func(l *fanfarev1.Leg) bool { return goesBy(l, it.receipt.GetRoute()) })
	for i, leg := range c.GetLegs() {
		if !anyLeg && !goesBy(leg, it.receipt.GetRoute()) {
			continue
		}
		retry := info.Retry != schemas.RetryNo && leg.GetMaxHandovers() > 1
		fallback := info.Fallback && i+1 < len(c.GetLegs())
		if retry || fallback {
			return schemas.KindBounced
		}
	}
	return schemas.KindUndelivered
}

// goesBy reports whether a leg's messages may go by a route: its own, or one that carries the leg while its own is down.
func goesBy(l *fanfarev1.Leg, route string) bool {
	return l.GetRoute() == route || slices.Contains(l.GetOtherRoutes(), route)
}

// legOf returns the campaign's leg on a route and its number. If several legs have that route the receipt does not say
// which it is: no leg is returned. A single send has one leg, whatever its route.
func legOf(c *fanfarev1.Campaign, route string) (uint32, *fanfarev1.Leg) {
	number, leg := uint32(0), (*fanfarev1.Leg)(nil)
	for i, l := range c.GetLegs() {
		if !goesBy(l, route) {
			continue
		}
		if leg != nil {
			number, leg = 0, nil
			break
		}
		number, leg = uint32(i+1), l
	}
	if c.GetHidden() {
		number = 1
	}
	return number, leg
}

// eventTime is the carrier's time, clamped to the span from the campaign's confirmation to the receipt's arrival:
// carriers' clocks can be hours off, and no message is delivered after its receipt arrives. The receipt keeps the
// carrier's own time.
func eventTime(it *item) int64 {
	received := it.receipt.GetReceivedMs()
	if received <= 0 {
		received = it.record.Timestamp.UnixMilli()
	}
	at := it.receipt.GetTimeMs()
	if at <= 0 {
		at = received
	}
	first := it.campaign.GetConfirmedMs()
	if first <= 0 {
		first = it.campaign.GetCreatedMs()
	}
	return min(max(at, first), max(received, first))
}
