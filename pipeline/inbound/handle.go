package inbound

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"fanfare/pipeline/inbound/keyword"
	"fanfare/pipeline/stream"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

type handler struct {
	names   schemas.Names
	deps    Deps
	words   *keyword.Words
	metrics *metrics
}

// Handle implements [stream.Handler]. An error means that the store or Redis did not answer. The batch then comes
// again, and the store recognises what it has recorded. Opt-outs by links need no Redis and come first, so that they
// take effect while Redis is away. Their order against messages does not matter: the store compares the times of facts.
func (h *handler) Handle(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
	var out stream.Result
	var messages []received
	var results []string
	p := people{from: h.deps.Audience, blobs: map[string]*audience.Reader{}}
	add := func(r *kgo.Record, events []*kgo.Record, result string, err error) error {
		switch {
		case err == nil:
			out.Publish = append(out.Publish, events...)
			results = append(results, result)
		case errors.Is(err, errDead) || errors.Is(err, schemas.ErrNotFound):
			out.Dead = append(out.Dead, stream.Dead{Record: r, Cause: err})
			results = append(results, "dead")
		default:
			return err
		}
		return nil
	}
	for _, r := range batch {
		in, err := read(r)
		if err == nil && in.GetWay() == schemas.InboundWayMessage {
			messages = append(messages, received{r, in})
			continue
		}
		var events []*kgo.Record
		if err == nil {
			events, err = h.link(ctx, &p, in)
		}
		if err := add(r, events, "opted_out", err); err != nil {
			return stream.Result{}, err
		}
	}
	for _, m := range messages {
		events, result, err := h.message(ctx, m.in)
		if err := add(m.record, events, result, err); err != nil {
			return stream.Result{}, err
		}
	}
	for _, result := range results {
		h.metrics.records.WithLabelValues(result).Inc()
	}
	return out, nil
}

// received is a message of a recipient.
type received struct {
	record *kgo.Record
	in     *fanfarev1.Inbound
}

// errDead makes a record a dead letter.
var errDead = errors.New("not an inbound record of this version")

// read decodes a record.
func read(r *kgo.Record) (*fanfarev1.Inbound, error) {
	in := &fanfarev1.Inbound{}
	if err := proto.Unmarshal(r.Value, in); err != nil {
		return nil, fmt.Errorf("%w: %w", errDead, err)
	}
	if in.GetId() == "" {
		return nil, fmt.Errorf("%w: it has no id", errDead)
	}
	if way := in.GetWay(); way != schemas.InboundWayLink && way != schemas.InboundWayMessage {
		return nil, fmt.Errorf("%w: way %d", errDead, way)
	}
	return in, nil
}

// campaign returns a campaign by its number. A view that is behind has the campaign without its audience, although a
// message was sent; and the view drops a campaign a week after it has settled. In both cases the store has it.
func (h *handler) campaign(ctx context.Context, number uint64) (*fanfarev1.Campaign, error) {
	c := h.deps.Campaigns.CampaignByNumber(number)
	if c == nil || c.GetFreezeId() == "" && !c.GetHidden() {
		return h.deps.Store.CampaignRecord(ctx, schemas.CampaignID(number))
	}
	return c, nil
}

// link records the opt-out of a link, and returns the event that reports it.
func (h *handler) link(ctx context.Context, p *people, in *fanfarev1.Inbound) ([]*kgo.Record, error) {
	c, err := h.campaign(ctx, in.GetCampaignNumber())
	if err != nil {
		return nil, err
	}
	if c.GetTenant() != in.GetTenant() { // another tenant's campaign (P7)
		return nil, fmt.Errorf("%w: another tenant than that of its campaign", errDead)
	}
	to, hash, err := p.number(ctx, c.GetFreezeId(), in.GetSeq())
	if err != nil {
		return nil, err
	}
	message := h.deps.Keys.Message(c.GetNumber(), in.GetSeq())
	if err := h.deps.Store.RecordOptOut(ctx, &schemas.OptOutFact{
		ID: in.GetId(), Tenant: c.GetTenant(), Phone: to, Hash: hash, Channel: in.GetScope(), Source: "link", By: message.String(), Time: time.UnixMilli(in.GetReceivedMs()),
	}); err != nil {
		return nil, err
	}
	event, err := schemas.DeliveryEvent(h.names.Deliveries(), source, &fanfarev1.Delivery{
		Tenant: c.GetTenant(), CampaignId: c.GetId(), CampaignNumber: c.GetNumber(), Seq: in.GetSeq(), Kind: schemas.KindOptedOut, RawCode: "link",
		TimeMs: in.GetReceivedMs(), Channel: in.GetScope(), To: to, MessageId: message[:], Test: c.GetTest(),
	}, in.GetId()).Record()
	return []*kgo.Record{event}, err
}

// people finds the numbers of recipients. It keeps the blobs that the present batch has needed.
type people struct {
	from  Audience
	blobs map[string]*audience.Reader
}

// blobsOfBatch is how many blobs are kept; each takes about a megabyte.
const blobsOfBatch = 16

// number returns the number of a recipient of a frozen audience, or the hash if the recipient was erased.
func (p *people) number(ctx context.Context, freeze string, seq uint32) (to, hash string, err error) {
	if freeze == "" {
		return "", "", fmt.Errorf("%w: its campaign has no audience", errDead)
	}
	index, err := p.from.Blobs(ctx, freeze)
	if err != nil {
		return "", "", err
	}
	for _, row := range index {
		if seq < row.First || seq-row.First >= row.Count {
			continue
		}
		key := fmt.Sprintf("%s/%d", freeze, row.Blob)
		r := p.blobs[key]
		if r == nil {
			raw, err := p.from.Blob(ctx, freeze, row.Blob)
			if err != nil {
				return "", "", err
			}
			if r, err = audience.NewReader(raw); err != nil {
				return "", "", fmt.Errorf("%w: %w", errDead, err)
			}
			if len(p.blobs) >= blobsOfBatch {
				clear(p.blobs)
			}
			p.blobs[key] = r
		}
		var e audience.Entry
		if !r.Seek(int(seq-row.First)) || !r.Next(&e) {
			return "", "", fmt.Errorf("%w: a blob of its audience is damaged", errDead)
		}
		if e.To == "" { // the recipient was erased
			hash, ok := e.Value(audience.ErasedHash)
			if !ok { // an older version kept no hash
				return "", "", fmt.Errorf("%w: its recipient was erased, and the number with him", errDead)
			}
			return "", hash, nil
		}
		return e.To, "", nil
	}
	return "", "", fmt.Errorf("%w: no such recipient", errDead)
}
