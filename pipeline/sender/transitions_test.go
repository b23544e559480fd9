package sender

import (
	"os"
	"strings"
	"testing"
	"time"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/schemas/hours"
)

// R30 to R32, X11 in every IANA zone at every change of its clock in two years, with hours that end or begin at the
// change, by day and over midnight: in the seconds and milliseconds around the full minutes, judge lets a message pass
// only while the clock of the zone is within the hours, and only until a time at which it still is. A message that it
// returns may go at the time that it names.
func TestEveryTransition(t *testing.T) {
	names, err := os.ReadFile("../../schemas/hours/testdata/zones.txt")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	changes, passed, waited := 0, 0, 0
	for name := range strings.FieldsSeq(string(names)) {
		zone, err := hours.Zone(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, end := begin.In(zone).ZoneBounds(); !end.IsZero() && end.Before(begin.AddDate(2, 0, 0)); _, end = end.ZoneBounds() {
			changes++
			before, after := end.Add(-time.Minute), end
			left, right := uint32(before.Hour()*60+before.Minute()+1)%1440, uint32(after.Hour()*60+after.Minute())
			for _, span := range [][2]uint32{{(left + 1440 - 90) % 1440, left}, {right, (right + 90) % 1440}, {right, left}, {(right + 20) % 1440, (left + 700) % 1440}} {
				if span[0] == span[1] {
					continue
				}
				q := passing()
				q.campaign.CallingHours = &fanfarev1.CallingHours{StartMinute: span[0], EndMinute: span[1], Timezone: "UTC", RecipientZone: true}
				q.candidate.msg.Zone, q.candidate.msg.NotBeforeMs, q.candidate.msg.NotAfterMs = name, 0, 0
				within := func(at time.Time) bool {
					local := at.In(zone)
					m := uint32(local.Hour()*60 + local.Minute())
					return span[0] < span[1] && span[0] <= m && m < span[1] || span[0] > span[1] && (m >= span[0] || m < span[1])
				}
				for minute := -91; minute <= 91; minute += 13 {
					for _, off := range []time.Duration{-500 * time.Millisecond, -time.Millisecond, 0} {
						now := end.Add(time.Duration(minute)*time.Minute + off)
						q.policyContext.now, q.policyContext.fresh, q.candidate.guard = now, now.Add(time.Second), now.Add(8*time.Second)
						switch got := judge(&q.policyContext, &q.candidate); {
						case got.action == submit:
							passed++
							last := earlier(got.until, now.Add(wayLimit)).Add(-time.Nanosecond)
							if !within(now) || !within(last) {
								t.Fatalf("%s: at %s a message may go until %s; the hours are %v", name, now, got.until, span)
							}
						case got.code != schemas.CodeWindow || within(now):
							t.Fatalf("%s at %s: %+v; the hours are %v", name, now, got, span)
						default:
							waited++
							if !within(got.again) || got.again.Before(now) {
								t.Fatalf("%s at %s: again at %s, which is outside the hours %v", name, now, got.again, span)
							}
						}
					}
				}
			}
		}
	}
	if changes < 700 || passed < 10_000 || waited < 10_000 {
		t.Errorf("%d changes, %d messages passed, %d waited: too few", changes, passed, waited)
	}
}
