package main

import (
	"math"
	"time"
)

// histogram counts times in buckets whose bounds grow by 2 %, from 0.1 ms to days, in little memory.
type histogram struct {
	counts [1200]uint64
	n      uint64
	most   time.Duration
}

const (
	growth   = 1.02
	smallest = 100 * time.Microsecond
)

func (h *histogram) add(d time.Duration) {
	i := 0
	if d > smallest {
		i = min(len(h.counts)-1, 1+int(math.Log(float64(d)/float64(smallest))/math.Log(growth)))
	}
	h.counts[i]++
	h.n++
	h.most = max(h.most, d)
}

// quantile returns a time that a share q of all is not above, at most 2 % too great.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(h.n)))
	for i, n := range h.counts {
		if n >= rank {
			return min(h.most, time.Duration(float64(smallest)*math.Pow(growth, float64(i))))
		}
		rank -= n
	}
	return h.most
}
