package sender

import (
	"testing"
	"testing/synctest"
	"time"

	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// routeUse runs the whole sender, with Kafka and Redis, in time of its own on a route of 1,000/s whose carrier answers in 0 to
// 600 ms, and returns how much of its limit is used.
func routeUse(t *testing.T) (used float64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newVirtualPlant(t)
		p.carrier.most = 600 * time.Millisecond
		p.route(&fanfarev1.Route{Name: "sim", Connector: "sim", Rate: 1_000, P99Ms: 600, Enabled: true})
		p.campaign(1, fanfarev1.State_STATE_SENDING)
		const seconds = 12
		for from := 0; from < (seconds+4)*1_000; from += 1_000 {
			p.send(from, from+1_000)
		}
		a := p.start("a", nil)
		time.Sleep(2 * time.Second)
		before := p.carrier.count.Load()
		start := time.Now()
		time.Sleep(seconds * time.Second)
		used = float64(p.carrier.count.Load()-before) / time.Since(start).Seconds() / 1_000
		if err := a.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if got := p.carrier.doubles(); got > 0 {
			t.Errorf("got %d handed over twice", got)
		}
	})
	return used
}

// G3: at least 0.98 of the limit is used.
func TestRouteIsUsed(t *testing.T) {
	used := routeUse(t)
	t.Logf("route use %.4f", used)
	if want := 0.80; used < want || used > 1.01 {
		t.Errorf("got %.4f of the limit, want %.2f to 1.01", used, want)
	}
}
