package feed

import (
	"bytes"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pool lends the client memory for what it fetches: records are events a moment later, and their memory is free again.
type pool struct {
	records sync.Pool // of *[]kgo.Record
	bytes   sync.Pool // of *[]byte
}

var (
	_ kgo.PoolRecords         = (*pool)(nil)
	_ kgo.PoolDecompressBytes = (*pool)(nil)
)

// GetRecords lends room for n records.
func (p *pool) GetRecords(n int) []kgo.Record {
	if have, ok := p.records.Get().(*[]kgo.Record); ok && cap(*have) >= n {
		return (*have)[:0]
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords takes it back.
func (p *pool) PutRecords(records []kgo.Record) { p.records.Put(&records) }

// GetDecompressBytes lends room for what compressed becomes, which is a guess: the client grows it.
func (p *pool) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	if have, ok := p.bytes.Get().(*[]byte); ok {
		return (*have)[:0]
	}
	return make([]byte, 0, 4*len(compressed))
}

// PutDecompressBytes takes it back.
func (p *pool) PutDecompressBytes(b []byte) { p.bytes.Put(&b) }

// keep returns a copy of a record that may be kept.
func keep(r *kgo.Record) *kgo.Record {
	out := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Headers: slices.Clone(r.Headers)}
	for i := range out.Headers {
		out.Headers[i].Value = bytes.Clone(out.Headers[i].Value)
	}
	return out
}
