package observe

import (
	"encoding/json"
	"fmt"
)

// Dashboard is a page of Grafana.
type Dashboard struct {
	// ID is its address and the name of its file.
	ID    string
	Title string
	// About is shown on top.
	About string
	Rows  []Row
}

// Row is a heading and its panels.
type Row struct {
	Title  string
	Panels []Panel
}

// Panel is a graph. It says in one sentence what is seen and what would be wrong.
type Panel struct {
	Title   string
	Says    string
	Unit    unit
	Stacked bool
	Queries []Query
}

// unit as Grafana spells it.
type unit string

const (
	count     unit = "short"
	perSecond unit = "cps"
	seconds   unit = "s"
	bytesUnit unit = "bytes"
	bytesRate unit = "Bps"
	onOff     unit = "bool_on_off"
)

// Width and height of a panel: three to a row, on Grafana's grid of 24.
const (
	panelWidth  = 8
	panelHeight = 7
	gridWidth   = 24
)

// JSON returns the dashboard as Grafana imports it. It names no data source: one is chosen at the top of the page.
func (d Dashboard) JSON() ([]byte, error) {
	type object = map[string]any
	source := object{"type": "prometheus", "uid": "${source}"}
	var panels []object
	id, y := 0, 0
	next := func() int { id++; return id }
	panels = append(panels, object{
		"id": next(), "type": "text", "title": "", "gridPos": object{"x": 0, "y": y, "w": gridWidth, "h": 2},
		"options": object{"mode": "markdown", "content": d.About},
	})
	y += 2
	for _, row := range d.Rows {
		panels = append(panels, object{"id": next(), "type": "row", "title": row.Title, "collapsed": false, "panels": []object{}, "gridPos": object{"x": 0, "y": y, "w": gridWidth, "h": 1}})
		y++
		x := 0
		for i, p := range row.Panels {
			var targets []object
			for j, q := range p.Queries {
				targets = append(targets, object{"refId": string(rune('A' + j)), "datasource": source, "expr": q.Expr, "legendFormat": q.Legend})
			}
			custom := object{"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
			if p.Stacked {
				custom["stacking"] = object{"mode": "normal"}
				custom["fillOpacity"] = 40
			}
			panels = append(panels, object{
				"id": next(), "type": "timeseries", "title": p.Title, "description": p.Says, "datasource": source,
				"gridPos":     object{"x": x, "y": y, "w": panelWidth, "h": panelHeight},
				"fieldConfig": object{"defaults": object{"unit": string(p.Unit), "min": 0, "custom": custom}, "overrides": []object{}},
				"options":     object{"legend": object{"displayMode": "list", "placement": "bottom"}, "tooltip": object{"mode": "multi", "sort": "desc"}},
				"targets":     targets,
			})
			if x += panelWidth; x >= gridWidth || i == len(row.Panels)-1 {
				x, y = 0, y+panelHeight
			}
		}
	}
	var links []object
	links = append(links, object{"type": "dashboards", "tags": []string{"fanfare"}, "asDropdown": true, "title": "Fanfare", "keepTime": true, "includeVars": true})
	out, err := json.MarshalIndent(object{
		"uid": d.ID, "title": d.Title, "tags": []string{"fanfare"}, "schemaVersion": 39, "editable": true, "graphTooltip": 1,
		"refresh": "30s", "time": object{"from": "now-3h", "to": "now"}, "timezone": "utc", "links": links, "panels": panels,
		"templating": object{"list": []object{
			{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0},
			{
				"name": "job", "label": "Installation", "type": "query", "datasource": source, "query": "label_values(fanfare_view_age_seconds, job)",
				"refresh": 2, "includeAll": true, "allValue": ".*", "multi": true, "current": object{"text": "All", "value": "$__all"},
			},
		}},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.ID, err)
	}
	return append(out, '\n'), nil
}
