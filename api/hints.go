package api

import (
	"cmp"
	"fmt"
	"slices"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Hint is a problem of a campaign that a person should look at (R122): what it is, how many recipients have it, and
// what to do.
type Hint struct {
	Code    string `json:"code" enum:"low_delivery_rate,bad_numbers,route_failing,ambiguous" doc:"Kind of problem, for programs." example:"low_delivery_rate"`
	Message string `json:"message" doc:"What the problem is."`
	Count   uint64 `json:"count" doc:"How many recipients it concerns."`
	Fix     string `json:"fix" doc:"What to do."`
}

// Thresholds. With fewer receipts than hintAfter and hintRouteAfter, a share means nothing.
const (
	hintAfter      = 100  // final receipts of a campaign
	hintRouteAfter = 50   // final receipts of a route
	goodDelivery   = 0.9  // R122
	badNumbers     = 0.02 // of the recipients with an outcome
	routeFails     = 0.2  // of the final receipts of a route
)

// hintsOf returns the hints that follow from the figures of a campaign. Rates are computed over the recipients with a
// final receipt: while receipts are awaited, delivered / sent is low although nothing is wrong.
func hintsOf(f *analytics.Figures, byRoute map[string]analytics.Stats) []Hint {
	hints := []Hint{}
	if final := f.Delivered + f.Undelivered; final >= hintAfter && float64(f.Delivered) < goodDelivery*float64(final) {
		hints = append(hints, Hint{
			Code: "low_delivery_rate", Count: f.Undelivered,
			Message: fmt.Sprintf("Of %d messages with a final receipt only %.1f %% were delivered; 90 %% or more is usual.", final, 100*float64(f.Delivered)/float64(final)),
			Fix:     fmt.Sprintf("Look at the sub-statuses of undelivered%s. If numbers are not in use, clean the list; if the network fails, try later or by another route.", mostly(f)),
		})
	}
	bad := codes(f, schemas.CodeInvalidNumber) + codes(f, schemas.CodeUnknownSubscriber)
	if answered := f.Delivered + f.Undelivered + f.NotSent; answered >= hintAfter && float64(bad) >= badNumbers*float64(answered) {
		hints = append(hints, Hint{
			Code: "bad_numbers", Count: bad,
			Message: fmt.Sprintf("%d of %d recipients have a number that is invalid or not in use.", bad, answered),
			Fix:     "Remove these contacts from the list: GET /api/campaigns/{id}/members?subStatus=INVALID_NUMBER,UNKNOWN_SUBSCRIBER names them.",
		})
	}
	for _, route := range sortedKeys(byRoute) {
		r := byRoute[route].Figures(0)
		failed := codes(&r, schemas.CodeProviderError) + codes(&r, schemas.CodeNetworkError) + codes(&r, schemas.CodeRoamingOrOperatorFail) + codes(&r, schemas.CodeExpired)
		if final := r.Delivered + r.Undelivered; final >= hintRouteAfter && float64(failed) >= routeFails*float64(final) {
			hints = append(hints, Hint{
				Code: "route_failing", Count: failed,
				Message: fmt.Sprintf("Route %s fails: %d of %d final receipts name the provider, the network or the operator as the cause.", route, failed, final),
				Fix:     "Pause the campaign, ask the provider of the route, or move the campaign to another route.",
			})
		}
	}
	if note := ambiguousNote(f); note != nil {
		hints = append(hints, Hint{
			Code: "ambiguous", Count: f.Ambiguous, Message: *note,
			Fix: "Wait for the receipts, then decide about the recipients that are still ambiguous.",
		})
	}
	return hints
}

// codes returns how many recipients have a sub-status, in any status.
func codes(f *analytics.Figures, code schemas.Code) (n uint64) {
	for _, b := range f.Tree {
		for _, leaf := range b.Codes {
			if leaf.Code == code {
				n += leaf.N
			}
		}
	}
	return n
}

// mostly names the most frequent cause of undelivered messages.
func mostly(f *analytics.Figures) string {
	for _, b := range f.Tree {
		if b.Bucket == schemas.BucketUndelivered {
			top := slices.MaxFunc(b.Codes, func(a, b analytics.Leaf) int { return cmp.Compare(a.N, b.N) })
			if top.Code != schemas.CodeUnspecified {
				return fmt.Sprintf(" (mostly %s, %d)", schemas.CodeName(top.Code), top.N)
			}
		}
	}
	return ""
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
