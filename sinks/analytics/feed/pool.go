package feed

import (
	"bytes"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pool recycles the client's memory for fetched records. A record is decoded soon after it was fetched, and its memory
// is then free.
type pool struct {
	records sync.Pool // of *[]kgo.Record
	bytes   sync.Pool // of *[]byte
}

var (
	_ kgo.PoolRecords         = (*pool)(nil)
	_ kgo.PoolDecompressBytes = (*pool)(nil)
)

// GetRecords returns a slice with room for n records.
func (p *pool) GetRecords(n int) []kgo.Record {
	if have, ok := p.records.Get().(*[]kgo.Record); ok && cap(*have) >= n {
		return (*have)[:0]
	}
	return make([]kgo.Record, 0, n)
}

// PutRecords returns a slice to the pool.
func (p *pool) PutRecords(records []kgo.Record) { p.records.Put(&records) }

// GetDecompressBytes returns a buffer for the decompressed bytes. Its size is a guess; the client grows it if needed.
func (p *pool) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	if have, ok := p.bytes.Get().(*[]byte); ok {
		return (*have)[:0]
	}
	return make([]byte, 0, 4*len(compressed))
}

// PutDecompressBytes returns a buffer to the pool.
func (p *pool) PutDecompressBytes(b []byte) { p.bytes.Put(&b) }

// keep returns a deep copy of a record.
func keep(r *kgo.Record) *kgo.Record {
	out := &kgo.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Headers: slices.Clone(r.Headers)}
	for i := range out.Headers {
		out.Headers[i].Value = bytes.Clone(out.Headers[i].Value)
	}
	return out
}
