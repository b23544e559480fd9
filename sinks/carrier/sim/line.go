package sim

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// timeFormat is RFC 3339 with milliseconds, in UTC.
const timeFormat = "2006-01-02T15:04:05.000Z"

// appendLine appends the line of one submission. now and stamp are the same instant.
func appendLine(b []byte, keys *schemas.Keys, stamp []byte, account string, out *carrier.Outbound, f *fate, format RefFormat, plan []planned) []byte {
	b = append(b, `{"time":"`...)
	b = append(b, stamp...)
	b = append(b, `","message_id":"`...)
	b = keys.MessageOf(out.Key).AppendTo(b)
	b = append(b, `","submission_id":"`...)
	b = out.Key.AppendTo(b)
	b = append(b, `","to":`...)
	b = appendString(b, out.To)
	b = append(b, `,"body":`...)
	b = appendBody(b, &out.Body)
	b = append(b, `,"outcome":"`...)
	b = append(b, f.word...)
	b = append(b, `","account":`...)
	b = appendString(b, account)
	if schemas.MayReceive(schemas.ChannelSMS, out.From) { // a phone can answer it
		b = append(b, `,"from":`...)
		b = appendString(b, out.From)
	}
	if f.silent {
		b = append(b, `,"answer":"none"`...)
	}
	if f.sub != 0 {
		b = append(b, `,"code":"`...)
		b = append(b, schemas.CodeName(f.sub)...)
		b = append(b, '"')
	}
	if f.outcome == carrier.Accepted {
		b = append(b, `,"ref":"`...)
		b = appendRef(b, f.ref, format)
		b = append(b, `","receipts":[`...)
		for i := range plan {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendPlanned(b, &plan[i])
		}
		b = append(b, ']')
	}
	return append(b, "}\n"...)
}

func appendPlanned(b []byte, p *planned) []byte {
	b = append(b, `{"status":"`...)
	b = append(b, statusName(p.status)...)
	if name := schemas.CodeName(p.sub); name != "" {
		b = append(b, `","code":"`...)
		b = append(b, name...)
	}
	b = append(b, `","time":"`...)
	b = appendTime(b, p.at)
	if p.due != p.at {
		b = append(b, `","due":"`...)
		b = appendTime(b, p.due)
	}
	b = append(b, '"')
	if p.parts > 0 {
		b = append(b, `,"part":`...)
		b = strconv.AppendUint(b, uint64(p.part), 10)
		b = append(b, `,"parts":`...)
		b = strconv.AppendUint(b, uint64(p.parts), 10)
	}
	return append(b, '}')
}

// appendTime formats Unix milliseconds as timeFormat does. time.Time takes 100 ns for it, and a submission has several.
func appendTime(b []byte, ms int64) []byte {
	days, rest := ms/86_400_000, ms%86_400_000
	if rest < 0 {
		days, rest = days-1, rest+86_400_000
	}
	// Days to a date of the proleptic Gregorian calendar, counted in eras of 400 years that begin on 1 March.
	z := days + 719_468
	era := z / 146_097
	if z < 0 {
		era = (z - 146_096) / 146_097
	}
	dayOfEra := z - era*146_097
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36_524 - dayOfEra/146_096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100)
	month := (5*dayOfYear + 2) / 153
	day := dayOfYear - (153*month+2)/5 + 1
	year := yearOfEra + era*400
	if month += 3; month > 12 {
		month, year = month-12, year+1
	}
	b = appendDigits(b, year, 4)
	b = append(b, '-')
	b = appendDigits(b, month, 2)
	b = append(b, '-')
	b = appendDigits(b, day, 2)
	b = append(b, 'T')
	b = appendDigits(b, rest/3_600_000, 2)
	b = append(b, ':')
	b = appendDigits(b, rest/60_000%60, 2)
	b = append(b, ':')
	b = appendDigits(b, rest/1000%60, 2)
	b = append(b, '.')
	b = appendDigits(b, rest%1000, 3)
	return append(b, 'Z')
}

func appendDigits(b []byte, v int64, width int) []byte {
	n := len(b)
	b = append(b, "0000"[:width]...)
	for i := n + width - 1; i >= n && v > 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return b
}

// appendBody appends the content of a message as one JSON string: the text, or the name of other content.
func appendBody(b []byte, body *carrier.Body) []byte {
	switch {
	case body.Template != nil:
		t := body.Template
		return appendString(b, strings.Join(append([]string{t.Name + "/" + t.Language}, t.Params...), "|"))
	case body.Rich != nil:
		return appendString(b, string(body.Rich.JSON))
	case body.Call != nil:
		return appendString(b, body.Call.Queue+"/"+body.Call.MachineAction+"/"+body.Call.Media+body.Call.Text)
	default:
		return appendString(b, body.Text.Body)
	}
}

// plain are the bytes that need no escape in a JSON string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf
	}
	return t
}()

// appendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD, as in encoding/json.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				b = append(append(b, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

var statusNames = [...]string{buffered: "buffered", delivered: "delivered", read: "read", failed: "failed", unknown: "unknown"}

func statusName(s schemas.ReceiptStatus) string { return statusNames[s] }

func parseStatus(name string) schemas.ReceiptStatus {
	for s, n := range statusNames {
		if n == name && n != "" {
			return schemas.ReceiptStatus(s)
		}
	}
	return 0
}

// appendRef appends a provider's id in the spelling of the answer.
func appendRef(b []byte, ref uint64, format RefFormat) []byte {
	const hex = "0123456789abcdef"
	switch format {
	case RefHex:
		for shift := 60; shift >= 0; shift -= 4 {
			b = append(b, hex[ref>>shift&15])
		}
		return b
	case RefUUID:
		// Version 8 (RFC 9562): the number in the first 16 digits that are ours to fill.
		var d [16]byte
		for i := range d {
			d[i] = hex[ref>>(60-4*i)&15]
		}
		b = append(append(b, d[0:8]...), '-')
		b = append(append(b, d[8:12]...), '-', '8')
		b = append(append(b, d[12:15]...), '-', '8')
		b = append(b, d[15])
		return append(b, "00-000000000000"...)
	default:
		return strconv.AppendUint(b, ref, 10)
	}
}

// appendReceiptRef appends a provider's id in the spelling of the receipt.
func appendReceiptRef(b []byte, ref uint64, format RefFormat) []byte {
	if format == RefMixed {
		const hex = "0123456789ABCDEF"
		for shift := 60; shift >= 0; shift -= 4 {
			b = append(b, hex[ref>>shift&15])
		}
		return b
	}
	return appendRef(b, ref, format)
}

// parseRef parses an id that appendRef wrote, in any of its spellings, which differ in length. The numbers have 19 or
// 20 digits.
func parseRef(s string) (uint64, bool) {
	base := 10
	switch len(s) {
	case 16:
		base = 16
	case 36:
		s, base = s[0:8]+s[9:13]+s[15:18]+s[20:21], 16
	}
	n, err := strconv.ParseUint(s, base, 64)
	return n, err == nil
}
