package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// goodRun is a small run without a fault: 0 and 1 delivered, 2 failed for good, 3 bounced and delivered at the second try, 4
// accepted and silent, 5 not sent.
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
	event := func(seq, try uint32, kind fanfarev1.Kind, code fanfarev1.Code) {
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
		event(seq, try, fanfarev1.Kind_KIND_SENT, fanfarev1.Code_CODE_AWAITING_DLR)
	}
	submit(0, 1, fateDelivered)
	submit(1, 1, fateDelivered)
	submit(2, 1, fateFailed)
	submit(3, 1, fateFailed)
	event(3, 1, fanfarev1.Kind_KIND_BOUNCED, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER)
	submit(3, 2, fateDelivered)
	submit(4, 1, fateSilent)
	event(0, 1, fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED)
	event(1, 1, fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED)
	event(2, 1, fanfarev1.Kind_KIND_UNDELIVERED, fanfarev1.Code_CODE_UNKNOWN_SUBSCRIBER)
	event(3, 2, fanfarev1.Kind_KIND_DELIVERED, fanfarev1.Code_CODE_DELIVERED)
	event(4, 1, fanfarev1.Kind_KIND_UNCONFIRMED, fanfarev1.Code_CODE_NO_DLR)
	event(5, 1, fanfarev1.Kind_KIND_NOT_SENT, fanfarev1.Code_CODE_INVALID_NUMBER)
	o.final = statsAnswer{TotalMessages: 6, Sent: 5, Delivered: 3, Undelivered: 1, Awaiting: 1, NotSent: 1}

	var samples []statsSample
	var points []pendingPoint
	for i := range 6 { // one message a second, seen half a second late
		points = append(points, pendingPoint{start.Add(time.Duration(i) * time.Second), 6 - i})
		s := statsAnswer{TotalMessages: 6, Sent: i, Awaiting: i, Pending: 6 - i}
		samples = append(samples, statsSample{start.Add(time.Duration(i)*time.Second + 500*time.Millisecond), s, i})
	}
	return o, samples, points
}

// An oracle that nothing can fail proves nothing: each is shown a run with a bug planted in it, and must find it.
func TestOraclesCatchPlantedBugs(t *testing.T) {
	type run struct {
		outcome
		samples []statsSample
		points  []pendingPoint
	}
	judge := func(r run) []error {
		return slices.Concat(checkSamples(r.samples), checkPending(r.samples, r.points, time.Second, 0), checkDoubles(r.truth, r.deliveries), checkEnd(r.outcome))
	}
	drop := func(r *run, seq uint32, kinds ...fanfarev1.Kind) {
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
		{"a second try without a negative receipt", func(r *run) { drop(r, 3, fanfarev1.Kind_KIND_BOUNCED) }, "without a negative receipt"},
		{"a recipient lost", func(r *run) { drop(r, 1) }, "lost"},
		{"sent, but the carrier never saw it", func(r *run) { r.truth = slices.Delete(r.truth, 0, 1) }, "never accepted"},
		{"accepted, but we say not sent", func(r *run) {
			drop(r, 4)
			r.deliveries = append(r.deliveries, &fanfarev1.Delivery{Seq: 4, Try: 1, Kind: fanfarev1.Kind_KIND_NOT_SENT, To: "+39340000004"})
		}, "accepted a message that we call notSent"},
		{"a delivery invented", func(r *run) {
			r.deliveries = append(r.deliveries, &fanfarev1.Delivery{Seq: 4, Try: 1, Kind: fanfarev1.Kind_KIND_DELIVERED, To: "+39340000004"})
		}, "no receipt in truth"},
		{"a delivery forgotten", func(r *run) { drop(r, 0, fanfarev1.Kind_KIND_DELIVERED) }, "delivered in truth"},
		{"doubt beyond the windows", func(r *run) {
			drop(r, 5)
			r.deliveries = append(r.deliveries, &fanfarev1.Delivery{Seq: 5, Try: 1, Kind: fanfarev1.Kind_KIND_AMBIGUOUS, To: "+39340000005"})
		}, "ambiguous, want at most 0"},
		{"one is still pending", func(r *run) {
			drop(r, 5)
			r.deliveries = append(r.deliveries, &fanfarev1.Delivery{Seq: 5, Try: 1, Kind: fanfarev1.Kind_KIND_RETURNED, To: "+39340000005"})
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
		{"statistics that differ from the topic", func(r *run) { r.final.Delivered--; r.final.Awaiting++ }, "/stats says"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r run
			r.outcome, r.samples, r.points = goodRun(t)
			c.plant(&r)
			errs := judge(r)
			if c.want == "" {
				if len(errs) > 0 {
					t.Fatalf("a good run is condemned: %v", errs)
				}
				return
			}
			if !slices.ContainsFunc(errs, func(e error) bool { return strings.Contains(e.Error(), c.want) }) {
				t.Errorf("got %v, want an error with %q", errs, c.want)
			}
		})
	}
}
