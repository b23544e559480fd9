package ui

import (
	"encoding/json"
	"time"
)

// chart is the data of one line chart, which charts.js draws. Its first column has the times, in seconds since 1970.
type chart struct {
	ID, Label string
	Series    []series
	Times     []int64
}

// series is one line: its colour is a variable of the style sheet.
type series struct {
	Label  string
	Tone   string
	Values []uint64
}

// Data returns the chart in the JSON that charts.js reads.
func (c *chart) Data() (string, error) {
	type line struct {
		Label string `json:"label"`
		Tone  string `json:"tone"`
	}
	out := struct {
		Lines []line `json:"lines"`
		Data  []any  `json:"data"`
	}{Data: []any{c.Times}}
	for _, s := range c.Series {
		out.Lines = append(out.Lines, line{s.Label, s.Tone})
		out.Data = append(out.Data, s.Values)
	}
	text, err := json.Marshal(out)
	return string(text), err
}

// timelinePoint is one period of the API's timeline.
type timelinePoint struct {
	Time        string `json:"time"`
	Sent        uint64 `json:"sent"`
	Delivered   uint64 `json:"delivered"`
	Undelivered uint64 `json:"undelivered"`
	NotSent     uint64 `json:"notSent"`
}

// timelineChart returns the chart of the sum of timelines. from and to are the first and the last period. The API
// leaves out periods without events; the chart has zeros for them.
func timelineChart(id, label string, from, to time.Time, step time.Duration, timelines ...[]timelinePoint) *chart {
	from, to = from.Truncate(step), to.Truncate(step)
	n := max(0, int(to.Sub(from)/step)) + 1
	c := &chart{ID: id, Label: label, Times: make([]int64, n)}
	sent, delivered, failed := make([]uint64, n), make([]uint64, n), make([]uint64, n)
	for i := range c.Times {
		c.Times[i] = from.Add(time.Duration(i) * step).Unix()
	}
	for _, points := range timelines {
		for _, p := range points {
			if i := int(instant(p.Time).Sub(from) / step); i >= 0 && i < n {
				sent[i] += p.Sent
				delivered[i] += p.Delivered
				failed[i] += p.Undelivered + p.NotSent
			}
		}
	}
	c.Series = []series{
		{mustSay("stats.sent"), "--blue", sent}, {mustSay("stats.delivered"), "--green", delivered}, {mustSay("stats.failed"), "--red", failed},
	}
	return c
}

// timelineStep returns the period with which a chart has at most a few hundred points, and the API's name of the
// period.
func timelineStep(span time.Duration) (by string, step time.Duration) {
	switch {
	case span <= 5*time.Minute:
		return "second", time.Second
	case span <= 8*time.Hour:
		return "minute", time.Minute
	}
	return "hour", time.Hour
}
