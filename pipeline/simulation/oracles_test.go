package simulation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
	"fanfare/sinks/carrier/sim"
)

// check compares all delivery events and statistics with what the carrier saw.
func (w *world) check() {
	truth := map[string][]sim.Entry{} // by phone number
	err := sim.NewTail(w.truthPath).Poll(func(e sim.Entry) error {
		truth[e.To] = append(truth[e.To], e)
		return nil
	})
	if err != nil {
		w.violate("simulation", "%v", err)
	}
	w.checkTwice(truth)
	w.checkBounds(truth)
	for i := range w.plan.campaigns {
		w.checkAccounts(firstCampaign+uint64(i), truth)
	}
	if len(w.plan.singles) > 0 {
		w.checkAccounts(hiddenCampaign, truth)
	}
	if w.plan.finally != nil {
		w.plan.finally(w, truth)
	}
	w.observed.mu.Lock()
	dead := w.observed.dead
	w.observed.mu.Unlock()
	for _, d := range dead {
		w.violate("P2", "dead letter: %s", d)
	}
}

// taken returns the submissions that the carrier accepted as new messages.
func taken(entries []sim.Entry) (out []sim.Entry) {
	for _, e := range entries {
		if e.Outcome == sim.Accepted {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b sim.Entry) int { return a.Time.Compare(b.Time) })
	return out
}

// negative returns when the carrier first said that a submission had failed.
func negative(e sim.Entry) (at time.Time, ok bool) {
	for _, r := range e.Receipts {
		if r.Status == schemas.ReceiptStatusFailed && (!ok || r.Due.Before(at)) {
			at, ok = r.Due, true
		}
	}
	return at, ok
}

// checkTwice checks P3: the carrier accepted no submission twice, and accepted another try only after a negative
// receipt for the try before.
func (w *world) checkTwice(truth map[string][]sim.Entry) {
	for _, to := range slices.Sorted(maps.Keys(truth)) {
		list := taken(truth[to])
		for i := 1; i < len(list); i++ {
			before, next := list[i-1], list[i]
			switch at, failed := negative(before); {
			case before.Submission == next.Submission:
				w.violate("P3", "seq %d of campaign %d: try %d was handed over twice, at %s and %s", next.Message.Seq(), next.Message.CampaignNumber(), next.Submission.Try(), w.since(before.Time), w.since(next.Time))
			case !failed:
				w.violate("P3", "seq %d of campaign %d: try %d was handed over at %s although try %d had not failed", next.Message.Seq(), next.Message.CampaignNumber(), next.Submission.Try(), w.since(next.Time), before.Submission.Try())
			case next.Time.Before(at):
				w.violate("P3", "seq %d of campaign %d: try %d was handed over at %s, before the carrier said at %s that try %d had failed", next.Message.Seq(), next.Message.CampaignNumber(), next.Submission.Try(), w.since(next.Time), w.since(at), before.Submission.Try())
			}
		}
	}
}

// optOutWithin is how long after the answer to an opt-out the sender may still hand over to the number (P4).
const optOutWithin = 2 * time.Second

// checkBounds checks P4: the sender handed nothing over for a stopped campaign, or to a number that had opted out. It
// does not count what a process hands over that was frozen between its last check and the system call: P3 names this
// gap.
func (w *world) checkBounds(truth map[string][]sim.Entry) {
	w.plane.mu.Lock()
	history, optedOut := w.plane.history, maps.Clone(w.plane.optedOut)
	w.plane.mu.Unlock()
	w.mu.Lock()
	jumped := w.jumped
	w.mu.Unlock()
	for to, list := range truth {
		for _, e := range list {
			if w.stoodStill(e.Time) {
				continue
			}
			if at := optedOut[to]; !at.IsZero() && e.Time.After(at.Add(optOutWithin)) {
				w.violate("P4", "seq %d of campaign %d was handed over at %s, %s after its opt-out", e.Message.Seq(), e.Message.CampaignNumber(), w.since(e.Time), e.Time.Sub(at))
			}
			if e.Message.CampaignNumber() == hiddenCampaign {
				continue
			}
			if c := w.plan.campaigns[e.Message.CampaignNumber()-firstCampaign]; c.hours && !jumped && e.Time.Before(w.opens()) {
				w.violate("P4", "seq %d of campaign %d was handed over at %s, before the calling hours open", e.Message.Seq(), e.Message.CampaignNumber(), w.since(e.Time))
			}
			versions := history[e.Message.CampaignNumber()]
			for i, v := range versions {
				if v.published.IsZero() || !stopped(v.record.GetState()) || e.Time.Before(v.published.Add(w.plan.stopsWithin)) {
					continue
				}
				if i+1 == len(versions) || e.Time.Before(versions[i+1].at) {
					w.violate("P4", "seq %d of campaign %d was handed over at %s, though it was %s since %s", e.Message.Seq(), e.Message.CampaignNumber(), w.since(e.Time), schemas.StateName(v.record.GetState()), w.since(v.published))
				}
			}
		}
	}
	w.checkRate(truth)
}

// opens is the time at which the calling hours of the run's first day open.
func (w *world) opens() time.Time { return w.began.Truncate(24 * time.Hour).Add(opensAt * time.Minute) }

// stopped reports whether a campaign in this state must not be sent.
func stopped(s schemas.State) bool {
	return s == schemas.StatePaused || s == schemas.StateAborted || s == schemas.StateSuspended
}

// checkRate checks that no second has more hand-overs than the route's limit and its burst. A Redis that has lost its
// buckets grants the burst once more.
func (w *world) checkRate(truth map[string][]sim.Entry) {
	var times []time.Time
	for _, list := range truth {
		for _, e := range list {
			if !w.stoodStill(e.Time) && e.Account == route {
				times = append(times, e.Time)
			}
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	w.mu.Lock()
	flushes, rate := w.flushes, w.rate
	w.mu.Unlock()
	first := 0
	for i, at := range times {
		for times[first].Before(at.Add(-time.Second)) {
			first++
		}
		most := rate + max(10, rate/10)*2
		for _, f := range flushes {
			if !f.Before(times[first].Add(-time.Second)) && !f.After(at) {
				most += max(10, rate/5)
			}
		}
		if n := i - first + 1; n > most {
			w.violate("P4", "%d hand-overs within the second before %s, the limit is %d/s", n, w.since(at), rate)
			return
		}
	}
}

// checkAccounts checks P2: every recipient is in one state, the state agrees with what the carrier saw, and the
// statistics agree with the states.
func (w *world) checkAccounts(number uint64, truth map[string][]sim.Entry) {
	c := w.plane.campaign(number)
	people := w.plane.audienceOf(number)
	state := map[uint32]schemas.Precedence{}
	tries := map[uint32]map[uint32]bool{} // tries with an event other than ambiguous
	doubts := map[uint32]map[uint32]bool{}
	var lost []uint32
	for _, d := range w.observed.all() {
		if d.GetCampaignNumber() != number {
			continue
		}
		seq := d.GetSeq()
		state[seq] = schemas.Join(state[seq], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
		in := tries
		if d.GetKind() == schemas.KindAmbiguous {
			in = doubts
		}
		if in[seq] == nil {
			in[seq] = map[uint32]bool{}
		}
		in[seq][d.GetTry()] = true
		if d.GetCode() == schemas.CodeLost {
			lost = append(lost, seq)
		}
	}
	if len(lost) > 0 {
		w.violate("P3", "%d messages of campaign %d were never answered, seq %v", len(lost), number, lost)
	}
	explained := 0
	for seq := range uint32(len(people)) {
		p := people[seq]
		ours := state[seq].Bucket()
		inDoubt := false
		for try := range doubts[seq] {
			inDoubt = inDoubt || !tries[seq][try]
		}
		var final schemas.Precedence
		list := taken(truth[p.To])
		for i, e := range list { // a failure is not final if another try followed
			if f := e.Final(); i == len(list)-1 || f.Bucket() == schemas.BucketDelivered {
				final = schemas.Join(final, f)
			}
		}
		bad := ""
		switch {
		case c.GetTotal() == 0:
			// the campaign was aborted before its audience was frozen
		case number == hiddenCampaign && state[seq] == 0 && len(list) == 0 && !w.promised(seq):
			// nobody was promised that it is sent
		case state[seq] == 0:
			bad = "lost: it has no outcome"
		case ours == schemas.BucketPending:
			bad = "still pending"
		case p.Flag != audience.OK && ours.Sent():
			bad = "sent although the audience says no"
		case inDoubt:
		case len(list) > 0 && !ours.Sent():
			bad = fmt.Sprintf("the carrier took it, we say %s", ours)
		case len(list) == 0 && ours.Sent():
			bad = fmt.Sprintf("the carrier never took it, we say %s", ours)
		case final.Bucket() != ours && len(list) > 0 && owes(list):
			// the carrier sends the receipt after the run
		case final.Bucket() != ours && len(list) > 0:
			bad = fmt.Sprintf("the carrier says %s, we say %s", final.Bucket(), ours)
		}
		if bad != "" {
			if explained++; explained <= 3 {
				w.violate("P2", "seq %d of campaign %d: %s: %s", seq, number, bad, w.story(number, seq, truth[p.To]))
			}
		}
	}
	if explained > 3 {
		w.violate("P2", "%d recipients of campaign %d in all", explained, number)
	}
	w.tracef("campaign %d: %s", number, w.summary(state, people, truth))
	w.checkStatistics(number, state)
}

// owes reports whether the carrier has receipts to send after now.
func owes(list []sim.Entry) bool {
	return slices.ContainsFunc(list, func(e sim.Entry) bool {
		return slices.ContainsFunc(e.Receipts, func(r sim.Owed) bool { return r.Due.After(time.Now()) })
	})
}

// summary counts the recipients by state, and the messages that the carrier saw.
func (w *world) summary(state map[uint32]schemas.Precedence, people []audience.Entry, truth map[string][]sim.Entry) string {
	states, outcomes := map[string]int{}, map[string]int{}
	for _, p := range state {
		states[p.Bucket().String()]++
	}
	for _, p := range people {
		for _, e := range truth[p.To] {
			outcomes[e.Outcome]++
		}
	}
	return fmt.Sprintf("%d recipients, we say %v, the carrier saw %v", len(people), states, outcomes)
}

// checkStatistics checks that the figures of analytics equal the states in the topic.
func (w *world) checkStatistics(number uint64, state map[uint32]schemas.Precedence) {
	want, got := map[schemas.Precedence]uint64{}, w.statistics(number)
	for _, p := range state {
		want[p]++
	}
	if !maps.Equal(want, got) {
		w.violate("P6", "statistics of campaign %d say %v, the topic says %v", number, named(got), named(want))
	}
}

// statistics returns how many recipients analytics has in each state.
func (w *world) statistics(number uint64) map[schemas.Precedence]uint64 {
	stats, err := w.analytics.Stats(context.Background(), tenant, schemas.CampaignID(number))
	if err != nil {
		w.violate("simulation", "%v", err)
	}
	got := map[schemas.Precedence]uint64{}
	for _, c := range stats.Counts {
		if c.Precedence < schemas.PrecedenceFacts {
			got[c.Precedence] = c.N
		}
	}
	return got
}

// counted reports whether analytics has every event of every campaign.
func (w *world) counted() bool {
	state := map[uint64]map[uint32]schemas.Precedence{}
	for _, d := range w.observed.all() {
		of := state[d.GetCampaignNumber()]
		if of == nil {
			of = map[uint32]schemas.Precedence{}
			state[d.GetCampaignNumber()] = of
		}
		of[d.GetSeq()] = schemas.Join(of[d.GetSeq()], schemas.PrecedenceOf(d.GetKind(), d.GetTry(), d.GetCode()))
	}
	for number, of := range state {
		want := map[schemas.Precedence]uint64{}
		for _, p := range of {
			want[p]++
		}
		if !maps.Equal(want, w.statistics(number)) {
			return false
		}
	}
	return true
}

func named(counts map[schemas.Precedence]uint64) string {
	var out []string
	for _, p := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%s/%s (try %d): %d", p.Kind(), schemas.CodeName(p.Code()), p.Try(), counts[p]))
	}
	return strings.Join(out, ", ")
}

// story returns all events and carrier entries of a recipient as text.
func (w *world) story(number uint64, seq uint32, entries []sim.Entry) string {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	for _, e := range entries {
		text := fmt.Sprintf("carrier: try %d %s", e.Submission.Try(), e.Outcome)
		if e.Unanswered {
			text += " (no answer)"
		}
		for _, r := range e.Receipts {
			text += fmt.Sprintf(", receipt %s/%s at %s", r.Status, schemas.CodeName(r.Code), w.since(r.Due))
		}
		lines = append(lines, line{e.Time, text})
	}
	for _, d := range w.observed.all() {
		if d.GetCampaignNumber() == number && d.GetSeq() == seq {
			lines = append(lines, line{time.UnixMilli(d.GetTimeMs()), fmt.Sprintf("we: try %d %s/%s", d.GetTry(), d.GetKind(), schemas.CodeName(d.GetCode()))})
		}
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "\n      %s %s", w.since(l.at), l.text)
	}
	return b.String()
}

var (
	_ analytics.Store
	_ *fanfarev1.Campaign
)
