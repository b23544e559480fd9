// Package clientaddr finds the address of the client of an HTTP request that came through proxies.
package clientaddr

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Proxies are the ranges of addresses of our own proxies. X-Forwarded-For is believed only from them.
type Proxies []netip.Prefix

// mostForwarded is how many addresses of X-Forwarded-For are looked at, from the right: more proxies than anybody runs.
const mostForwarded = 16

// Of returns the address that a request comes from. Behind our own proxies it is the last address of X-Forwarded-For
// that is not a proxy's: the client can forge everything to the left of it. The zero address means that the request has
// none, as in tests.
func (p Proxies) Of(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	if !p.contain(addr) {
		return addr
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(forwarded) - 1; i >= max(0, len(forwarded)-mostForwarded); i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(forwarded[i]))
		if err != nil {
			break
		}
		if addr = a; !p.contain(a) {
			break
		}
	}
	return addr
}

// Sends reports whether one of our own proxies sends a request.
func (p Proxies) Sends(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && p.contain(from.Addr())
}

func (p Proxies) contain(a netip.Addr) bool {
	a = a.Unmap()
	for _, r := range p {
		if r.Contains(a) {
			return true
		}
	}
	return false
}
