package stream

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// maxCause is the longest cause that a dead letter names, in bytes.
const maxCause = 1000

// DeadLetter returns the record of topic `<topic>.dlq` for a poison record: the unchanged record, with headers that
// name the cause, the stage, and the topic, partition and offset.
func DeadLetter(names schemas.Names, stage string, d Dead) *kgo.Record {
	r := d.Record
	cause := "unknown"
	if d.Cause != nil {
		cause = d.Cause.Error()
	}
	if len(cause) > maxCause {
		cause = cause[:maxCause]
	}
	h := make([]kgo.RecordHeader, 0, len(r.Headers)+4)
	h = append(h, r.Headers...)
	h = append(h,
		kgo.RecordHeader{Key: schemas.HeaderCause, Value: []byte(cause)},
		kgo.RecordHeader{Key: schemas.HeaderStage, Value: []byte(stage)},
		kgo.RecordHeader{Key: schemas.HeaderSourceTopic, Value: []byte(r.Topic)},
		kgo.RecordHeader{Key: schemas.HeaderSource, Value: appendSource(nil, r)},
	)
	return &kgo.Record{Topic: names.DeadLetters(r.Topic), Key: r.Key, Value: r.Value, Headers: h}
}

// appendSource appends the position of a record, `<topic>/<partition>/<offset>`.
func appendSource(b []byte, r *kgo.Record) []byte {
	b = append(append(b, r.Topic...), '/')
	b = strconv.AppendInt(b, int64(r.Partition), 10)
	return strconv.AppendInt(append(b, '/'), r.Offset, 10)
}
