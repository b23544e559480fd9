package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// goodRun is a small run without a fault: 0 and 1 are delivered, 2 failed for good, 3 bounced and was delivered at the
// second try, 4 was accepted and has no receipt, 5 was not sent.
func goodRun(t *testing.T) (outcome, []statsSample, []pendingPoint) {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	o := outcome{total: 6, fates: map[string]fate{}, maxAmbiguous: 0}
	numbers := []string{"+39340000000", "+39340000001", "+39340000002", "+39340000003", "+39340000004", "+39340000005"}
	o.audience = numbers
	event := func(seq, try uint32, kind schemas.Kind, code schemas.Code) {
		message, sub := keys.Message(10001, seq), keys.Submission(10001, seq, uint8(try))
		o.deliveries = append(o.deliveries, &fanfarev1.Delivery{
			Seq: seq, Try: try, Kind: kind, Code: code, To: numbers[seq], MessageId: message[:], SubmissionId: sub[:],
		})
	}
	submit := func(seq, try uint32, f fate) {
		sub := keys.Submission(10001, seq, uint8(try)).String()
		o.truth = append(o.truth, submission{
			Time: start.Add(time.Duration(len(o.truth)) * time.Second), MessageID: keys.Message(10001, seq).String(), SubmissionID: sub, To: numbers[seq], Outcome: "accepted",
		})
		o.fates[sub] = f
		event(seq, try, schemas.KindSent, schemas.CodeAwaitingDLR)
	}
	submit(0, 1, fateDelivered)
	submit(1, 1, fateDelivered)
	submit(2, 1, fateFailed)
	submit(3, 1, fateFailed)
	event(3, 1, schemas.KindBounced, schemas.CodeAbsentSubscriber)
	submit(3, 2, fateDelivered)
	submit(4, 1, fateSilent)
	event(0, 1, schemas.KindDelivered, schemas.CodeDelivered)
	event(1, 1, schemas.KindDelivered, schemas.CodeDelivered)
	event(2, 1, schemas.KindUndelivered, schemas.CodeUnknownSubscriber)
	event(3, 2, schemas.KindDelivered, schemas.CodeDelivered)
	event(4, 1, schemas.KindUnconfirmed, schemas.CodeNoDLR)
	event(5, 1, schemas.KindNotSent, schemas.CodeInvalidNumber)
	o.final = statsAnswer{TotalMessages: 6, Sent: 5, Delivered: 3, Undelivered: 1, Awaiting: 1, NotSent: 1}

	var samples []statsSample
	var points []pendingPoint
	// One message a second; the statistics are read half a second later, and they are a quarter of a second old
	for i := range 6 {
		at := start.Add(time.Duration(i) * time.Second)
		points = append(points, pendingPoint{at: at, pending: 6 - i, oldest: at})
		asOf := at.Add(250 * time.Millisecond)
		s := statsAnswer{TotalMessages: 6, Sent: i, Awaiting: i, Pending: 6 - i, AsOf: &asOf}
		asked := at.Add(500 * time.Millisecond)
		samples = append(samples, statsSample{asked, s, i, asked})
	}
	return o, samples, points
}

// An oracle that never fails proves nothing. Each oracle must find a bug that is planted in a good run.
func TestOraclesCatchPlantedBugs(t *testing.T) {
	type run struct {
		outcome
		samples []statsSample
		points  []pendingPoint
	}
	judge := func(r run) []error {
		return slices.Concat(checkSamples(r.samples), checkPending(r.samples, r.points, time.Second), checkDoubles(r.truth, r.deliveries), checkEnd(r.outcome))
	}
	drop := func(r *run, seq uint32, kinds ...schemas.Kind) {
		r.deliveries = slices.DeleteFunc(r.deliveries, func(d *fanfarev1.Delivery) bool {
			return d.GetSeq() == seq && (len(kinds) == 0 || slices.Contains(kinds, d.GetKind()))
		})
	}
	for _, c := range []struct {
		name  string
		plant func(*run)
		want  string // "" : no error
	}{
		{"nothing planted", func(*run) {}, ""},
		{"one submission handed over twice", func(r *run) { r.truth = append(r.truth, r.truth[0]) }, "accepted twice"},
		{"a second try without a negative receipt", func(r *run) { drop(r, 3, schemas.KindBounced) }, "without a negative receipt"},
		{"a recipient lost", func(r *run) { drop(r, 1) }, "lost"},
		{"sent, but the carrier never saw it", func(r *run) { r.truth = slices.Delete(r.truth, 0, 1) }, "never accepted"},
		{"accepted, but we say not sent", func(r *run) {
			drop(r, 4)
			r.deliveries = append(r.deliveries, &fanfarev1.Delivery{Seq: 4, Try: 1, Kind: schemas.KindNotSent, To: "+39340000004"})
		}, "accepted a message that we call notSent"},
		{"a delivery invented", func(r *run) {
			r.deliveries = append(r.deliveries, &fanfarev1.Delivery{Seq: 4, Try: 1, Kind: schemas.KindDelivered, To: "+39340000004"})
		}, "no receipt in truth"},
		{"a delivery forgotten", func(r *run) { drop(r, 0, schemas.KindDelivered) }, "delivered in truth"},
		{"doubt beyond the windows", func(r *run) {
			drop(r, 5)
			r.deliveries = append(r.deliveries, &fanfarev1.Delivery{Seq: 5, Try: 1, Kind: schemas.KindAmbiguous, To: "+39340000005"})
		}, "ambiguous, want at most 0"},
		{"one is still pending", func(r *run) {
			drop(r, 5)
			r.deliveries = append(r.deliveries, &fanfarev1.Delivery{Seq: 5, Try: 1, Kind: schemas.KindReturned, To: "+39340000005"})
		}, "pending at the end"},
		{"early sent: counted before the carrier had it", func(r *run) { r.samples[2].accepted = 1 }, "accepted in truth 1 does not hold"},
		{"more delivered than sent", func(r *run) { r.samples[3].stats.Delivered = 4 }, "does not hold"},
		{"sent falls", func(r *run) { r.samples[4].stats.Sent = 1 }, "sent fell"},
		{"a recipient counted twice", func(r *run) { r.samples[2].stats.Skipped++ }, "want total 6"},
		{"pending is two seconds old", func(r *run) {
			r.samples[5].stats.Pending += 3
			r.samples[5].stats.Sent -= 3
			r.samples[5].stats.Awaiting -= 3
		}, "/stats says pending"},
		{"statistics are too old", func(r *run) {
			asOf := r.samples[5].at.Add(-2 * time.Second)
			r.samples[5].stats.AsOf = &asOf
		}, "want at most 1s"},
		{"pending of after the answer", func(r *run) {
			r.samples[2].stats.Pending--
			r.samples[2].stats.Skipped++
		}, "/stats says pending"},
		{"statistics that differ from the topic", func(r *run) { r.final.Delivered--; r.final.Awaiting++ }, "/stats says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r run
			r.outcome, r.samples, r.points = goodRun(t)
			c.plant(&r)
			errs := judge(r)
			if c.want == "" {
				if len(errs) > 0 {
					t.Fatalf("the oracles reject a good run: %v", errs)
				}
				return
			}
			if !slices.ContainsFunc(errs, func(e error) bool { return strings.Contains(e.Error(), c.want) }) {
				t.Errorf("got %v, want an error with %q", errs, c.want)
			}
		})
	}
}
