package simulation

import (
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

// onceEach checks that every eligible recipient was handed over exactly once and is delivered.
func onceEach(w *world, truth map[string][]sim.Entry) {
	for i, p := range w.plane.audienceOf(firstCampaign) {
		want := 1
		if p.Flag != 0 {
			want = 0
		}
		if got := len(taken(truth[p.To])); got != want {
			w.violate("regression", "seq %d was handed over %d times, want %d", i, got, want)
		}
	}
	for p, n := range w.statistics(firstCampaign) {
		if b := p.Bucket(); b != schemas.BucketDelivered && b != schemas.BucketSkipped {
			w.violate("regression", "%d recipients are %s/%s, want all delivered or skipped", n, p.Kind(), schemas.CodeName(p.Code()))
		}
	}
}

// slowly sends two messages a second to 60 recipients, so that events can happen while it sends.
func slowly(p *plan) { p.rate, p.campaigns[0].people, p.lasts = 2, 60, 30*time.Second }

// restarts stops the first process gracefully and starts it again two seconds later.
func restarts(w *world) {
	p := w.processes[0]
	w.restartIn(p, 2*time.Second)
	p.cancel()
}

// kills kills the first process and starts it again two seconds later.
func kills(w *world) {
	p := w.processes[0]
	w.restartIn(p, 2*time.Second)
	p.kill()
}

// limitTo changes the limit of the route.
func limitTo(rate uint32) func(*world) {
	return func(w *world) {
		w.plane.control(schemas.RouteKey(route), "", func(c *fanfarev1.Control) { c.GetRoute().Rate = rate })
	}
}

// sentIsTaken checks every half second, while the campaign runs, that the statistics count no more messages as sent
// than the carrier has accepted.
func sentIsTaken(w *world) {
	sent := 0
	for p, n := range w.statistics(firstCampaign) {
		if p.Bucket().Sent() {
			sent += int(n)
		}
	}
	if took := int(w.carrier.Stats().Submissions[sim.Accepted]); sent > took {
		w.violate("regression", "statistics say %d sent, the carrier has taken %d", sent, took)
	}
	if !w.plane.campaign(firstCampaign).GetSettled() {
		w.later(500*time.Millisecond, func() { sentIsTaken(w) })
	}
}

// around reports whether a message was handed over before or after a time of the run.
func around(at time.Duration) func(sim.Entry) (before, after bool) {
	middle := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(at) // every bubble begins at this date
	return func(e sim.Entry) (before, after bool) { return e.Time.Before(middle), e.Time.After(middle) }
}

func always(sim.Entry) (before, after bool) { return true, true }

// inParts reports whether the receipts of a message are for its single parts.
func inParts(e sim.Entry) (before, after bool) {
	for _, r := range e.Receipts {
		before, after = before || r.Parts == 2 && r.Part == 1, after || r.Parts == 2 && r.Part == 2
	}
	return before, after
}

// early reports whether the first receipt came before the answer.
func early(e sim.Entry) (before, after bool) {
	at := len(e.Receipts) > 0 && !e.Receipts[0].Due.After(e.Time)
	return at, at
}

// TestPublishedFailures repeats failures that users of comparable systems have reported. Each run creates the same
// situation.
func TestPublishedFailures(t *testing.T) {
	needsTag(t)
	for _, c := range []struct {
		name string
		// said is a summary of the reported failure.
		said string
		plan plan
		// met reports whether the run came into the situation. Without this check, a run that never did would pass.
		met func(sim.Entry) (before, after bool)
	}{
		{
			"listmonk #2070", "a campaign that was paused and resumed was sent again to the same subscribers",
			quiet(slowly, at(5*time.Second, "user pauses", func(w *world) { w.pause(firstCampaign) }), at(10*time.Second, "user resumes", func(w *world) { w.resume(firstCampaign) })),
			around(7 * time.Second),
		},
		{
			"listmonk #2278", "shut down in the middle, it came back, called the campaign finished and had skipped almost 100 emails",
			quiet(slowly, at(8*time.Second, "restart", restarts)),
			around(9 * time.Second),
		},
		{
			"listmonk #2591", "paused to change the limit, restarted, resumed: finished at 1,255 of 2,194",
			quiet(slowly, at(5*time.Second, "user pauses", func(w *world) { w.pause(firstCampaign) }), at(7*time.Second, "new limit", limitTo(20)),
				at(8*time.Second, "restart", restarts), at(15*time.Second, "user resumes", func(w *world) { w.resume(firstCampaign) }),
				func(p *plan) { p.rate = 20 }, at(0, "limit at first", limitTo(2))),
			around(9 * time.Second),
		},
		{
			"listmonk #2860", "stuck, paused, the server restarted, resumed: finished with 2,061 of 5,239",
			quiet(slowly, at(5*time.Second, "user pauses", func(w *world) { w.pause(firstCampaign) }), at(8*time.Second, "kill", kills),
				at(15*time.Second, "user resumes", func(w *world) { w.resume(firstCampaign) })),
			around(9 * time.Second),
		},
		{
			"chatwoot #12821", "the next cron picked up a campaign that was still running, and contacts got the message two or three times",
			quiet(slowly, func(p *plan) { p.processes = [][]string{roles, roles, roles} },
				at(6*time.Second, "one more scheduler", func(w *world) { w.startMore([]string{"scheduler"}) }),
				at(9*time.Second, "the leading schedulers stand still", func(w *world) {
					for _, p := range w.processes[:2] {
						p.net.freeze()
						w.later(15*time.Second, p.net.thaw)
					}
				})),
			around(9 * time.Second),
		},
		{
			"mautic #8678", "with 20 emails an hour it said at once that all 100 were sent",
			quiet(slowly, at(0, "statistics are watched", sentIsTaken)),
			around(9 * time.Second),
		},
		{
			"jasmin #643", "the receipt spells the message id in hexadecimal, the answer in decimal: got a DLR for an unknown message id",
			quiet(func(p *plan) { p.profile.HidesKey, p.profile.Ref = true, sim.RefMixed }),
			always,
		},
		{
			"jasmin #1190", "a long message gets one receipt per part, and only one of them was known",
			quiet(func(p *plan) {
				p.profile.HidesKey, p.profile.Parts = true, true
				p.campaigns[0].text = "Ciao {{first_name}}! " + strings.Repeat("Questa è una offerta lunga. ", 8)
			}),
			inParts,
		},
		{
			"postmangovsg #2151", "the callback came before the message id of the answer was stored, and its status was lost",
			quiet(func(p *plan) { p.profile.HidesKey, p.profile.Early = true, 1 }),
			early,
		},
		{
			"notifications-api #2916", "the receipt came before the update to sending, which superseded delivered: a temporary failure three days later",
			quiet(func(p *plan) { p.profile.Early = 1 }),
			early,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			runAs(t, c.plan, c.met, "there: "+c.said)
		})
	}
}

// runAs runs a plan in which every recipient is reached once, and checks that the run came into its situation.
func runAs(t *testing.T, p plan, met func(sim.Entry) (before, after bool), said string) {
	t.Helper()
	p.finally = func(w *world, truth map[string][]sim.Entry) {
		onceEach(w, truth)
		before, after := false, false
		for _, list := range truth {
			for _, e := range list {
				b, a := met(e)
				before, after = before || b, after || a
			}
		}
		if !before || !after {
			w.violate("simulation", "the run does not do what it is to show (before %v, after %v)", before, after)
		}
	}
	slices.SortStableFunc(p.events, func(a, b event) int { return int(a.at - b.at) })
	if violations, trace := simulate(t, p, plant{}); len(violations) > 0 {
		t.Errorf("%s\nhere:\n  %s\n%s", said, strings.Join(violations, "\n  "), strings.Join(trace, "\n"))
	}
}

// TestFound runs the shortest form of each failure that the simulation has found. See pipeline/DESIGN.md.
func TestFound(t *testing.T) {
	needsTag(t)
	for _, c := range []struct {
		name string
		plan plan
		met  func(sim.Entry) (before, after bool)
	}{
		{
			// Redis is away. The sender writes outcomes although it has not put their provider ids into the index yet,
			// and dies. When the simulation found this, the receipts waited for ids that no process knew any more.
			"a sender dies while it owes provider ids to Redis",
			quiet(func(p *plan) {
				p.profile.HidesKey, p.profile.Doubt, p.campaigns[0].people = true, carrier.DoubtNaturalID, 100
				p.profile.Answer, p.profile.Receipt = sim.Lognormal{P50: 300 * time.Millisecond}, sim.Lognormal{P50: 600 * time.Millisecond}
			},
				at(3*time.Second, "Redis is away", func(w *world) { w.setRedisDown(true) }),
				at(4500*time.Millisecond, "kill", kills),
				at(5*time.Second, "Redis is back", func(w *world) { w.setRedisDown(false) })),
			around(4 * time.Second),
		},
	} {
		t.Run(c.name, func(t *testing.T) { runAs(t, c.plan, c.met, "") })
	}
}
