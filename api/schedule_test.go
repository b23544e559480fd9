package api

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas/hours"
	"fanfare/sinks/analytics"
)

// C15: an instant, or a wall clock with its zone; through both changes of the clock.
func TestWhen(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{`"2025-04-15T09:00:00Z"`, "2025-04-15T09:00:00Z"},
		{`"2025-04-15T09:00:00+02:00"`, "2025-04-15T07:00:00Z"},
		{`"2025-04-15T09:00+0200"`, "2025-04-15T07:00:00Z"},                // PHP
		{`"2025-04-15T09:00+02:00[Europe/Rome]"`, "2025-04-15T07:00:00Z"},  // Java
		{`"2025-04-15 09:00:00.123456+02:00"`, "2025-04-15T07:00:00.123Z"}, // Python
		{`"2025-04-15t07:00:00z"`, "2025-04-15T07:00:00Z"},
		{`{"local":"2025-04-15T09:00","timezone":"Europe/Rome"}`, "2025-04-15T07:00:00Z"},
		// The gap: the first instant after it
		{`{"local":"2025-03-30T02:30","timezone":"Europe/Rome"}`, "2025-03-30T01:00:00Z"},
		{`{"local":"2025-10-26T02:30","timezone":"Europe/Rome"}`, "2025-10-26T00:30:00Z"},     // twice: the first
		{`{"local":"2025-10-26T03:00","timezone":"Europe/Rome"}`, "2025-10-26T02:00:00Z"},     // after both
		{`{"local":"2025-04-15T09:00:30","timezone":"Asia/Kolkata"}`, "2025-04-15T03:30:30Z"}, // seconds, half hours
		{`{"local":"2025-04-15T09:00","timezone":"Pacific/Kiritimati"}`, "2025-04-14T19:00:00Z"},
		{`{"local":"2025-04-15T09:00","timezone":"Pacific/Pago_Pago"}`, "2025-04-15T20:00:00Z"},
		// A day that never was there
		{`{"local":"2011-12-30T10:00","timezone":"Pacific/Apia"}`, "2011-12-30T10:00:00Z"},
	} {
		var w When
		if p := problem.Decode([]byte(c.in), &w); p != nil {
			t.Errorf("%s: got %v, want a time", c.in, p)
			continue
		}
		if got := stamp(w.At); got != c.want {
			t.Errorf("%s: got %s, want %s", c.in, got, c.want)
		}
	}
	for _, in := range []string{
		`"2025-04-15T09:00:00+24:00"`, `"2025-04-15T09:00+03:00[Europe/Rome]"`,
		`"2025-04-15T09:00:00"`, `"2025-04-15 09:00"`, `"tomorrow"`, `""`, `17`, `true`,
		`{"local":"2025-04-15T09:00","timezone":"Europe/Roma"}`, `{"local":"9 o'clock","timezone":"Europe/Rome"}`,
		`{"local":"2025-04-15T09:00","timezone":"Local"}`, `{"local":"2025-04-15T09:00","timezone":"Europe/Rome","x":1}`,
	} {
		var w struct {
			T When `json:"t"`
		}
		p := problem.Decode([]byte(`{"t":`+in+`}`), &w)
		if p == nil || p.Status != 422 || p.Field == "" || p.Fix == "" {
			t.Errorf("%s: got %+v, want a 422 that names the field", in, p)
		}
	}
}

// C10: the finish follows from the rate and the calling hours.
func TestFinish(t *testing.T) {
	rome := func(start, end int) hours.Hours {
		h, err := hours.New(start, end, "Europe/Rome")
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	noon := time.Date(2025, 4, 15, 10, 0, 0, 0, time.UTC) // 12:00 in Rome
	for _, c := range []struct {
		name  string
		count uint64
		rate  float64
		hours hours.Hours
		want  time.Duration
	}{
		{"always open", 5000, 100, hours.Hours{}, 50 * time.Second},
		{"no recipients", 0, 100, rome(9*60, 18*60), 0},
		{"fits today", 6 * 3600 * 10, 10, rome(9*60, 18*60), 6 * time.Hour},
		{"one second over: tomorrow 9:00", 6*3600*10 + 10, 10, rome(9*60, 18*60), 21*time.Hour + time.Second},
		{"three days", (6 + 9 + 9) * 3600 * 10, 10, rome(9*60, 18*60), 54 * time.Hour},
		{"closed now", 10, 10, rome(20*60, 22*60), 8*time.Hour + time.Second},
		{"across midnight", 5 * 3600, 1, rome(22*60, 2*60), 10*time.Hour + 4*time.Hour + 20*time.Hour + time.Hour},
	} {
		got, ok := finishOf(noon, c.count, c.rate, c.hours)
		if !ok || got.Sub(noon) != c.want {
			t.Errorf("%s: got %v %v, want %v", c.name, got.Sub(noon), ok, c.want)
		}
	}
	if _, ok := finishOf(noon, 1_000_000, 0, hours.Hours{}); ok {
		t.Error("no rate: got a time, want none")
	}
	if _, ok := finishOf(noon, 40_000_000, 1, hours.Hours{}); ok {
		t.Error("more than a year: got a time, want none")
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1 second", time.Second: "1 second", 1500 * time.Millisecond: "2 seconds", time.Minute: "1 minute", 61 * time.Second: "2 minutes",
		15 * time.Minute: "15 minutes", time.Hour: "1 hour", 90 * time.Minute: "1 hour 30 minutes", 24 * time.Hour: "1 day",
		49*time.Hour + time.Second: "2 days 2 hours",
	} {
		if got := durationText(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

// X11, X19: the forecast where each recipient has calling hours of their own.
func TestFinishOfZones(t *testing.T) {
	h, err := hours.New(9*60, 18*60, "UTC")
	if err != nil {
		t.Fatal(err)
	}
	// 12:00 in Rome, 19:00 in Tokyo, 06:00 in New York, 03:00 in Los Angeles
	noon := time.Date(2025, 4, 15, 10, 0, 0, 0, time.UTC)
	const hour = 3600
	for _, c := range []struct {
		name   string
		shares []zoneShare
		rate   float64
		want   time.Duration
	}{
		{"no recipients", nil, 10, 0},
		{"one zone", []zoneShare{{"Europe/Rome", 6 * hour}}, 1, 6 * time.Hour},
		{"as the campaign's own hours", []zoneShare{{"Europe/Rome", (6 + 9) * hour}}, 1, 21*time.Hour + 9*time.Hour},
		{"Tokyo waits for its morning", []zoneShare{{"Asia/Tokyo", 30}}, 1, 14*time.Hour + 30*time.Second},
		{"what closes first goes first", []zoneShare{{"Africa/Abidjan", 2 * hour}, {"Europe/Rome", 6 * hour}}, 1, 8 * time.Hour},
		{"New York for as long as the west", []zoneShare{{"America/Los_Angeles,America/New_York", 6 * hour}}, 1, 6*time.Hour + 6*time.Hour},
		{"the west needs another day", []zoneShare{{"America/Los_Angeles,America/New_York", 6*hour + 60}}, 1, 30*time.Hour + time.Minute},
		{"who is never reached takes no time", []zoneShare{{"America/New_York,Asia/Shanghai", 50}, {"Europe/Rome", 60}}, 1, time.Minute},
	} {
		got, ok := finishOfZones(noon, c.shares, c.rate, h)
		if d := got.Sub(noon) - c.want; !ok || d > time.Millisecond || d < -time.Millisecond {
			t.Errorf("%s: got %v %v, want %v", c.name, got.Sub(noon), ok, c.want)
		}
	}
	began := time.Now()
	many := make([]zoneShare, 200)
	for i := range many {
		many[i] = zoneShare{[]string{"Europe/Rome", "Asia/Tokyo", "America/New_York", "America/Los_Angeles,America/New_York"}[i%4], 10_000}
	}
	if _, ok := finishOfZones(noon, many, 2, h); !ok {
		t.Error("200 groups, 2,000,000 recipients: got no time, want one")
	}
	t.Logf("a forecast of 200 groups took %v", time.Since(began))
	if _, ok := finishOfZones(noon, []zoneShare{{"Europe/Rome", 40_000_000}}, 1, h); ok {
		t.Error("more than a month: got a time, want none")
	}
	got := sharesWithin([]zoneShare{{"a", 3}, {"b", 4}, {"c", 2}}, 2, 8)
	if want := []zoneShare{{"a", 1}, {"b", 4}, {"c", 1}}; !slices.Equal(got, want) {
		t.Errorf("shares of a batch: got %v, want %v", got, want)
	}
}

// Hours on each recipient's own clock open earlier or later by their clock times alone: a change of the zone cannot
// hide that they move into the night.
func TestWidensOnRecipientsClocks(t *testing.T) {
	day := &store.Hours{Start: 9 * 60, End: 20 * 60, Zone: "UTC", Recipients: true}
	// The same instants on these two clocks
	night := &store.Hours{Start: 21 * 60, End: 8 * 60, Zone: "Etc/GMT-12", Recipients: true}
	if !widens(day, night) {
		t.Error("9:00 to 20:00 becomes 21:00 to 8:00 on each recipient's clock: got no widening")
	}
	if shorter := (&store.Hours{Start: 10 * 60, End: 19 * 60, Zone: "Asia/Tokyo", Recipients: true}); widens(day, shorter) {
		t.Error("10:00 to 19:00 within 9:00 to 20:00: got a widening")
	}
	if campaign := (&store.Hours{Start: 9 * 60, End: 20 * 60, Zone: "UTC"}); !widens(day, campaign) || !widens(campaign, day) {
		t.Error("another clock: got no widening")
	}
}

// Every reason for which a frozen audience leaves a recipient out is in the document (X17).
func TestFlagsAreInTheDocument(t *testing.T) {
	field, ok := reflect.TypeFor[Evidence]().FieldByName("Flag")
	if !ok {
		t.Fatal("Evidence has no Flag")
	}
	words := strings.Split(field.Tag.Get("enum"), ",")
	for flag, known := range flagSentences {
		if !slices.Contains(words, known.name) {
			t.Errorf("%q, of flag %d, is not in the enum %q", known.name, flag, words)
		}
	}
	if len(words) != len(flagSentences) {
		t.Errorf("enum: got %q, want the %d names", words, len(flagSentences))
	}
}

// X19: if the statistics do not answer for a campaign, it has no actual deliveries and no score. If it has no events,
// it has 0 deliveries.
func TestForecastWithoutStatistics(t *testing.T) {
	c := &store.Campaign{Number: 10_001, Total: 10, Settled: time.Unix(1, 0)}
	c.Forecast = &store.Forecast{Delivered: new(uint64(8))}
	if v := viewForecast(c, deliveredOf(map[string]analytics.Stats{"camp_10002": {}}, c), "EUR"); v.Delivered.Actual != nil || v.Delivered.Error != nil {
		t.Errorf("no answer: got %+v, want no actual figure", v.Delivered)
	}
	if v := viewForecast(c, deliveredOf(map[string]analytics.Stats{c.ID(): {}}, c), "EUR"); v.Delivered.Actual == nil || *v.Delivered.Actual != 0 || *v.Delivered.Error != -1 {
		t.Errorf("no event: got %+v, want none delivered", v.Delivered)
	}
}
