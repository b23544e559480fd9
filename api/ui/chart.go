package ui

import (
	"encoding/json"
	"maps"
	"slices"
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
	Clicked     uint64 `json:"clicked"`
}

// timeline is the API's timeline of a campaign.
type timeline struct {
	Points []timelinePoint `json:"points"`
	Routes []struct {
		Route  string          `json:"route"`
		Points []timelinePoint `json:"points"`
	} `json:"routes"`
}

// routeTones are the colours of the routes in a chart. The last one is for all further routes.
var routeTones = []string{"--blue", "--purple", "--teal", "--amber", "--dim"}

// timelineChart returns the chart of the sum of timelines: what was sent by each route, delivered and failed. from and
// to are the first and the last period. The API leaves out periods without events; the chart has zeros for them.
func timelineChart(id, label string, from, to time.Time, step time.Duration, timelines ...timeline) *chart {
	from, to = from.Truncate(step), to.Truncate(step)
	n := max(0, int(to.Sub(from)/step)) + 1
	c := &chart{ID: id, Label: label, Times: make([]int64, n)}
	for i := range c.Times {
		c.Times[i] = from.Add(time.Duration(i) * step).Unix()
	}
	delivered, failed := make([]uint64, n), make([]uint64, n)
	sent := map[string][]uint64{}
	at := func(p *timelinePoint) (int, bool) {
		i := int(instant(p.Time).Sub(from) / step)
		return i, i >= 0 && i < n
	}
	for _, t := range timelines {
		for _, p := range t.Points {
			if i, ok := at(&p); ok {
				delivered[i] += p.Delivered
				failed[i] += p.Undelivered + p.NotSent
			}
		}
		for _, route := range t.Routes {
			for _, p := range route.Points {
				i, ok := at(&p)
				if !ok || p.Sent == 0 {
					continue
				}
				if sent[route.Route] == nil {
					sent[route.Route] = make([]uint64, n)
				}
				sent[route.Route][i] += p.Sent
			}
		}
	}
	c.Series = append(sentLines(sent, n), series{mustSay("stats.delivered"), "--green", delivered}, series{mustSay("stats.failed"), "--red", failed})
	return c
}

// opensChart returns the chart of the openings of links, by people and by others.
func opensChart(id, label string, from, to time.Time, step time.Duration, t timeline) *chart {
	c := timelineChart(id, label, from, to, step)
	opens := make([]uint64, len(c.Times))
	for _, p := range t.Points {
		if i := int(instant(p.Time).Sub(from.Truncate(step)) / step); i >= 0 && i < len(opens) {
			opens[i] += p.Clicked
		}
	}
	c.Series = []series{{mustSay("clicks.opens"), "--purple", opens}}
	return c
}

// sentLines are the lines of what was sent: one for each route if there are several.
func sentLines(sent map[string][]uint64, n int) (out []series) {
	names := slices.Sorted(maps.Keys(sent))
	if len(names) < 2 {
		line := make([]uint64, n)
		for _, name := range names {
			line = sent[name]
		}
		return []series{{mustSay("stats.sent"), routeTones[0], line}}
	}
	for i, name := range names {
		if i < len(routeTones)-1 || len(names) == len(routeTones) {
			out = append(out, series{mustSay("realtime.sent_by", name), routeTones[i], sent[name]})
			continue
		}
		if i == len(routeTones)-1 {
			out = append(out, series{mustSay("realtime.sent_by_others"), routeTones[i], make([]uint64, n)})
		}
		for k, v := range sent[name] {
			out[len(routeTones)-1].Values[k] += v
		}
	}
	return out
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
