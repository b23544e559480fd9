package sim

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// Lognormal is a distribution of durations: half of all are below P50, 99 of 100 are below P99. The zero value always
// draws 0.
type Lognormal struct {
	P50, P99 time.Duration
}

// z99 is the 99th percentile of the standard normal distribution.
const z99 = 2.3263478740408408

// draw returns one duration. P99 below P50 counts as P50: no spread.
func (l Lognormal) draw(r *rand.Rand) time.Duration {
	if l.P50 <= 0 {
		return 0
	}
	if l.P99 <= l.P50 {
		return l.P50
	}
	sigma := math.Log(float64(l.P99)/float64(l.P50)) / z99
	// Five sigma is a draw in three million; without a bound one draw in a run of ten million would be hours.
	return time.Duration(float64(l.P50) * math.Exp(sigma*min(r.NormFloat64(), 5)))
}

// Refusal is an answer with which the carrier refuses a message, and its share of all submissions.
type Refusal struct {
	Share float64
	Sub   schemas.Code
}

// Fate is the final state of an accepted message, and the weight of this fate among all fates.
type Fate struct {
	Weight float64
	// Status is delivered, failed or unknown.
	Status schemas.ReceiptStatus
	Sub    schemas.Code
}

// RefFormat is the spelling of the provider's ids.
type RefFormat uint8

// Spellings of the provider's id.
const (
	RefDecimal RefFormat = iota
	RefHex
	RefUUID
	// RefMixed uses decimal in the answer and upper-case hexadecimal in the receipt, as many SMSCs do.
	RefMixed
)

// Profile is how a carrier behaves. A share is a probability, 0..1, per accepted submission unless it says otherwise.
// The zero value takes everything at once and delivers it at once.
type Profile struct {
	Name string

	// Rate is how many submissions per second the carrier accepts; it throttles more; 0: no limit. Burst is the size of
	// the bucket; 0: 100 ms of Rate.
	Rate  float64
	Burst int
	// Answer is how long an answer takes.
	Answer Lognormal
	// Refused are the refusals for good. Throttled and Busy are shares of all submissions that get a passing refusal.
	Refused         []Refusal
	Throttled, Busy float64

	// Silent messages are accepted, but never answered. Dropped ones (a share of all submissions) are lost on the way:
	// neither accepted nor answered.
	Silent, Dropped float64
	// Disconnect is the share of batches in which the connection breaks after the batch was taken and before all of it
	// was answered.
	Disconnect float64

	// Fates are the fates of accepted messages; none: all are delivered.
	Fates []Fate
	// Receipt is the delay of most receipts. The share Offline is delayed exponentially instead, by OfflineMean.
	Receipt     Lognormal
	Offline     float64
	OfflineMean time.Duration
	// Lost is the share whose receipt never comes. Only messages with an answer lose their receipt; Magic has a number
	// with neither answer nor receipt.
	Lost float64
	// Duplicate is the share whose receipts all come twice. Reordered is the share whose receipts are each delayed by
	// up to ReorderedBy.
	Duplicate   float64
	Reordered   float64
	ReorderedBy time.Duration
	// Enroute is the share whose first receipt says that the message is on its way; EnrouteLate the share whose last
	// receipt says so.
	Enroute, EnrouteLate float64
	// Flip is the share whose delivery is first reported as expired, and corrected 1 s later.
	Flip float64
	// Early is the share whose first receipt comes before the answer.
	Early float64
	// Read is the share that gets a read receipt after the delivery, on channels other than SMS.
	Read float64
	// Parts gives a message of several segments one receipt per segment. PartFails is the share of these in which one
	// part fails.
	Parts     bool
	PartFails float64

	// HidesKey: receipts have only the provider's id.
	HidesKey bool
	Ref      RefFormat
	// Doubt says how a sender can end the doubt about a hand-over without an answer. With DoubtKeyHeader and
	// DoubtNaturalID, the carrier gives the first answer again for a key that it has accepted, and makes no second
	// message. With DoubtQuery, a sender can query the carrier.
	Doubt carrier.Doubt
}

// Validate returns an error that names the first field out of bounds.
func (p *Profile) Validate() error {
	if p.Rate < 0 || p.Burst < 0 || math.IsNaN(p.Rate) || math.IsInf(p.Rate, 0) {
		return errors.New("rate and burst: want 0 or more")
	}
	shares := []struct {
		name  string
		value float64
	}{
		{"throttled", p.Throttled},
		{"busy", p.Busy},
		{"silent", p.Silent},
		{"dropped", p.Dropped},
		{"disconnect", p.Disconnect},
		{"offline", p.Offline},
		{"lost", p.Lost},
		{"duplicate", p.Duplicate},
		{"reordered", p.Reordered},
		{"enroute", p.Enroute},
		{"enroute late", p.EnrouteLate},
		{"flip", p.Flip},
		{"early", p.Early},
		{"read", p.Read},
		{"part fails", p.PartFails},
	}
	for _, r := range p.Refused {
		shares = append(shares, struct {
			name  string
			value float64
		}{"refused " + r.Sub.String(), r.Share})
	}
	for _, s := range shares {
		if !(s.value >= 0 && s.value <= 1) {
			return fmt.Errorf("%s: want a share of 0 to 1, got %g", s.name, s.value)
		}
	}
	if sum := p.refusedShare() + p.Throttled + p.Busy + p.Dropped; sum > 1 {
		return fmt.Errorf("refused, throttled, busy and dropped: want at most 1 together, got %g", sum)
	}
	if len(p.Fates) > 0 {
		var sum float64
		for _, f := range p.Fates {
			if !(f.Weight >= 0) || math.IsInf(f.Weight, 0) {
				return fmt.Errorf("fate %s: want a weight of 0 or more, got %g", f.Sub, f.Weight)
			}
			sum += f.Weight
		}
		if sum == 0 {
			return errors.New("fates: want a weight above 0")
		}
	}
	return nil
}

func (p *Profile) refusedShare() (sum float64) {
	for _, r := range p.Refused {
		sum += r.Share
	}
	return sum
}

const (
	delivered = schemas.ReceiptStatusDelivered
	failed    = schemas.ReceiptStatusFailed
	buffered  = schemas.ReceiptStatusBuffered
	read      = schemas.ReceiptStatusRead
	unknown   = schemas.ReceiptStatusUnknown
)

// Default is a carrier on a good day. It delivers 96 %, most of it within seconds; all other messages fail for good. No
// failure is worth a retry, so a first campaign is over in a minute, and does not wait half an hour for the last retry.
// Magic numbers and [Chaos] show retries.
func Default() Profile {
	return Profile{
		Name:   "default",
		Answer: Lognormal{20 * time.Millisecond, 120 * time.Millisecond},
		Refused: []Refusal{
			{0.001, schemas.CodeInvalidNumber},
		},
		Fates: []Fate{
			{96, delivered, schemas.CodeDelivered},
			{2, failed, schemas.CodeUnknownSubscriber},
			{1, failed, schemas.CodeBarred},
			{0.5, failed, schemas.CodeHandsetError},
			{0.3, failed, schemas.CodeOperatorBlacklist},
			{0.2, failed, schemas.CodeUndeliveredOther},
		},
		Receipt:     Lognormal{900 * time.Millisecond, 4 * time.Second},
		Offline:     0.01,
		OfflineMean: 8 * time.Second,
		Enroute:     0.02,
		Read:        0.4,
		Doubt:       carrier.DoubtKeyHeader,
	}
}

// Fast answers at once and delivers every message a tenth of a second later, so that the carrier never limits a
// benchmark.
func Fast() Profile {
	return Profile{Name: "fast", Receipt: Lognormal{P50: 100 * time.Millisecond}, Doubt: carrier.DoubtKeyHeader}
}

// Chaos has all faults at once, much more often than a real carrier. Only a receipt ends a doubt: each message that was
// accepted without an answer gets one. Receipts that come at all come within about 20 s.
func Chaos() Profile {
	return Profile{
		Name:   "chaos",
		Answer: Lognormal{15 * time.Millisecond, 300 * time.Millisecond},
		Refused: []Refusal{
			{0.01, schemas.CodeInvalidNumber},
			{0.005, schemas.CodeSpamContent},
			{0.005, schemas.CodeNotSentOther},
		},
		Throttled:  0.01,
		Busy:       0.01,
		Silent:     0.005,
		Disconnect: 0.01,
		Fates: []Fate{
			{80, delivered, schemas.CodeDelivered},
			{6, failed, schemas.CodeAbsentSubscriber},
			{3, failed, schemas.CodeHandsetOff},
			{2, failed, schemas.CodeNetworkError},
			{1, failed, schemas.CodeMemoryFull},
			{2, failed, schemas.CodeExpired},
			{3, failed, schemas.CodeUnknownSubscriber},
			{1, failed, schemas.CodeBarred},
			{1, failed, schemas.CodeUndeliveredOther},
			{1, unknown, schemas.CodeUnspecified},
		},
		Receipt:     Lognormal{300 * time.Millisecond, 3 * time.Second},
		Offline:     0.03,
		OfflineMean: 2 * time.Second,
		Lost:        0.02,
		Duplicate:   0.05,
		Reordered:   0.05,
		ReorderedBy: time.Second,
		Enroute:     0.1,
		EnrouteLate: 0.03,
		Flip:        0.02,
		Early:       0.03,
		Read:        0.4,
	}
}

// ProfileNames are the names that [ProfileNamed] knows.
var ProfileNames = []string{"default", "fast", "chaos"}

// DoubtNames are the words that may follow the name of a profile and a plus. They say how a doubt ends.
var DoubtNames = []string{"none", "key", "id", "query"}

// ProfileNamed returns one of the profiles of this package. A plus and a word of [DoubtNames] may follow the name, such
// as `chaos+query`. Without it, nothing but a receipt ends a doubt with chaos, and the other profiles ignore a repeated
// key.
func ProfileNamed(name string) (Profile, error) {
	base, doubt, more := strings.Cut(name, "+")
	doubts := map[string]carrier.Doubt{
		"none": carrier.DoubtNone, "key": carrier.DoubtKeyHeader, "id": carrier.DoubtNaturalID, "query": carrier.DoubtQuery,
	}
	for _, p := range []Profile{Default(), Fast(), Chaos()} {
		if p.Name != base {
			continue
		}
		if more {
			d, ok := doubts[doubt]
			if !ok {
				return Profile{}, fmt.Errorf("profile %q: after the plus: want one of %v", name, DoubtNames)
			}
			p.Name, p.Doubt = name, d
		}
		return p, nil
	}
	return Profile{}, fmt.Errorf("profile %q: want one of %v", name, ProfileNames)
}
