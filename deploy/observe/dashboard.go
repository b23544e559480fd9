package observe

import (
	"encoding/json"
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	textpanel "github.com/grafana/grafana-foundation-sdk/go/text"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// Dashboard is a page of Grafana.
type Dashboard struct {
	// ID is the last part of its address, and the name of its file.
	ID    string
	Title string
	// About is shown at the top.
	About string
	Rows  []Row
}

// Row is a heading and the panels below it.
type Row struct {
	Title  string
	Panels []Panel
}

// Panel is a graph. Says describes in one or two sentences what it shows, and what would be wrong.
type Panel struct {
	Title   string
	Says    string
	Unit    string
	Stacked bool
	Queries []Query
}

// Units of panels.
const (
	count     = units.Short
	perSecond = units.CountsPerSecond
	seconds   = units.Seconds
	bytesUnit = units.BytesIEC
	bytesRate = units.BytesPerSecondSI
	onOff     = units.BoolOnOff
)

// Sizes on Grafana's grid of 24 columns: three panels in a row.
const (
	panelWidth  = 8
	panelHeight = 7
	gridWidth   = 24
)

// source is the Prometheus that the reader chooses at the top of the page. The files name none.
var source = common.DataSourceRef{Type: new("prometheus"), Uid: new("${source}")}

// JSON returns the dashboard as Grafana imports it.
func (d Dashboard) JSON() ([]byte, error) {
	id := uint32(0)
	next := func() uint32 { id++; return id }
	//nolint:staticcheck // the successor writes schema v2, which older versions of Grafana do not import
	page := dashboard.NewDashboardBuilder(d.Title).Uid(d.ID).Tags([]string{"fanfare"}).
		Refresh("30s").Time("now-3h", "now").Timezone("utc").Tooltip(dashboard.DashboardCursorSyncCrosshair).Editable().
		Link(dashboard.NewDashboardLinkBuilder("Fanfare").Type(dashboard.DashboardLinkTypeDashboards).Tags([]string{"fanfare"}).
			AsDropdown(true).KeepTime(true).IncludeVars(true)).
		WithVariable(dashboard.NewDatasourceVariableBuilder("source").Label("Prometheus").Type("prometheus")).
		WithVariable(jobVariable()).
		WithPanel(textpanel.NewPanelBuilder().Id(next()).Mode(textpanel.TextModeMarkdown).Content(d.About).Span(gridWidth).Height(2))
	for _, row := range d.Rows {
		page.WithRow(dashboard.NewRowBuilder(row.Title).Id(next()))
		for _, p := range row.Panels {
			page.WithPanel(p.builder().Id(next()))
		}
	}
	built, err := page.Build()
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.ID, err)
	}
	out, err := json.MarshalIndent(built, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.ID, err)
	}
	return append(out, '\n'), nil
}

// jobVariable lets the reader choose the installation: one Prometheus job is one installation.
func jobVariable() *dashboard.QueryVariableBuilder {
	option := func(s string) dashboard.StringOrArrayOfString { return dashboard.StringOrArrayOfString{String: &s} }
	return dashboard.NewQueryVariableBuilder("job").Label("Installation").Datasource(source).
		Query(dashboard.StringOrMap{String: new("label_values(fanfare_view_age_seconds, job)")}).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).IncludeAll(true).AllValue(".*").Multi(true).
		Current(dashboard.VariableOption{Text: option("All"), Value: option("$__all")})
}

func (p Panel) builder() *timeseries.PanelBuilder {
	b := timeseries.NewPanelBuilder().Title(p.Title).Description(p.Says).Datasource(source).Unit(p.Unit).Min(0).
		Span(panelWidth).Height(panelHeight).LineWidth(1).FillOpacity(10).ShowPoints(common.VisibilityModeNever).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom).ShowLegend(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	if p.Stacked {
		b.FillOpacity(40).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal))
	}
	for i, q := range p.Queries {
		b.WithTarget(prometheus.NewDataqueryBuilder().RefId(string(rune('A' + i))).Datasource(source).Expr(q.Expr).LegendFormat(q.Legend))
	}
	return b
}
