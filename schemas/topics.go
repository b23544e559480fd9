package schemas

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Lane is one of the two streams of messages of a route.
type Lane string

// Lanes: campaigns use bulk; single sends use txn and go first.
const (
	LaneBulk Lane = "bulk"
	LaneTxn  Lane = "txn"
)

// Lanes are all lanes.
var Lanes = []Lane{LaneTxn, LaneBulk}

// Topic has the required settings of a topic. Fanfare creates it with these settings and checks them at every start.
type Topic struct {
	Name       string
	Partitions int32
	// Retention of records. 0 with Compact: the newest record of each key is kept for ever.
	Retention time.Duration
	Compact   bool
	// Key of a record, for people.
	Key string
	// MaxBytes of one record batch; 0: the broker's default.
	MaxBytes int
	// Public topics are a contract with downstream consumers.
	Public bool
}

// Configs returns the settings of the topic as Kafka spells them.
func (t Topic) Configs() map[string]string {
	c := map[string]string{}
	if t.Compact {
		// A segment that never rolls is never compacted, and a tombstone must outlive a reader that is away for a day.
		c["cleanup.policy"] = "compact"
		if t.Retention > 0 { // a key that is not written again expires
			c["cleanup.policy"], c["retention.ms"] = "compact,delete", ms(t.Retention)
		}
		c["segment.ms"] = ms(time.Hour)
		c["min.cleanable.dirty.ratio"] = "0.2"
		c["delete.retention.ms"] = ms(7 * day)
	} else {
		c["cleanup.policy"] = "delete"
		c["retention.ms"] = ms(t.Retention)
	}
	if t.MaxBytes > 0 {
		c["max.message.bytes"] = strconv.Itoa(t.MaxBytes)
	}
	return c
}

const day = 24 * time.Hour

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// MessagePartitions is the number of partitions of a messages topic. It never changes, because a sender recognises a
// repeated message only if it is in the same partition. To get more partitions, create a new route.
const MessagePartitions = 6

// DefaultPrefix of every name in Kafka and Redis.
const DefaultPrefix = "fanfare."

// Names of topics, groups and transactional ids of one installation. The zero value has no prefix.
type Names struct{ prefix string }

var prefixPattern = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,39}$`)

// NewNames returns names that begin with prefix: 1 to 40 of a-z, 0-9, dot, dash and underscore, a letter first.
func NewNames(prefix string) (Names, error) {
	if !prefixPattern.MatchString(prefix) {
		return Names{}, fmt.Errorf("prefix %q: want 1 to 40 of a-z 0-9 . _ - with a letter first", prefix)
	}
	return Names{prefix}, nil
}

// Prefix returns the prefix.
func (n Names) Prefix() string { return n.prefix }

// Campaigns returns the topic of the current states of campaigns, compacted: the relay writes, every process reads;
// public.
func (n Names) Campaigns() string { return n.prefix + "campaigns" }

// Control returns the topic of routes, tenants and senders, compacted: the relay writes, every process reads.
func (n Names) Control() string { return n.prefix + "control" }

// Suppressions returns the topic of opt-outs, compacted: the relay writes, senders keep all of it in memory.
func (n Names) Suppressions() string { return n.prefix + "suppressions" }

// Health returns the topic of the health of the routes, compacted: senders and trackers write, the scheduler and the
// api read.
func (n Names) Health() string { return n.prefix + "health" }

// Cursors returns the topic of the scheduler's saved state, compacted.
func (n Names) Cursors() string { return n.prefix + "cursors" }

// Held returns the topic of single messages that wait for their time, compacted: api and senders write, the scheduler
// reads.
func (n Names) Held() string { return n.prefix + "held" }

// Chunks returns the topic of deals: the scheduler writes, the expander reads.
func (n Names) Chunks() string { return n.prefix + "chunks" }

// Receipts returns the topic of receipts of carriers: connectors write, the tracker reads.
func (n Names) Receipts() string { return n.prefix + "receipts" }

// Callbacks returns the topic of unchanged callbacks of carriers: the api writes, the callback stage reads.
func (n Names) Callbacks() string { return n.prefix + "callbacks" }

// Inbound returns the topic of actions of recipients that may change which messages they get: the edge, senders and the
// callback stage write, the inbound stage reads.
func (n Names) Inbound() string { return n.prefix + "inbound" }

// Replies returns the topic of what recipients wrote, matched to a tenant: the inbound stage writes; public.
func (n Names) Replies() string { return n.prefix + "replies" }

// Deliveries returns the topic of delivery events, which have the outcome of every recipient; public.
func (n Names) Deliveries() string { return n.prefix + "deliveries" }

// Messages returns the topic of one lane of a route.
func (n Names) Messages(route string, lane Lane) string {
	return n.prefix + "messages." + route + "." + string(lane)
}

// DeadLetters returns the topic that takes the poison records of topic.
func (n Names) DeadLetters(topic string) string { return topic + ".dlq" }

// Group returns the consumer group of a stage, such as `expander`.
func (n Names) Group(stage string) string { return n.prefix + stage }

// SenderGroup returns the consumer group of the senders of one lane of a route.
func (n Names) SenderGroup(route string, lane Lane) string {
	return n.prefix + "sender." + route + "." + string(lane)
}

// TransactionalID returns the transactional id of a stage. With an instance it belongs to one process; without one, the
// stage has only one.
func (n Names) TransactionalID(stage, instance string) string {
	if instance == "" {
		return n.prefix + stage
	}
	return n.prefix + stage + "." + instance
}

var routePattern = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,39}$`)

// ValidRoute returns an error if name is not a valid name of a route.
func ValidRoute(name string) error {
	if !routePattern.MatchString(name) {
		return fmt.Errorf("route %q: want 1 to 40 of a-z 0-9 _ - with a letter first", name)
	}
	return nil
}

// Fixed returns the topics that every installation has.
func (n Names) Fixed() []Topic {
	withDLQ := func(t Topic) []Topic { return []Topic{t, n.deadLetter(t)} }
	topics := []Topic{
		{Name: n.Campaigns(), Partitions: 1, Compact: true, Key: "<tenant>/<campaign>", Public: true},
		{Name: n.Control(), Partitions: 1, Compact: true, Key: "route/<name>, tenant/<id>, sender/<tenant>/<id>"},
		{Name: n.Suppressions(), Partitions: 3, Compact: true, Key: "<tenant>/<hash of the number>", Public: true},
		{Name: n.Health(), Partitions: 1, Compact: true, Retention: day, Key: "<route>/<process>"},
	}
	topics = append(topics, withDLQ(Topic{Name: n.Cursors(), Partitions: 1, Compact: true, Key: "<tenant>/<campaign>, <tenant>/<campaign>/sets/<part>, offsets"})...)
	topics = append(topics, withDLQ(Topic{Name: n.Held(), Partitions: 3, Compact: true, Key: "<tenant>/<message id>"})...)
	topics = append(topics, withDLQ(Topic{Name: n.Chunks(), Partitions: 24, Retention: 30 * day, Key: "<tenant>/<campaign>#<blob>"})...)
	topics = append(topics, withDLQ(Topic{Name: n.Callbacks(), Partitions: 6, Retention: 7 * day, Key: "<route>/<hash of the callback>"})...)
	topics = append(topics, withDLQ(Topic{Name: n.Receipts(), Partitions: 6, Retention: 7 * day, Key: "<route>/<provider id>"})...)
	topics = append(topics, withDLQ(Topic{Name: n.Inbound(), Partitions: 6, Retention: 30 * day, Key: "<tenant>/<message id>, <route>/<number>"})...)
	topics = append(topics, withDLQ(Topic{Name: n.Replies(), Partitions: 3, Retention: 35 * day, Key: "<tenant>/<conversation id>", Public: true})...)
	return append(topics, withDLQ(Topic{Name: n.Deliveries(), Partitions: 6, Retention: 35 * day, Key: "<tenant>/<message id>", Public: true})...)
}

// Route returns the topics of one route.
func (n Names) Route(route string) []Topic {
	var topics []Topic
	for _, lane := range Lanes {
		t := Topic{Name: n.Messages(route, lane), Partitions: MessagePartitions, Retention: 3 * day, Key: "<tenant>/<number>"}
		topics = append(topics, t, n.deadLetter(t))
	}
	return topics
}

// deadLetter returns the dead-letter topic of t. A dead letter is a record with its cause, so its maximum size is
// greater than that of the record.
func (n Names) deadLetter(t Topic) Topic {
	return Topic{Name: n.DeadLetters(t.Name), Partitions: 1, Retention: 30 * day, Key: "as in " + strings.TrimPrefix(t.Name, n.prefix), MaxBytes: 2 << 20}
}
