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
	// Hex is lower case. HexUpper is upper case, sixteen digits with leading zeros.
	Hex
	HexUpper
	// Zeros is decimal, twenty digits with leading zeros.
	Zeros
)

// Form of a receipt.
type Form uint8

// Forms.
const (
	// TLVsAndText is the form of SMPP 3.4.
	TLVsAndText Form = iota
	TextOnly
	TLVsOnly
	// CSV is a list of id, stat, err and done, without names.
	CSV
)

// Quirks are the ways in which a message centre differs from the standard. The zero value follows the standard.
type Quirks struct {
	// IDs is the spelling of ids in responses, ReceiptIDs in the text of receipts, and ReceiptTLVIDs in their TLV.
	IDs, ReceiptIDs, ReceiptTLVIDs Spelling
	// PerSession counts ids for each session, so every session gives the same ids.
	PerSession bool
	// NoNUL omits the final zero of receipted_message_id. Form is the form of a receipt. Unmarked sets its esm_class to
	// 0.
	NoNUL    bool
	Form     Form
	Unmarked bool

	// Rate is how many units per second a session may submit; the answer to more is ESME_RTHROTTLED; 0: no limit.
	// Window is how many may be unanswered; the answer to more is ESME_RMSGQFUL; 0: no limit.
	Rate   int
	Window int

	// RejectBinds is how many binds are refused with ESME_RBINDFAIL before the first one is accepted.
	RejectBinds int
	// ResetAfter is after how many accepted units the server resets the connection of a session, before it answers
	// them; 0: never.
	ResetAfter int
	// HalfOpenAfter is after how many units a session becomes silent: the server still reads, but answers nothing, not
	// even enquire_link; 0: never.
	HalfOpenAfter int
	// ReadPause is a pause before every read.
	ReadPause time.Duration
	// DeliverWindow is how many deliver_sm of a session may be unanswered; 0: 100.
	DeliverWindow int
}

var spellings = map[string]Spelling{"decimal": Decimal, "hex": Hex, "hex-upper": HexUpper, "zeros": Zeros}

var forms = map[string]Form{"both": TLVsAndText, "text": TextOnly, "tlv": TLVsOnly, "csv": CSV}

// quirkNames are the names that ParseQuirks knows, with the function that sets each.
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

// QuirkNames returns the names that [ParseQuirks] knows, sorted.
func QuirkNames() []string {
	names := make([]string, 0, len(quirkNames))
	for n := range quirkNames {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// ParseQuirks parses a list such as `ids=hex,no-nul,window=10`.
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

// spell writes an id in a spelling.
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

// throttle is a token bucket that holds a tenth of a second. The zero value has no limit.
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

// refuses returns the status with which the message centre refuses a unit without handing it to the line.
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
