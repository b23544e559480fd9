package plan

import (
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestStalled: a campaign whose recipients are dealt and never answered, or could be dealt and are not, is reported
// after five minutes; a campaign that waits for a known reason is not.
func TestStalled(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*script, *fakeCampaign)
		want   bool
	}{
		"nothing is answered": {func(*script, *fakeCampaign) {}, true},
		"the audience is gone": {func(tb *script, _ *fakeCampaign) {
			tb.planner.campaigns[10001].blobs = nil
		}, true},
		"paused": {func(tb *script, c *fakeCampaign) {
			tb.set(c, func(r *fanfarev1.Campaign) { r.State = schemas.StatePaused })
		}, false},
		"calling hours are over": {func(tb *script, c *fakeCampaign) {
			tb.set(c, func(r *fanfarev1.Campaign) {
				r.CallingHours = &fanfarev1.CallingHours{StartMinute: 14 * 60, EndMinute: 20 * 60, Timezone: "Europe/Rome"}
			})
		}, false},
		"the tenant is disabled": {func(tb *script, _ *fakeCampaign) { tb.planner.tenant(testTenant).enabled = false }, false},
	} {
		t.Run(name, func(t *testing.T) {
			tb := newScript(t, 100)
			camp := tb.addCampaign(10001, testTenant, 1000, 500, smsLeg(3))
			tb.start()
			c.change(tb, camp)
			tb.deals()
			for range 4 * 60 {
				if got := tb.planner.Stalled(tb.now); len(got) > 0 {
					t.Fatalf("reported %+v before five minutes were over", got)
				}
				tb.after(time.Second)
			}
			tb.after(2 * time.Minute)
			if got := tb.planner.Stalled(tb.now); (len(got) == 1) != c.want {
				t.Errorf("reported %+v, want it reported: %v", got, c.want)
			}
			if !c.want {
				return
			}
			tb.says(10001, 0, 1, sentKind, noCode, time.Time{})
			if got := tb.planner.Stalled(tb.now); len(got) != 0 {
				t.Errorf("reported %+v though an outcome arrived", got)
			}
		})
	}
}
