// Package billing decides which hand-overs of a campaign are billed. The ledger (pipeline/scheduler/plan) and the
// statistics (sinks/analytics) both use it, so the cost that is shown is the cost that is billed.
//
// Every try of every recipient is decided separately:
//
//		billed = (handed over ∪ (in doubt ∩ confirmed)) \ free
//
//	  - handed over: there is a `sent` event of the try.
//	  - in doubt: there is an `ambiguous` event of the try.
//	  - confirmed: there is a receipt of the try, which proves that the carrier accepted the message.
//	  - free: the receipt of the try with the greatest precedence says that the message failed, with a code that is
//	    not billed
//	    ([schemas.CodeInfo].Billed). A greater receipt overrides a lower one, as it does for the recipient's state.
//
// A billed hand-over costs [Amount]. An ambiguous try without a receipt is not billed: when the campaign settles, the
// ledger releases the money reserved for it.
package billing

import (
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// Amount returns the price of one hand-over in micro-units. A message has at least one segment; an event that says 0
// was written by a stage that did not know the number.
func Amount(segments, priceMicros uint64) uint64 { return max(segments, 1) * priceMicros }

// IsReceipt reports whether an event of that precedence comes from a receipt, which proves that the carrier accepted
// the message. `unconfirmed` is written when no receipt came.
func IsReceipt(p schemas.Precedence) bool {
	switch p.Class() {
	case schemas.ClassLeft:
		return p.Kind() == schemas.KindBuffered || p.Kind() == schemas.KindBounced
	case schemas.ClassNegative, schemas.ClassPositive:
		return true
	default:
		return false
	}
}

// IsFree reports whether a hand-over is not billed if the greatest receipt of its try has that precedence. A code that
// is not in the table is billed.
func IsFree(p schemas.Precedence) bool {
	if p.Kind() != schemas.KindBounced && p.Class() != schemas.ClassNegative {
		return false
	}
	info, ok := schemas.LookupCode(p.Code())
	return ok && !info.Billed
}

// FreeCodes returns the codes for which a failed message is not billed, in order. A database evaluates [IsFree] with
// them.
func FreeCodes() []schemas.Code {
	var out []schemas.Code
	for _, c := range schemas.Codes {
		if IsFree(schemas.PrecedenceOf(schemas.KindUndelivered, 0, c.Code)) {
			out = append(out, c.Code)
		}
	}
	return out
}

// Receipts holds the recipients of the receipts of one try, by precedence.
type Receipts map[schemas.Precedence]*roaring.Bitmap

// Verdict is the result of the receipts of one try for the bill.
type Verdict struct {
	// Confirmed are the recipients with a receipt. Free are those whose receipt with the greatest precedence is not
	// billed; it is a subset of Confirmed.
	Confirmed, Free *roaring.Bitmap
}

// Verdict computes the result of the receipts. It does not modify the sets.
func (r Receipts) Verdict() Verdict {
	v := Verdict{Confirmed: roaring.New(), Free: roaring.New()}
	for _, p := range slices.Backward(slices.Sorted(maps.Keys(r))) {
		if IsFree(p) {
			v.Free.Or(roaring.AndNot(r[p], v.Confirmed))
		}
		v.Confirmed.Or(r[p])
	}
	return v
}

// Billed returns the recipients of one try that are billed. handedOver and inDoubt may be nil. It does not modify the
// sets.
func (v Verdict) Billed(handedOver, inDoubt *roaring.Bitmap) *roaring.Bitmap {
	out := roaring.New()
	if inDoubt != nil {
		out.Or(roaring.And(inDoubt, v.Confirmed))
	}
	if handedOver != nil {
		out.Or(handedOver)
	}
	out.AndNot(v.Free)
	return out
}
