package sender

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/carrier"
)

// timedCarrier records when it got each message.
type timedCarrier struct {
	*slowCarrier
	mu sync.Mutex
	at map[carrier.Key]time.Time
}

func (c *timedCarrier) Send(ctx context.Context, batch []carrier.Outbound, done func(int, carrier.Result)) error {
	c.mu.Lock()
	for _, o := range batch {
		c.at[o.Key] = time.Now()
	}
	c.mu.Unlock()
	return c.slowCarrier.Send(ctx, batch, done)
}

// R165: one tenant's flood of single sends, a second of the route ahead of all others, delays another tenant's message
// by at most 100 ms in 99 of 100 cases. The time is virtual.
func TestAFloodOfSinglesDelaysNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newVirtualProcessEnv(t)
		p.carrier.most = 50 * time.Millisecond
		p.route(&fanfarev1.Route{Name: "sim", Connector: "sim", Rate: 1_000, P99Ms: 100, Enabled: true})
		p.campaign(1, schemas.StateSending)
		other := &fanfarev1.Campaign{Tenant: "tn_b", Id: "camp_10002", Number: 10002, Version: 1, State: schemas.StateSending}
		p.publish(
			schemas.Event{Topic: p.cluster.Names.Campaigns(), Key: schemas.CampaignKey("tn_b", other.GetId()), Tenant: "tn_b", Type: schemas.TypeCampaign, Value: other},
			schemas.Event{
				Topic: p.cluster.Names.Control(), Key: schemas.TenantKey("tn_b"), Tenant: "tn_b", Type: schemas.TypeControl,
				Value: &fanfarev1.Control{Version: 1, Row: &fanfarev1.Control_Tenant{Tenant: &fanfarev1.Tenant{Id: "tn_b", Enabled: true}}},
			},
		)
		timed := &timedCarrier{slowCarrier: p.carrier, at: map[carrier.Key]time.Time{}}
		a := p.start("a", func(context.Context, *fanfarev1.Route) (Line, error) { return Line{Live: timed, Test: timed}, nil })
		single := func(tenant string, campaign uint64, seq int) carrier.Key {
			m := testMessage(campaign, uint32(seq), 1)
			m.Tenant, m.To = tenant, fmt.Sprintf("+39333%07d", seq)
			r := messageRecord(t, p.keys, m)
			r.Topic = p.cluster.Names.Messages("sim", schemas.LaneTxn)
			p.cl.Produce(t.Context(), r, nil)
			return p.keys.Submission(campaign, uint32(seq), 1)
		}
		time.Sleep(5 * time.Second) // the sender is at work
		const flood, seconds = 1_000, 4
		flooded := 0
		var waits []time.Duration
		keys := map[carrier.Key]time.Time{}
		for ms := range seconds * 1000 {
			for ms == 0 && flooded < flood || flooded < flood+ms { // the flood stays a second ahead
				single("tn_a", 10001, flooded)
				flooded++
			}
			if ms%20 == 19 {
				keys[single("tn_b", 10002, ms)] = time.Now()
			}
			time.Sleep(time.Millisecond)
		}
		eventually(t, 5*time.Second, "the last of them to leave", func() bool { return int(p.carrier.count.Load()) == flooded+len(keys) })
		timed.mu.Lock()
		for key, sentAt := range keys {
			waits = append(waits, timed.at[key].Sub(sentAt))
		}
		timed.mu.Unlock()
		slices.Sort(waits)
		p99 := waits[len(waits)*99/100]
		t.Logf("%d of a flood, %d others: median %s, p99 %s", flooded, len(waits), waits[len(waits)/2], p99)
		if p99 > 100*time.Millisecond {
			t.Errorf("p99: got %s, want at most 100 ms", p99)
		}
		if err := a.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}
