package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// The oracles compare the statistics under test with the topics and with the record of the carrier. They are pure
// functions, so that a test can plant bugs and check that each oracle finds them.

// A submission is one line of the carrier's record (the truth).
type submission struct {
	Time         time.Time `json:"time"`
	MessageID    string    `json:"message_id"`
	SubmissionID string    `json:"submission_id"`
	To           string    `json:"to"`
	Body         string    `json:"body"`
	Outcome      string    `json:"outcome"`
}

func (s submission) accepted() bool { return s.Outcome == "accepted" }

// statsSample is an answer of /stats, and how many recipients the carrier had accepted a moment later.
type statsSample struct {
	at       time.Time // of the question
	stats    statsAnswer
	accepted int
	until    time.Time // of the answer
}

// statsAnswer has the fields of GET /stats that the oracles read.
type statsAnswer struct {
	Status        string `json:"status"`
	State         string `json:"state"`
	Settled       bool   `json:"settled"`
	TotalMessages int    `json:"totalMessages"`
	Sent          int    `json:"sent"`
	Delivered     int    `json:"delivered"`
	Failed        int    `json:"failed"`
	Pending       int    `json:"pending"`
	Ambiguous     int    `json:"ambiguous"`
	NotSent       int    `json:"notSent"`
	Skipped       int    `json:"skipped"`
	Awaiting      int    `json:"awaiting"`
	Undelivered   int    `json:"undelivered"`
	// AsOf: the figures include all events up to this time.
	AsOf *time.Time `json:"as_of"`
}

// identities checks P2: every recipient is in exactly one bucket.
func (s statsAnswer) identities() error {
	if sum := s.Pending + s.Ambiguous + s.NotSent + s.Skipped + s.Sent; sum != s.TotalMessages {
		return fmt.Errorf("pending %d + ambiguous %d + notSent %d + skipped %d + sent %d = %d, want total %d",
			s.Pending, s.Ambiguous, s.NotSent, s.Skipped, s.Sent, sum, s.TotalMessages)
	}
	if sum := s.Awaiting + s.Undelivered + s.Delivered; sum != s.Sent {
		return fmt.Errorf("awaiting %d + undelivered %d + delivered %d = %d, want sent %d", s.Awaiting, s.Undelivered, s.Delivered, sum, s.Sent)
	}
	return nil
}

// checkSamples: delivered <= sent <= accepted in truth at every instant, and sent never falls.
func checkSamples(samples []statsSample) []error {
	var errs []error
	last := 0
	for _, s := range samples {
		if err := s.stats.identities(); err != nil {
			errs = append(errs, fmt.Errorf("at %s: %w", s.at.Format(time.StampMilli), err))
		}
		if s.stats.Delivered > s.stats.Sent || s.stats.Sent > s.accepted {
			errs = append(errs, fmt.Errorf("at %s: delivered %d <= sent %d <= accepted in truth %d does not hold",
				s.at.Format(time.StampMilli), s.stats.Delivered, s.stats.Sent, s.accepted))
		}
		if s.stats.Sent < last {
			errs = append(errs, fmt.Errorf("at %s: sent fell from %d to %d", s.at.Format(time.StampMilli), last, s.stats.Sent))
		}
		last = s.stats.Sent
		if s.stats.State == "completed" && s.stats.Pending > 0 {
			errs = append(errs, fmt.Errorf("at %s: /stats says completed and %d pending", s.at.Format(time.StampMilli), s.stats.Pending))
		}
	}
	return errs
}

// A pendingPoint says how many recipients were pending by topic `deliveries` when the test had read it up to this
// point.
type pendingPoint struct {
	at      time.Time
	pending int
	// oldest is the time at which the oldest of the events that are new at this point was written.
	oldest time.Time
}

// checkPending: the pending figure of /stats includes every event up to the time that it names in as_of, and none from
// after the answer. So it equals one of the values that the topic gave from as_of on: an event that the test had read
// by as_of was in the topic by then, and one that was written after the answer cannot be in it. The figures may be no
// older than stale.
func checkPending(samples []statsSample, points []pendingPoint, stale time.Duration) []error {
	var errs []error
	for _, s := range samples {
		if s.stats.TotalMessages == 0 {
			continue // not frozen yet
		}
		var asOf time.Time // nothing is counted yet
		if s.stats.AsOf != nil {
			asOf = s.stats.AsOf.Add(-time.Millisecond) // it is written in whole milliseconds
			if old := s.at.Sub(asOf); old > stale {
				errs = append(errs, fmt.Errorf("at %s: /stats is as of %s before, want at most %s", s.at.Format(time.StampMilli), old, stale))
			}
		}
		lo, hi, seen := 0, 0, false
		for i := range points {
			p := &points[i]
			switch {
			case !p.at.After(asOf):
				lo, hi, seen = p.pending, p.pending, true // all before it is counted
			case !p.oldest.After(s.until):
				if !seen {
					lo, hi, seen = p.pending, p.pending, true
				}
				lo, hi = min(lo, p.pending), max(hi, p.pending)
			}
		}
		if seen && (s.stats.Pending < lo || s.stats.Pending > hi) {
			errs = append(errs, fmt.Errorf("at %s: /stats says pending %d as of %s, the topic said %d to %d from then on",
				s.at.Format(time.StampMilli), s.stats.Pending, asOf.Format(time.StampMilli), lo, hi))
		}
	}
	return errs
}

// checkDoubles: the carrier accepted a second submission for a recipient only after a negative receipt that allows a
// retry, and it accepted no submission twice.
func checkDoubles(truth []submission, deliveries []*fanfarev1.Delivery) []error {
	var errs []error
	bounced := map[string]bool{} // submission ids with a bounce or an expiry behind them
	for _, d := range deliveries {
		if d.GetKind() == schemas.KindBounced {
			var id schemas.ID
			copy(id[:], d.GetSubmissionId())
			bounced[id.String()] = true
		}
	}
	byMessage := map[string][]submission{}
	for _, s := range truth {
		if s.accepted() {
			byMessage[s.MessageID] = append(byMessage[s.MessageID], s)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byMessage)) {
		subs := byMessage[id]
		slices.SortStableFunc(subs, func(a, b submission) int { return a.Time.Compare(b.Time) })
		for i := 1; i < len(subs); i++ {
			prev, next := subs[i-1], subs[i]
			switch {
			case prev.SubmissionID == next.SubmissionID:
				errs = append(errs, fmt.Errorf("%s was accepted twice as %s", id, prev.SubmissionID))
			case !bounced[prev.SubmissionID]:
				errs = append(errs, fmt.Errorf("%s was accepted as %s and again as %s without a negative receipt between", id, prev.SubmissionID, next.SubmissionID))
			}
		}
	}
	return errs
}

// states joins delivery events into the state of each seq.
func states(deliveries []*fanfarev1.Delivery) map[uint32]schemas.Precedence {
	out := map[uint32]schemas.Precedence{}
	for _, d := range deliveries {
		out[d.GetSeq()] = schemas.Join(out[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
	}
	return out
}

// outcome of the whole run, for checkEnd.
type outcome struct {
	audience   []string // every number that the campaign should reach
	total      int      // recipients of the campaign
	truth      []submission
	deliveries []*fanfarev1.Delivery
	final      statsAnswer
	// maxAmbiguous is the sum of the windows at the kills.
	maxAmbiguous int
	// fates say what the carrier did with each accepted submission: delivered, failed, or no receipt.
	fates map[string]fate
}

// fate of a submission in the carrier's hands.
type fate uint8

const (
	fateSilent fate = iota // no receipt was ever to come
	fateDelivered
	fateFailed
)

// checkEnd: at the end every recipient has one state, at most the windows at the kills are ambiguous, and our states
// agree with what the carrier did.
func checkEnd(o outcome) []error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if err := o.final.identities(); err != nil {
		fail("final statistics: %w", err)
	}
	joined := states(o.deliveries)
	if len(joined) != o.total {
		fail("%d recipients have a state, want %d", len(joined), o.total)
	}
	buckets := map[schemas.Bucket]int{}
	for _, p := range joined {
		buckets[p.Bucket()]++
	}
	for _, c := range []struct {
		name      string
		ours, say int
	}{
		{"pending", buckets[schemas.BucketPending], o.final.Pending},
		{"ambiguous", buckets[schemas.BucketAmbiguous], o.final.Ambiguous},
		{"notSent", buckets[schemas.BucketNotSent], o.final.NotSent},
		{"skipped", buckets[schemas.BucketSkipped], o.final.Skipped},
		{"awaiting", buckets[schemas.BucketAwaiting], o.final.Awaiting},
		{"undelivered", buckets[schemas.BucketUndelivered], o.final.Undelivered},
		{"delivered", buckets[schemas.BucketDelivered], o.final.Delivered},
	} {
		if c.ours != c.say {
			fail("%s: /stats says %d, the topic %d", c.name, c.say, c.ours)
		}
	}
	if n := buckets[schemas.BucketPending]; n != 0 {
		fail("%d are pending at the end", n)
	}

	// Compare our state with the carrier's, number by number.
	byNumber := map[string]schemas.Precedence{}
	for _, d := range o.deliveries {
		if d.GetTo() != "" {
			byNumber[d.GetTo()] = schemas.Join(byNumber[d.GetTo()], joined[d.GetSeq()])
		}
	}
	accepted := map[string]bool{}
	best := map[string]fate{} // delivered if any try was, else the fate of the last try
	for _, s := range slices.SortedStableFunc(slices.Values(o.truth), func(a, b submission) int { return a.Time.Compare(b.Time) }) {
		if !s.accepted() {
			continue
		}
		accepted[s.To] = true
		if best[s.To] != fateDelivered {
			best[s.To] = o.fates[s.SubmissionID]
		}
	}
	seqs := map[string]uint32{}
	for _, d := range o.deliveries {
		if d.GetTo() != "" {
			seqs[d.GetTo()] = d.GetSeq()
		}
	}
	doubt := inDoubt(o.deliveries)
	if len(doubt) > o.maxAmbiguous {
		fail("%d are ambiguous, want at most %d, the windows at the kills", len(doubt), o.maxAmbiguous)
	}
	explained := 0
	for _, number := range o.audience {
		p := byNumber[number]
		ours := p.Bucket()
		before := len(errs)
		switch {
		case p == 0:
			fail("a recipient has no outcome: lost")
		case doubt[seqs[number]]: // counted above; the carrier may or may not have accepted the last try
		case accepted[number] && !ours.Sent():
			fail("the carrier accepted a message that we call %v", ours)
		case !accepted[number] && ours.Sent():
			fail("we call a message %v that the carrier never accepted", ours)
		case !accepted[number]: // not sent, and the carrier agrees
		case best[number] == fateDelivered && ours != schemas.BucketDelivered:
			fail("delivered in truth, %v with us", ours)
		case best[number] == fateFailed && ours != schemas.BucketUndelivered:
			fail("failed in truth, %v with us", ours)
		case best[number] == fateSilent && ours != schemas.BucketAwaiting:
			fail("no receipt in truth, %v with us", ours)
		}
		if len(errs) > before && explained < 3 { // the first few are explained in full
			explained++
			fail("seq %d: %s", seqs[number], story(o, number, seqs[number]))
		}
	}
	return firstOfEach(errs)
}

// firstOfEach keeps at most three errors with the same text.
func firstOfEach(errs []error) []error {
	count := map[string]int{}
	var out []error
	for _, e := range errs {
		if count[e.Error()]++; count[e.Error()] <= 3 {
			out = append(out, e)
		}
	}
	for _, text := range slices.SortedFunc(maps.Keys(count), cmp.Compare) {
		if count[text] > 3 {
			out = append(out, fmt.Errorf("%s (%d times in all)", text, count[text]))
		}
	}
	return out
}

// story is everything known about one recipient, without the number.
func story(o outcome, number string, seq uint32) string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	for _, s := range o.truth {
		if s.To == number {
			lines = append(lines, line{s.Time, fmt.Sprintf("carrier: %s %s (fate %d)", s.Outcome, s.SubmissionID[len(s.SubmissionID)-6:], o.fates[s.SubmissionID])})
		}
	}
	for _, d := range o.deliveries {
		if d.GetSeq() == seq {
			lines = append(lines, line{time.UnixMilli(d.GetTimeMs()), fmt.Sprintf("we: try %d %s %s", d.GetTry(), d.GetKind(), schemas.CodeName(d.GetCode()))})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%s %s; ", l.at.UTC().Format("15:04:05.000"), l.text)
	}
	return b.String()
}

// outside returns the samples that were taken while this test knew the topic: not in a gap, nor in the second after
// one.
func outside(samples []statsSample, gaps []gap) []statsSample {
	var out []statsSample
	for _, s := range samples {
		in := slices.ContainsFunc(gaps, func(g gap) bool { // the process itself needs a second after its start
			return s.at.After(g.start) && (g.end.IsZero() || s.at.Before(g.end.Add(time.Second)))
		})
		if !in {
			out = append(out, s)
		}
	}
	return out
}

// inDoubt returns the recipients that have an ambiguous try about which no other event ever came. Their state is
// ambiguous, or an earlier try bounced and the ambiguous one may or may not have been sent.
func inDoubt(deliveries []*fanfarev1.Delivery) map[uint32]bool {
	type try struct{ seq, try uint32 }
	ambiguous, known := map[try]bool{}, map[try]bool{}
	for _, d := range deliveries {
		t := try{d.GetSeq(), d.GetTry()}
		if d.GetKind() == schemas.KindAmbiguous {
			ambiguous[t] = true
		} else {
			known[t] = true
		}
	}
	out := map[uint32]bool{}
	for t := range ambiguous {
		if !known[t] {
			out[t.seq] = true
		}
	}
	return out
}
