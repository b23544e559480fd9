package edge

import (
	"encoding/binary"
	"hash/maphash"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// What one address may do. A phone network lets thousands of phones share an address, so a known token costs little; an unknown one is
// a guess and costs as much as many known ones.
const (
	limitRate    = 1000 // units a second
	limitBurst   = 5000
	costKnown    = 1
	costGuess    = 50 // 20 guesses a second, after a first 100
	limitSlots   = 1 << 14
	ipv6Prefix   = 64 // one household or one server
	maxForwarded = 16
)

// limiter bounds what one address may do, with a fixed amount of memory: addresses that share a slot share its bucket, and nobody knows
// which do.
type limiter struct {
	seed  maphash.Seed
	mu    sync.Mutex
	slots [limitSlots]struct {
		last   int64 // milliseconds
		tokens float64
	}
}

func newLimiter() *limiter { return &limiter{seed: maphash.MakeSeed()} }

// place is what stands for an address.
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

// placeAndAgent is what stands for an address and the program at it.
func (l *limiter) placeAndAgent(place uint64, agent string) uint64 {
	var h maphash.Hash
	h.SetSeed(l.seed)
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], place)
	_, _ = h.Write(b[:])
	_, _ = h.WriteString(agent[:min(len(agent), maxAgent)])
	return h.Sum64()
}

// allows takes cost from the bucket of a place. Below zero nothing is allowed until it has filled up again.
func (l *limiter) allows(place uint64, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fill(place, now) > 0
}

func (l *limiter) spend(place uint64, cost float64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill(place, now)
	l.slots[place%limitSlots].tokens -= cost
}

// fill returns the units in the bucket as of now.
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

// client is the address that a request comes from. Behind proxies of ours it is the last one of X-Forwarded-For that is none of theirs:
// what stands further left was written by the client.
func (s *Server) client(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	if !s.ours(addr) {
		return addr
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= max(0, len(forwarded)-maxForwarded); i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		if addr = a; !s.ours(a) {
			break
		}
	}
	return addr
}

func (s *Server) ours(a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range s.cfg.Proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
