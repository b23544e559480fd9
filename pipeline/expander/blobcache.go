package expander

import (
	"cmp"
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"fanfare/schemas/audience"
)

// blobCache keeps recently read blobs of frozen audiences: each chunk of a slow campaign needs a small part of a blob.
type blobCache struct {
	from    Audience
	metrics *metrics

	mu      sync.Mutex
	blobs   lru[blobKey, *audience.Reader]
	indexes lru[string, []audience.Index]
}

type blobKey struct {
	freeze string
	blob   uint32
}

// indexMemory holds the indexes of some hundred campaigns: an index takes 24 bytes for each 5,000 recipients.
const indexMemory = 1 << 20

func newBlobCache(from Audience, memory int, m *metrics) *blobCache {
	return &blobCache{from: from, metrics: m, blobs: lru[blobKey, *audience.Reader]{room: memory}, indexes: lru[string, []audience.Index]{room: indexMemory}}
}

// storePatience bounds one read of a blob, which normally takes milliseconds. After that time the cache gives up a dead
// connection, so that the next read opens a new one.
const storePatience = 20 * time.Second

// blob returns the entries of a blob and the seq of the first. A reader must not be used by several goroutines, so a
// worker expands one batch after the other. An error that wraps errPoison is permanent.
func (s *blobCache) blob(ctx context.Context, key blobKey) (*audience.Reader, uint32, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	row, err := s.index(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	r, ok := s.blobs.get(key)
	s.mu.Unlock()
	if ok {
		s.metrics.blobs.WithLabelValues("memory").Inc()
		return r, row.First, nil
	}
	s.metrics.blobs.WithLabelValues("store").Inc()
	raw, err := s.from.Blob(ctx, key.freeze, key.blob)
	if err != nil {
		return nil, 0, classify(fmt.Errorf("read blob %d of audience %s: %w", key.blob, key.freeze, err))
	}
	if r, err = audience.NewReader(raw); err != nil {
		return nil, 0, poison(fmt.Errorf("blob %d of audience %s: %w", key.blob, key.freeze, err))
	}
	if r.Len() != int(row.Count) {
		return nil, 0, poison(fmt.Errorf("blob %d of audience %s: got %d entries, want %d", key.blob, key.freeze, r.Len(), row.Count))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs.put(key, r, r.Bytes())
	return r, row.First, nil
}

func (s *blobCache) index(ctx context.Context, key blobKey) (audience.Index, error) {
	s.mu.Lock()
	rows, ok := s.indexes.get(key.freeze)
	s.mu.Unlock()
	if !ok {
		var err error
		if rows, err = s.from.Blobs(ctx, key.freeze); err != nil {
			return audience.Index{}, classify(fmt.Errorf("read index of audience %s: %w", key.freeze, err))
		}
		rows = slices.Clone(rows)
		slices.SortFunc(rows, func(a, b audience.Index) int { return cmp.Compare(a.Blob, b.Blob) })
		if len(rows) > 0 { // no rows may mean that the store does not have them yet
			s.mu.Lock()
			s.indexes.put(key.freeze, rows, 24*len(rows))
			s.mu.Unlock()
		}
	}
	i, ok := slices.BinarySearchFunc(rows, key.blob, func(row audience.Index, blob uint32) int { return cmp.Compare(row.Blob, blob) })
	if !ok {
		return audience.Index{}, poison(fmt.Errorf("audience %s has no blob %d", key.freeze, key.blob))
	}
	return rows[i], nil
}

// forget drops a blob that is expanded to its end, or that is damaged. A later chunk reads it from the store again.
func (s *blobCache) forget(key blobKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs.remove(key)
}

// lru keeps values up to a total weight; it drops the least recently used value first.
type lru[K comparable, V any] struct {
	room, used int
	order      list.List
	at         map[K]*list.Element
}

type kept[K comparable, V any] struct {
	key    K
	value  V
	weight int
}

func (l *lru[K, V]) get(key K) (V, bool) {
	e, ok := l.at[key]
	if !ok {
		var none V
		return none, false
	}
	l.order.MoveToFront(e)
	k, _ := e.Value.(kept[K, V])
	return k.value, true
}

func (l *lru[K, V]) put(key K, value V, weight int) {
	l.remove(key)
	if weight > l.room {
		return
	}
	if l.at == nil {
		l.at = map[K]*list.Element{}
	}
	l.at[key] = l.order.PushFront(kept[K, V]{key, value, weight})
	for l.used += weight; l.used > l.room; {
		k, _ := l.order.Back().Value.(kept[K, V])
		l.remove(k.key)
	}
}

func (l *lru[K, V]) remove(key K) {
	e, ok := l.at[key]
	if !ok {
		return
	}
	k, _ := l.order.Remove(e).(kept[K, V])
	delete(l.at, key)
	l.used -= k.weight
}
