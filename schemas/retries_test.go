package schemas_test

import (
	"testing"
	"time"

	"fanfare/schemas"
)

// TestDefaultRetries: R24 and R25 give voice one call; the price and the scheduler use the same numbers.
func TestDefaultRetries(t *testing.T) {
	for channel, want := range map[schemas.Channel]uint32{schemas.ChannelSMS: 3, schemas.ChannelRCS: 2, schemas.ChannelWhatsApp: 2, schemas.ChannelVoice: 1} {
		if got := schemas.DefaultHandovers(channel); got != want {
			t.Errorf("%s: got %d hand-overs, want %d", channel, got, want)
		}
		if got := schemas.DefaultBackoff(channel)[0]; got != time.Minute {
			t.Errorf("%s: got %s before the first retry, want 1m", channel, got)
		}
	}
}

// TestReturnDelay: 250 returns in a row take no less than the longest validity of a message.
func TestReturnDelay(t *testing.T) {
	var all time.Duration
	for n := 1; n < 250; n++ {
		if schemas.ReturnDelay(n+1) < schemas.ReturnDelay(n) {
			t.Errorf("try %d waits less than try %d", n+1, n)
		}
		all += schemas.ReturnDelay(n)
	}
	if all < 48*time.Hour {
		t.Errorf("249 returns take %s, want no less than 48 h", all)
	}
}
