package api

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/go-json-experiment/json"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// auditInput is what an audit has read, in the order in which it was read: the campaign, the carrier's record and the
// statistics, then the log, then the statistics, the carrier's record, the ledger and the campaign once more.
type auditInput struct {
	campaign      *store.Campaign
	carrierBefore *CarrierRecord
	before        *analytics.Sets
	costBefore    []analytics.CostLine
	log           *LogRecord
	asOf          time.Time // of after
	after         *analytics.Sets
	cost          []analytics.CostLine
	inFlight      uint64
	carrierAfter  *CarrierRecord
	ledger        uint64
	campaignAfter *store.Campaign
	owed          uint64 // by the tenant

	// What compare finds out first.
	logged, stats, earlier analytics.Algebra // disjoint sets
	// Recipients that differ: something happened to them while the audit ran, or nothing did
	moved, wrong *roaring.Bitmap
	out          auditResult
}

// How long topics keep what an audit reads: chunks for less time than deliveries.
const (
	chunksKept     = 30 * 24 * time.Hour
	deliveriesKept = 35 * 24 * time.Hour
)

func encodeAudit(r *auditResult) ([]byte, error) { return json.Marshal(r) }

func decodeAudit(part []byte) (r auditResult, err error) { return r, json.Unmarshal(part, &r) }

// compare sets the sources side by side.
func (in *auditInput) compare() *auditResult {
	in.out = auditResult{Figures: []AuditFigure{}, Notes: []string{}}
	in.logged, in.stats, in.earlier = in.log.Sets.Algebra().Disjoint(), in.after.Algebra().Disjoint(), in.before.Algebra().Disjoint()
	in.judge()
	in.note("The log was read up to %s: %d events and %d deals of this campaign. The statistics have every event up to %s.",
		stamp(in.log.Read), in.log.Events, in.log.Deals, stamp(in.asOf))
	if in.log.Refused > 0 {
		in.note("%d records of the log, of any campaign, cannot be read; they are in the dead letters.", in.log.Refused)
	}
	in.counts()
	in.deals()
	in.carrier()
	in.money()
	return &in.out
}

func (in *auditInput) note(format string, args ...any) {
	in.out.Notes = append(in.out.Notes, fmt.Sprintf(format, args...))
}

// differing returns the recipients whose state, or one of whose facts, is not the same in both.
func differing(a, b analytics.Algebra) *roaring.Bitmap {
	out := roaring.New()
	for p, set := range a {
		if other := b[p]; other != nil {
			out.Or(roaring.Xor(set, other))
		} else {
			out.Or(set)
		}
	}
	for p, set := range b {
		if a[p] == nil {
			out.Or(set)
		}
	}
	return out
}

// judge finds the recipients whose state in the log is not that in the statistics, and which of them moved meanwhile. A
// state only grows: a recipient with the same state in the statistics before and after had that state also while the
// log was read.
func (in *auditInput) judge() {
	differ := differing(in.logged, in.stats)
	in.moved = roaring.And(differ, differing(in.earlier, in.stats))
	in.wrong = roaring.AndNot(differ, in.moved)
	if in.behind() { // whom the log has further than the statistics, which are behind
		ahead := roaring.New()
		reached := in.after.Algebra()
		for p, set := range in.log.Sets.Algebra() {
			if have := reached[p]; have != nil {
				ahead.Or(roaring.AndNot(set, have))
			} else {
				ahead.Or(set)
			}
		}
		behind := roaring.And(in.wrong, ahead)
		in.moved.Or(behind)
		in.wrong.AndNot(behind)
	}
}

// clockSlack is how much the clocks of the process that reads the log and of the one that fills the statistics may
// differ.
const clockSlack = time.Second

// behind reports whether the log may have events that the statistics do not.
func (in *auditInput) behind() bool { return in.asOf.Before(in.log.Read.Add(clockSlack)) }

// oldLog reports whether the log no longer has the beginning of the campaign.
func (in *auditInput) oldLog(kept time.Duration) bool {
	return !in.campaign.Confirmed.IsZero() && in.log.Read.Sub(in.campaign.Confirmed) > kept
}

// add appends a figure. why explains a difference; "" with nothing: nothing explains it, and looked says what was
// looked for.
func (in *auditInput) add(name, unit, why, looked string, values ...AuditValue) {
	least, greatest := values[0].Value, values[0].Value
	for _, v := range values {
		least, greatest = min(least, v.Value), max(greatest, v.Value)
	}
	in.append(AuditFigure{Name: name, Unit: unit, Values: values, Difference: math.Round((greatest-least)*1e6) / 1e6}, why, looked)
}

// addSets appends a figure of which the log and the carrier name the recipients: their difference is who is in one of
// both.
func (in *auditInput) addSets(name, why, looked string, log, carrier *roaring.Bitmap) {
	in.append(AuditFigure{
		Name: name, Unit: "recipients", Values: []AuditValue{heads("log", log.GetCardinality()), heads("carrier", carrier.GetCardinality())},
		Difference: float64(roaring.Xor(log, carrier).GetCardinality()),
	}, why, looked)
}

func (in *auditInput) append(f AuditFigure, why, looked string) {
	f.Explained = true
	switch {
	case f.Difference == 0:
	case why != "":
		f.Explanation = &why
	default:
		f.Explained, f.Explanation = false, orNull(looked)
	}
	in.out.Figures = append(in.out.Figures, f)
}

func heads(source string, n uint64) AuditValue { return AuditValue{source, float64(n)} }

func amount(source string, micros uint64) AuditValue {
	return AuditValue{source, float64(micros) / 1e6}
}

// auditWhole is a count of the statistics by name.
var auditWhole = []struct {
	name string
	of   func(*analytics.Figures) uint64
}{
	{"totalMessages", func(f *analytics.Figures) uint64 { return f.Total }},
	{"pending", func(f *analytics.Figures) uint64 { return f.Pending }},
	{"ambiguous", func(f *analytics.Figures) uint64 { return f.Ambiguous }},
	{"notSent", func(f *analytics.Figures) uint64 { return f.NotSent }},
	{"skipped", func(f *analytics.Figures) uint64 { return f.Skipped }},
	{"sent", func(f *analytics.Figures) uint64 { return f.Sent }},
	{"awaiting", func(f *analytics.Figures) uint64 { return f.Awaiting }},
	{"undelivered", func(f *analytics.Figures) uint64 { return f.Undelivered }},
	{"delivered", func(f *analytics.Figures) uint64 { return f.Delivered }},
	{"read", func(f *analytics.Figures) uint64 { return f.Read }},
	{"clicked", func(f *analytics.Figures) uint64 { return f.Clickers }},
	{"replied", func(f *analytics.Figures) uint64 { return f.Replied }},
	{"optedOut", func(f *analytics.Figures) uint64 { return f.OptedOut }},
}

// counts compares log and statistics, status by status and recipient by recipient.
func (in *auditInput) counts() {
	total := in.campaignAfter.Total
	logged := analytics.Stats{Counts: in.log.Sets.Algebra().Count()}.Figures(total)
	stats := analytics.Stats{Counts: in.after.Algebra().Count()}.Figures(total)
	why, looked := in.whyStates()
	for _, f := range auditWhole {
		values := []AuditValue{heads("log", f.of(&logged)), heads("statistics", f.of(&stats))}
		if f.name == "totalMessages" && in.campaignAfter.FreezeID != "" {
			values = append(values, heads("campaign", uint64(total)))
			in.add(f.name, "recipients", "", "Events name recipients beyond the audience.", values...)
			continue
		}
		in.add(f.name, "recipients", why, looked, values...)
	}
	// Two recipients that are exchanged leave every count as it is.
	agree := func(a analytics.Algebra) *roaring.Bitmap {
		all := roaring.New()
		for _, set := range a {
			all.Or(set)
		}
		return all
	}
	both := agree(in.logged)
	both.Or(agree(in.stats))
	same := both.GetCardinality() - roaring.Or(in.moved, in.wrong).GetCardinality()
	in.add("sameState", "recipients", why, looked, heads("log", both.GetCardinality()), heads("statistics", same))
}

// whyStates explains why recipients differ between log and statistics.
func (in *auditInput) whyStates() (why, looked string) {
	moved, wrong := in.moved.GetCardinality(), in.wrong.GetCardinality()
	if wrong > 0 {
		if in.oldLog(deliveriesKept) {
			return fmt.Sprintf("The log keeps 35 days, and no longer has the beginning of the campaign: %d recipients.", wrong), ""
		}
		return "", fmt.Sprintf("%d recipients have another state in the statistics than the log says, and nothing happened to them while the audit ran.", wrong)
	}
	if moved == 0 {
		return "", "Every recipient has the same state in both."
	}
	if in.behind() {
		return fmt.Sprintf("Events of %d recipients reached the log while the audit ran, or are younger than the statistics, which are of %s.", moved, stamp(in.asOf)), ""
	}
	return fmt.Sprintf("Events of %d recipients came between the reading of the log and that of the statistics.", moved), ""
}

// deals compares who was dealt with the audience, and who is in flight.
func (in *auditInput) deals() {
	c := in.campaignAfter
	why := ""
	switch {
	case in.oldLog(chunksKept):
		why = "The log keeps deals for 30 days, and no longer has the first ones of the campaign."
	case c.State != schemas.StateCompleted:
		why = fmt.Sprintf("The campaign is %s: who is left has not been dealt, or was not to be.", schemas.StateName(c.State))
	}
	if c.FreezeID != "" {
		in.add("dealt", "recipients", why, "The campaign is completed, so every recipient was dealt.",
			heads("log", in.log.Dealt.GetCardinality()), heads("campaign", uint64(c.Total)))
	}
	why = ""
	switch {
	case !in.moved.IsEmpty() || schemas.Active(c.State):
		why = "Recipients were dealt and answered while the audit ran."
	case in.oldLog(chunksKept):
		why = "The log keeps deals for 30 days, and no longer has the first ones of the campaign."
	}
	in.add("inFlight", "recipients", why, "The campaign is not being sent, so no recipient is dealt or answered.", heads("log", in.log.InFlight), heads("statistics", in.inFlight))
}

// handedOver returns the recipients for which the log says, at some try, that the carrier took a message, and those in
// doubt.
func handedOver(sets *analytics.Sets) (left, doubtful *roaring.Bitmap) {
	left, doubtful = roaring.New(), roaring.New()
	for p, set := range sets.Algebra() {
		switch {
		case p >= schemas.PrecedenceFacts:
		case p.Class() >= schemas.ClassLeft:
			left.Or(set)
		case p.Kind() == schemas.KindAmbiguous:
			doubtful.Or(set)
		}
	}
	return left, doubtful
}

// carrier compares the log with what the carrier wrote down.
func (in *auditInput) carrier() {
	before, after := in.carrierBefore, in.carrierAfter
	if before == nil || after == nil {
		in.note("There is no record of a carrier to compare with: the campaign did not go through the simulated carrier of this process alone.")
		return
	}
	left, doubtful := handedOver(in.log.Sets)
	// What the carrier had taken before the log was read is in the log, unless its answer was on its way or was lost.
	// What the log says was handed over, the carrier had by the end.
	open := roaring.AndNot(in.log.Dealt, left)
	var why []string
	missing := roaring.AndNot(before.Accepted, left)
	if n := missing.AndCardinality(doubtful); n > 0 {
		why = append(why, fmt.Sprintf("The answer for %d recipients was lost; they are ambiguous until a receipt, the carrier or a person resolves it.", n))
	}
	missing.AndNot(doubtful)
	running := schemas.Active(in.campaignAfter.State) || schemas.Active(in.campaign.State)
	if n := missing.AndCardinality(open); n > 0 && running {
		why = append(why, fmt.Sprintf("The answers for %d recipients were on their way.", n))
		missing.AndNot(open)
	}
	invented := roaring.AndNot(left, after.Accepted)
	if n := roaring.AndNot(after.Accepted, before.Accepted).GetCardinality(); n > 0 {
		why = append(why, fmt.Sprintf("The carrier took messages to %d recipients while the audit ran.", n))
	}
	looked := ""
	if !missing.IsEmpty() || !invented.IsEmpty() {
		why = nil
		looked = fmt.Sprintf("The carrier took messages to %d recipients that the log does not count as taken, and has none to %d that the log counts.", missing.GetCardinality(), invented.GetCardinality())
		if in.oldLog(deliveriesKept) {
			why = []string{"The log keeps 35 days, and no longer has the beginning of the campaign."}
		}
	}
	in.addSets("takenByCarrier", strings.Join(why, " "), looked, left, after.Accepted)
	in.delivered(before, after)
}

// delivered compares who has a positive receipt. The carrier's record has a receipt from the beginning, also before it
// is due.
func (in *auditInput) delivered(before, after *CarrierRecord) {
	ours := roaring.New()
	for p, set := range in.log.Sets.Algebra() {
		if p < schemas.PrecedenceFacts && p.Class() == schemas.ClassPositive {
			ours.Or(set)
		}
	}
	var why []string
	missing := roaring.AndNot(before.Delivered, ours)
	invented := roaring.AndNot(ours, after.Delivered)
	if n := missing.AndCardinality(after.Owed); n > 0 {
		why = append(why, fmt.Sprintf("Receipts of %d recipients are not due yet, or not acknowledged.", n))
		missing.AndNot(after.Owed)
	}
	if n := missing.AndCardinality(before.Owed); n > 0 {
		why = append(why, fmt.Sprintf("Receipts of %d recipients came while the audit ran.", n))
		missing.AndNot(before.Owed)
	}
	if n := roaring.AndNot(after.Delivered, before.Delivered).GetCardinality(); n > 0 {
		why = append(why, fmt.Sprintf("The carrier took messages to %d recipients while the audit ran that it delivers.", n))
	}
	if n := missing.GetCardinality(); n > 0 && in.campaignAfter.Settled.IsZero() {
		why = append(why, fmt.Sprintf("Receipts of %d recipients are being read.", n))
		missing.Clear()
	}
	looked := ""
	if !missing.IsEmpty() || !invented.IsEmpty() {
		why = nil
		looked = fmt.Sprintf("The carrier acknowledged receipts of %d recipients that the log does not have, and has none of %d that the log has.", missing.GetCardinality(), invented.GetCardinality())
	}
	in.addSets("deliveredByCarrier", strings.Join(why, " "), looked, ours, after.Delivered)
}

func sumOf(lines []analytics.CostLine) (sum uint64) {
	for i := range lines {
		sum += lines[i].Micros
	}
	return sum
}

// money compares what the campaign cost.
func (in *auditInput) money() {
	logged, stats := sumOf(in.log.Cost), sumOf(in.cost)
	why, looked := in.whyStates()
	// An event may cost without a change of a state
	if earlier := sumOf(in.costBefore); why == "" && earlier <= logged && logged <= stats {
		why = "Events came between the reading of the log and that of the statistics."
	}
	in.add("cost", "money", why, looked, amount("log", logged), amount("statistics", stats))

	now := in.campaignAfter.Captured
	why = ""
	if in.ledger >= in.campaign.Captured && in.ledger <= now {
		why = "Money was captured while the audit ran."
	}
	in.add("captured", "money", why, "The ledger and the campaign are written in one transaction.", amount("ledger", in.ledger), amount("campaign", now))

	settled := in.campaignAfter.Settled
	why, looked = "", ""
	switch {
	case settled.IsZero() && in.ledger <= logged:
		why = "The campaign is not settled. Until then the ledger captures, once a minute, only what no later receipt can make free of charge; the rest is reserved."
	case settled.IsZero() && in.campaign.Settled.IsZero() && !in.moved.IsEmpty():
		why = "Money was captured after the log was read."
	case settled.IsZero():
		looked = "The ledger has captured more than the hand-overs in the log cost."
	case in.log.Newest.After(settled):
		why = fmt.Sprintf("Receipts came after the campaign was settled, at %s, the last at %s: they change the statistics and not the ledger.", stamp(settled), stamp(in.log.Newest))
	case in.oldLog(deliveriesKept):
		why = "The log keeps 35 days, and no longer has the beginning of the campaign."
	case in.ledger < logged && logged-in.ledger <= in.owed:
		why = "The tenant's credit did not cover it: the tenant owes at least as much."
	default:
		looked = "The campaign is settled, and no event came after that."
	}
	in.add("billed", "money", why, looked, amount("log", logged), amount("ledger", in.ledger))
}
