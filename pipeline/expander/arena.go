package expander

import (
	"context"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// arena is the memory of the messages of one chunk. A message alone would cost a dozen allocations, and a new arena for every
// chunk a gigabyte a second to the collector at full speed; so an arena is used again once Kafka's client has let go of every
// record in it. Who knows that is the client, by a hook: not acknowledged or aborted records come back by it too. Records that
// never reach a client never come back; their arena is left to the collector.
type arena struct {
	records []kgo.Record
	headers []kgo.RecordHeader
	bytes   slab

	tag      context.Context //nolint:containedctx // not a call's: kgo's way to hand a record's owner to hooks
	lent     int64
	returned atomic.Int64
}

// arenaKey finds the arena of a record in its context.
type arenaKey struct{}

// home is the hook that brings records back.
type home struct{}

var _ kgo.HookProduceRecordUnbuffered = home{}

// OnProduceRecordUnbuffered implements the hook of kgo: the client is done with the record but for calling its promise.
func (home) OnProduceRecordUnbuffered(r *kgo.Record, _ error) {
	if r.Context == nil {
		return
	}
	if a, ok := r.Context.Value(arenaKey{}).(*arena); ok {
		a.returned.Add(1)
	}
}

// arenas lends out arenas and keeps a few.
type arenas struct {
	most int
	kept []*arena
}

// lend returns an arena with room for n records of so many headers each.
func (p *arenas) lend(n, headers int) *arena {
	for i, a := range p.kept {
		if a.returned.Load() == a.lent && cap(a.records) >= n && cap(a.headers) >= n*headers {
			copy(p.kept[1:i+1], p.kept[:i]) // the one used last is in front
			p.kept[0] = a
			a.records, a.headers = a.records[:0], a.headers[:0]
			a.bytes.reset()
			a.lent = 0
			a.returned.Store(0)
			return a
		}
	}
	a := &arena{records: make([]kgo.Record, 0, n), headers: make([]kgo.RecordHeader, 0, n*headers)}
	a.tag = context.WithValue(context.Background(), arenaKey{}, a)
	if len(p.kept) < p.most {
		p.kept = append(p.kept, nil)
	}
	copy(p.kept[1:], p.kept)
	p.kept[0] = a
	return a
}

// add adds a record whose headers are the shared ones and its submission.
func (a *arena) add(topic string, key, value []byte, shared schemas.Shared, submission []byte) *kgo.Record {
	n := len(a.headers)
	a.headers = shared.Append(a.headers, submission)
	a.headers = append(a.headers, kgo.RecordHeader{Key: schemas.HeaderSubmission, Value: submission})
	a.records = append(a.records, kgo.Record{Topic: topic, Key: key, Value: value, Headers: a.headers[n:len(a.headers):len(a.headers)], Context: a.tag})
	a.lent++
	return &a.records[len(a.records)-1]
}

// slab hands out bytes in order, from large pieces that it keeps.
type slab struct {
	pieces [][]byte
	next   int // piece
	free   []byte
}

// slabSize holds some hundred messages.
const slabSize = 64 << 10

// take returns an empty slice with room for n bytes, to be appended to. What was used of it must be given to keep before the next.
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

// keep makes b, the beginning of what was taken last, its own.
func (s *slab) keep(b []byte) { s.free = s.free[len(b):] }

// reset takes everything back.
func (s *slab) reset() { s.next, s.free = 0, nil }
