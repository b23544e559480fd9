package sender

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

// Only what the carrier holds and about two commits of messages are uncertain after a crash: at 1,500/s, with the
// default simulator, at most 60 messages per kill, while the route is used to 0.98 of its limit. The time is virtual,
// and a commit takes as long as on the embedded broker or on a real Kafka, so the speed of the machine does not affect
// the result.
func TestUncertainPerKill(t *testing.T) {
	for name, commit := range map[string]time.Duration{"embedded": 1500 * time.Microsecond, "Kafka": 6 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newVirtualProcessEnv(t)
				p.kafka.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
					p.kafka.KeepControl()
					p.kafka.SleepControl(func() { time.Sleep(commit) })
					return nil, nil, false
				})
				profile := sim.Default()
				profile.Doubt = carrier.DoubtNone // otherwise the doubts would end
				c, connect := p.simulatorAt(t, "", profile)
				p.route(&fanfarev1.Route{Name: "sim", Connector: "sim", Rate: 1_500, P99Ms: 120, Enabled: true})
				p.campaign(1, schemas.StateSending)
				s := p.follow()
				accepted := func() int { return int(c.Stats().Submissions[sim.Accepted]) }
				const kills, each = 3, 4_000
				var used float64
				for kill := range kills {
					p.send(kill*each, (kill+1)*each)
					a := p.start("a", connect)
					time.Sleep(500 * time.Millisecond)
					before, at := accepted(), time.Now()
					time.Sleep(time.Second + time.Duration(kill)*37*time.Millisecond)
					used += float64(accepted()-before) / time.Since(at).Seconds() / 1_500 / kills
					a.net.cutOff()
					b := p.start("b", connect)
					eventually(t, time.Minute, "an outcome for every message", func() bool { return s.known() == (kill+1)*each })
					if err := b.stop(); err != nil {
						t.Errorf("stop: %v", err)
					}
					_ = a.stop() // it was cut off
				}
				uncertain := float64(s.counts()[ambiguousKind]) / kills
				t.Logf("uncertain %.1f per kill, route use %.4f", uncertain, used)
				if uncertain > 60 || uncertain < 1 {
					t.Errorf("uncertain: got %.1f per kill, want 1 to 60", uncertain)
				}
				if used < 0.98 || used > 1.02 {
					t.Errorf("route use: got %.4f, want 0.98 to 1.02", used)
				}
			})
		})
	}
}

// simulatorAt runs a simulated carrier for the test, and returns what connects routes to it. It keeps its record at
// truth, unless that is empty.
func (p *processEnv) simulatorAt(t *testing.T, truth string, profile sim.Profile) (*sim.Carrier, func(context.Context, *fanfarev1.Route) (Line, error)) {
	t.Helper()
	c, err := sim.Open(sim.Config{Keys: p.keys, Profile: profile, Truth: truth})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		_ = c.Close()
	})
	return c, func(context.Context, *fanfarev1.Route) (Line, error) {
		connector := c.Connector(sim.Options{})
		return Line{Live: connector, Test: connector}, nil
	}
}
