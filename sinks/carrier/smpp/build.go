package smpp

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
	"fanfare/sinks/carrier/smpp/sms"
)

// encoder encodes messages as units. Each Send has its own.
type encoder struct {
	cfg  *resolved
	sms  *sms.Encoder
	tlvs []byte
	time [16]byte
}

func newEncoder(cfg *resolved) *encoder { return &encoder{cfg: cfg, sms: sms.NewEncoder(cfg.sms)} }

// append appends the units of message i of the batch. If the message cannot be sent, it returns the refusal, and ok is
// false.
func (w *batchWork) append(i int, now time.Time) (refusal carrier.Result, ok bool) {
	out, e := &w.batch[i], w.encoder
	switch {
	case out.Body.Template != nil || out.Body.Rich != nil || out.Body.Call != nil:
		return carrier.Result{Outcome: carrier.Unsupported, Code: "not a text"}, false
	case len(out.From) > maxSource:
		return refused(schemas.CodeSenderInvalid, "sender is too long"), false
	case !validNumber(out.To):
		return refused(schemas.CodeInvalidNumber, "not E.164"), false
	case !out.NotAfter.IsZero() && !now.Before(out.NotAfter):
		return refused(schemas.CodeValidityExpired, "validity is over"), false
	}
	parts, err := e.sms.Encode(out.Body.Text.Body, out.Body.Text.Encoding, reference(out.Key))
	switch {
	case errors.Is(err, sms.ErrTooLong):
		return refused(schemas.CodeTooLong, "too many parts"), false
	case err != nil:
		return refused(schemas.CodeRenderError, "not in its alphabet"), false
	}
	m := pdu.Message{
		ServiceType: e.cfg.ServiceType, Source: e.cfg.source(out.From), Dest: e.cfg.dest(out.To), Validity: e.validity(out.NotAfter, now),
		Registered: e.cfg.registered,
	}
	for n := range parts {
		p := &parts[n]
		m.Coding, m.ESMClass, m.Short = p.Coding, 0, ""
		if p.UDHI {
			m.ESMClass = pdu.ESMUDHI
		}
		if m.TLVs, err = e.parameters(&m, p, out); err == nil {
			start := len(w.buf)
			if w.buf, err = m.Append(w.buf, pdu.Header{Command: pdu.SubmitSM}); err == nil {
				w.units = append(w.units, unit{i: i, part: n + 1, parts: len(parts), start: start, end: len(w.buf)})
				continue
			}
		}
		return refused(schemas.CodeNotSentOther, err.Error()), false
	}
	return carrier.Result{}, true
}

func refused(sub schemas.Code, why string) carrier.Result {
	return carrier.Result{Outcome: carrier.Rejected, Sub: sub, Code: why}
}

// parameters returns the TLVs of a part and sets its octets. Both point into buffers that the next part overwrites, so
// the unit must be written before.
func (e *encoder) parameters(m *pdu.Message, p *sms.Part, out *carrier.Outbound) (pdu.TLVs, error) {
	var err error
	e.tlvs = e.tlvs[:0]
	add := func(tag pdu.Tag, v []byte) {
		if err == nil {
			e.tlvs, err = pdu.AppendTLV(e.tlvs, tag, v)
		}
	}
	if e.cfg.sms.Long == sms.SAR && p.Total > 1 {
		add(pdu.TagSARRef, []byte{byte(p.Ref >> 8), byte(p.Ref)})
		add(pdu.TagSARTotal, []byte{byte(p.Total)})
		add(pdu.TagSARPart, []byte{byte(p.Number)})
	}
	if len(p.Octets) > maxShortMessage {
		add(pdu.TagPayload, p.Octets)
	} else {
		m.Short = view(p.Octets)
	}
	if e.cfg.ReferenceTLV != 0 {
		add(pdu.Tag(e.cfg.ReferenceTLV), out.Key[:])
	}
	if err == nil && len(out.Meta) > 0 {
		err = e.meta(out.Meta)
	}
	return pdu.TLVs(view(e.tlvs)), err
}

// MetaTLV is the prefix of names in [carrier.Outbound.Meta] whose values become TLVs, such as `tlv:1400` for the
// registration id that operators in India require. The number is hexadecimal.
const MetaTLV = "tlv:"

func (e *encoder) meta(values map[string]string) (err error) {
	for name, value := range values {
		number, ok := strings.CutPrefix(name, MetaTLV)
		if !ok {
			continue
		}
		var tag uint16
		if _, err := fmt.Sscanf(number, "%x", &tag); err != nil {
			return fmt.Errorf("%w: %q is not the number of a parameter", pdu.ErrTooLong, name)
		}
		if e.tlvs, err = pdu.AppendTLV(e.tlvs, pdu.Tag(tag), value); err != nil {
			return err
		}
	}
	return nil
}

// maxSource is the maximum length of source_addr.
const maxSource = 20

// maxShortMessage is the maximum length of short_message.
const maxShortMessage = 254

// view returns b as a string without copying. It is valid until b changes.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// reference returns the reference number of the parts of a message. It is made from the submission's signature, so two
// messages to one number within minutes nearly always have different ones, even if different processes send them.
func reference(k carrier.Key) uint16 { return uint16(k[14])<<8 | uint16(k[15]) }

// validNumber reports whether s is E.164.
func validNumber(s string) bool {
	if len(s) < 7 || len(s) > 16 || s[0] != '+' {
		return false
	}
	for i := 1; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// dest returns the address of a recipient in the form that the account expects.
func (s *resolved) dest(number string) pdu.Address {
	return s.address(s.numbering.recipient, number)
}

func (s *resolved) address(n TONNPI, number string) pdu.Address {
	if !s.numbering.plus {
		number = strings.TrimPrefix(number, "+")
	}
	return pdu.Address{TON: n.TON, NPI: n.NPI, Addr: number}
}

// shortDigits is the maximum number of digits of a short code.
const shortDigits = 8

// source returns the address of a sender in the form that the account expects.
func (s *resolved) source(from string) pdu.Address {
	digits := strings.TrimPrefix(from, "+")
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return pdu.Address{TON: s.numbering.alphanumeric.TON, NPI: s.numbering.alphanumeric.NPI, Addr: from}
		}
	}
	switch {
	case from == "":
		return pdu.Address{} // the default sender of the account
	case digits == from && len(digits) <= shortDigits:
		return s.address(s.numbering.short, from)
	default:
		return s.address(s.numbering.international, from)
	}
}

// validity returns the end of a message's validity in the form that the account expects, rounded down to seconds (SMPP
// 3.4 §7.1.1). The result is valid until the next call.
func (e *encoder) validity(end, now time.Time) string {
	if end.IsZero() || e.cfg.validity == validityNone {
		return ""
	}
	if e.cfg.validity == validityAbsolute {
		return view(append(end.UTC().AppendFormat(e.time[:0], "060102150405"), "000+"...))
	}
	left := min(max(1, int(end.Sub(now)/time.Second)), mostValidity)
	b := append(e.time[:0], "0000"...) // no years, no months
	for _, unit := range [...]int{24 * 3600, 3600, 60, 1} {
		v := left / unit
		left -= v * unit
		b = append(b, byte('0'+v/10), byte('0'+v%10))
	}
	return view(append(b, "000R"...))
}

// mostValidity is thirty days in seconds: every message centre can read that many days in a relative time.
const mostValidity = 30 * 24 * 3600
