// Package dlr parses delivery receipts in the forms that message centres write: parameters, the text of SMPP 3.4's
// appendix B in its many spellings, and lists of fields without names. Package codes has the meanings of the fields.
package dlr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"fanfare/sinks/carrier/smpp/pdu"
)

// Layout is the layout of an account's receipts. The zero value is the layout of appendix B, `id:… stat:… err:…`.
type Layout struct {
	// Separator and Fields describe a list without names, such as `,` and [id, stat, err, done]. Fields may be id,
	// stat, err, done and submit; fields with other names are skipped.
	Separator string
	Fields    []string
	// Location is the time zone of the times, which name none. nil: UTC.
	Location *time.Location
}

// Receipt has the fields of a receipt.
type Receipt struct {
	// IDs are the ids of the message: first that of the parameter, then that of the text if it is spelled differently.
	IDs []string
	// State is the number of message_state, or the word of `stat` if there is no such parameter.
	State string
	// Stat is the word in the text, even if there is a message_state.
	Stat string
	// Err is `err` in the text, or the number of network_error_code.
	Err string
	// Done is the time at which the message reached its state; zero if the receipt does not name it.
	Done time.Time
}

// Marked reports whether a deliver_sm or data_sm is a receipt, not a message from a person.
//
// The standard marks receipts in esm_class, but some message centres do not. So a unit is also a receipt if it has the
// parameter receipted_message_id, or if its text begins with an id and has a state.
func Marked(m *pdu.Message) bool {
	switch m.ESMClass & pdu.ESMType {
	case pdu.ESMReceipt, pdu.ESMIntermediate:
		return true
	case 0:
		if _, ok := m.TLVs.Get(pdu.TagReceiptedMessageID); ok {
			return true
		}
		return looksLike(m.Text())
	default: // an acknowledgement of the handset, or another kind of message
		return false
	}
}

// Parse parses a receipt; ok is false if the unit is not a receipt. A receipt without an id or a state is still a
// receipt.
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

// looksLike reports whether a text is a receipt although the unit is not marked as one.
func looksLike(s string) bool {
	return len(s) > 3 && strings.EqualFold(s[:3], "id:") && strings.Contains(strings.ToLower(s), " stat:")
}

// parameters reads the TLVs.
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

// names are the fields of appendix B, with other spellings of each.
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

// text parses `name:value name:value`. The text after `text:` is the beginning of the message and may contain anything.
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
		if !found { // a word that is not a field
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

// list parses fields without names.
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

// layouts of times by length: YYMMDDhhmm of the standard, with seconds, and with the century.
var layouts = map[int]string{10: "0601021504", 12: "060102150405", 14: "20060102150405", 19: "2006-01-02 15:04:05"}

// parseTime parses a time; zero if it is none. Seconds since 1970 also have ten digits. If a number can be a date in
// the layout of the standard, it is read as one.
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

// IDs is how an account spells message ids: some use hexadecimal in the answer to a hand-over and decimal in the
// receipt, or the reverse.
type IDs uint8

// Spellings.
const (
	// IDsAny tries all spellings. It is right if the recipient's number distinguishes two messages whose ids look
	// alike.
	IDsAny IDs = iota
	// IDsSame is the spelling of the answer, except for leading zeros.
	IDsSame
	// IDsHexToDec: hexadecimal in the receipt, decimal in the answer.
	IDsHexToDec
	// IDsDecToHex: decimal in the receipt, hexadecimal in the answer.
	IDsDecToHex
)

// maxIDs is how many spellings a receipt may have.
const maxIDs = 8

// Spellings returns the ids in the spellings that the answer may have used, most likely first.
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
