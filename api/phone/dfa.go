package phone

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
)

// A dfa matches strings of the digits 0 to 9 against a regular expression, one look-up per digit.
type dfa struct {
	next   [][10]uint16 // from state 0 nothing can match any more
	accept []bool
}

const (
	dead  = 0
	start = 1
	// maxStates bounds the memory of a pattern, about 20 bytes a state. The largest one of the metadata has some
	// hundreds.
	maxStates = 20_000
)

var errPattern = errors.New("pattern does not depend on digits alone")

// compile converts a pattern to a table.
func compile(pattern string) (*dfa, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, err
	}
	b := builder{prog: prog, ids: map[string]uint16{}}
	b.d.next, b.d.accept = [][10]uint16{{}}, []bool{false}
	first, err := b.closure([]uint32{uint32(prog.Start)})
	if err != nil {
		return nil, err
	}
	b.state(first)
	for i := start; i < len(b.sets); i++ {
		for digit := range 10 {
			var to []uint32
			for _, pc := range b.sets[i] {
				if inst := &prog.Inst[pc]; inst.Op != syntax.InstMatch && inst.MatchRune('0'+rune(digit)) {
					to = append(to, inst.Out)
				}
			}
			if to, err = b.closure(to); err != nil {
				return nil, err
			}
			b.d.next[i][digit] = b.state(to)
		}
		if len(b.sets) > maxStates {
			return nil, fmt.Errorf("%w: too many states", errPattern)
		}
	}
	return &b.d, nil
}

// builder converts sets of instructions of the regexp program to states, in the order in which they are reached.
type builder struct {
	prog *syntax.Prog
	d    dfa
	sets [][]uint32 // by state
	ids  map[string]uint16
}

// closure returns the instructions that read a digit or match, among those reachable without reading.
func (b *builder) closure(from []uint32) ([]uint32, error) {
	var out []uint32
	seen := map[uint32]bool{}
	for len(from) > 0 {
		pc := from[len(from)-1]
		from = from[:len(from)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		switch inst := &b.prog.Inst[pc]; inst.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			from = append(from, inst.Out, inst.Arg)
		case syntax.InstCapture, syntax.InstNop:
			from = append(from, inst.Out)
		case syntax.InstEmptyWidth:
			return nil, fmt.Errorf("%w: it has an assertion", errPattern)
		case syntax.InstFail:
		case syntax.InstMatch, syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			out = append(out, pc)
		}
	}
	slices.Sort(out)
	return out, nil
}

// state returns the number of a set, and adds the set when it is new.
func (b *builder) state(set []uint32) uint16 {
	if len(set) == 0 {
		return dead
	}
	var key strings.Builder
	for _, pc := range set {
		fmt.Fprintf(&key, "%d,", pc)
	}
	if id, ok := b.ids[key.String()]; ok {
		return id
	}
	if len(b.sets) == 0 {
		b.sets = append(b.sets, nil) // dead
	}
	id := uint16(len(b.sets))
	b.ids[key.String()] = id
	b.sets = append(b.sets, set)
	b.d.next = append(b.d.next, [10]uint16{})
	b.d.accept = append(b.d.accept, slices.ContainsFunc(set, func(pc uint32) bool { return b.prog.Inst[pc].Op == syntax.InstMatch }))
	return id
}

// full reports whether the pattern matches all of s. Only digits match.
func (d *dfa) full(s []byte) bool {
	at := uint16(start)
	for _, c := range s {
		c -= '0'
		if c > 9 {
			return false
		}
		if at = d.next[at][c]; at == dead {
			return false
		}
	}
	return d.accept[at]
}

// prefix reports whether the pattern matches the beginning of s.
func (d *dfa) prefix(s []byte) bool {
	at := uint16(start)
	for _, c := range s {
		if d.accept[at] {
			return true
		}
		c -= '0'
		if c > 9 {
			return false
		}
		if at = d.next[at][c]; at == dead {
			return false
		}
	}
	return d.accept[at]
}
