package scheduler

import (
	"container/heap"
)

// held is a single message that waits for its time.
type held struct {
	key, tenant string
	dueMs       int64
	campaign    uint64
	seq         uint32
	try         uint32 // the try it had when it was put here, 0: it was never dealt
	route       string
	notAfter    int64
	value       []byte // the record
	index       int    // in the heap
}

// holding is all that is held, by key and by time.
type holding struct {
	byKey map[string]*held
	count map[uint64]int // by campaign
	queue heldQueue
}

func newHolding() holding {
	return holding{byKey: map[string]*held{}, count: map[uint64]int{}}
}

// put holds a message instead of whatever its key held.
func (h *holding) put(m *held) {
	h.remove(m.key)
	h.byKey[m.key] = m
	h.count[m.campaign]++
	heap.Push(&h.queue, m)
}

func (h *holding) remove(key string) {
	m := h.byKey[key]
	if m == nil {
		return
	}
	delete(h.byKey, key)
	if h.count[m.campaign]--; h.count[m.campaign] == 0 {
		delete(h.count, m.campaign)
	}
	heap.Remove(&h.queue, m.index)
}

// due takes out up to most messages whose time has come.
func (h *holding) due(now int64, most int) []*held {
	var out []*held
	for len(h.queue) > 0 && h.queue[0].dueMs <= now && len(out) < most {
		m := h.queue[0]
		h.remove(m.key)
		out = append(out, m)
	}
	return out
}

type heldQueue []*held

func (q heldQueue) Len() int           { return len(q) }
func (q heldQueue) Less(i, j int) bool { return q[i].dueMs < q[j].dueMs }
func (q heldQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *heldQueue) Push(x any) {
	m, _ := x.(*held)
	m.index = len(*q)
	*q = append(*q, m)
}

// Pop implements heap.Interface.
func (q *heldQueue) Pop() any {
	old := *q
	m := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return m
}
