package analytics

import (
	"math"
	"slices"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// Stats counts the recipients of a campaign by state. The zero value is a campaign in which nothing has happened.
type Stats struct {
	// Counts in order of precedence, none of them 0.
	Counts []Count
	// AsOf is what [Store.AsOf] said just before counting.
	AsOf time.Time
}

// Count is how many recipients are in a state; for a fact, of how many it is known.
type Count struct {
	Precedence schemas.Precedence
	N          uint64
	// Clickers are those of them who clicked a link, as far as they are people; 0 for a fact.
	Clickers uint64
}

// The facts, as precedences.
var (
	FactClicked    = schemas.PrecedenceOf(fanfarev1.Kind_KIND_CLICKED, 0, fanfarev1.Code_CODE_UNSPECIFIED)
	FactBotClicked = schemas.PrecedenceOf(fanfarev1.Kind_KIND_CLICKED, 0, fanfarev1.Code_CODE_BOT)
)

// Figures are what people ask for. These hold always, by construction:
//
//	Total = Pending + Ambiguous + NotSent + Skipped + Sent
//	Sent = Awaiting + Undelivered + Delivered
type Figures struct {
	// Total is the size of the audience, or the number of recipients seen when that is greater.
	Total uint64
	// Pending: not dealt, in flight, or waiting to be dealt again. Returned is the last part of it.
	Pending, Returned uint64
	Ambiguous         uint64
	NotSent, Skipped  uint64
	Sent              uint64
	// Awaiting: left, nothing final. Unconfirmed is the part of it whose receipt window is over.
	Awaiting, Unconfirmed uint64
	Undelivered           uint64
	// Delivered includes Read.
	Delivered, Read uint64
	// Failed is Undelivered + NotSent (C8).
	Failed uint64
	// Clickers are people who clicked, Bots scanners and previews; somebody may be both.
	Clickers, Bots    uint64
	Replied, OptedOut uint64

	// Rates have 4 decimals, and are 0 when there is nothing to divide by (C7).
	DeliveryRate        float64 // Delivered / Sent
	FailureRate         float64 // Failed / (Sent + NotSent)
	DeliveryRateOfTotal float64 // Delivered / Total
	FailureRateOfTotal  float64 // Failed / Total
	ClickRate           float64 // those of Delivered who clicked / Delivered

	// Tree splits every bucket but the never dealt by sub-status, in the order of the buckets.
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
	// Code is CODE_UNSPECIFIED for events without one.
	Code fanfarev1.Code
	N    uint64
}

// Figures sums the counts for an audience of the given size.
func (s Stats) Figures(total uint32) Figures {
	var f Figures
	var known, clickedDelivered uint64
	codes := map[schemas.Bucket]map[fanfarev1.Code]uint64{}
	for _, c := range s.Counts {
		bucket := c.Precedence.Bucket()
		if c.Precedence >= schemas.PrecedenceFacts || bucket == schemas.BucketFact {
			switch kind := c.Precedence.Kind(); {
			case c.Precedence == FactBotClicked:
				f.Bots += c.N
			case kind == fanfarev1.Kind_KIND_CLICKED:
				f.Clickers += c.N
			case kind == fanfarev1.Kind_KIND_REPLIED:
				f.Replied += c.N
			case kind == fanfarev1.Kind_KIND_OPTED_OUT:
				f.OptedOut += c.N
			}
			continue
		}
		known += c.N
		if codes[bucket] == nil {
			codes[bucket] = map[fanfarev1.Code]uint64{}
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
			if c.Precedence.Kind() == fanfarev1.Kind_KIND_UNCONFIRMED {
				f.Unconfirmed += c.N
			}
		case schemas.BucketUndelivered:
			f.Undelivered += c.N
		case schemas.BucketDelivered:
			f.Delivered += c.N
			clickedDelivered += c.Clickers
			if c.Precedence.Kind() == fanfarev1.Kind_KIND_READ {
				f.Read += c.N
			}
		case schemas.BucketFact:
		}
	}
	f.Total = max(uint64(total), known)
	f.Pending = f.Total - known + f.Returned
	f.Sent = f.Awaiting + f.Undelivered + f.Delivered
	f.Failed = f.Undelivered + f.NotSent
	f.DeliveryRate = rate(f.Delivered, f.Sent)
	f.FailureRate = rate(f.Failed, f.Sent+f.NotSent)
	f.DeliveryRateOfTotal = rate(f.Delivered, f.Total)
	f.FailureRateOfTotal = rate(f.Failed, f.Total)
	f.ClickRate = rate(clickedDelivered, f.Delivered)
	f.Tree = tree(codes)
	return f
}

func tree(codes map[schemas.Bucket]map[fanfarev1.Code]uint64) []Branch {
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

// rate is n/d with 4 decimals, 0 when d is 0.
func rate(n, d uint64) float64 {
	if d == 0 {
		return 0
	}
	return math.Round(float64(n)/float64(d)*1e4) / 1e4
}

// Select returns the states, of those counted, that are in the bucket and, when codes are given, have one of them:
// what [Store.Select] takes. A recipient that was never dealt has no state and cannot be selected so.
func (s Stats) Select(bucket schemas.Bucket, codes ...fanfarev1.Code) []schemas.Precedence {
	var out []schemas.Precedence
	for _, c := range s.Counts {
		if c.Precedence < schemas.PrecedenceFacts && c.Precedence.Bucket() == bucket &&
			(len(codes) == 0 || slices.Contains(codes, c.Precedence.Code())) {
			out = append(out, c.Precedence)
		}
	}
	return out
}
