package analytics

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Store keeps delivery events and answers questions about them. It is safe for concurrent use. A campaign that the tenant
// does not have, or that nothing has happened in, has empty answers and no error.
type Store interface {
	// Append adds batches, each of them whole or not at all; when it returns nil they survive the end of the process. An error
	// that wraps [ErrData] says that one of them will never be taken; after any other the same batches may be tried again.
	// The events are the caller's again when it returns; their strings may be kept.
	Append(ctx context.Context, batches ...Batch) error
	// Mark remembers how far a topic has been read; see [Mark].
	Mark(ctx context.Context, topic TopicID, marks []Mark) error
	// AsOf is the time up to which everything that was in the topic is in the answers; zero before the first mark.
	AsOf(ctx context.Context) (time.Time, error)

	// Stats counts one campaign.
	Stats(ctx context.Context, tenant, campaign string) (Stats, error)
	// Grid counts many campaigns; those without events are not in the answer.
	Grid(ctx context.Context, tenant string, campaigns []string) (map[string]Stats, error)
	// StatsBy counts one campaign apart for each value of a dimension. Recipients who were neither sent to nor refused by
	// the carrier are in none; facts are counted too. A recipient has one variant and one country, but may have been tried on several channels and routes.
	StatsBy(ctx context.Context, tenant, campaign string, by Dimension) (map[string]Stats, error)
	// Select returns the recipients whose state is one of those given. A fact among them adds everybody of whom it is known,
	// whatever the state. [Stats.Select] finds the numbers. The bitmap is the caller's.
	Select(ctx context.Context, tenant, campaign string, precedences []schemas.Precedence) (*roaring.Bitmap, error)
	// Members describes those of the given recipients of whom anything is known, in order of seq.
	Members(ctx context.Context, tenant, campaign string, seqs []uint32) ([]Member, error)
	// History is everything known about one recipient, in order of time, then precedence. An event that came twice is there once.
	History(ctx context.Context, tenant, campaign string, seq uint32) ([]Event, error)
	// FindRecipient returns the first 100 seqs with that number (E.164 with +).
	FindRecipient(ctx context.Context, tenant, campaign, to string) ([]uint32, error)
	// ByCustomerRef describes the messages that carry the client's reference, newest first, at most 100, of campaigns
	// confirmed in the month of since or later (UTC).
	ByCustomerRef(ctx context.Context, tenant, ref string, since time.Time) ([]Referred, error)
	// Cost sums what was handed over. It is exact under duplicates; a recipient who was handed over twice, on purpose, costs twice.
	Cost(ctx context.Context, tenant, campaign string) ([]CostLine, error)
	// Timeline counts events by minute and kind, for charts: it counts events, not recipients, so never bill from it.
	Timeline(ctx context.Context, tenant, campaign string) ([]Point, error)
	// Links counts who clicked each link.
	Links(ctx context.Context, tenant, campaign string) ([]Link, error)

	// Close lets go of everything the store holds.
	Close() error
}

// Positioner is a store that knows, in the same transaction as the data, how far it has got in each partition. It, and not the
// consumer group, then says where reading goes on: a store that was lost or put back is filled again from the topic by itself.
type Positioner interface {
	// Positions returns the offset after the last one taken, by partition; none for partitions never seen.
	Positions(ctx context.Context, topic TopicID) (map[int32]int64, error)
	// Rewind lowers the position of a partition: what the store has from there on may come again with other content.
	Rewind(ctx context.Context, topic TopicID, partition int32, to int64) error
}

// Errors of stores.
var (
	// ErrData: the store cannot take these rows, now or ever.
	ErrData = errors.New("rows that cannot be stored")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store is closed")
)

// TopicID is Kafka's id of a topic. A topic that is deleted and made again has another.
type TopicID [16]byte

// IsZero reports whether t names no topic.
func (t TopicID) IsZero() bool { return t == TopicID{} }

// String returns the id in hexadecimal.
func (t TopicID) String() string { return hex.EncodeToString(t[:]) }

// Batch is a run of events of one partition. Topic, Partition, First and End are its identity: who appends the same batch again
// appends the same events under the same bounds. Batches of a partition are first appended in order of their offsets, by one
// writer at a time; a batch may come again at any time after. A batch without a topic has no identity: nothing recognises it when it comes again.
type Batch struct {
	Topic     TopicID
	Partition int32
	// The batch is what stands at the offsets [First, End). Not every offset holds an event.
	First, End int64
	// Events, in order of their offsets.
	Events []Event
}

// Token names the batch by its identity; "" without one.
func (b Batch) Token() string {
	if b.Topic.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s-%d-%d-%d", b.Topic, b.Partition, b.First, b.End-1)
}

// Campaign is what a store must know about the campaign of an event. It comes from the control plane, never from a receipt.
type Campaign struct {
	Tenant string
	// ID is the public id, `camp_<number>`.
	ID string
	// Month is the first day of the month in which the campaign was confirmed, UTC. All events of a campaign share it, however late they come.
	Month time.Time
}

// MonthOf returns the first day of the month of t, UTC.
func MonthOf(t time.Time) time.Time {
	y, m, _ := t.UTC().Date()
	return time.Date(y, m, 1, 0, 0, 0, 0, time.UTC)
}

// Event is one delivery event. Strings that repeat much are best shared between events.
type Event struct {
	// Campaign may be shared by many events and is not changed by anybody.
	Campaign *Campaign
	// Offset in the partition of the batch; of an event that a store returns, 0 when the store does not keep it.
	Offset int64
	// TimeMS is when it happened, milliseconds since the epoch.
	TimeMS int64
	// Seq is the recipient's number within the audience.
	Seq      uint32
	Kind     fanfarev1.Kind
	Code     fanfarev1.Code
	Channel  fanfarev1.Channel
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
	// RawCode is the sub-status as the carrier gave it.
	RawCode string
	// LinkID of a click.
	LinkID string
	// To is E.164 with +; events that come from receipts may lack it, and what else only the message knows.
	To          string
	ProviderID  string
	CustomerRef string
}

// Time is when it happened.
func (e *Event) Time() time.Time { return time.UnixMilli(e.TimeMS).UTC() }

// Precedence of the event.
func (e *Event) Precedence() schemas.Precedence {
	return schemas.PrecedenceOf(e.Kind, uint32(e.Try), e.Code)
}

// MaxTimeMS bounds the time of an event: the end of the year 2099. Charts stop before; and no clock is so wrong.
const MaxTimeMS = 4_102_444_800_000 - 1

// Check returns an error that wraps [ErrData] when no store can take the event.
func (e *Event) Check() error {
	c := e.Campaign
	switch {
	case c == nil || c.Tenant == "" || c.ID == "" || c.Month.IsZero():
		return fmt.Errorf("%w: an event at offset %d without campaign, tenant or month", ErrData, e.Offset)
	case e.Precedence() == 0:
		return fmt.Errorf("%w: kind %d of %s seq %d at offset %d", ErrData, e.Kind, c.ID, e.Seq, e.Offset)
	case e.TimeMS < 0 || e.TimeMS > MaxTimeMS:
		return fmt.Errorf("%w: time %d of %s seq %d at offset %d", ErrData, e.TimeMS, c.ID, e.Seq, e.Offset)
	}
	return nil
}

// Mark says that everything that stood in a partition at AsOf is in the store. Without a time it says that there is such a
// partition: as long as one has none, nobody can say how complete the answers are. A mark never takes back a later one.
type Mark struct {
	Partition int32
	// End is the offset read up to.
	End  int64
	AsOf time.Time
}

// Member is what is known about one recipient.
type Member struct {
	Seq uint32
	// State is 0 when only facts are known; then State.Kind, RawCode, Time, Try and Leg mean nothing.
	State schemas.Precedence
	// Of the event that made the state: of several with the same precedence, the latest.
	RawCode  string
	Time     time.Time
	Try, Leg uint8
	// Of the greatest event that says it, since receipts do not say everything.
	Channel    fanfarev1.Channel
	Route      string
	Sender     string
	ProviderID string
	// Of the recipient, whichever event says it.
	MessageID   schemas.ID
	To          string
	Country     string
	Variant     uint8
	ContactID   uint64
	CustomerRef string
	// Attempts counts the tries that left us (C24).
	Attempts int
	// SentAt is the first hand-over, DeliveredAt the first sign of delivery; zero when there is none.
	SentAt, DeliveredAt        time.Time
	Clicked, Replied, OptedOut bool
}

// Referred is a message found by the client's reference.
type Referred struct {
	Campaign string
	Member
}

// CostLine is a part of what a campaign cost.
type CostLine struct {
	Channel  fanfarev1.Channel
	Country  string
	Currency string
	// Messages handed over, and their segments.
	Messages, Segments uint64
	// Micros is the sum of segments times price, in micro-units.
	Micros uint64
}

// Point is one column of a chart.
type Point struct {
	Minute time.Time
	Kind   fanfarev1.Kind
	N      uint64
}

// Link counts who clicked a link, people and scanners apart. Somebody who clicked it twice is counted once.
type Link struct {
	ID             string
	Clickers, Bots uint64
}

// Dimension is what a campaign can be counted apart by.
type Dimension uint8

// Dimensions of [Store.StatsBy]. The values are a variant's number in decimal, the channel's name, the country and the route.
const (
	ByVariant Dimension = iota
	ByChannel
	ByCountry
	ByRoute
)

// Value returns the event's value of the dimension.
func (d Dimension) Value(e *Event) string {
	switch d {
	case ByVariant:
		return strconv.Itoa(int(e.Variant))
	case ByChannel:
		return schemas.ChannelName(e.Channel)
	case ByCountry:
		return e.Country
	default:
		return e.Route
	}
}
