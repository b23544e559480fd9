package simulation

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier/sim"
)

// beginsWithin is the time, in fake time, from the moment at which the record of a resume is in its topic to the next
// hand-over, while nothing is broken. A recipient that was returned more than five times waits for
// [schemas.ReturnDelay] as well.
const beginsWithin = time.Second

// TestRandomPauses pauses and resumes a campaign a hundred times at random times. No recipient may be lost or sent to
// twice, and every pause and every resume must take effect in time.
func TestRandomPauses(t *testing.T) {
	needsTag(t)
	for seed := range uint64(2) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			d := newDice(seed)
			p := quiet(func(p *plan) {
				p.seed, p.rate, p.campaigns[0].people = seed, 30, 600
				p.processes = [][]string{roles, roles}[:1+seed%2]
			})
			when := 2 * time.Second
			for range 100 {
				p.events = append(p.events, event{when, "user pauses", func(w *world) { w.pause(firstCampaign) }})
				when += d.between(0, 1200*time.Millisecond)
				p.events = append(p.events, event{when, "user resumes", func(w *world) { w.resume(firstCampaign) }})
				when += d.between(0, 400*time.Millisecond)
			}
			p.lasts = when + time.Second
			pauses := 0
			p.finally = func(w *world, truth map[string][]sim.Entry) {
				onceEach(w, truth)
				checkBegins(w, truth)
				for _, v := range w.plane.history[firstCampaign] {
					if v.record.GetState() == schemas.StatePaused {
						pauses++
					}
				}
			}
			if violations, trace := simulate(t, p, plant{}); len(violations) > 0 {
				t.Errorf("%s\n%s", strings.Join(violations, "\n"), strings.Join(trace, "\n"))
			}
			if pauses < 80 {
				t.Errorf("it was paused %d times while it ran, want 80 or more: the campaign is too short for this test", pauses)
			}
		})
	}
}

// checkBegins checks each resume after which the campaign keeps sending and has recipients left: the next hand-over
// must come in time.
func checkBegins(w *world, truth map[string][]sim.Entry) {
	var all []sim.Entry
	for _, list := range truth {
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b sim.Entry) int { return a.Time.Compare(b.Time) })
	history := w.plane.history[firstCampaign]
	for i, v := range history {
		if i == 0 || v.record.GetState() != schemas.StateSending || history[i-1].record.GetState() != schemas.StatePaused {
			continue
		}
		next := slices.IndexFunc(all, func(e sim.Entry) bool { return !e.Time.Before(v.published) })
		if next < 0 {
			continue
		}
		e := all[next]
		until := v.published.Add(beginsWithin + schemas.ReturnDelay(int(e.Submission.Try())-1))
		if e.Time.After(until) && (i+1 == len(history) || !history[i+1].at.Before(until)) {
			w.violate("control", "resumed at %s, the next hand-over is at %s: %s", w.since(v.published), w.since(e.Time), w.story(firstCampaign, e.Message.Seq(), truth[e.To]))
		}
	}
}

// TestAbortAccounts: ten seconds after a long campaign is aborted, every recipient has an outcome, and the sender has
// handed over nothing since the abort.
func TestAbortAccounts(t *testing.T) {
	needsTag(t)
	p := quiet(func(p *plan) { p.rate, p.campaigns[0].people, p.lasts = 30, 3000, 20*time.Second },
		at(5*time.Second, "user aborts", func(w *world) {
			w.act(firstCampaign, func(r *fanfarev1.Campaign) bool { r.State = schemas.StateAborted; return true })
		}),
		at(15*time.Second, "ten seconds later", func(w *world) {
			known := map[uint32]bool{}
			for _, d := range w.observed.all() {
				known[d.GetSeq()] = true
			}
			if len(known) != 3000 {
				w.violate("control", "ten seconds after the abort %d of 3000 recipients have an outcome", len(known))
			}
		}))
	if violations, trace := simulate(t, p, plant{}); len(violations) > 0 {
		t.Errorf("%s\n%s", strings.Join(violations, "\n"), strings.Join(trace, "\n"))
	}
}
