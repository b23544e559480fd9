package sms

import (
	"strings"
	"time"
)

// Joiner joins the parts of texts. It keeps at most a fixed number of texts whose parts have not all come; when there
// are more, and when parts have waited for too long, it hands back what it has. It is not safe for use by several
// goroutines.
type Joiner[T any] struct {
	most int
	wait time.Duration
	open map[joinKey]*open[T]
}

type joinKey struct {
	from, to string
	ref      uint16
	total    int
}

type open[T any] struct {
	began time.Time
	texts []string
	units []T
	have  []bool
	left  int
}

// Joined is a text, or as many of its parts as have come, with what the caller gave for each of them.
type Joined[T any] struct {
	Text  string
	Units []T
	// Have of Total parts. They differ when the others did not come in time.
	Have, Total int
}

// NewJoiner returns a joiner that waits that long for the parts of at most that many texts.
func NewJoiner[T any](most int, wait time.Duration) *Joiner[T] {
	return &Joiner[T]{most: most, wait: wait, open: map[joinKey]*open[T]{}}
}

// Add takes one part. It returns the text once all parts are there. A part that is there already, as when the message
// centre sends it again, replaces the one before; the caller's unit for that one is kept too.
func (j *Joiner[T]) Add(from, to string, c Concat, s string, unit T, now time.Time) (whole []Joined[T]) {
	if c.Total == 0 {
		return []Joined[T]{{s, []T{unit}, 1, 1}}
	}
	k := joinKey{from, to, c.Ref, c.Total}
	o := j.open[k]
	if o == nil {
		if len(j.open) >= j.most {
			whole = append(whole, j.oldest())
		}
		o = &open[T]{began: now, texts: make([]string, c.Total), have: make([]bool, c.Total), left: c.Total}
		j.open[k] = o
	}
	o.texts[c.Number-1] = s
	o.units = append(o.units, unit)
	if !o.have[c.Number-1] {
		o.have[c.Number-1] = true
		o.left--
	}
	if o.left == 0 {
		delete(j.open, k)
		whole = append(whole, o.joined())
	}
	return whole
}

// Expire returns what has waited for too long, and when to look again; ok is false when nothing waits.
func (j *Joiner[T]) Expire(now time.Time) (late []Joined[T], next time.Time, ok bool) {
	for k, o := range j.open {
		if end := o.began.Add(j.wait); !now.Before(end) {
			delete(j.open, k)
			late = append(late, o.joined())
		} else if !ok || end.Before(next) {
			next, ok = end, true
		}
	}
	return late, next, ok
}

func (j *Joiner[T]) oldest() Joined[T] {
	var first joinKey
	var at time.Time
	for k, o := range j.open {
		if at.IsZero() || o.began.Before(at) {
			first, at = k, o.began
		}
	}
	o := j.open[first]
	delete(j.open, first)
	return o.joined()
}

func (o *open[T]) joined() Joined[T] {
	return Joined[T]{strings.Join(o.texts, ""), o.units, len(o.have) - o.left, len(o.have)}
}
