// Package trace has the OpenTelemetry spans of a message's way: which recipients are traced, which trace and which
// parent a span has, and how it is given to the SDK.
//
// Ids are computed, as those of messages are. A campaign has one trace, and so has each single send:
//
//	campaign      confirm ── deal ── expand ── submit ── receipt
//	single send   send ── submit ── receipt
//
// A receipt comes hours after the hand-over, to another process, and says nothing but which submission it is for. From
// that follow its trace and its parent, so no store has to keep them, and a span that is made twice has the same id.
//
// A record of a traced recipient carries the trace in its header `traceparent`, unless the API's caller has sent one:
// then the record carries the caller's, and the first span has a link to it.
// The event of a traced recipient's receipt always carries the trace of this package. The scheduler deals scheduled and
// returned single sends without the header; their spans have the same ids all the same. The span above a receipt is
// missing if the process that handed the message over died before it had sent its spans.
//
// Spans name campaigns, messages, routes and codes. They never have a phone number, a text or a name.
package trace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	oteltrace "go.opentelemetry.io/otel/trace"

	"fanfare/schemas"
)

// Names of spans.
const (
	NameSend    = "send"    // the API takes a single send: from the request to the acknowledgement of Kafka
	NameConfirm = "confirm" // the API confirms a campaign
	NameDeal    = "deal"    // the scheduler decides on a chunk and writes it
	NameExpand  = "expand"  // the expander makes the messages of a chunk
	NameSubmit  = "submit"  // the sender hands a message over: from the call of the carrier to its answer
	NameReceipt = "receipt" // from the arrival of a receipt to its delivery event
)

// Tracer makes spans of one in so many recipients. A nil Tracer makes none.
type Tracer struct {
	otel  oteltrace.Tracer
	oneIn uint64
	salt  uint64
}

// New returns a tracer of one in oneIn recipients, at least 1. The provider must take its ids from [IDs]. The keys make
// the ids of traces differ between installations that send them to one collector.
func New(provider oteltrace.TracerProvider, oneIn int, keys *schemas.Keys) *Tracer {
	return &Tracer{provider.Tracer("fanfare"), uint64(max(1, oneIn)), binary.BigEndian.Uint64(keys.Sign("traces"))} //nolint:gosec // at least 1
}

// Samples reports whether a recipient is traced. The answer is the same in every process with the same setting, and for
// every try.
func (t *Tracer) Samples(campaign uint64, seq uint32) bool {
	return t != nil && mix(campaign<<24^uint64(seq))%t.oneIn == 0
}

// mix is the finalizer of SplitMix64: it spreads neighbouring numbers evenly.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Point is the place of a span: the trace it is in, and its own id.
type Point struct {
	Trace oteltrace.TraceID
	Span  oteltrace.SpanID
}

// Traceparent returns the W3C header by which a record goes on from the span.
func (p Point) Traceparent() string {
	b := make([]byte, 0, 55)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, p.Trace[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, p.Span[:])
	return string(append(b, "-01"...))
}

// Parse reads a traceparent; false: it is not well-formed.
func Parse(traceparent string) (p Point, ok bool) {
	if len(traceparent) != 55 || traceparent[2] != '-' || traceparent[35] != '-' || traceparent[52] != '-' {
		return Point{}, false
	}
	_, err1 := hex.Decode(p.Trace[:], []byte(traceparent[3:35]))
	_, err2 := hex.Decode(p.Span[:], []byte(traceparent[36:52]))
	return p, err1 == nil && err2 == nil && p.Trace.IsValid() && p.Span.IsValid()
}

// Way is the trace of a message: of its campaign, or its own if it is a single send.
type Way struct {
	trace oteltrace.TraceID
	root  oteltrace.SpanID
}

// OfCampaign returns the trace of a campaign.
func (t *Tracer) OfCampaign(campaign uint64) Way { return t.way('c', campaign, 0) }

// OfSingle returns the trace of a single send.
func (t *Tracer) OfSingle(campaign uint64, seq uint32) Way { return t.way('s', campaign, seq) }

// Of returns the trace of a message.
func (t *Tracer) Of(single bool, campaign uint64, seq uint32) Way {
	if single {
		return t.OfSingle(campaign, seq)
	}
	return t.OfCampaign(campaign)
}

func (t *Tracer) way(kind byte, campaign uint64, seq uint32) (w Way) {
	binary.BigEndian.PutUint64(w.trace[:8], mix(t.salt^mix(campaign^uint64(kind)<<56)))
	binary.BigEndian.PutUint64(w.trace[8:], mix(t.salt^mix(mix(campaign)+uint64(seq))))
	w.root = w.span('r', 0)
	return w
}

// span returns the id of a span, which is never zero.
func (w Way) span(kind byte, number uint64) (id oteltrace.SpanID) {
	n := mix(mix(binary.BigEndian.Uint64(w.trace[:8])^binary.BigEndian.Uint64(w.trace[8:])) ^ mix(number^uint64(kind)<<56))
	binary.BigEndian.PutUint64(id[:], max(n, 1))
	return id
}

// Root is the span of the API's request.
func (w Way) Root() Point { return Point{w.trace, w.root} }

// Deal is the span of a deal of the scheduler.
func (w Way) Deal(deal uint64) Point { return Point{w.trace, w.span('d', deal)} }

// Expand is the span of the expansion of a deal.
func (w Way) Expand(deal uint64) Point { return Point{w.trace, w.span('e', deal)} }

// Submit is the span of a submission. Again: of a hand-over of the same submission after one that was in doubt.
func (w Way) Submit(id schemas.ID, again bool) Point {
	kind := byte('h')
	if again {
		kind = 'a'
	}
	return Point{w.trace, w.span(kind, number(id))}
}

// Receipt is the span of a delivery event that a receipt made.
func (w Way) Receipt(id schemas.ID, kind schemas.Kind, code schemas.Code) Point {
	return Point{w.trace, w.span('x', number(id)^mix(uint64(kind)<<32|uint64(uint32(code))))} //nolint:gosec // small numbers
}

// Parent returns the parent of the span that handles a record: what its header says, or def when the header is missing,
// the caller's, or of a process that does not trace.
func (w Way) Parent(traceparent []byte, def Point) Point {
	if p, ok := Parse(string(traceparent)); ok && p.Trace == w.trace {
		return p
	}
	return def
}

// number identifies a submission within its trace.
func number(id schemas.ID) uint64 { return uint64(id.Seq())<<8 | uint64(id.Try()) }

// Kinds of spans; see OpenTelemetry's SpanKind.
const (
	Server   = oteltrace.SpanKindServer
	Producer = oteltrace.SpanKindProducer
	Consumer = oteltrace.SpanKindConsumer
	Client   = oteltrace.SpanKindClient
)

// Span is one step on a message's way that has ended.
type Span struct {
	Name       string
	At         Point
	Parent     Point // zero: the first span of the trace
	Kind       oteltrace.SpanKind
	Start, End time.Time
	Attributes []attribute.KeyValue
	// Caller is the traceparent of the API's caller; may be empty.
	Caller string
	// Failed says what went wrong, in a fixed word such as a code; "": nothing.
	Failed string
}

// Record gives a span to the SDK. It never blocks.
func (t *Tracer) Record(s Span) {
	if t == nil {
		return
	}
	ctx := context.WithValue(context.Background(), idsKey{}, s.At)
	if s.Parent.Span.IsValid() {
		ctx = oteltrace.ContextWithRemoteSpanContext(ctx, s.Parent.context())
	}
	opts := []oteltrace.SpanStartOption{oteltrace.WithTimestamp(s.Start), oteltrace.WithSpanKind(s.Kind), oteltrace.WithAttributes(s.Attributes...)}
	if caller, ok := Parse(s.Caller); ok {
		opts = append(opts, oteltrace.WithLinks(oteltrace.Link{SpanContext: caller.context()}))
	}
	_, span := t.otel.Start(ctx, s.Name, opts...)
	if s.Failed != "" {
		span.SetStatus(codes.Error, s.Failed)
	}
	span.End(oteltrace.WithTimestamp(s.End))
}

func (p Point) context() oteltrace.SpanContext {
	return oteltrace.NewSpanContext(oteltrace.SpanContextConfig{TraceID: p.Trace, SpanID: p.Span, TraceFlags: oteltrace.FlagsSampled, Remote: true})
}

type idsKey struct{}

// IDs gives the SDK the ids of spans; it implements IDGenerator of the SDK.
type IDs struct{}

// NewIDs returns the ids of a span without a parent.
func (IDs) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	p, _ := ctx.Value(idsKey{}).(Point)
	return p.Trace, p.Span
}

// NewSpanID returns the id of a span with a parent.
func (IDs) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	p, _ := ctx.Value(idsKey{}).(Point)
	return p.Span
}

// Attributes of spans.

// Tenant is the attribute of the tenant's id.
func Tenant(id string) attribute.KeyValue { return attribute.String("fanfare.tenant", id) }

// Campaign is the attribute of a campaign.
func Campaign(id string) attribute.KeyValue { return attribute.String("fanfare.campaign", id) }

// Deal is the attribute of a deal's number.
func Deal(n uint64) attribute.KeyValue { return attribute.Int64("fanfare.deal", int64(n)) } //nolint:gosec // counts from 1

// Recipients is the attribute of how many recipients a span is about.
func Recipients(n int) attribute.KeyValue { return attribute.Int("fanfare.recipients", n) }

// Submission is the attribute of a submission's id.
func Submission(id schemas.ID) attribute.KeyValue {
	return attribute.String("fanfare.submission", id.String())
}

// Message is the attribute of a message's id.
func Message(id schemas.ID) attribute.KeyValue {
	return attribute.String("fanfare.message", id.String())
}

// Route is the attribute of a route's name.
func Route(name string) attribute.KeyValue { return attribute.String("fanfare.route", name) }

// Outcome are the attributes of a delivery event's kind and sub-status.
func Outcome(kind schemas.Kind, code schemas.Code) []attribute.KeyValue {
	info, _ := schemas.LookupKind(kind)
	out := []attribute.KeyValue{attribute.String("fanfare.outcome", info.Name)}
	if name := schemas.CodeName(code); name != "" {
		out = append(out, attribute.String("fanfare.code", name))
	}
	return out
}
