package sim

import "slices"

// wheel keeps values until their time, in slots of width milliseconds. Adding a value is an append for any time. A
// timer or a goroutine for each receipt would cost more than the rest of the work on it. Values of one slot come out in
// the order in which they were added. It has no lock.
type wheel[T any] struct {
	width int64
	slots map[int64]*[]T
	heap  []int64 // of the slots that exist, least first
	free  []*[]T
	n     int
}

func newWheel[T any](width int64) *wheel[T] {
	return &wheel[T]{width: width, slots: map[int64]*[]T{}}
}

// add puts v to the slot that ends at or after the time at.
func (w *wheel[T]) add(at int64, v T) {
	tick := (at + w.width - 1) / w.width
	slot := w.slots[tick]
	if slot == nil {
		if n := len(w.free); n > 0 {
			slot, w.free = w.free[n-1], w.free[:n-1]
		} else {
			slot = new([]T)
		}
		w.slots[tick] = slot
		w.push(tick)
	}
	*slot = append(*slot, v)
	w.n++
}

// next returns when the earliest slot ends.
func (w *wheel[T]) next() (at int64, ok bool) {
	if len(w.heap) == 0 {
		return 0, false
	}
	return w.heap[0] * w.width, true
}

// expire hands every slot that ends at or before now to f, which must not keep it.
func (w *wheel[T]) expire(now int64, f func([]T)) {
	for len(w.heap) > 0 && w.heap[0]*w.width <= now {
		tick := w.pop()
		slot := w.slots[tick]
		delete(w.slots, tick)
		w.n -= len(*slot)
		f(*slot)
		clear(*slot)
		*slot = (*slot)[:0]
		// A few slots are kept for reuse; more would hold the memory of the fullest moment for ever.
		if len(w.free) < 64 && cap(*slot) <= 1<<14 {
			w.free = append(w.free, slot)
		}
	}
}

func (w *wheel[T]) push(tick int64) {
	w.heap = append(w.heap, tick)
	for i := len(w.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if w.heap[parent] <= w.heap[i] {
			break
		}
		w.heap[parent], w.heap[i] = w.heap[i], w.heap[parent]
		i = parent
	}
}

func (w *wheel[T]) pop() int64 {
	least, n := w.heap[0], len(w.heap)-1
	w.heap[0] = w.heap[n]
	w.heap = w.heap[:n]
	for i := 0; ; {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && w.heap[child+1] < w.heap[child] {
			child++
		}
		if w.heap[i] <= w.heap[child] {
			break
		}
		w.heap[i], w.heap[child] = w.heap[child], w.heap[i]
		i = child
	}
	return least
}

// deque is a first-in first-out queue without a lock.
type deque[T any] struct {
	items []T
	head  int
}

func (q *deque[T]) len() int { return len(q.items) - q.head }

func (q *deque[T]) push(v ...T) {
	// The space of taken values is reused once it is more than half.
	if q.head > len(q.items)/2 && q.head >= 1024 {
		q.items = slices.Delete(q.items, 0, q.head)
		q.head = 0
	}
	q.items = append(q.items, v...)
}

// pushFront puts v before all others.
func (q *deque[T]) pushFront(v ...T) {
	if q.head >= len(v) {
		q.head -= len(v)
		copy(q.items[q.head:], v)
		return
	}
	q.items = slices.Concat(v, q.items[q.head:])
	q.head = 0
}

// pop appends up to limit of the oldest to dst.
func (q *deque[T]) pop(dst []T, limit int) []T {
	n := min(limit, q.len())
	dst = append(dst, q.items[q.head:q.head+n]...)
	clear(q.items[q.head : q.head+n])
	q.head += n
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > 1<<16 {
			q.items = nil
		}
	}
	return dst
}
