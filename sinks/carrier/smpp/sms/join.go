package sms

import (
	"strings"
	"time"
)

// Joiner joins the parts of texts. It keeps a limited number of incomplete texts. If there are more, or if a text stays
// incomplete for too long, it returns the parts that it has. It must not be used by several goroutines at a time.
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

// Joined is a text, or as much of it as has come, with the caller's value for each part.
type Joined[T any] struct {
	Text  string
	Units []T
	// Have is how many of the Total parts have come. It is less than Total if the rest did not come in time.
	Have, Total int
}

// NewJoiner returns a joiner that keeps at most most incomplete texts, each for at most wait.
func NewJoiner[T any](most int, wait time.Duration) *Joiner[T] {
	return &Joiner[T]{most: most, wait: wait, open: map[joinKey]*open[T]{}}
}

// Add takes one part. It returns the text once all parts have come. If a part comes again, because the message centre
// repeats it, it replaces the first one, and the values of both are kept.
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

// Expire returns the texts that have waited for too long, and the time of the next call; ok is false if no text waits.
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
