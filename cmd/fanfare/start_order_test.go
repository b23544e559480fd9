package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// permutations returns all orders of names.
func permutations(names []string) [][]string {
	if len(names) == 0 {
		return [][]string{nil}
	}
	var all [][]string
	for i, first := range names {
		rest := append(append([]string{}, names[:i]...), names[i+1:]...)
		for _, p := range permutations(rest) {
			all = append(all, append([]string{first}, p...))
		}
	}
	return all
}

// The real services become reachable in every order, while a process with all roles starts. It becomes ready each time.
// In the first order of each service that comes last, tables and topics do not exist yet.
func TestIntegrationStartOrder(t *testing.T) {
	s := newGatedServices(t)
	fresh := map[string]bool{}
	existing := s.cfg.Prefix
	for _, order := range permutations([]string{"kafka", "redis", "store", "clickhouse"}) {
		last := order[len(order)-1]
		s.cfg.Prefix = existing
		if !fresh[last] {
			fresh[last] = true
			s.cfg.Prefix = fmt.Sprintf("order%s%s.", last, shortID())
		}
		for _, g := range s.gates {
			g.setShut(true)
		}
		began := time.Now()
		p := s.serve(t)
		for _, name := range order {
			// this spreads the starts; the process must become ready after any order of events
			time.Sleep(150 * time.Millisecond)
			s.gates[name].setShut(false)
		}
		p.until(t, 60*time.Second, isReady)
		t.Logf("%s: ready after %s", strings.Join(order, ", "), time.Since(began).Round(time.Millisecond))
		p.stopWithin(t)
	}
}
