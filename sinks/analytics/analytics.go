package analytics

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// Store keeps delivery events and answers queries about them. It is safe for concurrent use. If the tenant does not
// have the campaign, or the campaign has no events, the answers are empty and there is no error.
type Store interface {
	// Append adds batches, each completely or not at all. If it returns nil, they survive the end of the process. An
	// error that wraps [ErrData] means that one of them can never be stored; after any other error the same batches may
	// be appended again. Append does not keep the events, but may keep their strings.
	Append(ctx context.Context, batches ...Batch) error
	// Mark records how far a topic has been stored; see [Mark].
	Mark(ctx context.Context, topic TopicID, marks []Mark) error
	// AsOf returns the time up to which the answers contain everything in the topic; zero before the first mark.
	AsOf(ctx context.Context) (time.Time, error)

	// Stats counts the recipients of one campaign by state.
	Stats(ctx context.Context, tenant, campaign string) (Stats, error)
	// StatsMany counts several campaigns. Campaigns without events are not in the answer.
	StatsMany(ctx context.Context, tenant string, campaigns []string) (map[string]Stats, error)
	// StatsBy counts one campaign separately for each value of the dimensions, facts included. Recipients without an
	// event that describes a message ([Event.DescribesMessage]) have no value. A recipient has one variant and one
	// country, but may have been tried on several channels, routes and legs, and then counts for each. Dimensions
	// without values are not in the answer.
	StatsBy(ctx context.Context, tenant, campaign string, by ...Dimension) (map[Dimension]map[string]Stats, error)
	// Select returns the recipients whose state is one of the given precedences, and those that have one of the given
	// facts. [Stats.Select] finds the precedences. The caller may modify the bitmap.
	Select(ctx context.Context, tenant, campaign string, precedences []schemas.Precedence) (*roaring.Bitmap, error)
	// Sets returns the sets of one campaign. No set is empty. Their order is not defined.
	Sets(ctx context.Context, tenant, campaign string) (*Sets, error)
	// Happened returns the recipients with an event of a kind at or after from and before to, in milliseconds since the
	// epoch. If kind is a click, only clicks of people count. It reads all events of the campaign. The caller may
	// modify the bitmap.
	Happened(ctx context.Context, tenant, campaign string, kind schemas.Kind, from, to int64) (*roaring.Bitmap, error)
	// Members returns what is known about the given recipients, in order of seq. Recipients without events are left
	// out.
	Members(ctx context.Context, tenant, campaign string, seqs []uint32) ([]Member, error)
	// History returns the events of one recipient, in order of time, then precedence, without duplicates.
	History(ctx context.Context, tenant, campaign string, seq uint32) ([]Event, error)
	// FindRecipient returns the first 100 seqs with a number (E.164 with +).
	FindRecipient(ctx context.Context, tenant, campaign, to string) ([]uint32, error)
	// ByCustomerRef returns the messages that carry a client's reference, newest first, at most 100, of campaigns that
	// were confirmed in the month of since or later (UTC).
	ByCustomerRef(ctx context.Context, tenant, ref string, since time.Time) ([]Referred, error)
	// ByNumber returns the messages to any of the numbers (E.164 with +), as ByCustomerRef does. It reads the numbers
	// of all events of the tenant since then.
	ByNumber(ctx context.Context, tenant string, numbers []string, since time.Time) ([]Referred, error)
	// Cost sums the price of the hand-overs that are billed, by the rule of package billing, in the order of
	// [CostLine.Compare]. A recipient with two billed tries costs twice. Campaigns without cost are not in the answer.
	Cost(ctx context.Context, tenant string, campaigns ...string) (map[string][]CostLine, error)
	// InFlight returns how many recipients of each campaign are in flight: they were dealt at some try, and no event of
	// that try is stored. The scheduler counts the same way. Campaigns without such recipients are not in the answer. A
	// recipient in flight is pending, or awaiting if an earlier try bounced.
	InFlight(ctx context.Context, tenant string, campaigns ...string) (map[string]uint64, error)
	// Deals returns the deals of one recipient, in order of time, without their Members.
	Deals(ctx context.Context, tenant, campaign string, seq uint32) ([]Deal, error)
	// Timeline counts events by kind and period, and by route if the span says so, for charts. It counts events, not
	// recipients, so it must not be used for billing.
	Timeline(ctx context.Context, tenant, campaign string, span Span) ([]Point, error)
	// Links counts, for each link, the recipients who clicked it.
	Links(ctx context.Context, tenant, campaign string) ([]Link, error)

	// Erase removes from the events of a tenant what identifies a person: number, contact, the provider's ids and the
	// client's references. The recipients of the person are those that have an event with one of the numbers (E.164
	// with +), and the given recipients of each campaign. Erase returns all of them by campaign. Their states stay and
	// count as before.
	Erase(ctx context.Context, tenant string, numbers []string, recipients map[string]*roaring.Bitmap) (map[string]*roaring.Bitmap, error)

	// Close releases the store's resources.
	Close() error
}

// Positioner is a store that writes the position of each partition in the same transaction as the data. The feed then
// starts reading at the store's position, not at the consumer group's. So it fills a store that was lost or restored
// from the topic, without further action.
type Positioner interface {
	// Positions returns the offset after the last stored one, by partition. A partition without stored records has
	// none.
	Positions(ctx context.Context, topic TopicID) (map[int32]int64, error)
	// Rewind lowers the position of a partition, so that the feed stores the records from there on again, even if they
	// differ.
	Rewind(ctx context.Context, topic TopicID, partition int32, to int64) error
}

// Errors of a store.
var (
	// ErrData means that the store can never store these rows.
	ErrData = errors.New("rows cannot be stored")
	// ErrClosed means that the store is closed.
	ErrClosed = errors.New("store is closed")
)

// TopicID is Kafka's id of a topic. A topic that is deleted and created again has another id.
type TopicID [16]byte

// IsZero reports whether t identifies no topic.
func (t TopicID) IsZero() bool { return t == TopicID{} }

// String returns the id in hexadecimal.
func (t TopicID) String() string { return hex.EncodeToString(t[:]) }

// Batch is a range of one partition. Topic, Partition, First and End identify it: a repetition must have the same
// bounds and the same events. One writer at a time appends the batches of a partition in order of their offsets; any
// batch may be repeated later. A batch without a topic has no identity, so a repetition is not recognised.
type Batch struct {
	Topic     TopicID
	Partition int32
	// The batch covers the offsets [First, End). Not every offset holds an event.
	First, End int64
	// Events in order of their offsets.
	Events []Event
	// Deals in order of their offsets. A batch of topic `chunks` has deals; a batch of `deliveries` has events.
	Deals []Deal
}

// Token returns the identity of the batch as a string; "" if it has none.
func (b Batch) Token() string {
	if b.Topic.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s-%d-%d-%d", b.Topic, b.Partition, b.First, b.End-1)
}

// Deal is a group of recipients that the scheduler dealt together.
type Deal struct {
	Campaign *Campaign
	// Offset in the partition of the batch; 0 in an answer.
	Offset int64
	// Number counts the deals of the campaign from 1.
	Number uint64
	// TimeMS is the time of the deal, in milliseconds since the epoch.
	TimeMS   int64
	Try, Leg uint8
	// Cancel says that no message is made for the recipients. They get an outcome, and are not in flight.
	Cancel bool
	// Members are the recipients. Append does not modify or keep the bitmap.
	Members *roaring.Bitmap
}

// Time returns the time of the deal.
func (d *Deal) Time() time.Time { return time.UnixMilli(d.TimeMS).UTC() }

// Check returns an error that wraps [ErrData] if no store can store the deal.
func (d *Deal) Check() error {
	c := d.Campaign
	switch {
	case c == nil || c.Tenant == "" || c.ID == "" || c.Month.IsZero():
		return fmt.Errorf("%w: deal at offset %d has no campaign, tenant or month", ErrData, d.Offset)
	case d.Members == nil || d.Members.IsEmpty() || d.Members.Maximum() > schemas.MaxSeq:
		return fmt.Errorf("%w: deal %d of %s at offset %d has no recipients, or one above %d", ErrData, d.Number, c.ID, d.Offset, schemas.MaxSeq)
	case d.TimeMS < 0 || d.TimeMS > MaxTimeMS:
		return fmt.Errorf("%w: time %d of deal %d of %s at offset %d is out of range", ErrData, d.TimeMS, d.Number, c.ID, d.Offset)
	}
	return nil
}

// Campaign is what a store must know about the campaign of an event. It comes from the control plane, never from the
// event.
type Campaign struct {
	Tenant string
	// ID is the public id, `camp_<number>`.
	ID string
	// Month is the first day of the month in which the campaign was confirmed, UTC. It is the same for all events of a
	// campaign.
	Month time.Time
}

// MonthOf returns the first day of the month of t, UTC.
func MonthOf(t time.Time) time.Time {
	y, m, _ := t.UTC().Date()
	return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
}

// Event is one delivery event. Strings that repeat should be shared between events.
type Event struct {
	// Campaign may be shared by many events and must not be modified.
	Campaign *Campaign
	// Offset is the event's offset in the partition of the batch. A store that does not keep offsets returns 0.
	Offset int64
	// TimeMS is the time of the event, in milliseconds since the epoch.
	TimeMS int64
	// Seq is the recipient's number within the audience.
	Seq      uint32
	Kind     schemas.Kind
	Code     schemas.Code
	Channel  schemas.Channel
	Try, Leg uint8
	Variant  uint8
	Segments uint8
	// PriceMicros is the price of one segment.
	PriceMicros uint32
	ContactID   uint64
	MessageID   schemas.ID
	Route       string
	Sender      string
	Country     string
	Currency    string
	// RawCode is the carrier's own code.
	RawCode string
	// LinkID is the link of a click.
	LinkID string
	// To is E.164 with +. Events from receipts may lack it, and other fields that only the message has.
	To          string
	ProviderID  string
	CustomerRef string
}

// Time returns the time of the event.
func (e *Event) Time() time.Time { return time.UnixMilli(e.TimeMS).UTC() }

// Precedence returns the precedence of the event.
func (e *Event) Precedence() schemas.Precedence {
	return schemas.PrecedenceOf(e.Kind, uint32(e.Try), e.Code)
}

// DescribesMessage reports whether the event says which message the recipient got or would have got: variant, channel,
// country, route, leg and price. Receipts lack some of these fields. So do outcomes that the scheduler writes, because
// the scheduler does not have the message.
func (e *Event) DescribesMessage() bool {
	switch e.Kind {
	case schemas.KindSent, schemas.KindNotSent, schemas.KindSkipped, schemas.KindAmbiguous:
		return e.Channel != schemas.ChannelUnspecified
	default:
		return false
	}
}

// MaxTimeMS is the greatest time of an event, the end of the year 2099. ClickHouse cannot store much later times.
const MaxTimeMS = 4_102_444_800_000 - 1

// Check returns an error that wraps [ErrData] if no store can store the event.
func (e *Event) Check() error {
	c := e.Campaign
	switch {
	case c == nil || c.Tenant == "" || c.ID == "" || c.Month.IsZero():
		return fmt.Errorf("%w: event at offset %d has no campaign, tenant or month", ErrData, e.Offset)
	case e.Precedence() == 0:
		return fmt.Errorf("%w: kind %d of %s seq %d at offset %d is unknown", ErrData, e.Kind, c.ID, e.Seq, e.Offset)
	case e.TimeMS < 0 || e.TimeMS > MaxTimeMS:
		return fmt.Errorf("%w: time %d of %s seq %d at offset %d is out of range", ErrData, e.TimeMS, c.ID, e.Seq, e.Offset)
	}
	return nil
}

// Mark says that the store has everything that was in a partition at AsOf. Without a time it only says that the
// partition exists: while a partition has no time, the store has no AsOf. A mark never replaces a later one.
type Mark struct {
	Partition int32
	// End is the offset after the last stored one.
	End  int64
	AsOf time.Time
}

// Member is what is known about one recipient.
type Member struct {
	Seq uint32
	// State is 0 if the recipient has only facts. Then RawCode, Time, Try and Leg have no meaning.
	State schemas.Precedence
	// RawCode, Time, Try and Leg are those of the event that determines the state. If several events have that
	// precedence, the latest one counts.
	RawCode  string
	Time     time.Time
	Try, Leg uint8
	// Channel to ProviderID are those of the event with the greatest precedence that has the field, because receipts
	// lack some fields.
	Channel    schemas.Channel
	Route      string
	Sender     string
	ProviderID string
	// MessageID to CustomerRef are those of any event that has the field.
	MessageID   schemas.ID
	To          string
	Country     string
	Variant     uint8
	ContactID   uint64
	CustomerRef string
	// Attempts counts the tries that were handed over (C24).
	Attempts int
	// SentAt is the time of the first hand-over, DeliveredAt that of the first delivery receipt; zero if there is none.
	// See [Member.OrderTimes].
	SentAt, DeliveredAt        time.Time
	Clicked, Replied, OptedOut bool
}

// OrderTimes puts the times of a member in order: the clock of a carrier may be hours behind ours, but a message cannot
// be delivered before it is sent. Stores call it on every member that they return. The events keep their times.
func (m *Member) OrderTimes() {
	if m.SentAt.IsZero() {
		return
	}
	if !m.DeliveredAt.IsZero() && m.DeliveredAt.Before(m.SentAt) {
		m.DeliveredAt = m.SentAt
	}
	if m.State.Class() >= schemas.ClassLeft && m.Time.Before(m.SentAt) {
		m.Time = m.SentAt
	}
}

// Referred is a message that was found by a client's reference or by its number.
type Referred struct {
	Campaign string
	Member
}

// CostLine is a part of a campaign's cost. A hand-over belongs to one line.
type CostLine struct {
	Variant  uint8
	Channel  schemas.Channel
	Country  string
	Route    string
	Leg      uint8
	Currency string
	// Messages is how many hand-overs are billed, and Segments is the sum of their segments.
	Messages, Segments uint64
	// Micros is the sum of segments times price, in micro-units of the currency.
	Micros uint64
}

// Compare orders the lines of a cost.
func (l CostLine) Compare(o CostLine) int {
	return cmp.Or(cmp.Compare(l.Variant, o.Variant), cmp.Compare(l.Channel, o.Channel), cmp.Compare(l.Country, o.Country),
		cmp.Compare(l.Route, o.Route), cmp.Compare(l.Leg, o.Leg), cmp.Compare(l.Currency, o.Currency))
}

// Value returns the line's value of a dimension.
func (l *CostLine) Value(d Dimension) string {
	return d.value(l.Variant, l.Channel, l.Country, l.Route, l.Leg)
}

// Span is the part of a timeline that a query wants.
type Span struct {
	// From and To bound the time of the events to [From, To), in whole seconds. The zero time means unbounded.
	From, To time.Time
	// Step is the length of a period, in whole seconds; at least one second.
	Step time.Duration
	// ByRoute counts the events of each route separately.
	ByRoute bool
}

// Seconds returns the step in seconds, at least 1.
func (s Span) Seconds() int64 { return max(int64(s.Step/time.Second), 1) }

// Point is the number of events of one kind in one period, in order of time, kind and route.
type Point struct {
	// Time is the beginning of the period. Periods are aligned to the epoch.
	Time time.Time
	Kind schemas.Kind
	// Route is the route of the events if [Span.ByRoute] is set; empty for events without a route.
	Route string
	N     uint64
}

// Link counts the recipients whose link a person opened, and the recipients whose link something else opened. A
// recipient who clicked twice counts once, but may be in both counts.
type Link struct {
	ID             string
	Clickers, Bots uint64
}

// Dimension is a field by which a campaign can be counted separately.
type Dimension uint8

// Dimensions of [Store.StatsBy]. The values are the decimal number of the variant, the name of the channel, the
// country, the route and the decimal number of the leg.
const (
	ByVariant Dimension = iota
	ByChannel
	ByCountry
	ByRoute
	ByLeg
)

// Dimensions lists all dimensions.
var Dimensions = []Dimension{ByVariant, ByChannel, ByCountry, ByRoute, ByLeg}

// Value returns the event's value of the dimension.
func (d Dimension) Value(e *Event) string {
	return d.value(e.Variant, e.Channel, e.Country, e.Route, e.Leg)
}

func (d Dimension) value(variant uint8, channel schemas.Channel, country, route string, leg uint8) string {
	switch d {
	case ByVariant:
		return strconv.Itoa(int(variant))
	case ByChannel:
		return schemas.ChannelName(channel)
	case ByCountry:
		return country
	case ByLeg:
		return strconv.Itoa(int(leg))
	default:
		return route
	}
}
