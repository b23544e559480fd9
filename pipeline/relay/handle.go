package relay

import (
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// record makes the record of a row.
func record(names schemas.Names, row *schemas.OutboxRow) (*kgo.Record, error) {
	var topic string
	switch row.Type {
	case schemas.TypeCampaign:
		topic = names.Campaigns()
	case schemas.TypeControl:
		topic = names.Control()
	case schemas.TypeSuppression:
		topic = names.Suppressions()
	default:
		return nil, fmt.Errorf("no topic for a %s", row.Type)
	}
	version := strconv.FormatUint(row.Version, 10)
	r := schemas.Event{
		Topic: topic, Key: row.Key, Tenant: row.Tenant, Type: row.Type, Source: source, ID: row.Key + "@" + version, Time: row.Time,
	}.Raw(row.Value)
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: schemas.HeaderVersion, Value: []byte(version)})
	return r, nil
}

// source is the CloudEvents source of the records.
const source = "relay"

// memory knows the greatest version of each key that was on a topic.
type memory struct {
	versions map[string]uint64
	// recent are keys of topics with too many keys to remember all, oldest first. A record can go backwards only while
	// two relays overlap, so recent keys are enough.
	recent []string
	limit  int
}

func newMemory(limit int) *memory { return &memory{versions: map[string]uint64{}, limit: limit} }

// see records the version of a record and reports whether the topic had a newer version of its key before.
func (m *memory) see(r *kgo.Record, bounded bool) (backwards bool) {
	version, err := strconv.ParseUint(string(schemas.Header(r, schemas.HeaderVersion)), 10, 64)
	if err != nil {
		return false // not written by a relay
	}
	key := r.Topic + "\x00" + string(r.Key)
	known, ok := m.versions[key]
	if ok && version < known {
		return true
	}
	m.versions[key] = version
	if bounded && !ok {
		m.recent = append(m.recent, key)
		if len(m.recent) > m.limit {
			delete(m.versions, m.recent[0])
			m.recent = m.recent[1:]
		}
	}
	return false
}
