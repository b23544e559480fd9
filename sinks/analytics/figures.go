package analytics

import (
	"math"
	"slices"
	"time"

	"fanfare/schemas"
)

// Stats counts the recipients of a campaign by state. The zero value is a campaign without events.
type Stats struct {
	// Counts are in order of precedence. None is 0.
	Counts []Count
	// AsOf is the answer of [Store.AsOf] just before counting.
	AsOf time.Time
}

// Count is the number of recipients that are in a state, or have a fact.
type Count struct {
	Precedence schemas.Precedence
	N          uint64
	// Clickers is how many of these recipients clicked a link, without bots; 0 for a fact.
	Clickers uint64
}

// Precedences of facts.
var (
	FactClicked   = schemas.PrecedenceOf(schemas.KindClicked, 0, schemas.CodeUnspecified)
	factScanned   = schemas.PrecedenceOf(schemas.KindClicked, 0, schemas.CodeBot)
	factPreviewed = schemas.PrecedenceOf(schemas.KindClicked, 0, schemas.CodePreview)
)

// NoPerson reports whether a precedence is a click that is not known to be a person's.
func NoPerson(p schemas.Precedence) bool { return p.Kind() == schemas.KindClicked && p > FactClicked }

// Figures are the statistics of a campaign. These identities always hold, by construction:
//
//	Total = Pending + Ambiguous + NotSent + Skipped + Sent
//	Sent = Awaiting + Undelivered + Delivered
type Figures struct {
	// Total is the size of the audience, or the number of recipients with events if that is greater.
	Total uint64
	// Pending recipients are not dealt yet, in flight, or waiting to be dealt again. Returned is the number of those
	// that wait to be dealt again.
	Pending, Returned uint64
	Ambiguous         uint64
	NotSent, Skipped  uint64
	Sent              uint64
	// Awaiting recipients were handed over and have no final receipt yet. Unconfirmed is the number of those whose
	// receipt window is over.
	Awaiting, Unconfirmed uint64
	Undelivered           uint64
	// Delivered includes Read.
	Delivered, Read uint64
	// Failed is Undelivered + NotSent (C8).
	Failed uint64
	// Clickers are recipients with a click by a person. DeliveredClickers are the clickers whose state is delivered or
	// read.
	Clickers, DeliveredClickers uint64
	// Scanned counts recipients whose link a scanner opened, Previewed those whose link an app opened to show a
	// preview, and Unsure those whose link something unknown opened. A recipient may be in all three counts.
	Scanned, Previewed, Unsure uint64
	Replied, OptedOut          uint64

	// Rates have 4 decimals, and are 0 if the denominator is 0 (C7).
	DeliveryRate        float64 // Delivered / Sent
	FailureRate         float64 // Failed / (Sent + NotSent)
	DeliveryRateOfTotal float64 // Delivered / Total
	FailureRateOfTotal  float64 // Failed / Total
	ClickRate           float64 // DeliveredClickers / Delivered

	// Tree splits the recipients with events by bucket and sub-status, in the order of the buckets.
	Tree []Branch
}

// Branch is a bucket and its sub-statuses.
type Branch struct {
	Bucket schemas.Bucket
	N      uint64
	Codes  []Leaf
}

// Leaf is a sub-status within a bucket.
type Leaf struct {
	// Code is CodeUnspecified for events without a code.
	Code schemas.Code
	N    uint64
}

// Figures computes the figures for an audience of the given size.
func (s Stats) Figures(total uint32) Figures {
	var f Figures
	var known uint64
	codes := map[schemas.Bucket]map[schemas.Code]uint64{}
	for _, c := range s.Counts {
		bucket := c.Precedence.Bucket()
		if c.Precedence >= schemas.PrecedenceFacts || bucket == schemas.BucketFact {
			switch kind := c.Precedence.Kind(); {
			case c.Precedence == FactClicked:
				f.Clickers += c.N
			case c.Precedence == factScanned:
				f.Scanned += c.N
			case c.Precedence == factPreviewed:
				f.Previewed += c.N
			case kind == schemas.KindClicked:
				f.Unsure += c.N
			case kind == schemas.KindReplied:
				f.Replied += c.N
			case kind == schemas.KindOptedOut:
				f.OptedOut += c.N
			}
			continue
		}
		known += c.N
		if codes[bucket] == nil {
			codes[bucket] = map[schemas.Code]uint64{}
		}
		codes[bucket][c.Precedence.Code()] += c.N
		switch bucket {
		case schemas.BucketPending:
			f.Returned += c.N
		case schemas.BucketAmbiguous:
			f.Ambiguous += c.N
		case schemas.BucketNotSent:
			f.NotSent += c.N
		case schemas.BucketSkipped:
			f.Skipped += c.N
		case schemas.BucketAwaiting:
			f.Awaiting += c.N
			if c.Precedence.Kind() == schemas.KindUnconfirmed {
				f.Unconfirmed += c.N
			}
		case schemas.BucketUndelivered:
			f.Undelivered += c.N
		case schemas.BucketDelivered:
			f.Delivered += c.N
			f.DeliveredClickers += c.Clickers
			if c.Precedence.Kind() == schemas.KindRead {
				f.Read += c.N
			}
		case schemas.BucketFact:
		}
	}
	f.Total = max(uint64(total), known)
	f.Pending = f.Total - known + f.Returned
	f.Sent = f.Awaiting + f.Undelivered + f.Delivered
	f.Failed = f.Undelivered + f.NotSent
	f.setRates()
	f.Tree = tree(codes)
	return f
}

func (f *Figures) setRates() {
	f.DeliveryRate = Rate(f.Delivered, f.Sent)
	f.FailureRate = Rate(f.Failed, f.Sent+f.NotSent)
	f.DeliveryRateOfTotal = Rate(f.Delivered, f.Total)
	f.FailureRateOfTotal = Rate(f.Failed, f.Total)
	f.ClickRate = Rate(f.DeliveredClickers, f.Delivered)
}

// Add adds the figures of another campaign and computes the rates of the sums. It leaves Tree as it is.
func (f *Figures) Add(o *Figures) {
	f.Total += o.Total
	f.Pending += o.Pending
	f.Returned += o.Returned
	f.Ambiguous += o.Ambiguous
	f.NotSent += o.NotSent
	f.Skipped += o.Skipped
	f.Sent += o.Sent
	f.Awaiting += o.Awaiting
	f.Unconfirmed += o.Unconfirmed
	f.Undelivered += o.Undelivered
	f.Delivered += o.Delivered
	f.Read += o.Read
	f.Failed += o.Failed
	f.Clickers += o.Clickers
	f.DeliveredClickers += o.DeliveredClickers
	f.Scanned += o.Scanned
	f.Previewed += o.Previewed
	f.Unsure += o.Unsure
	f.Replied += o.Replied
	f.OptedOut += o.OptedOut
	f.setRates()
}

func tree(codes map[schemas.Bucket]map[schemas.Code]uint64) []Branch {
	var out []Branch
	for bucket := range schemas.BucketFact {
		b := Branch{Bucket: bucket}
		for code, n := range codes[bucket] {
			b.N += n
			b.Codes = append(b.Codes, Leaf{code, n})
		}
		if len(b.Codes) == 0 {
			continue
		}
		slices.SortFunc(b.Codes, func(x, y Leaf) int { return int(x.Code) - int(y.Code) })
		out = append(out, b)
	}
	return out
}

// Rate returns n/d with 4 decimals, and 0 if d is 0 (C7).
func Rate(n, d uint64) float64 {
	if d == 0 {
		return 0
	}
	return math.Round(float64(n)/float64(d)*1e4) / 1e4
}

// Select returns the counted states that are in the bucket and, if codes are given, have one of them. The result is
// meant for [Store.Select]. A recipient without events has no state and cannot be selected this way.
func (s Stats) Select(bucket schemas.Bucket, codes ...schemas.Code) []schemas.Precedence {
	var out []schemas.Precedence
	for _, c := range s.Counts {
		if c.Precedence < schemas.PrecedenceFacts && c.Precedence.Bucket() == bucket &&
			(len(codes) == 0 || slices.Contains(codes, c.Precedence.Code())) {
			out = append(out, c.Precedence)
		}
	}
	return out
}
