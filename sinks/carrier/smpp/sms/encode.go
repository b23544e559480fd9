package sms

import (
	"errors"
	"fmt"

	"fanfare/schemas"
	"fanfare/schemas/text"
	"fanfare/sinks/carrier/smpp/pdu"
)

// Alphabet is how an account wants texts encoded that fit into GSM-7.
type Alphabet uint8

// Alphabets of an account.
const (
	// GSM7 puts one septet into one octet. Nearly all message centres accept this.
	GSM7 Alphabet = iota
	// GSM7Packed packs eight septets into seven octets.
	GSM7Packed
	// Latin1 is ISO 8859-1. A text with characters that it does not have, such as the euro sign, is sent in UCS-2.
	Latin1
)

// Long is how an account wants texts of several segments sent.
type Long uint8

// Ways to send a long text.
const (
	// UDH8 sends parts with a user data header and a reference of 8 bits (3GPP TS 23.040 §9.2.3.24.1).
	UDH8 Long = iota
	// UDH16 uses a reference of 16 bits (§9.2.3.24.8). The header is one octet longer, so a part holds only 152 septets
	// or 66 UTF-16 units, and some texts need one part more than was counted.
	UDH16
	// SAR sends the parameters sar_msg_ref_num, sar_total_segments and sar_segment_seqnum, and the message centre adds
	// the header.
	SAR
	// Payload sends the whole text in message_payload, and the message centre cuts it.
	Payload
)

// Options of an account.
type Options struct {
	Alphabet Alphabet
	// GSM and UCS2 are the data_coding values for these encodings. For Latin-1 it is always pdu.CodingLatin1.
	GSM, UCS2 byte
	Long      Long
}

// Errors of [Encoder.Encode].
var (
	// ErrText is returned for a text with characters that its encoding does not have.
	ErrText = errors.New("sms: the text has characters beyond its alphabet")
	// ErrTooLong is returned for a text of more than MaxParts parts.
	ErrTooLong = errors.New("sms: the text has too many parts")
)

// MaxParts is the greatest number of parts of a text: the header counts them in one octet.
const MaxParts = 255

// Part is one short message.
type Part struct {
	Coding byte
	// UDHI says that Octets begin with a user data header.
	UDHI bool
	// Number is which part this is, from 1 to Total.
	Number, Total int
	// Ref is the reference of the text, for the SAR parameters.
	Ref uint16
	// Octets are valid until the encoder encodes the next text.
	Octets []byte
}

// Encoder encodes texts one after the other.
type Encoder struct {
	opts    Options
	buf     []byte
	septets []byte
	parts   []Part
}

// NewEncoder returns an encoder for an account.
func NewEncoder(o Options) *Encoder { return &Encoder{opts: o} }

// Encode returns the parts of a text. encoding is the one in which its segments were counted; if it is unspecified,
// Encode determines it. ref distinguishes the parts of this text from those of other texts to the same number. The
// parts are valid until the next call.
func (e *Encoder) Encode(s string, encoding schemas.Encoding, ref uint16) ([]Part, error) {
	e.buf, e.parts = e.buf[:0], e.parts[:0]
	if encoding == schemas.EncodingUnspecified {
		encoding = text.Measure(s).Encoding
	}
	coding, appendAs := e.opts.UCS2, ucs2
	units, single, concat := encoding, text.UCS2Single, text.UCS2Concat
	if encoding == schemas.EncodingGSM7 {
		coding, appendAs, single, concat = e.opts.GSM, gsm7, text.GSMSingle, text.GSMConcat
		switch e.opts.Alphabet {
		case GSM7Packed:
			appendAs = packed
		case Latin1:
			if coding, appendAs = pdu.CodingLatin1, latin1; !isLatin1(s) {
				coding, appendAs, units, single, concat = e.opts.UCS2, ucs2, schemas.EncodingUCS2, text.UCS2Single, text.UCS2Concat
			}
		default:
		}
	}
	if e.opts.Long == UDH16 {
		concat--
	}
	head, tail := text.Cut(s, units, single)
	total := 1
	if tail != "" && e.opts.Long == Payload {
		head, tail = s, ""
	}
	if tail != "" {
		for total, tail = 0, s; tail != ""; total++ {
			_, tail = text.Cut(tail, units, concat)
		}
		if total > MaxParts {
			return nil, fmt.Errorf("%w: %d, at most %d can be joined", ErrTooLong, total, MaxParts)
		}
		head, tail = text.Cut(s, units, concat)
	}
	for n := 1; ; n++ {
		p := Part{Coding: coding, Number: n, Total: total, Ref: ref}
		start := len(e.buf)
		if total > 1 {
			p.UDHI = e.header(n, total, ref)
		}
		if !e.append(head, appendAs, len(e.buf)-start) {
			return nil, ErrText
		}
		p.Octets = e.buf[start:len(e.buf):len(e.buf)]
		e.parts = append(e.parts, p)
		if tail == "" {
			return e.parts, nil
		}
		head, tail = text.Cut(tail, units, concat)
	}
}

// header appends a user data header if the account uses them.
func (e *Encoder) header(n, total int, ref uint16) bool {
	switch e.opts.Long {
	case UDH8:
		e.buf = append(e.buf, 5, concat8, 3, byte(ref), byte(total), byte(n))
	case UDH16:
		e.buf = append(e.buf, 6, concat16, 4, byte(ref>>8), byte(ref), byte(total), byte(n))
	default:
		return false
	}
	return true
}

// form is how the characters of a part become octets.
type form uint8

const (
	ucs2 form = iota
	gsm7
	packed
	latin1
)

// append appends a text after a header of this many octets.
func (e *Encoder) append(s string, as form, header int) (ok bool) {
	switch as {
	case gsm7:
		e.buf, ok = text.AppendGSM7(e.buf, s)
	case packed:
		if e.septets, ok = text.AppendGSM7(e.septets[:0], s); !ok {
			return false
		}
		fill := (7 - header*8%7) % 7
		if (fill+7*len(e.septets))%8 == 1 && len(e.septets) > 0 {
			// Seven bits are unused. If they were zeros, a receiver that counts octets would show an @. A carriage
			// return is not shown.
			e.septets = append(e.septets, '\r')
		}
		e.buf = text.AppendPacked(e.buf, e.septets, fill)
	case latin1:
		for _, r := range s {
			e.buf = append(e.buf, byte(r))
		}
		ok = true
	default:
		e.buf, ok = text.AppendUCS2(e.buf, s), true
	}
	return ok
}

func isLatin1(s string) bool {
	for _, r := range s {
		if r > 0xff {
			return false
		}
	}
	return true
}
