package smsc

import (
	"fmt"
	"strconv"
	"strings"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/pdu"
)

// states are the message_state and the `stat` of each receipt status.
var states = map[schemas.ReceiptStatus]struct {
	number byte
	word   string
}{
	schemas.ReceiptStatusBuffered:  {pdu.StateEnroute, "ENROUTE"},
	schemas.ReceiptStatusDelivered: {pdu.StateDelivered, "DELIVRD"},
	schemas.ReceiptStatusFailed:    {pdu.StateUndeliverable, "UNDELIV"},
	schemas.ReceiptStatusUnknown:   {pdu.StateUnknown, "UNKNOWN"},
}

// receipts appends the deliver_sm of a receipt: one for each unit that it is about. It appends none if the client asked
// for none, or if SMPP has no state for it.
func (a *account) receipts(to []pdu.Message, r *carrier.Receipt) []pdu.Message {
	n, err := strconv.ParseUint(r.Ref, 10, 64)
	if _, known := states[r.Status]; !known || err != nil {
		return to
	}
	ref := messageNumber(n)
	a.mu.Lock()
	o, remembered := a.origins[ref]
	a.mu.Unlock()
	if remembered && o.registered&3 == 0 {
		return to
	}
	switch units := ref.units(); {
	case units > 1 && r.Part > 0 && int(r.Part) <= units:
		return append(to, a.receipt(r, &o, ref, int(r.Part)-1))
	case r.Part > 1 && r.Status != schemas.ReceiptStatusFailed:
		return to // the receipt of a part, but the text was one unit
	default:
		for i := range units {
			to = append(to, a.receipt(r, &o, ref, i))
		}
		return to
	}
}

// receipt makes the deliver_sm of a receipt for one unit.
func (a *account) receipt(r *carrier.Receipt, o *origin, ref messageNumber, unit int) (m pdu.Message) {
	q, state := &a.server.cfg.Quirks, states[r.Status]
	if r.Sub == schemas.CodeExpired {
		state.number, state.word = pdu.StateExpired, "EXPIRED"
	}
	id, tlvID := q.ReceiptIDs.spell(ref.unit(unit)), q.ReceiptTLVIDs.spell(ref.unit(unit))
	if unit < len(o.ids) {
		id, tlvID = o.ids[unit], o.ids[unit]
	}
	m = pdu.Message{
		Source: pdu.Address{TON: pdu.TONInternational, NPI: pdu.NPIE164, Addr: strings.TrimPrefix(r.To, "+")}, Dest: o.source,
		ESMClass: pdu.ESMReceipt,
	}
	if r.Status == schemas.ReceiptStatusBuffered {
		m.ESMClass = pdu.ESMIntermediate
	}
	if q.Unmarked {
		m.ESMClass = 0
	}
	done := r.At.UTC()
	switch q.Form {
	case CSV:
		m.Short = fmt.Sprintf("%s,%s,%s,%s", id, state.word, r.Code, done.Format("060102150405"))
	case TLVsOnly:
	default:
		taken := "001"
		if r.Status != schemas.ReceiptStatusDelivered {
			taken = "000"
		}
		m.Short = fmt.Sprintf("id:%s sub:001 dlvrd:%s submit date:%s done date:%s stat:%s err:%s text:", id, taken, done.Format("0601021504"), done.Format("0601021504"), state.word, r.Code)
	}
	var tlvs []byte
	if q.Form == TLVsAndText || q.Form == TLVsOnly {
		if !q.NoNUL {
			tlvID += "\x00"
		}
		tlvs, _ = pdu.AppendTLV(tlvs, pdu.TagReceiptedMessageID, tlvID) // short values always fit
		tlvs, _ = pdu.AppendTLV(tlvs, pdu.TagMessageState, string([]byte{state.number}))
		if n, err := strconv.ParseUint(r.Code, 10, 16); err == nil {
			tlvs, _ = pdu.AppendTLV(tlvs, pdu.TagNetworkError, string([]byte{3, byte(n >> 8), byte(n)}))
		}
	}
	if a.server.cfg.Echo && !r.Key.IsZero() {
		tlvs, _ = pdu.AppendTLV(tlvs, a.server.cfg.ReferenceTLV, r.Key[:])
	}
	m.TLVs = pdu.TLVs(tlvs)
	return m
}
