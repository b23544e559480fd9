package edge

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// The rate limit of one address. Thousands of phones of one network can share an address, so a valid token costs
// little. An invalid token is a guess and costs as much as 50 valid ones.
const (
	limitRate  = 1000 // units a second
	limitBurst = 5000
	costKnown  = 1
	costGuess  = 50 // a burst of 100 guesses, then 20 a second
	limitSlots = 1 << 14
	ipv6Prefix = 64 // one household or one server
)

// limiter is a rate limit by address with a fixed amount of memory: addresses that hash to the same slot share a
// bucket. The hash is seeded, so an attacker cannot choose an address that shares another's bucket.
type limiter struct {
	seed  maphash.Seed
	mu    sync.Mutex
	slots [limitSlots]struct {
		last   int64 // milliseconds
		tokens float64
	}
}

func newLimiter() *limiter { return &limiter{seed: maphash.MakeSeed()} }

// place returns the hash of an address (of IPv6, of its /64).
func (l *limiter) place(a netip.Addr) uint64 {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(ipv6Prefix); err == nil {
			a = p.Addr()
		}
	}
	b := a.As16()
	return maphash.Bytes(l.seed, b[:])
}

// placeAndAgent returns the hash of an address and a user agent.
func (l *limiter) placeAndAgent(place uint64, agent string) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], place)
	_, _ = h.Write(b[:])
	_, _ = h.WriteString(agent[:min(len(agent), maxAgent)])
	return h.Sum64()
}

// allows reports whether the bucket of a place is above zero. It takes nothing from it.
func (l *limiter) allows(place uint64, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fill(place, now) > 0
}

// spend takes cost from the bucket of a place, which may fall below zero.
func (l *limiter) spend(place uint64, cost float64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill(place, now)
	l.slots[place%limitSlots].tokens -= cost
}

// fill refills the bucket of a place up to now and returns the units in it.
func (l *limiter) fill(place uint64, now time.Time) float64 {
	s := &l.slots[place%limitSlots]
	ms := now.UnixMilli()
	switch {
	case s.last == 0:
		s.tokens = limitBurst
	case ms > s.last:
		s.tokens = min(limitBurst, s.tokens+float64(ms-s.last)*limitRate/1000)
	}
	s.last = max(s.last, ms)
	return s.tokens
}
