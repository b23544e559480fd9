package smsc

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/sinks/carrier/smpp/pdu"
)

// Spelling of a message id.
type Spelling uint8

// Spellings.
const (
	Decimal Spelling = iota
	// Hex in lower case; HexUpper of sixteen digits with zeros before it.
	Hex
	HexUpper
	// Zeros: decimal of twenty digits with zeros before it.
	Zeros
)

// Form of a receipt.
type Form uint8

// Forms.
const (
	// TLVs and text, as SMPP 3.4 wants it.
	TLVsAndText Form = iota
	TextOnly
	TLVsOnly
	// CSV: a list of id, stat, err and done, without names.
	CSV
)

// Quirks are how a message centre differs from the standard. The zero value does not.
type Quirks struct {
	// IDs is how an answer spells an id, ReceiptIDs how a receipt's text does, and ReceiptTLVIDs how its parameter
	// does.
	IDs, ReceiptIDs, ReceiptTLVIDs Spelling
	// PerSession: ids are counted per session, so that each is given once on every session.
	PerSession bool
	// NoNUL: receipted_message_id lacks its final zero. Form is what a receipt consists of. Unmarked: its esm_class is
	// 0.
	NoNUL    bool
	Form     Form
	Unmarked bool

	// Rate is the most units per second and session, beyond which they are answered with ESME_RTHROTTLED; 0: no limit.
	// Window is the most without an answer, beyond which it is ESME_RMSGQFUL; 0: no limit.
	Rate   int
	Window int

	// RejectBinds refuses that many binds, with ESME_RBINDFAIL, before the first is accepted.
	RejectBinds int
	// ResetAfter resets the connection of a session after that many units were taken, and before they are answered; 0:
	// never.
	ResetAfter int
	// HalfOpenAfter lets a session fall silent after that many units: it reads on, and answers nothing, enquire_link
	// neither; 0: never.
	HalfOpenAfter int
	// ReadPause is waited before every read.
	ReadPause time.Duration
	// DeliverWindow is the most deliver_sm without an answer on a session; 0: 100.
	DeliverWindow int
}

var spellings = map[string]Spelling{"decimal": Decimal, "hex": Hex, "hex-upper": HexUpper, "zeros": Zeros}

var forms = map[string]Form{"both": TLVsAndText, "text": TextOnly, "tlv": TLVsOnly, "csv": CSV}

// quirkNames are the names that ParseQuirks knows, with what each takes.
var quirkNames = map[string]func(q *Quirks, value string) error{
	"ids":             func(q *Quirks, v string) error { return word(&q.IDs, spellings, v) },
	"receipt-ids":     func(q *Quirks, v string) error { return word(&q.ReceiptIDs, spellings, v) },
	"tlv-ids":         func(q *Quirks, v string) error { return word(&q.ReceiptTLVIDs, spellings, v) },
	"receipts":        func(q *Quirks, v string) error { return word(&q.Form, forms, v) },
	"per-session":     func(q *Quirks, v string) error { return flag(&q.PerSession, v) },
	"no-nul":          func(q *Quirks, v string) error { return flag(&q.NoNUL, v) },
	"unmarked":        func(q *Quirks, v string) error { return flag(&q.Unmarked, v) },
	"rate":            func(q *Quirks, v string) error { return number(&q.Rate, v) },
	"window":          func(q *Quirks, v string) error { return number(&q.Window, v) },
	"reject-binds":    func(q *Quirks, v string) error { return number(&q.RejectBinds, v) },
	"reset-after":     func(q *Quirks, v string) error { return number(&q.ResetAfter, v) },
	"half-open-after": func(q *Quirks, v string) error { return number(&q.HalfOpenAfter, v) },
	"deliver-window":  func(q *Quirks, v string) error { return number(&q.DeliverWindow, v) },
	"read-pause": func(q *Quirks, v string) (err error) {
		q.ReadPause, err = time.ParseDuration(v)
		return err
	},
}

// QuirkNames are the names that [ParseQuirks] knows, sorted.
func QuirkNames() []string {
	names := make([]string, 0, len(quirkNames))
	for n := range quirkNames {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// ParseQuirks reads a list such as `ids=hex,no-nul,window=10`.
func ParseQuirks(list string) (q Quirks, err error) {
	for part := range strings.SplitSeq(list, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if name == "" {
			continue
		}
		set, ok := quirkNames[name]
		if !ok {
			return Quirks{}, fmt.Errorf("quirk %q: want one of %s", name, strings.Join(QuirkNames(), ", "))
		}
		if err := set(&q, value); err != nil {
			return Quirks{}, fmt.Errorf("quirk %s: %w", name, err)
		}
	}
	return q, nil
}

func word[T any](to *T, words map[string]T, value string) error {
	v, ok := words[value]
	if !ok {
		names := make([]string, 0, len(words))
		for n := range words {
			names = append(names, n)
		}
		slices.Sort(names)
		return fmt.Errorf("got %q, want one of %s", value, strings.Join(names, ", "))
	}
	*to = v
	return nil
}

func flag(to *bool, value string) error {
	if value == "" {
		*to = true
		return nil
	}
	v, err := strconv.ParseBool(value)
	*to = v
	return err
}

func number(to *int, value string) error {
	v, err := strconv.Atoi(value)
	if err == nil && v < 0 {
		err = fmt.Errorf("got %d, want 0 or more", v)
	}
	*to = v
	return err
}

// spell spells an id.
func (s Spelling) spell(id uint64) string {
	switch s {
	case Hex:
		return strconv.FormatUint(id, 16)
	case HexUpper:
		return fmt.Sprintf("%016X", id)
	case Zeros:
		return fmt.Sprintf("%020d", id)
	default:
		return strconv.FormatUint(id, 10)
	}
}

// throttle is a token bucket of a tenth of a second. The zero value has no limit.
type throttle struct {
	tokens float64
	last   time.Time
}

func (t *throttle) take(rate int, now time.Time) bool {
	if rate <= 0 {
		return true
	}
	burst := max(1, float64(rate)/10)
	if t.last.IsZero() {
		t.tokens = burst
	} else {
		t.tokens = min(burst, t.tokens+now.Sub(t.last).Seconds()*float64(rate))
	}
	t.last = now
	if t.tokens < 1 {
		return false
	}
	t.tokens--
	return true
}

// refuses returns the status by which a unit is refused before the line sees it.
func (q *Quirks) refuses(t *throttle, unanswered int, now time.Time) pdu.Status {
	switch {
	case !t.take(q.Rate, now):
		return pdu.Throttled
	case q.Window > 0 && unanswered >= q.Window:
		return pdu.QueueFull
	default:
		return pdu.OK
	}
}
