package ui

import (
	"strings"
	"testing"
	"time"
)

// R133: sent messages have one line for each route: the first four routes by name, and one line for all others. With
// one route there is one line.
func TestChartByRoute(t *testing.T) {
	from := time.Date(2025, 4, 1, 9, 0, 0, 0, time.UTC)
	campaign := func(routes ...string) (out timeline) {
		for i, name := range routes {
			points := []timelinePoint{{Time: "2025-04-01T09:00:01Z", Sent: uint64(i + 1)}}
			out.Routes = append(out.Routes, struct {
				Route  string          `json:"route"`
				Points []timelinePoint `json:"points"`
			}{name, points})
			out.Points = append(out.Points, timelinePoint{Time: "2025-04-01T09:00:01Z", Sent: uint64(i + 1), Delivered: 1})
		}
		return out
	}
	for name, tc := range map[string]struct {
		timelines []timeline
		lines     string
		first     uint64 // of the first line, at 09:00:01
		last      uint64 // of the last line of sent messages
	}{
		"none":       {nil, "Sent, Delivered, Failed", 0, 0},
		"one":        {[]timeline{campaign("a"), campaign("a")}, "Sent, Delivered, Failed", 2, 2},
		"two":        {[]timeline{campaign("b", "a")}, "Sent by a, Sent by b, Delivered, Failed", 2, 1},
		"five":       {[]timeline{campaign("a", "b", "c", "d", "e")}, "Sent by a, Sent by b, Sent by c, Sent by d, Sent by e, Delivered, Failed", 1, 5},
		"six, seven": {[]timeline{campaign("a", "b", "c", "d", "e", "f"), campaign("g")}, "Sent by a, Sent by b, Sent by c, Sent by d, Sent by other routes, Delivered, Failed", 1, 12},
	} {
		c := timelineChart("x", "X", from, from.Add(2*time.Second), time.Second, tc.timelines...)
		var labels []string
		for _, s := range c.Series {
			labels = append(labels, s.Label)
		}
		if got := strings.Join(labels, ", "); got != tc.lines {
			t.Errorf("%s: got lines %s, want %s", name, got, tc.lines)
		}
		if first, last := c.Series[0].Values[1], c.Series[len(c.Series)-3].Values[1]; first != tc.first || last != tc.last {
			t.Errorf("%s: got %d and %d at the second, want %d and %d", name, first, last, tc.first, tc.last)
		}
	}
}
