package expander

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// arena is the memory of the messages of one chunk. Without it each message would cost a dozen allocations; a new arena
// for every chunk would cost the garbage collector a gigabyte a second at full speed. So an arena is reused once the
// Kafka client has released every record in it, which a hook of the client reports, also for records that failed or
// were aborted. Records that never reach a client are never reported; their arena is left to the garbage collector.
//
// Two records of one campaign in the same place of the arena differ in few bytes. The bytes of the id and the time are
// overwritten in place, so that no pointer to them is written: while the collector marks, writing a pointer costs as
// much as a message's text.
type arena struct {
	records []kgo.Record
	headers []kgo.RecordHeader
	ids     []byte // submissionTextLen of each record
	when    []byte // value of ce_time of every record
	bytes   slab   // keys and values
	used    int
	dressed int // records whose headers are already set for look
	look    look
	shared  schemas.Shared
	now     time.Time // time stamp of the records; without it the client reads the clock for each

	// Every record has its arena as context, so that the hook finds the arena of a record.
	context.Context //nolint:containedctx // used by the hook only

	returned atomic.Int64
}

// look is what the records of a chunk have in common besides the time.
type look struct {
	topic, tenant, traceparent string
}

// home is the hook of the Kafka client that tells each arena which of its records the client has released.
type home struct{}

var _ kgo.HookProduceRecordUnbuffered = home{}

// OnProduceRecordUnbuffered implements the hook of kgo: the client needs the record only to call its promise.
func (home) OnProduceRecordUnbuffered(r *kgo.Record, _ error) {
	if a, ok := r.Context.(*arena); ok {
		a.returned.Add(1)
	}
}

// arenas lends out arenas and keeps a few.
type arenas struct {
	most int
	kept []*arena
}

// lend returns an arena with room for n records with these headers.
func (p *arenas) lend(n int, l look, shared schemas.Shared, now time.Time) *arena {
	at := slices.IndexFunc(p.kept, func(a *arena) bool {
		return a.returned.Load() == int64(a.used) && len(a.records) >= n && len(a.headers) >= n*(shared.Len()+1)
	})
	var a *arena
	switch {
	case at >= 0:
		a = p.kept[at]
	case len(p.kept) < p.most:
		at = len(p.kept)
		p.kept = append(p.kept, nil)
	default:
		at = p.most - 1 // the least recently used one
	}
	if a == nil {
		a = &arena{
			records: make([]kgo.Record, n), headers: make([]kgo.RecordHeader, n*(shared.Len()+1)), ids: make([]byte, n*submissionTextLen),
			Context: context.Background(),
		}
	}
	copy(p.kept[1:at+1], p.kept[:at])
	p.kept[0] = a

	a.used = 0
	a.returned.Store(0)
	a.bytes.reset()
	if a.look != l {
		a.look, a.dressed = l, 0
	}
	a.shared, a.now = shared, now
	for _, h := range shared.Append(make([]kgo.RecordHeader, 0, shared.Len()), nil) {
		if h.Key == timeHeader {
			if len(a.when) != len(h.Value) {
				a.when, a.dressed = make([]byte, len(h.Value)), 0
			}
			copy(a.when, h.Value)
		}
	}
	return a
}

// timeHeader is the only shared header that changes from chunk to chunk.
const timeHeader = "ce_time"

// add adds a record; its headers are the shared ones and its submission, in the public form.
func (a *arena) add(key, value []byte, id schemas.ID) *kgo.Record {
	i := a.used
	a.used++
	text := a.ids[i*submissionTextLen : (i+1)*submissionTextLen : (i+1)*submissionTextLen]
	id.AppendTo(text[:0])
	r := &a.records[i]
	if i < a.dressed {
		r.Key, r.Value = key, value
		// Reset the fields that the Kafka client has set.
		r.Timestamp, r.Partition, r.Attrs, r.Offset = a.now, 0, kgo.RecordAttrs{}, 0
		r.ProducerID, r.ProducerEpoch, r.LeaderEpoch = 0, 0, 0
		return r
	}
	per := a.shared.Len() + 1
	h := a.shared.Append(a.headers[i*per:i*per:(i+1)*per], text)
	for k := range h {
		if h[k].Key == timeHeader {
			h[k].Value = a.when
		}
	}
	h = append(h, kgo.RecordHeader{Key: schemas.HeaderSubmission, Value: text})
	*r = kgo.Record{Topic: a.look.topic, Key: key, Value: value, Headers: h, Context: a, Timestamp: a.now}
	a.dressed++
	return r
}

// slab hands out bytes in order, from large pieces that it keeps.
type slab struct {
	pieces [][]byte
	next   int // piece
	free   []byte
}

// slabSize holds some hundred messages.
const slabSize = 64 << 10

// take returns an empty slice with room for n bytes to append to. Call keep with the used part before the next take.
func (s *slab) take(n int) []byte {
	for n > len(s.free) {
		if s.next == len(s.pieces) {
			s.pieces = append(s.pieces, make([]byte, max(n, slabSize)))
		}
		s.free = s.pieces[s.next]
		s.next++
	}
	return s.free[:0:n]
}

// keep reserves b, the used part of the slice that take returned last.
func (s *slab) keep(b []byte) { s.free = s.free[len(b):] }

// reset makes all memory free again.
func (s *slab) reset() { s.next, s.free = 0, nil }
