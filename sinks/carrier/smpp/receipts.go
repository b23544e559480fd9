package smpp

import (
	"context"
	"errors"
	"strings"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/smpp/dlr"
	"fanfare/sinks/carrier/smpp/pdu"
)

// errTwoTakers is returned to a second caller, because emit must not run twice at the same time.
var errTwoTakers = errors.New("smpp: another call of Receipts or Inbound is running")

// Receipts implements [carrier.ReceiptSource]. It returns when ctx ends, or when the connector is drained.
func (c *Connector) Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error {
	if !c.openBox(&c.receipts) {
		return errTwoTakers
	}
	defer c.closeBox(&c.receipts)
	var list []carrier.Receipt
	var pause carrier.Backoff
	for {
		arrived, ok := c.next(ctx, &c.receipts, nil)
		if !ok {
			return nil
		}
		list = list[:0]
		for i := range arrived {
			list = append(list, c.receipt(&arrived[i]))
		}
		err := emit(list)
		c.answer(arrived, err)
		if err != nil {
			pause.Wait(ctx)
		} else {
			pause.Reset()
		}
	}
}

// receipt reads a receipt.
func (c *Connector) receipt(a *arrival) carrier.Receipt {
	if a.own != nil {
		return *a.own
	}
	m := &a.message
	r, _ := dlr.Parse(m, &c.cfg.layout)
	out := carrier.Receipt{
		Account: c.account, At: r.Done, Code: r.Err, Raw: []byte(m.Text()),
		// The source address of a receipt is the recipient.
		To: e164(m.Source),
	}
	if len(out.Raw) == 0 {
		out.Raw = []byte(m.TLVs)
	}
	if out.At.IsZero() {
		out.At = a.at
	}
	if out.Code == "" || strings.Trim(out.Code, "0") == "" {
		out.Code = r.State
		if r.Stat != "" {
			out.Code = r.Stat
		}
	}
	if ids := r.Spellings(c.cfg.ids); len(ids) > 0 {
		out.Ref, out.AltRefs = ids[0], ids[1:]
		c.mu.Lock()
		out.Key = c.lateRefs.of(ids, out.To)
		c.mu.Unlock()
	}
	if c.cfg.ReferenceEchoed {
		if v, ok := m.TLVs.Get(pdu.Tag(c.cfg.ReferenceTLV)); ok && len(v) == len(out.Key) {
			copy(out.Key[:], v)
		}
	}
	var known bool
	if out.Status, out.Sub, known = c.cfg.codes.Receipt(r.State, r.Err); !known {
		if out.Status, out.Sub, known = c.cfg.codes.Receipt(r.Stat, r.Err); !known {
			out.Status = schemas.ReceiptStatusUnknown
		}
	}
	return out
}

// e164 returns a phone number as E.164 with a +, and any other address unchanged.
func e164(a pdu.Address) string {
	s := strings.TrimPrefix(a.Addr, "+")
	if s == "" || a.TON == pdu.TONAlphanumeric {
		return a.Addr
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return a.Addr
		}
	}
	switch a.TON {
	case pdu.TONInternational, pdu.TONUnknown:
		if len(s) < 7 { // a short code
			return a.Addr
		}
		return "+" + strings.TrimPrefix(s, "00")
	default:
		return a.Addr
	}
}
