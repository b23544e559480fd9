package stream

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// What an offset commit of a window says beside its offset, the base. It stands in the commit's metadata:
//
//	fanfare1:<head>                  [base, head) was declared: who takes over after a crash holds all of it for uncertain
//	fanfare1:<head>:settled:<marks>  the same, but of what marks name it says more exactly how it is
//
// A graceful hand-over has head = base, so that nothing is uncertain but what the marks call doubtful; what they call settled
// is passed over and the rest has not been touched.
type intent struct {
	head  int64
	marks marks
}

// fate is what is known of an offset.
type fate uint8

const (
	untouched fate = iota
	settled        // its outcome is acknowledged
	doubtful       // it may have been handed over
)

// mark is a run of offsets [from, to) of one fate.
type mark struct {
	from, to int64
	fate     fate
}

// marks are runs in ascending order that do not touch; what they leave out is untouched.
type marks []mark

// add appends an offset above all others. joined: no record lies between it and the last one added, which had the same fate.
func (m marks) add(offset int64, f fate, joined bool) marks {
	if f == untouched {
		return m
	}
	if n := len(m); n > 0 && joined {
		m[n-1].to = offset + 1
		return m
	}
	return append(m, mark{offset, offset + 1, f})
}

// at returns the fate of an offset and drops what lies below it: offsets are asked for in ascending order.
func (m *marks) at(offset int64) fate {
	for len(*m) > 0 && (*m)[0].to <= offset {
		*m = (*m)[1:]
	}
	if len(*m) > 0 && (*m)[0].from <= offset {
		return (*m)[0].fate
	}
	return untouched
}

const (
	intentPrefix  = "fanfare1:"
	settledPrefix = "settled:"
	// maxMarks bounds the marks in bytes. Kafka keeps 4,096 bytes of metadata (offset.metadata.max.bytes); a window of 2,000
	// in which every other record is settled has 2,000 runs of a byte each.
	maxMarks = 2900
)

// encode returns the metadata of a commit of base. When the marks do not find room they are left out, and head covers them:
// then they are uncertain, which is safe; complete is false.
func (in intent) encode(base int64) (metadata string, complete bool) {
	b := make([]byte, 0, 32)
	var runs []byte
	at := base
	for _, m := range in.marks {
		from := max(m.from, base)
		if m.to <= from {
			continue
		}
		if from > at {
			runs = appendRun(runs, from-at, untouched)
		}
		runs = appendRun(runs, m.to-from, m.fate)
		at = m.to
	}
	head, complete := max(in.head, base), true
	if len(runs) > maxMarks {
		head, runs, complete = max(head, at), nil, false
	}
	b = strconv.AppendInt(append(b, intentPrefix...), head, 10)
	if len(runs) > 0 {
		b = append(append(b, ':'), settledPrefix...)
		b = base64.RawURLEncoding.AppendEncode(b, runs)
	}
	return string(b), complete
}

func appendRun(b []byte, n int64, f fate) []byte {
	return binary.AppendUvarint(b, uint64(n)<<2|uint64(f))
}

// memberID is how a broker names a member: the client's name and a UUID, with dashes or without. A client that knows nothing of
// intents commits its own, which means none.
var memberID = regexp.MustCompile(`-([0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)

// parseIntent reads the metadata of a commit of base. Whatever is neither ours nor known to mean nothing is an error: to go on
// would be to guess what somebody else meant.
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
		length, f := int64(v>>2), fate(v&3)
		if n <= 0 || length <= 0 || length > 1<<40 || f > doubtful {
			return none, fmt.Errorf("metadata %.40q: a run of marks is broken", metadata)
		}
		if f != untouched {
			in.marks = append(in.marks, mark{at, at + length, f})
		}
		at += length
		runs = runs[n:]
	}
	return in, nil
}

// end is the offset above everything that the intent says something of.
func (in intent) end() int64 {
	if n := len(in.marks); n > 0 {
		return max(in.head, in.marks[n-1].to)
	}
	return in.head
}
