package sender

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// routeUse runs the whole sender, with Kafka and Redis, in virtual time on a route of 1,000/s whose carrier answers in
// 0 to 600 ms. It returns which share of the limit is used.
func routeUse(t *testing.T, beside func(p *processEnv)) (used float64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newVirtualProcessEnv(t)
		beside(p)
		p.carrier.most = 600 * time.Millisecond
		p.route(&fanfarev1.Route{Name: "sim", Connector: "sim", Rate: 1_000, P99Ms: 600, Enabled: true})
		p.campaign(1, schemas.StateSending)
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
	used := routeUse(t, func(*processEnv) {})
	t.Logf("route use %.4f", used)
	if want := 0.98; used < want || used > 1.01 {
		t.Errorf("got %.4f of the limit, want %.2f to 1.01", used, want)
	}
}

// The limit is used as well beside a tenant with a limit of 10/s and as many messages in flight as the scheduler deals
// ahead.
func TestRouteIsUsedBesideAThrottledTenant(t *testing.T) {
	const dealt = 16 // 1 s + p99 of 10/s
	used := routeUse(t, func(p *processEnv) {
		c := &fanfarev1.Campaign{Tenant: "tn_b", Id: "camp_10002", Number: 10002, Version: 1, State: schemas.StateSending}
		p.publish(
			schemas.Event{Topic: p.cluster.Names.Campaigns(), Key: schemas.CampaignKey("tn_b", c.GetId()), Tenant: "tn_b", Type: schemas.TypeCampaign, Value: c},
			schemas.Event{
				Topic: p.cluster.Names.Control(), Key: schemas.TenantKey("tn_b"), Tenant: "tn_b", Type: schemas.TypeControl,
				Value: &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{Id: "tn_b", Enabled: true, Rate: 10}}},
			},
		)
		// The tenant's messages are scattered among the others: as many as get an outcome while the others are sent.
		for i := range dealt * 10 {
			m := testMessage(10002, uint32(i), 1)
			m.Tenant, m.To = "tn_b", fmt.Sprintf("+44700%07d", i)
			r := messageRecord(p.t, p.keys, m)
			r.Topic = p.cluster.Names.Messages("sim", schemas.LaneBulk)
			p.mixed = append(p.mixed, r)
		}
	})
	t.Logf("route use %.4f", used)
	if want := 0.98; used < want || used > 1.01 {
		t.Errorf("got %.4f of the limit, want %.2f to 1.01", used, want)
	}
}
