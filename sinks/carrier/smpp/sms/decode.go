package sms

import (
	"unicode/utf8"

	"fanfare/schemas/text"
	"fanfare/sinks/carrier/smpp/pdu"
)

// Information elements of a user data header (3GPP TS 23.040 §9.2.3.24).
const (
	concat8  = 0x00
	concat16 = 0x08
)

// Concat says to which text a short message belongs, and which part of it it is. Total is 0 for a text in one message.
type Concat struct {
	Ref           uint16
	Number, Total int
}

// Decode returns the text of a unit and, from its user data header or its SAR parameters, which part of a text it is.
// alphabet is the account's default, for data_coding 0. If the octets are binary, Decode returns one character for each
// octet, and binary is true.
func Decode(m *pdu.Message, alphabet Alphabet) (s string, c Concat, binary bool) {
	octets := m.Text()
	header := 0
	if m.ESMClass&pdu.ESMUDHI != 0 {
		c, header = readHeader(octets)
	}
	if c.Total == 0 {
		c = sar(m.TLVs)
	}
	body := octets[header:]
	switch kind := kindOf(m.Coding, alphabet); kind {
	case ucs2:
		return string(text.AppendFromUCS2(make([]byte, 0, len(body)), body)), c, false
	case gsm7:
		return string(text.AppendFromGSM7(make([]byte, 0, len(body)+8), body)), c, false
	case packed:
		septets := text.AppendUnpacked(make([]byte, 0, len(body)*8/7+1), body, (7-header*8%7)%7, -1)
		if n := len(septets); n > 0 && septets[n-1] == '\r' && n%8 == 0 {
			septets = septets[:n-1]
		}
		return string(text.AppendFromGSM7(make([]byte, 0, len(septets)+8), string(septets))), c, false
	case latin1:
		return string(fromLatin1(body)), c, false
	default:
		return string(fromLatin1(body)), c, true
	}
}

// octetsForm is the form of a body that is not text.
const octetsForm form = 255

// kindOf reads data_coding: the values of SMPP (§5.2.19), and above them the values of 3GPP TS 23.038 §4, which many
// message centres pass on.
func kindOf(coding byte, alphabet Alphabet) form {
	switch coding {
	case pdu.CodingDefault:
		return [...]form{GSM7: gsm7, GSM7Packed: packed, Latin1: latin1}[alphabet]
	case pdu.CodingASCII, pdu.CodingLatin1:
		return latin1
	case pdu.CodingUCS2:
		return ucs2
	case pdu.CodingOctets, pdu.CodingBinary:
		return octetsForm
	}
	group := coding >> 4
	switch {
	case group < 1: // this package does not decode the other alphabets of the table, such as JIS and Cyrillic
		return octetsForm
	case group < 8:
		switch coding >> 2 & 3 {
		case 0:
			return gsm7
		case 2:
			return ucs2
		}
	case group == 0xC, group == 0xD:
		return gsm7
	case group == 0xE:
		return ucs2
	case group == 0xF && coding&4 == 0:
		return gsm7
	}
	return octetsForm
}

func fromLatin1(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		b = utf8.AppendRune(b, rune(s[i]))
	}
	return b
}

// readHeader reads the user data header at the beginning of octets and returns its size. If the header is longer than
// octets, size is 0 and everything counts as text.
func readHeader(octets string) (c Concat, size int) {
	if octets == "" || len(octets) < 1+int(octets[0]) {
		return Concat{}, 0
	}
	size = 1 + int(octets[0])
	for e := octets[1:size]; len(e) >= 2; {
		id, n := e[0], int(e[1])
		if len(e) < 2+n {
			break
		}
		v := e[2 : 2+n]
		switch {
		case id == concat8 && n == 3:
			c = Concat{uint16(v[0]), int(v[2]), int(v[1])}
		case id == concat16 && n == 4:
			c = Concat{uint16(v[0])<<8 | uint16(v[1]), int(v[3]), int(v[2])}
		}
		e = e[2+n:]
	}
	return c.sound(), size
}

func sar(t pdu.TLVs) Concat {
	if t == "" {
		return Concat{}
	}
	ref, _ := t.Get(pdu.TagSARRef)
	total, _ := t.Byte(pdu.TagSARTotal)
	part, _ := t.Byte(pdu.TagSARPart)
	if len(ref) != 2 {
		return Concat{}
	}
	return Concat{uint16(ref[0])<<8 | uint16(ref[1]), int(part), int(total)}.sound()
}

// sound returns c, or a zero Concat if its numbers are impossible.
func (c Concat) sound() Concat {
	if c.Total < 2 || c.Number < 1 || c.Number > c.Total {
		return Concat{}
	}
	return c
}
