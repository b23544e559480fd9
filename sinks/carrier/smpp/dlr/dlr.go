// Package dlr reads delivery receipts as message centres write them: parameters, the text of SMPP 3.4's appendix B in
// its many spellings, and lists of fields without names. It says what stands there; package codes says what it means.
package dlr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/sinks/carrier/smpp/pdu"
)

// Layout is how an account's receipts are laid out. The zero value is the layout of appendix B, `id:… stat:… err:…`.
type Layout struct {
	// Separator and Fields of a list without names, such as `,` and [id, stat, err, done]. Fields may be id, stat, err,
	// done and submit; any other name is skipped.
	Separator string
	Fields    []string
	// Location of the times in it, which have no zone. nil: UTC.
	Location *time.Location
}

// Receipt is what a receipt says.
type Receipt struct {
	// IDs of the message: the parameter's first, then the text's if it is spelled differently.
	IDs []string
	// State is the word of `stat`, or the number of message_state, which wins.
	State string
	// Stat is the word of the text, whatever the parameter says.
	Stat string
	// Err is the text's `err`, or the number of network_error_code.
	Err string
	// Done is when the message reached its state; zero when the receipt does not say.
	Done time.Time
}

// Marked reports whether a deliver_sm or data_sm is a receipt, and no message that somebody wrote.
//
// The unit says so in esm_class, as it should. Some message centres do not: then it is one if it has the parameter
// receipted_message_id, or if its text begins with an id and has a state.
func Marked(m *pdu.Message) bool {
	switch m.ESMClass & pdu.ESMType {
	case pdu.ESMReceipt, pdu.ESMIntermediate:
		return true
	case 0:
		if _, ok := m.TLVs.Get(pdu.TagReceiptedMessageID); ok {
			return true
		}
		return looksLike(m.Text())
	default: // a handset's acknowledgement, or a message of another kind
		return false
	}
}

// Parse reads a receipt; ok is false when it is none. One that names no message, or no state, is a receipt
// nevertheless.
func Parse(m *pdu.Message, layout *Layout) (r Receipt, ok bool) {
	if !Marked(m) {
		return Receipt{}, false
	}
	r.parameters(m.TLVs)
	if len(layout.Fields) > 0 {
		r.list(m.Text(), layout)
	} else {
		r.text(m.Text(), layout)
	}
	if r.State == "" && m.ESMClass&pdu.ESMType == pdu.ESMIntermediate {
		r.State = "ENROUTE"
	}
	if r.State == "" {
		r.State = r.Stat
	}
	return r, true
}

// looksLike reports whether a text that is not marked is a receipt all the same.
func looksLike(s string) bool {
	return len(s) > 3 && strings.EqualFold(s[:3], "id:") && strings.Contains(strings.ToLower(s), " stat:")
}

// parameters reads what the TLVs say.
func (r *Receipt) parameters(t pdu.TLVs) {
	for tag, v := range t.All() {
		switch tag {
		case pdu.TagReceiptedMessageID:
			// The final zero may be missing.
			r.addID(strings.TrimRight(v, "\x00"))
		case pdu.TagMessageState:
			if len(v) == 1 {
				r.State = strconv.Itoa(int(v[0]))
			}
		case pdu.TagNetworkError:
			if len(v) == 3 {
				r.Err = strconv.Itoa(int(v[1])<<8 | int(v[2]))
			}
		default:
		}
	}
}

func (r *Receipt) addID(id string) {
	if id = strings.TrimSpace(id); id != "" && !slices.Contains(r.IDs, id) {
		r.IDs = append(r.IDs, id)
	}
}

// names of the fields of appendix B, and how else they are written.
var names = []struct {
	name  string
	field string
}{
	{"id:", "id"},
	{"sub:", ""},
	{"dlvrd:", ""},
	{"submit date:", ""},
	{"submit_date:", ""},
	{"done date:", "done"},
	{"done_date:", "done"},
	{"donedate:", "done"},
	{"stat:", "stat"},
	{"status:", "stat"},
	{"err:", "err"},
	{"error:", "err"},
	{"text:", "text"},
}

// text reads `name:value name:value`. What stands after `text:` is the beginning of the message, where anything may
// stand.
func (r *Receipt) text(s string, l *Layout) {
	for s != "" {
		s = strings.TrimLeft(s, " \r\n\t")
		field, rest, found := "", "", false
		for _, n := range names {
			if len(s) >= len(n.name) && strings.EqualFold(s[:len(n.name)], n.name) {
				field, rest, found = n.field, s[len(n.name):], true
				break
			}
		}
		if field == "text" {
			return
		}
		if !found { // a word that is no field
			_, s, _ = strings.Cut(s, " ")
			continue
		}
		value := rest
		if end := strings.IndexAny(rest, " \r\n\t"); end >= 0 {
			value, s = rest[:end], rest[end:]
		} else {
			s = ""
		}
		r.set(field, value, l)
	}
}

// list reads fields without names.
func (r *Receipt) list(s string, l *Layout) {
	sep := l.Separator
	if sep == "" {
		sep = ","
	}
	values := strings.Split(s, sep)
	for i, field := range l.Fields {
		if i < len(values) {
			r.set(field, strings.Trim(values[i], " \"'\r\n\t"), l)
		}
	}
}

func (r *Receipt) set(field, value string, l *Layout) {
	switch field {
	case "id":
		r.addID(value)
	case "stat":
		r.Stat = value
	case "err":
		if value != "" {
			r.Err = value
		}
	case "done":
		r.Done = parseTime(value, l.Location)
	default:
	}
}

// layouts of times, by their length: YYMMDDhhmm as the standard has it, with seconds, and with the century.
var layouts = map[int]string{10: "0601021504", 12: "060102150405", 14: "20060102150405", 19: "2006-01-02 15:04:05"}

// parseTime reads a time; zero when it is none. Seconds since 1970 have ten digits too: what can be a date in the
// standard's layout is taken for one.
func parseTime(s string, in *time.Location) time.Time {
	if in == nil {
		in = time.UTC
	}
	layout, ok := layouts[len(s)]
	if !ok {
		return time.Time{}
	}
	t, err := time.ParseInLocation(layout, s, in)
	if err != nil {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && len(s) == 10 {
			return time.Unix(n, 0)
		}
		return time.Time{}
	}
	return t
}

// IDs says how an account spells the ids of its messages: some say them in hexadecimal in the answer to a hand-over and
// in decimal in the receipt, or the reverse.
type IDs uint8

// Spellings.
const (
	// IDsAny: whatever may be meant. Right where the number of the recipient tells two messages apart whose ids look
	// alike.
	IDsAny IDs = iota
	// IDsSame: as in the answer, but for zeros before it.
	IDsSame
	// IDsHexToDec: the receipt has hexadecimal, the answer had decimal.
	IDsHexToDec
	// IDsDecToHex: the receipt has decimal, the answer had hexadecimal.
	IDsDecToHex
)

// maxIDs bounds the spellings of one receipt.
const maxIDs = 8

// Spellings returns the ids as the answer may have spelled them, the likeliest first.
func (r *Receipt) Spellings(ids IDs) []string {
	out := make([]string, 0, 4)
	add := func(s string) {
		if s != "" && len(out) < maxIDs && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, id := range r.IDs {
		switch ids {
		case IDsHexToDec:
			if n, err := strconv.ParseUint(id, 16, 64); err == nil {
				add(strconv.FormatUint(n, 10))
			}
		case IDsDecToHex:
			if n, err := strconv.ParseUint(id, 10, 64); err == nil {
				add(strconv.FormatUint(n, 16))
				add(fmt.Sprintf("%X", n))
				add(fmt.Sprintf("%08x", n))
				add(fmt.Sprintf("%08X", n))
			}
		default:
		}
		add(id)
		if bare := strings.TrimLeft(id, "0"); bare != "" {
			add(bare)
		}
		if ids != IDsAny {
			continue
		}
		if n, err := strconv.ParseUint(id, 16, 64); err == nil {
			add(strconv.FormatUint(n, 10))
		}
		if n, err := strconv.ParseUint(id, 10, 64); err == nil {
			add(strconv.FormatUint(n, 16))
			add(strconv.FormatUint(n, 10))
		}
	}
	return out
}
