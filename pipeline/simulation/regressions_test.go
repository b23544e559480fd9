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

// onceEach: every recipient whom the audience lets be sent to was handed over exactly once, and is delivered.
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

// slowly sends two messages a second to 60 recipients, so that something can happen meanwhile.
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

// limitTo changes the route's limit.
func limitTo(rate uint32) func(*world) {
	return func(w *world) {
		w.plane.control(schemas.RouteKey(route), "", func(c *fanfarev1.Control) { c.GetRoute().Rate = rate })
	}
}

// sentIsTaken looks every half second, while the campaign runs, whether statistics call more sent than the carrier has taken.
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

// around tells what was handed over before a time of the run from what was handed over after it.
func around(at time.Duration) func(sim.Entry) (before, after bool) {
	middle := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(at) // where every bubble begins
	return func(e sim.Entry) (before, after bool) { return e.Time.Before(middle), e.Time.After(middle) }
}

func always(sim.Entry) (before, after bool) { return true, true }

// inParts: the receipts are of single parts of the message.
func inParts(e sim.Entry) (before, after bool) {
	for _, r := range e.Receipts {
		before, after = before || r.Parts == 2 && r.Part == 1, after || r.Parts == 2 && r.Part == 2
	}
	return before, after
}

// early: the first receipt came at once, before the answer.
func early(e sim.Entry) (before, after bool) {
	at := len(e.Receipts) > 0 && !e.Receipts[0].Due.After(e.Time)
	return at, at
}

// TestPublishedFailures are failures that users of comparable systems have reported. Each run does here what they did there.
func TestPublishedFailures(t *testing.T) {
	needsTag(t)
	for _, c := range []struct {
		name string
		// said is what failed there, in short.
		said string
		plan plan
		// met reports whether the run came into the situation: without it the test would show nothing.
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

// runAs runs a plan in which everyone is reached once, and checks that it came into the situation that it is about.
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

// TestFound are the shortest forms of what the simulation has found; see pipeline/DESIGN.md.
func TestFound(t *testing.T) {
	needsTag(t)
	for _, c := range []struct {
		name string
		plan plan
		met  func(sim.Entry) (before, after bool)
	}{
		{
			// Redis is away, so the sender writes outcomes whose provider ids it still owes to the index, and dies. The receipts wait in the
			// index for ids that nobody knew any more.
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
