package window

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// intent is the content of the metadata of a window's offset commit. Its text is one of
//
//	fanfare1:<head>                   [base, head) is declared: after a crash the next owner calls all of it uncertain
//	fanfare1:<head>:settled:<states>  the same, but for the offsets whose state is given; those above head that are
//	                                  called doubtful are declared, too
//
// where base is the committed offset. When an owner gives a partition up in good order it commits head = base. Then
// only what the states call doubtful is uncertain; what they call settled is passed over, and the rest has not been
// touched.
type intent struct {
	head   int64
	states offsetStates
}

// offsetState is what one owner tells the next about an offset.
type offsetState uint8

const (
	untouched offsetState = iota
	settled               // its outcome is acknowledged
	doubtful              // it may have been handed over
)

// stateRun is a run of offsets [from, to) that have the same state.
type stateRun struct {
	from, to int64
	state    offsetState
}

// offsetStates are runs in ascending order with gaps between them. Offsets in no run are untouched.
type offsetStates []stateRun

// add appends an offset above all others. joined says that the record before it was added last and had the same state.
func (m offsetStates) add(offset int64, f offsetState, joined bool) offsetStates {
	if f == untouched {
		return m
	}
	if n := len(m); n > 0 && joined {
		m[n-1].to = offset + 1
		return m
	}
	return append(m, stateRun{offset, offset + 1, f})
}

// at returns the state of an offset and drops the runs below it. Callers ask in ascending order.
func (m *offsetStates) at(offset int64) offsetState {
	for len(*m) > 0 && (*m)[0].to <= offset {
		*m = (*m)[1:]
	}
	if len(*m) > 0 && (*m)[0].from <= offset {
		return (*m)[0].state
	}
	return untouched
}

const (
	intentPrefix  = "fanfare1:"
	settledPrefix = "settled:"
	// maxStateBytes is the most bytes of states before base64. Kafka keeps 4,096 bytes of metadata
	// (offset.metadata.max.bytes). A window of 2,000 in which every other record is settled has 2,000 runs of a byte
	// each.
	maxStateBytes = 2900
)

// encode returns the metadata of a commit of base. When the states are too long they are left out and head is raised
// above them, so that all of them are uncertain, which is safe; then complete is false.
func (in intent) encode(base int64) (metadata string, complete bool) {
	b := make([]byte, 0, 32)
	var runs []byte
	at := base
	for _, m := range in.states {
		from := max(m.from, base)
		if m.to <= from {
			continue
		}
		if from > at {
			runs = appendRun(runs, from-at, untouched)
		}
		runs = appendRun(runs, m.to-from, m.state)
		at = m.to
	}
	head, complete := max(in.head, base), true
	if len(runs) > maxStateBytes {
		head, runs, complete = max(head, at), nil, false
	}
	b = strconv.AppendInt(append(b, intentPrefix...), head, 10)
	if len(runs) > 0 {
		b = append(append(b, ':'), settledPrefix...)
		b = base64.RawURLEncoding.AppendEncode(b, runs)
	}
	return string(b), complete
}

func appendRun(b []byte, n int64, f offsetState) []byte {
	return binary.AppendUvarint(b, uint64(n)<<2|uint64(f))
}

// memberID matches the ids that brokers give to members: the client's name and a UUID, with dashes or without. A client
// that does not write intents commits its member id as metadata; that means there is no intent.
var memberID = regexp.MustCompile(`-([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)

// parseIntent reads the metadata of a commit of base. Metadata that is neither an intent nor known to mean none is an
// error: going on would be a guess.
func parseIntent(metadata string, base int64) (intent, error) {
	none := intent{head: base}
	rest, ours := strings.CutPrefix(metadata, intentPrefix)
	if !ours {
		if metadata == "" || memberID.MatchString(metadata) {
			return none, nil
		}
		return none, fmt.Errorf("metadata %.40q is not ours", metadata)
	}
	digits, tail, more := strings.Cut(rest, ":")
	head, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || head < base || digits != strconv.FormatInt(head, 10) {
		return none, fmt.Errorf("metadata %.40q: want a head of at least %d", metadata, base)
	}
	in := intent{head: head}
	if !more {
		return in, nil
	}
	text, ok := strings.CutPrefix(tail, settledPrefix)
	runs, err := base64.RawURLEncoding.DecodeString(text)
	if !ok || err != nil || len(runs) == 0 {
		return none, fmt.Errorf("metadata %.40q: want %s and base64", metadata, settledPrefix)
	}
	for at := base; len(runs) > 0; {
		v, n := binary.Uvarint(runs)
		length, f := int64(v>>2), offsetState(v&3)
		if n <= 0 || length <= 0 || length > 1<<40 || f > doubtful {
			return none, fmt.Errorf("metadata %.40q: a run of states is broken", metadata)
		}
		if f != untouched {
			in.states = append(in.states, stateRun{at, at + length, f})
		}
		at += length
		runs = runs[n:]
	}
	return in, nil
}

// end is the offset above everything that the intent mentions.
func (in intent) end() int64 {
	if n := len(in.states); n > 0 {
		return max(in.head, in.states[n-1].to)
	}
	return in.head
}
