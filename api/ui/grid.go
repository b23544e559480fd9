package ui

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
)

// campaign has the fields of a campaign that screens use.
type campaign struct {
	ID               string   `json:"id"`
	Name             string   `json:"name"`
	Channel          *string  `json:"channel"`
	State            string   `json:"state"`
	Reason           *string  `json:"reason"`
	SuspendedText    *string  `json:"suspendedText"`
	Tags             []string `json:"tags"`
	Sender           string   `json:"sender"`
	ContactListNames []string `json:"contactListNames"`
	CreatedAt        string   `json:"createdAt"`
	ScheduledTime    *string  `json:"scheduledTime"`
	DeletedAt        *string  `json:"deletedAt"`
	Simulated        bool     `json:"simulated"`
	AllowedActions   []string `json:"allowedActions"`
	Stats            *figures `json:"stats"`
}

// Why returns the reason for which the campaign is suspended, rejected or failed: in words, if the API has a text for
// it.
func (c campaign) Why() *string {
	if c.SuspendedText != nil {
		return c.SuspendedText
	}
	return c.Reason
}

// figures of a campaign.
type figures struct {
	TotalMessages uint64  `json:"totalMessages"`
	Sent          uint64  `json:"sent"`
	Delivered     uint64  `json:"delivered"`
	Failed        uint64  `json:"failed"`
	Awaiting      uint64  `json:"awaiting"`
	Pending       uint64  `json:"pending"`
	Clicked       uint64  `json:"clicked"`
	ClickRate     float64 `json:"clickRate"`
	OptedOut      uint64  `json:"optedOut"`
	DeliveryRate  float64 `json:"deliveryRate"`
	Cost          float64 `json:"cost"`
	Currency      string  `json:"currency"`
}

// Progress returns the share of the recipients that are no longer pending (R132).
func (f *figures) Progress() float64 {
	if f.TotalMessages == 0 {
		return 0
	}
	return 1 - float64(f.Pending)/float64(f.TotalMessages)
}

// List names the target list or lists.
func (c *campaign) List() string {
	if len(c.ContactListNames) == 0 {
		return "–"
	}
	return strings.Join(c.ContactListNames, ", ")
}

// Replayable reports whether the campaign was submitted and has ended, so that it can be sent to some of its recipients
// again (R139).
func (c *campaign) Replayable() bool {
	return (c.State == "completed" || c.State == "aborted") && c.DeletedAt == nil
}

// Reschedulable reports whether the time of the campaign can be changed (X9).
func (c *campaign) Reschedulable() bool { return slices.Contains(c.AllowedActions, "reschedule") }

// Testable reports whether the campaign has not started, so that its message can be sent as a test (R157).
func (c *campaign) Testable() bool {
	return slices.Contains([]string{"configured", "priced", "awaiting_approval", "ready", "scheduled"}, c.State) && c.DeletedAt == nil
}

// Actions returns the allowed actions that need no form.
func (c *campaign) Actions() (out []string) {
	for _, a := range c.AllowedActions {
		if simpleActions[a] {
			out = append(out, a)
		}
	}
	return out
}

var simpleActions = map[string]bool{"pause": true, "resume": true, "abort": true, "start": true, "unschedule": true, "duplicate": true}

// menuItem is one line of a row's menu.
type menuItem struct{ Verb, Kind, To string }

// Menu returns the menu items for a campaign in its current state. For an RCS draft they are Edit and Delete, in this
// order, first (R51).
func (c *campaign) Menu() (out []menuItem) {
	path := "/campaigns/" + c.ID
	allowed := func(action string) bool { return slices.Contains(c.AllowedActions, action) }
	if allowed("edit") {
		out = append(out, menuItem{"edit", "link", path + "/edit"})
	}
	if allowed("delete") {
		out = append(out, menuItem{"delete", "dialog", path + "/delete"})
	}
	if allowed("confirm") {
		out = append(out, menuItem{"launch", "link", path + "/edit?step=review"})
	}
	if allowed("reschedule") {
		out = append(out, menuItem{"reschedule", "dialog", path + "/reschedule"})
	}
	if c.Testable() {
		out = append(out, menuItem{"testsend", "dialog", path + "/test"})
	}
	if c.Replayable() {
		out = append(out, menuItem{"replay", "dialog", path + "/replay"})
	}
	for _, action := range []string{"pause", "resume", "start", "unschedule", "abort", "duplicate"} {
		if allowed(action) {
			out = append(out, menuItem{action, "form", path + "/" + action})
		}
	}
	return append(out, menuItem{"view", "link", path})
}

// gridQuery has the filters of the grid. They are in its URL, so that a view can be saved as a bookmark.
type gridQuery struct {
	Search, Status, Channel, Tag string
	Page                         int
	Hide                         []string // columns that are not shown
}

// gridColumns are the columns of the grid that a person may hide; name, status and menu stay.
var gridColumns = []string{"type", "list", "recipients", "ctr", "from", "cost", "scheduled"}

// Hidden are the hidden columns, as the table's attribute and the address have them.
func (q gridQuery) Hidden() string { return strings.Join(q.Hide, " ") }

// Shows reports whether a column is shown.
func (q gridQuery) Shows(column string) bool { return !slices.Contains(q.Hide, column) }

// Any reports whether a filter is set.
func (q gridQuery) Any() bool { return q.Search+q.Status+q.Channel+q.Tag != "" }

func (q gridQuery) values() url.Values {
	return url.Values{
		"search": {q.Search}, "status": {q.Status}, "channel": {q.Channel}, "tag": {q.Tag}, "page": {strconv.Itoa(q.Page)},
		"limit": {strconv.Itoa(gridRows)}, "include": {"stats"},
	}
}

// address is the address of the grid, which also has the settings that the API does not know.
func (q gridQuery) address() string {
	v := url.Values{}
	for name, value := range map[string]string{"search": q.Search, "status": q.Status, "channel": q.Channel, "tag": q.Tag, "hide": q.Hidden()} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Page > 0 {
		v.Set("page", strconv.Itoa(q.Page))
	}
	return "/?" + v.Encode()
}

func gridQueryOf(r *http.Request) gridQuery {
	v := r.URL.Query()
	page, _ := strconv.Atoi(v.Get("page"))
	q := gridQuery{Search: v.Get("search"), Status: v.Get("status"), Channel: v.Get("channel"), Tag: v.Get("tag"), Page: max(page, 0)}
	hidden := strings.Fields(v.Get("hide"))
	if v.Has("show") { // the columns form sends the shown columns, and an empty value if none is ticked
		hidden = slices.DeleteFunc(slices.Clone(gridColumns), func(c string) bool { return slices.Contains(v["show"], c) })
	}
	for _, c := range gridColumns {
		if slices.Contains(hidden, c) {
			q.Hide = append(q.Hide, c)
		}
	}
	return q
}

const gridRows = 20

// grid is the page of campaigns (R130 to R136).
type grid struct {
	Query    gridQuery
	Rows     []campaign
	Totals   gridTotals
	Pager    pager
	Live     string
	States   []string
	Channels []string
	Columns  []string // that may be hidden
}

type gridTotals struct {
	figures
	Campaigns int            `json:"campaigns"`
	ByState   map[string]int `json:"byState"`
	Active    int
}

var (
	states = []string{
		"draft", "configured", "cost_calculated", "ready", "scheduled", "preparing", "sending", "paused", "suspended",
		"completed", "cancelled", "aborted", "rejected", "failed",
	}
	channels = []string{"sms", "rcs", "whatsapp", "voice"}
)

func (u *UI) gridScreen(r chi.Router) {
	r.Get("/", u.gridPage)
	r.Get("/live/campaigns", u.gridLive)
	r.Post("/campaigns/{id}/{action}", u.act)
}

func (u *UI) loadGrid(ctx context.Context, p *Person, q gridQuery) (*grid, error) {
	g := &grid{Query: q, States: states, Channels: channels, Columns: gridColumns, Live: "/live/campaigns?" + q.values().Encode()}
	var found struct {
		Data  []campaign `json:"data"`
		Total int        `json:"total"`
	}
	if err := u.get(ctx, p, "/api/campaigns", q.values(), &found); err != nil {
		return nil, err
	}
	if err := u.get(ctx, p, "/api/campaigns/stats", nil, &g.Totals); err != nil {
		return nil, err
	}
	for _, state := range []string{"preparing", "sending"} {
		g.Totals.Active += g.Totals.ByState[state]
	}
	g.Rows = found.Data
	g.Pager = newPager(q.address(), q.Page, gridRows, found.Total, "pager.campaigns")
	return g, nil
}

func (u *UI) gridPage(w http.ResponseWriter, r *http.Request) {
	// the request comes from the columns form: redirect to the shorter address of the view
	if r.URL.Query().Has("show") {
		http.Redirect(w, r, gridQueryOf(r).address(), http.StatusSeeOther)
		return
	}
	g, err := u.loadGrid(r.Context(), personOf(r.Context()), gridQueryOf(r))
	if err != nil {
		u.fail(w, r, err)
		return
	}
	u.render(w, r, http.StatusOK, "grid", g)
}

func (u *UI) gridLive(w http.ResponseWriter, r *http.Request) {
	p, q := personOf(r.Context()), gridQueryOf(r)
	u.live(w, r, "grid "+q.values().Encode(), func(ctx context.Context) (parts, error) {
		g, err := u.loadGrid(ctx, p, q)
		if err != nil {
			return nil, err
		}
		out := parts{}
		if out["cards"], err = u.fragment("grid", "cards", g); err != nil {
			return nil, err
		}
		for i := range g.Rows {
			if out["row-"+g.Rows[i].ID], err = u.fragment("grid", "row", &g.Rows[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// act runs the action of a campaign's button.
func (u *UI) act(w http.ResponseWriter, r *http.Request) {
	id, action := chi.URLParam(r, "id"), chi.URLParam(r, "action")
	if !simpleActions[action] {
		http.NotFound(w, r)
		return
	}
	to := back(r, "/")
	var c campaign
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, "/api/campaigns/"+url.PathEscape(id)+"/"+action, nil, &c); err != nil {
		u.refused(w, r, to, err)
		return
	}
	u.done(w, r, to, mustSay("done."+action, c.Name))
}
