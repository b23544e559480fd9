package analytics_test

import (
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// If the carrier's clock is hours behind, a message still has no delivery time before its sending time.
func TestOrderTimes(t *testing.T) {
	sent := time.Date(2025, 4, 1, 9, 0, 0, 0, time.UTC)
	delivered := schemas.PrecedenceOf(schemas.KindDelivered, 1, schemas.CodeDelivered)
	for _, c := range []struct {
		name                          string
		m                             analytics.Member
		wantDelivered, wantOfTheState time.Time
	}{
		{"hours behind", analytics.Member{State: delivered, Time: sent.Add(-2 * time.Hour), SentAt: sent, DeliveredAt: sent.Add(-2 * time.Hour)}, sent, sent},
		{"as it should be", analytics.Member{State: delivered, Time: sent.Add(time.Second), SentAt: sent, DeliveredAt: sent.Add(time.Second)}, sent.Add(time.Second), sent.Add(time.Second)},
		{"not delivered", analytics.Member{State: delivered, Time: sent, SentAt: sent}, time.Time{}, sent},
		{"an unknown hand-over", analytics.Member{State: delivered, Time: sent, DeliveredAt: sent}, sent, sent},
	} {
		c.m.OrderTimes()
		if !c.m.DeliveredAt.Equal(c.wantDelivered) || !c.m.Time.Equal(c.wantOfTheState) || !c.m.SentAt.IsZero() && !c.m.SentAt.Equal(sent) {
			t.Errorf("%s: got delivered %v, state %v, want %v and %v", c.name, c.m.DeliveredAt, c.m.Time, c.wantDelivered, c.wantOfTheState)
		}
	}
}
