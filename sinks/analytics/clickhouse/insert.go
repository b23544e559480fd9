package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// inserter sends blocks over one connection. It connects when it has no connection, and closes the connection after any
// error. It is not safe for concurrent use.
type inserter struct {
	addresses []address // tried in this order
	session   *session
	block     eventColumns
}

func newInserter(opts *chgo.Options) *inserter {
	in := &inserter{}
	for _, addr := range opts.Addr {
		in.addresses = append(in.addresses, address{
			addr: addr, database: opts.Auth.Database, user: opts.Auth.Username, password: opts.Auth.Password,
			tls: opts.TLS, dialTimeout: opts.DialTimeout, readTimeout: opts.ReadTimeout,
		})
	}
	in.block.init()
	return in
}

func (in *inserter) close() error {
	if in.session == nil {
		return nil
	}
	err := in.session.close()
	in.session = nil
	return err
}

// connect connects to the first server that answers.
func (in *inserter) connect(ctx context.Context) error {
	var errs []error
	for _, to := range in.addresses {
		if in.session != nil {
			return nil
		}
		s, err := dial(ctx, to)
		if err == nil {
			in.session = s
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// do inserts one block.
func (in *inserter) do(ctx context.Context, table, token string, input proto.Input) error {
	if err := in.connect(ctx); err != nil {
		return err
	}
	// Since ClickHouse 26.3 the default is 1: the server would merge the blocks of several clients and answer before it
	// has written them.
	settings := map[string]string{"async_insert": "0"}
	if token == "" {
		// Without this setting the hash of the rows would be the token.
		settings["insert_deduplicate"] = "0"
		settings["deduplicate_blocks_in_dependent_materialized_views"] = "0"
	} else {
		settings["insert_deduplicate"] = "1"
		settings["insert_deduplication_token"] = token
		// The target tables of the views use the token too, so repeating a batch repairs an insert that failed in a
		// view.
		settings["deduplicate_blocks_in_dependent_materialized_views"] = "1"
	}
	err := in.session.insert(ctx, table, settings, input)
	if err == nil {
		return nil
	}
	_ = in.close() // its state is unknown
	var e *exception
	if errors.As(err, &e) && slices.Contains(refused, e.Code) {
		return fmt.Errorf("%w: %w", analytics.ErrData, err)
	}
	if ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	return err
}

// refused lists the exceptions that the rows cause, so that a repetition would fail too.
var refused = []proto.Error{
	proto.ErrArgumentOutOfBound, proto.ErrCannotConvertType, proto.ErrIncorrectData, proto.ErrValueIsOutOfRangeOfDataType, proto.ErrViolatedConstraint,
}

// events inserts a batch as one block, because a block is atomic and a token identifies one block.
func (in *inserter) events(ctx context.Context, b *analytics.Batch) error {
	if len(b.Events) == 0 {
		return nil
	}
	c := &in.block
	c.reset()
	for i := range b.Events {
		e := &b.Events[i]
		if err := e.Check(); err != nil {
			return err
		}
		c.append(e, b.Partition)
	}
	return in.do(ctx, "events", b.Token(), c.input())
}

// deals inserts the deals of a batch as one block.
func (in *inserter) deals(ctx context.Context, b *analytics.Batch) error {
	if len(b.Deals) == 0 {
		return nil
	}
	var tenants, campaigns words
	for _, w := range []*words{&tenants, &campaigns} {
		w.known = map[string]uint32{}
		w.reset()
	}
	var months proto.ColDate
	var numbers proto.ColUInt64
	var tries, legs, cancels proto.ColUInt8
	at := new(proto.ColDateTime64).WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
	seqs := new(proto.ColUInt32).Array()
	for i := range b.Deals {
		d := &b.Deals[i]
		if err := d.Check(); err != nil {
			return err
		}
		tenants.append(d.Campaign.Tenant)
		campaigns.append(d.Campaign.ID)
		months.Append(d.Campaign.Month)
		numbers.Append(d.Number)
		tries.Append(d.Try)
		legs.Append(d.Leg)
		cancel := uint8(0)
		if d.Cancel {
			cancel = 1
		}
		cancels.Append(cancel)
		at.AppendRaw(proto.DateTime64(d.TimeMS))
		seqs.Append(d.Members.ToArray())
	}
	return in.do(ctx, "deals", b.Token(), proto.Input{
		{Name: "tenant_id", Data: tenants.column()},
		{Name: "campaign_id", Data: campaigns.column()},
		{Name: "campaign_month", Data: &months},
		{Name: "deal", Data: &numbers},
		{Name: "dealt_at", Data: at},
		{Name: "try", Data: &tries},
		{Name: "leg", Data: &legs},
		{Name: "cancel", Data: &cancels},
		{Name: "seqs", Data: seqs},
	})
}

// marks inserts the marks of partitions.
func (in *inserter) marks(ctx context.Context, topic analytics.TopicID, marks []analytics.Mark) error {
	var topics proto.ColUUID
	var partitions proto.ColInt32
	var next proto.ColInt64
	asOf := new(proto.ColDateTime64).WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
	for _, m := range marks {
		topics.Append(uuid.UUID(topic))
		partitions.Append(m.Partition)
		next.Append(m.End)
		at := int64(0)
		if !m.AsOf.IsZero() {
			at = m.AsOf.UnixMilli()
		}
		asOf.AppendRaw(proto.DateTime64(at))
	}
	return in.do(ctx, "sink_marks", "", proto.Input{
		{Name: "topic", Data: &topics}, {Name: "partition", Data: &partitions}, {Name: "next_offset", Data: &next}, {Name: "as_of", Data: asOf},
	})
}

// words is a LowCardinality(String) column: a dictionary of strings, and for each row the index of its string.
type words struct {
	raw   proto.ColLowCardinalityRaw
	index proto.ColStr
	keys  []uint32
	known map[string]uint32
	last  string
	key   uint32
}

func (w *words) reset() {
	w.index.Reset()
	w.keys = w.keys[:0]
	clear(w.known)
	// The dictionary starts with the empty string, as in the dictionaries that the server sends.
	w.known[""], w.last, w.key = 0, "", 0
	w.index.Append("")
}

func (w *words) append(s string) {
	if s != w.last {
		key, ok := w.known[s]
		if !ok {
			key = uint32(w.index.Rows())
			w.index.Append(s)
			w.known[s] = key
		}
		w.last, w.key = s, key
	}
	w.keys = append(w.keys, w.key)
}

// column returns the column with the shortest key type that fits.
func (w *words) column() *proto.ColLowCardinalityRaw {
	w.raw.Keys8, w.raw.Keys16, w.raw.Keys32 = w.raw.Keys8[:0], w.raw.Keys16[:0], w.raw.Keys32[:0]
	w.raw.Index = &w.index
	switch n := w.index.Rows(); {
	case n <= 1<<8:
		w.raw.Key = proto.KeyUInt8
		for _, k := range w.keys {
			w.raw.Keys8 = append(w.raw.Keys8, uint8(k))
		}
	case n <= 1<<16:
		w.raw.Key = proto.KeyUInt16
		for _, k := range w.keys {
			w.raw.Keys16 = append(w.raw.Keys16, uint16(k))
		}
	default:
		w.raw.Key = proto.KeyUInt32
		w.raw.Keys32 = append(w.raw.Keys32, w.keys...)
	}
	return &w.raw
}

// eventColumns are the columns of a block of events. They are reused.
type eventColumns struct {
	tenant, campaign, channel, route, sender, country, code, rawCode, link, currency words

	month                       proto.ColDate
	seq, prec, price            proto.ColUInt32
	try, leg, variant, segments proto.ColUInt8
	kind                        proto.ColInt8
	at                          *proto.ColDateTime64
	ref, recipient, provider    proto.ColStr
	message                     proto.ColUUID
	contact, offset             proto.ColUInt64
	partition                   proto.ColUInt16
	kindType                    proto.ColumnType
	channels                    map[int32]string
	codes                       map[int32]string
	lastCampaign                *analytics.Campaign
	lastMonth                   proto.Date
	texts                       []*words
}

func (c *eventColumns) init() {
	c.texts = []*words{&c.tenant, &c.campaign, &c.channel, &c.route, &c.sender, &c.country, &c.code, &c.rawCode, &c.link, &c.currency}
	for _, w := range c.texts {
		w.known = map[string]uint32{}
	}
	c.at = new(proto.ColDateTime64).WithPrecision(proto.PrecisionMilli).WithLocation(time.UTC)
	c.channels, c.codes = map[int32]string{}, map[int32]string{}
	// The declared type must equal the table's. The values are sent as plain Int8.
	var kinds []string
	for _, k := range schemas.Kinds {
		kinds = append(kinds, fmt.Sprintf("'%s' = %d", k.Name, k.Kind))
	}
	c.kindType = proto.ColumnType("Enum8(" + strings.Join(kinds, ", ") + ")")
}

func (c *eventColumns) reset() {
	for _, w := range c.texts {
		w.reset()
	}
	for _, column := range []proto.Resettable{
		&c.month, &c.seq, &c.prec, &c.price, &c.try, &c.leg, &c.variant, &c.segments, &c.kind, c.at, &c.ref, &c.recipient, &c.provider,
		&c.message, &c.contact, &c.offset, &c.partition,
	} {
		column.Reset()
	}
	c.lastCampaign = nil
}

func (c *eventColumns) append(e *analytics.Event, partition int32) {
	if e.Campaign != c.lastCampaign {
		c.lastCampaign, c.lastMonth = e.Campaign, proto.ToDate(e.Campaign.Month)
	}
	c.tenant.append(e.Campaign.Tenant)
	c.campaign.append(e.Campaign.ID)
	c.month = append(c.month, c.lastMonth)
	c.seq = append(c.seq, e.Seq)
	c.try = append(c.try, e.Try)
	c.leg = append(c.leg, e.Leg)
	c.kind = append(c.kind, int8(e.Kind))
	c.prec = append(c.prec, uint32(e.Precedence()))
	c.at.AppendRaw(proto.DateTime64(e.TimeMS))
	c.channel.append(name(c.channels, int32(e.Channel), channelName))
	c.route.append(e.Route)
	c.sender.append(e.Sender)
	c.country.append(e.Country)
	c.variant = append(c.variant, e.Variant)
	c.code.append(name(c.codes, int32(e.Code), codeName))
	c.rawCode.append(e.RawCode)
	c.link.append(e.LinkID)
	c.ref.Append(e.CustomerRef)
	c.message = append(c.message, uuid.UUID(e.MessageID))
	c.contact = append(c.contact, e.ContactID)
	c.recipient.Append(e.To)
	c.provider.Append(e.ProviderID)
	c.segments = append(c.segments, e.Segments)
	c.price = append(c.price, e.PriceMicros)
	c.currency.append(e.Currency)
	c.partition = append(c.partition, uint16(partition))
	c.offset = append(c.offset, uint64(e.Offset))
}

// name returns the name of a number and caches it.
func name(known map[int32]string, n int32, make func(int32) string) string {
	s, ok := known[n]
	if !ok {
		s = make(n)
		known[n] = s
	}
	return s
}

func (c *eventColumns) input() proto.Input {
	return proto.Input{
		{Name: "tenant_id", Data: c.tenant.column()},
		{Name: "campaign_id", Data: c.campaign.column()},
		{Name: "campaign_month", Data: &c.month},
		{Name: "seq", Data: &c.seq},
		{Name: "try", Data: &c.try},
		{Name: "leg", Data: &c.leg},
		{Name: "kind", Data: proto.Alias(&c.kind, c.kindType)},
		{Name: "prec", Data: &c.prec},
		{Name: "event_time", Data: c.at},
		{Name: "channel", Data: c.channel.column()},
		{Name: "route", Data: c.route.column()},
		{Name: "sender", Data: c.sender.column()},
		{Name: "country", Data: c.country.column()},
		{Name: "variant", Data: &c.variant},
		{Name: "code", Data: c.code.column()},
		{Name: "raw_code", Data: c.rawCode.column()},
		{Name: "link_id", Data: c.link.column()},
		{Name: "customer_ref", Data: &c.ref},
		{Name: "message_id", Data: &c.message},
		{Name: "contact_id", Data: &c.contact},
		{Name: "recipient", Data: &c.recipient},
		{Name: "provider_id", Data: &c.provider},
		{Name: "segments", Data: &c.segments},
		{Name: "price_micros", Data: &c.price},
		{Name: "currency", Data: c.currency.column()},
		{Name: "src_partition", Data: &c.partition},
		{Name: "src_offset", Data: &c.offset},
	}
}
