package pricing

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"fanfare/schemas"
)

var (
	spring = time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)
	sms    = schemas.ChannelSMS
	list   = List{
		{Channel: sms, Micros: 50_000},
		{Channel: sms, From: 100_000, Micros: 40_000},
		{Channel: sms, Country: "IT", Micros: 45_000},
		{Channel: sms, Country: "IT", From: 10_000, Micros: 38_000},
		{Channel: sms, Country: "IT", From: 10_000, ValidFrom: spring, Micros: 36_000},
		{Channel: sms, Country: "FR", ValidFrom: spring, Micros: 70_000},
		{Channel: schemas.ChannelRCS, Micros: 80_000},
	}
)

// R113, X13: the most specific rule by channel, country, volume and date gives the price.
func TestLongestMatch(t *testing.T) {
	before, after := spring.Add(-time.Second), spring
	for _, c := range []struct {
		channel schemas.Channel
		country string
		volume  uint64
		at      time.Time
		want    uint64
	}{
		{sms, "DE", 1, before, 50_000},
		{sms, "DE", 100_000, before, 40_000},
		{sms, "DE", 99_999, before, 50_000},
		{sms, "IT", 1, before, 45_000},
		{sms, "IT", 200_000, before, 38_000}, // the country takes precedence over the volume
		{sms, "IT", 10_000, after, 36_000},
		{sms, "FR", 1, before, 50_000},
		{sms, "FR", 100_000, after, 70_000},
		{sms, "", 1, after, 50_000},
		{schemas.ChannelRCS, "IT", 1, before, 80_000},
	} {
		if got, ok := list.Price(c.channel, c.country, c.volume, c.at); !ok || got != c.want {
			t.Errorf("%s to %q, %d, at %s: got %d %v, want %d", schemas.ChannelName(c.channel), c.country, c.volume, c.at, got, ok, c.want)
		}
	}
	if _, ok := list.Price(schemas.ChannelVoice, "IT", 1, after); ok {
		t.Error("voice: got a price, want none")
	}
	other, own := list.ByCountry(sms, 10_000, after)
	if diff := cmp.Diff(map[string]uint64{"IT": 36_000, "FR": 70_000}, own); diff != "" || other != 50_000 {
		t.Errorf("by country: got %d and %s", other, diff)
	}
}

// X13: a list that is written as CSV and read again is the same.
func TestCSVRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var in List
		seen := map[string]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "rows") {
			r := Rule{
				Channel: rapid.SampledFrom([]schemas.Channel{1, 2, 3, 4}).Draw(t, "channel"), Country: rapid.SampledFrom([]string{"", "IT", "FR"}).Draw(t, "country"),
				From: rapid.Uint64Range(0, 1e6).Draw(t, "from"), Micros: rapid.Uint64Range(0, schemas.MaxPriceMicros).Draw(t, "price"),
			}
			if rapid.Bool().Draw(t, "dated") {
				r.ValidFrom = spring.Add(time.Duration(rapid.IntRange(0, 1e6).Draw(t, "second")) * time.Second)
			}
			if !seen[r.Key()] {
				in = append(in, r)
			}
			seen[r.Key()] = true
		}
		var b strings.Builder
		if err := WriteCSV(&b, in); err != nil {
			t.Fatal(err)
		}
		out, err := ReadCSV(strings.NewReader(b.String()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(in, out); diff != "" {
			t.Fatal(diff)
		}
	})
}

// The error about a wrong row names its line, its column and the rule.
func TestBadCSV(t *testing.T) {
	for text, want := range map[string]string{
		"":                                           "line 1",
		"channel,country\n":                          "price",
		"channel,price,colour\n":                     "colour",
		"channel,price\npigeon,1\n":                  "line 2, channel",
		"channel,price\nsms,1\nsms,-1\n":             "line 3, price",
		"channel,price\nsms,0.0000001\n":             "price",
		"channel,price\nsms,99999999999\n":           "price",
		"channel,country,price\nsms,ITA,1\n":         "country",
		"channel,from,price\nsms,many,1\n":           "from",
		"channel,validFrom,price\nsms,yesterday,1\n": "validFrom",
		"channel,price\nsms,1\nsms,2\n":              "repeats line 2",
		"channel,price\n\"sms,1\n":                   "CSV",
	} {
		_, err := ReadCSV(strings.NewReader(text))
		if wrong := (*RowError)(nil); !errors.As(err, &wrong) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	got, err := ReadCSV(strings.NewReader("\ufeffPrice, Channel ,ValidFrom\n0.05,SMS,2026-04-01\n"))
	if err != nil || len(got) != 1 || got[0].Micros != 50_000 || !got[0].ValidFrom.Equal(spring) {
		t.Errorf("got %v, %v", got, err)
	}
}
