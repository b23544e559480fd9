package hours_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"fanfare/schemas/hours"
)

// C15: instants as the standard libraries of the languages write them.
func TestParseInstant(t *testing.T) {
	want := time.Date(2025, 4, 15, 7, 0, 0, 0, time.UTC)
	for _, s := range []string{
		"2025-04-15T07:00:00Z", "2025-04-15T09:00:00+02:00", // RFC 3339
		// Java
		"2025-04-15T09:00+02:00", "2025-04-15T07:00Z", "2025-04-15T09:00+02:00[Europe/Rome]", "2025-04-15T07:00Z[UTC]",
		"2025-04-15T09:00:00+0200", "2025-04-15 09:00:00 +0200", // PHP
		"2025-04-15T09:00:00.000000+02:00", "2025-04-15 09:00:00+02:00", "2025-04-15T07:00:00+00:00", // Python
		"2025-04-15T07:00:00.000Z",                         // JavaScript
		"2025-04-15 09:00:00+02", "2025-04-15T02:30-04:30", // Postgres, and half hours
		"20250415T070000Z", "20250415T090000+0200", "20250415T0900+02", // the basic form
		"2025-04-15t07:00:00z", "2025-04-15T07:00:00-00:00", " 2025-04-15T07:00:00Z ", "2025-04-15T07:00:00,000Z", "2025-04-14T21:00:00-10:00", "2025-04-15T21:00+14:00",
	} {
		got, _, err := hours.ParseInstant(s)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", s, got, err, want)
		}
	}
	if got, zone, err := hours.ParseInstant("2025-04-15T09:00:00.123456789+02:00[Europe/Rome]"); err != nil || zone != "Europe/Rome" || got.Nanosecond() != 123456789 {
		t.Errorf("got %v, %q, %v, want the zone and the nanoseconds", got, zone, err)
	}
	for s, want := range map[string]string{
		"2025-04-15T09:00:00":                    "neither offset nor time zone",
		"2025-04-15 09:00":                       "neither offset nor time zone",
		"2025-04-15T09:00:00[Europe/Rome]":       "no offset",
		"2025-04-15T09:00:00+24:00":              "no zone is +24:00 from UTC",
		"2025-04-15T09:00:00+14:01":              "no zone is +14:01 from UTC",
		"2025-04-15T09:00:00+02:60":              "no zone",
		"2025-04-15T09:00:00-99:00":              "no zone",
		"2025-04-15T09:00:00+03:00[Europe/Rome]": "another offset",
		"2025-04-15T09:00:00+02:00[Mars/Base]":   "time zone",
		"2025-02-30T09:00:00Z":                   "no such date",
		"2025-00-10T09:00:00Z":                   "no such date",
		"2025-04-15T24:00:00Z":                   "no such time of day",
		"2025-04-15T09:60:00Z":                   "no such time of day",
		"2025-04-15T09:00:61Z":                   "no such time of day",
		"2025-04-15":                             "is not a time",
		"":                                       "is not a time",
		"tomorrow":                               "is not a time",
		"1713164400":                             "is not a time",
		"2025-04-15T09:00:00ZZ":                  "is not a time",
		"2025-04-15T9:00:00Z":                    "is not a time",
		"Tue, 15 Apr 2025 07:00:00 GMT":          "is not a time",
	} {
		_, _, err := hours.ParseInstant(s)
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, hours.ErrNaive) != strings.Contains(want, "neither") {
			t.Errorf("%q: got error %v, want %q", s, err, want)
		}
	}
}

func TestParseWall(t *testing.T) {
	for s, want := range map[string]string{
		"2025-04-15T09:00": "2025-04-15T09:00:00", "2025-04-15 09:00:05": "2025-04-15T09:00:05", "2025-04-15t09:00:00.5": "2025-04-15T09:00:00", "20250415T0900": "2025-04-15T09:00:00",
		"2025-04-15T09:00Z": "", "2025-04-15T09:00+02:00": "", "2025-04-31T09:00": "", "09:00": "", "": "",
	} {
		got, err := hours.ParseWall(s)
		if (err == nil) != (want != "") || err == nil && got.Format("2006-01-02T15:04:05") != want {
			t.Errorf("%q: got %v, %v, want %q", s, got, err, want)
		}
	}
}

// Whatever time.Parse reads as RFC 3339, with an offset that exists, is the same instant here.
func FuzzParseInstant(f *testing.F) {
	for _, s := range []string{"2025-04-15T07:00:00Z", "2025-04-15T09:00:00.5+02:00", "0000-01-01T00:00:00-00:00", "9999-12-31T23:59:59+14:00", "2024-02-29T00:00:00z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, _, err := hours.ParseInstant(s)
		want, wantErr := time.Parse(time.RFC3339, s)
		if wantErr != nil {
			return
		}
		_, offset := want.Zone()
		if offset > 14*3600 || offset < -14*3600 || strings.Contains(s, "T24") {
			if err == nil {
				t.Fatalf("%q: got %v, want an error", s, got)
			}
			return
		}
		if err != nil || !got.Equal(want) {
			t.Fatalf("%q: got %v, %v, want %v", s, got, err, want)
		}
	})
}
