package simulation

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fanfare/pipeline/ratelimit"
	"fanfare/pipeline/sender"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

// quiet is a plan without faults and with one campaign of 50 recipients.
func quiet(change ...func(*plan)) plan {
	p := plan{
		seed: 1, brokers: 1, rate: 20, pace: 20 * time.Millisecond, processes: [][]string{roles}, lasts: 10 * time.Second,
		campaigns: []planned{{at: time.Second, people: 50}}, stopsWithin: 250 * time.Millisecond,
		profile: sim.Profile{Name: "quiet", Answer: sim.Lognormal{P50: 20 * time.Millisecond}, Receipt: sim.Lognormal{P50: 300 * time.Millisecond}},
	}
	for _, f := range change {
		f(&p)
	}
	return p
}

// at adds an event to a plan.
func at(when time.Duration, name string, do func(*world)) func(*plan) {
	return func(p *plan) { p.events = append(p.events, event{when, name, do}) }
}

// twice is a carrier line that hands every tenth message over twice.
type twice struct {
	handedOver
	n *atomic.Int64
}

func (x twice) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	for i := range batch {
		if x.n.Add(1)%10 == 0 {
			if err := x.handedOver.Send(ctx, batch[i:i+1], func(int, carrier.Result) {}); err != nil {
				return err
			}
		}
	}
	return x.handedOver.Send(ctx, batch, done)
}

// swallowing is a carrier line that reports every tenth message as accepted but does not hand it over.
type swallowing struct {
	handedOver
	n *atomic.Int64
}

func (x swallowing) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	for i := range batch {
		if x.n.Add(1)%10 == 0 {
			done(i, carrier.Result{Outcome: carrier.Accepted, Ref: batch[i].Key.String()})
		} else if err := x.handedOver.Send(ctx, batch[i:i+1], func(_ int, r carrier.Result) { done(i, r) }); err != nil {
			return err
		}
	}
	return nil
}

// guessing is a carrier line that reports a missing answer as a temporary refusal, so the scheduler tries the message
// again.
type guessing struct{ handedOver }

func (x guessing) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	return x.handedOver.Send(ctx, batch, func(i int, r carrier.Result) {
		if r.Outcome == carrier.Unknown {
			r.Outcome = carrier.Retryable
		}
		done(i, r)
	})
}

// forgetful is a carrier line that acknowledges every second batch of receipts without passing it on.
type forgetful struct {
	handedOver
	n *atomic.Int64
}

func (x forgetful) Receipts(ctx context.Context, emit func([]carrier.Receipt) error) error {
	return x.handedOver.Receipts(ctx, func(list []carrier.Receipt) error {
		if x.n.Add(1)%2 == 0 {
			return nil
		}
		return emit(list)
	})
}

// blind is a view that sees no pause, no abort, no opt-out and no calling hours.
type blind struct{ sender.View }

func (x blind) Campaign(id string) *fanfarev1.Campaign {
	c := x.View.Campaign(id)
	if c == nil {
		return nil
	}
	c = clone(c)
	c.State, c.CallingHours = schemas.StateSending, nil
	return c
}

func (blind) OptedOut(string, string, schemas.Channel) bool { return false }

// generous grants all tokens that the sender asks for.
type generous struct{ sender.Tokens }

func (generous) Leased([]ratelimit.Request, []ratelimit.Grant) bool { return false }

func (generous) Take(_ context.Context, reqs []ratelimit.Request, grants []ratelimit.Grant) error {
	for i, r := range reqs {
		grants[i] = ratelimit.Grant{Tokens: r.Want, Ready: time.Now(), Until: time.Now().Add(time.Second)}
	}
	return nil
}

// leaky is an analytics store that loses every second batch of events.
type leaky struct {
	store
	n *atomic.Int64
}

func (x leaky) Append(ctx context.Context, batches ...analytics.Batch) error {
	for _, b := range batches {
		if len(b.Events) > 0 && x.n.Add(1)%2 == 0 {
			b.Events = b.Events[:len(b.Events)-1]
		}
		if err := x.store.Append(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// An oracle that cannot fail proves nothing. So each planted bug must be found, and a run without one must pass.
func TestOraclesFindPlantedBugs(t *testing.T) {
	needsTag(t)
	counter := new(atomic.Int64)
	kill := at(2500*time.Millisecond, "kill", func(w *world) {
		p := w.processes[0]
		p.kill()
		w.restartIn(p, time.Second)
	})
	pause := at(2*time.Second, "user pauses", func(w *world) {
		w.pause(firstCampaign)
		w.later(20*time.Second, func() { w.resume(firstCampaign) })
	})
	slow := func(p *plan) { p.rate, p.campaigns[0].people, p.lasts = 2, 60, 30*time.Second }
	alone := func(p *plan) { // single sends, at once and scheduled, and next to no campaign
		p.campaigns[0].people = 1
		p.singles = []singles{{at: time.Second, n: 30}, {at: 2 * time.Second, n: 10, due: 5 * time.Second}}
	}
	for _, c := range []struct {
		name string
		plan plan
		plant
		want string // part of a violation; "" if the run must pass
	}{
		{"nothing", quiet(), plant{}, ""},
		{"nothing, and a kill", quiet(kill), plant{}, ""},
		{"nothing, and a pause", quiet(slow, pause), plant{}, ""},
		{"nothing, with single sends and a kill", quiet(alone, kill), plant{}, ""},
		{"nothing, with a chain of channels and a kill", quiet(kill, func(p *plan) {
			p.campaigns[0].chain, p.profile.Refused = true, []sim.Refusal{{Share: 0.3, Sub: schemas.CodeRCSNotCapable}}
		}), plant{}, ""},
		{"single sends are handed over twice", quiet(alone), plant{line: func(l handedOver) handedOver { return twice{l, counter} }}, "of campaign 9001: try 1 was handed over twice"},
		{"single sends are never handed over", quiet(alone), plant{line: func(l handedOver) handedOver { return swallowing{l, counter} }}, "of campaign 9001: the carrier never took it"},
		{"messages are handed over twice", quiet(), plant{line: func(l handedOver) handedOver { return twice{l, counter} }}, "was handed over twice"},
		{"messages are never handed over", quiet(), plant{line: func(l handedOver) handedOver { return swallowing{l, counter} }}, "the carrier never took it"},
		{
			"silence is taken for a refusal", quiet(func(p *plan) { p.profile.Silent, p.profile.Receipt = 0.2, sim.Lognormal{P50: time.Minute} }),
			plant{line: func(l handedOver) handedOver { return guessing{l} }},
			"had not failed",
		},
		{"receipts are lost", quiet(), plant{line: func(l handedOver) handedOver { return forgetful{l, counter} }}, "the carrier says delivered, we say awaiting"},
		{"a pause is not seen", quiet(slow, pause), plant{view: func(v sender.View) sender.View { return blind{v} }}, "though it was paused"},
		{"nothing, and calling hours", quiet(func(p *plan) { p.campaigns[0].hours = true }), plant{}, ""},
		{"calling hours are not seen", quiet(func(p *plan) { p.campaigns[0].hours = true }, at(1500*time.Millisecond, "the scheduler's clock is fast", func(w *world) {
			w.processes[0].setSkew(time.Minute)
		})), plant{view: func(v sender.View) sender.View { return blind{v} }}, "before the calling hours open"},
		{"opt-outs are not seen", quiet(slow, at(1500*time.Millisecond, "recipients opt out", func(w *world) {
			for _, p := range w.plane.audienceOf(firstCampaign) {
				w.plane.optOut(p.To)
			}
		})), plant{view: func(v sender.View) sender.View { return blind{v} }}, "after its opt-out"},
		{"the limit is not kept", quiet(func(p *plan) { p.rate, p.campaigns[0].people = 2, 100 }), plant{tokens: func(k sender.Tokens) sender.Tokens { return generous{k} }}, "the limit is 2/s"},
		{"statistics lose events", quiet(), plant{statistics: func(s store) store { return leaky{s, counter} }}, "statistics of campaign"},
	} {
		t.Run(c.name, func(t *testing.T) {
			violations, trace := simulate(t, c.plan, c.plant)
			found := false
			for _, v := range violations {
				found = found || strings.Contains(v, c.want)
			}
			switch {
			case c.want == "" && len(violations) > 0:
				t.Errorf("the oracles reject a good run:\n  %s\n%s", strings.Join(violations, "\n  "), strings.Join(trace, "\n"))
			case c.want != "" && !found:
				t.Errorf("not found, want a violation with %q; got %q\n%s", c.want, violations, strings.Join(trace, "\n"))
			}
		})
	}
}
