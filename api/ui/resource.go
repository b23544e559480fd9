package ui

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
)

// resourceScreen describes the screen of one kind of the API's resources: a table, a form to create and to change one,
// and the actions of a row. Templates, agents, channels, keys, people and tenants are such screens.
type resourceScreen struct {
	// Key is the path of the screen and a part of its keys in the text catalogue: the screen with the key templates is
	// at /templates.
	Key string
	// API is the resource's path.
	API string
	// Section is its section in the navigation.
	Section string
	// Read and Write are the scopes that a person needs to see the screen and to change something.
	Read, Write string
	Columns     []column
	Fields      []field
	// Moves are the actions of one row, in order. Allowed returns which are shown for a status; nil: all.
	Moves   []move
	Allowed map[string][]string
	// ReadOnly: rows cannot be created, changed or deleted.
	ReadOnly bool
	// NoEdit: rows can be created and deleted, but not changed.
	NoEdit bool
	// Drop is the catalogue key of the delete button, "" when rows cannot be deleted.
	Drop string
	// Ref is the field that identifies a row in paths; "" is id.
	Ref string
	// Secret is a field of the answer to a creation whose value is shown once.
	Secret string
	// Own: a row has its own page, at the row's path.
	Own bool
	// Pages are further pages of a row, below its path.
	Pages []string
}

// column of the table.
type column struct {
	Field string
	As    string // badge, status, time, count, money, list, code, tick; text when ""
}

// field of the form.
type field struct {
	Name    string
	As      string // text, area, select, number, check, password, checks, words, pairs, json; text when ""
	Options []string
	// New: only in the form to create; Old: only in the form to change.
	New, Old bool
	Required bool
	// Default is the value in the form to create.
	Default string
}

// move is an action of one row.
type move struct {
	Verb   string
	Scope  string
	Reason bool // the action asks for a reason
}

// resourceRow is one row, decoded from the API's JSON.
type resourceRow map[string]any

// Title returns the name of the row for people.
func (r resourceRow) Title() string {
	for _, name := range []string{"name", "email", "phoneNumber", "host", "id"} {
		if t := r.Text(name); t != "" {
			return t
		}
	}
	return ""
}

// Text returns a field as text.
func (r resourceRow) Text(name string) string { return asText(r[name]) }

// json returns a field that is an object as JSON to edit. It returns "" for anything else, such as credentials, which
// the API never returns.
func (r resourceRow) json(name string) string {
	object, ok := r[name].(map[string]any)
	if !ok {
		return ""
	}
	text, err := json.MarshalIndent(object, "", "  ")
	if err != nil {
		return ""
	}
	return string(text)
}

func asText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	case []any:
		words := make([]string, len(v))
		for i := range v {
			words[i] = asText(v[i])
		}
		return strings.Join(words, ", ")
	}
	if m, ok := v.(map[string]any); ok { // in the form that pairs reads
		var lines []string
		for _, name := range slices.Sorted(maps.Keys(m)) {
			lines = append(lines, name+": "+asText(m[name]))
		}
		return strings.Join(lines, "\n")
	}
	return fmt.Sprint(v)
}

// Has reports whether a list field contains a value.
func (r resourceRow) Has(name, value string) bool {
	list, _ := r[name].([]any)
	return slices.ContainsFunc(list, func(v any) bool { return asText(v) == value })
}

// resourcePage is the data of the templates.
type resourcePage struct {
	Screen *resourceScreen
	Person *Person
	Rows   []resourceRow
	Query  url.Values
	Pager  pager
	// For the form: the row (empty for a new one), and what is wrong.
	Row    resourceRow
	Values map[string]string
	Errors map[string]string
	IsNew  bool
	Secret string
}

// Path returns the path of the screen, or of a row.
func (s *resourceScreen) Path(row ...resourceRow) string {
	if len(row) == 0 {
		return "/" + s.Key
	}
	return "/" + s.Key + "/" + url.PathEscape(s.ref(row[0]))
}

func (s *resourceScreen) ref(row resourceRow) string {
	if s.Ref != "" {
		return row.Text(s.Ref)
	}
	return row.Text("id")
}

// Searchable reports whether the API can search the rows by name.
func (s *resourceScreen) Searchable() bool { return s.paged() }

// Shown returns the fields of the form.
func (p *resourcePage) Shown() (out []field) {
	for _, f := range p.Screen.Fields {
		if f.New && !p.IsNew || f.Old && p.IsNew {
			continue
		}
		out = append(out, f)
	}
	return out
}

// MovesOf returns the actions of a row that the person may use.
func (p *resourcePage) MovesOf(row resourceRow) (out []move) {
	for _, m := range p.Screen.Moves {
		allowed, limited := p.Screen.Allowed[row.Text("status")]
		if p.Person.Can(m.Scope) && (p.Screen.Allowed == nil || limited && slices.Contains(allowed, m.Verb)) {
			out = append(out, m)
		}
	}
	return out
}

// resourceScreens are the screens of this kind, in the order of the navigation.
var resourceScreens = []*resourceScreen{
	{
		Key: "templates", API: "/api/templates", Section: "templates", Read: "read", Write: "campaigns", Drop: "resource.delete",
		Columns: []column{{"name", ""}, {"channel", "badge"}, {"type", ""}, {"language", ""}, {"status", "status"}, {"reason", ""}, {"updatedAt", "time"}},
		Fields: []field{
			{Name: "name", Required: true},
			{Name: "channel", As: "select", Options: channels, New: true},
			{Name: "type", As: "select", Options: []string{"", "text", "rich_card", "carousel", "media", "call"}},
			{Name: "category", As: "select", Options: []string{"", "marketing", "utility", "authentication"}},
			{Name: "language", Default: "en"},
			{Name: "body", As: "area", Required: true},
			{Name: "footer"},
			{Name: "agent"},
			{Name: "providerId"},
		},
		Moves: []move{{"submit", "campaigns", false}, {"approve", "admin", false}, {"reject", "admin", true}, {"pause", "admin", true}, {"disable", "admin", true}},
		Allowed: map[string][]string{
			"draft": {"submit", "approve"}, "pending": {"approve", "reject", "disable"}, "approved": {"pause", "reject", "disable"}, "rejected": {"submit", "approve", "disable"},
			"paused": {"approve", "disable"}, "disabled": {"approve"},
		},
	},
	{
		Key: "agents", API: "/api/agents", Section: "templates", Read: "read", Write: "campaigns", Drop: "resource.delete",
		Columns: []column{{"name", ""}, {"providerId", "code"}, {"region", ""}, {"trafficType", ""}, {"status", "status"}, {"updatedAt", "time"}},
		Fields: []field{
			{Name: "name", Required: true},
			{Name: "providerId"},
			{Name: "brand"},
			{Name: "description", As: "area"},
			{Name: "logoUrl"},
			{Name: "region", As: "select", Options: []string{"europe", "us", "asia"}},
			{Name: "trafficType", As: "select", Options: []string{"promotion", "transaction", "authentication", "servicerequest"}},
			{Name: "route"},
			{Name: "status", As: "select", Options: []string{"launched", "draft", "suspended"}},
		},
	},
	{
		Key: "channels", API: "/api/channels", Section: "templates", Read: "read", Write: "campaigns", Drop: "resource.delete",
		Columns: []column{{"name", ""}, {"channel", "badge"}, {"address", "code"}, {"route", ""}, {"status", "status"}, {"updatedAt", "time"}},
		Fields: []field{
			{Name: "name", Required: true},
			{Name: "channel", As: "select", Options: []string{"whatsapp", "sms", "voice"}, New: true},
			{Name: "address", Required: true},
			{Name: "providerId"},
			{Name: "accountId"},
			{Name: "route"},
			{Name: "status", As: "select", Options: []string{"active", "paused"}},
		},
	},
	{
		Key: "senders", API: "/api/senders", Section: "templates", Read: "read", Write: "campaigns", Drop: "resource.delete",
		Columns: []column{{"name", ""}, {"type", ""}, {"countries", "list"}, {"twoWay", "tick"}, {"rate", "count"}, {"status", "status"}, {"reason", ""}, {"updatedAt", "time"}},
		Fields: []field{
			{Name: "name", Required: true, New: true},
			{Name: "type", As: "select", Options: []string{"", "alphanumeric", "number", "short_code"}},
			{Name: "countries", As: "words"},
			{Name: "twoWay", As: "check"},
			{Name: "rate", As: "number"},
		},
		Moves: []move{{"approve", "admin", false}, {"reject", "admin", true}, {"disable", "admin", true}},
		Allowed: map[string][]string{
			"pending": {"approve", "reject", "disable"}, "approved": {"disable"}, "rejected": {"approve", "disable"}, "disabled": {"approve"},
		},
	},
	domainsScreen("domains", "/api/domains", "templates", "campaigns"),
	{
		Key: "lists", API: "/api/contacts/list", Section: "contacts", Read: "read", Write: "contacts", Drop: "resource.delete", Own: true,
		Columns: []column{{"name", ""}, {"contacts", "count"}, {"isTest", "tick"}, {"createdAt", "time"}},
		Fields:  []field{{Name: "name", Required: true}, {Name: "isTest", As: "check"}},
	},
	{
		Key: "contacts", API: "/api/contacts", Section: "contacts", Read: "read", Write: "contacts", Drop: "resource.delete", Pages: []string{"history"},
		Columns: []column{{"phoneNumber", "code"}, {"firstName", ""}, {"lastName", ""}, {"email", ""}, {"country", ""}, {"valid", "tick"}, {"createdAt", "time"}},
		Fields: []field{
			{Name: "phoneNumber", Required: true}, {Name: "firstName"}, {Name: "lastName"}, {Name: "email"}, {Name: "attributes", As: "pairs"}, {Name: "listIds", As: "words", New: true},
		},
	},
	{
		Key: "keys", API: "/api/keys", Section: "settings", Read: "admin", Write: "admin", Drop: "resource.revoke", NoEdit: true, Secret: "secret",
		Columns: []column{{"name", ""}, {"hint", "code"}, {"scopes", "list"}, {"test", "tick"}, {"createdAt", "time"}, {"usedAt", "time"}, {"revokedAt", "time"}},
		Fields: []field{
			{Name: "name", Required: true},
			{Name: "scopes", As: "checks", Options: []string{"read", "campaigns", "confirm", "contacts", "send", "admin"}, Default: "read, campaigns, confirm, contacts, send"},
			{Name: "test", As: "check"},
		},
	},
	{
		Key: "webhooks", API: "/api/webhooks", Section: "settings", Read: "read", Write: "campaigns", Drop: "resource.delete", Secret: "secret", Pages: []string{"deliveries"},
		Columns: []column{{"name", ""}, {"url", "code"}, {"events", "list"}, {"status", "status"}, {"reason", ""}, {"updatedAt", "time"}},
		Fields: []field{
			{Name: "name"},
			{Name: "url", Required: true},
			{Name: "events", As: "checks", Options: []string{"DELIVERY", "READ", "CLICK", "OPT_OUT", "INBOUND", "CAMPAIGN"}},
			{Name: "statuses", As: "checks", Options: []string{"SENT", "DELIVERED", "ERROR", "EXPIRED"}},
			{Name: "channels", As: "checks", Options: channels},
			{Name: "batchSize", As: "number"},
			{Name: "status", As: "select", Options: []string{"active", "paused"}},
		},
		Moves: []move{{"test", "campaigns", false}},
	},
	{
		Key: "users", API: "/api/users", Section: "settings", Read: "admin", Write: "admin", Ref: "email", Secret: "loginLink",
		Columns: []column{{"email", ""}, {"name", ""}, {"operator", "tick"}, {"disabled", "tick"}, {"seenAt", "time"}},
		Fields: []field{
			{Name: "email", Required: true},
			{Name: "name"},
			{Name: "role", As: "select", Options: []string{"viewer", "editor", "approver"}},
			{Name: "password", As: "password"},
			{Name: "operator", As: "check"},
			{Name: "disabled", As: "check", Old: true},
		},
		Moves: []move{{"link", "admin", false}},
	},
	{
		Key: "routes", API: "/api/routes", Section: "operator", Read: "admin", Write: "admin", Ref: "name", Drop: "resource.delete",
		Columns: []column{{"name", ""}, {"connector", ""}, {"simulated", "tick"}, {"channels", "list"}, {"rate", "count"}, {"status", "status"}, {"health", "health"}, {"callbackPath", "code"}, {"updatedAt", "time"}},
		Fields: []field{
			{Name: "name", Required: true, New: true},
			{Name: "connector", As: "select", Options: []string{"smpp", "httpsms", "rcs", "whatsapp", "voice", "sim"}, New: true},
			{Name: "channels", As: "checks", Options: channels},
			{Name: "configuration", As: "json"},
			{Name: "credentials", As: "json"},
			{Name: "rate", As: "number"},
			{Name: "burst", As: "number"},
			{Name: "p99Ms", As: "number"},
			{Name: "receiptWindow", As: "number"},
			{Name: "priority", As: "number"},
			{Name: "share", As: "number"},
			{Name: "care", As: "json"},
		},
		Moves:   []move{{"test", "admin", false}, {"pause", "admin", false}, {"resume", "admin", false}},
		Allowed: map[string][]string{"active": {"test", "pause"}, "paused": {"test", "resume"}},
	},
	{
		Key: "prices", API: "/api/prices", Section: "operator", Read: "admin", Write: "admin", Drop: "resource.delete",
		Columns: []column{{"id", "code"}, {"channel", "badge"}, {"country", ""}, {"from", "count"}, {"price", ""}, {"validFrom", "time"}, {"updatedAt", "time"}},
		Fields: []field{
			{Name: "channel", As: "select", Options: channels},
			{Name: "country"},
			{Name: "from", As: "number"},
			{Name: "price", As: "number", Required: true},
			{Name: "validFrom"},
		},
	},
	domainsScreen("shared-domains", "/api/shared-domains", "operator", "admin"),
	{
		Key: "doctor", API: "/api/doctor", Section: "operator", Read: "admin", Write: "admin", NoEdit: true, ReadOnly: true,
		Columns: []column{{"service", ""}, {"level", "status"}, {"found", ""}, {"fix", ""}},
	},
	{
		Key: "alerts", API: "/api/alerts", Section: "operator", Read: "admin", Write: "admin", NoEdit: true, ReadOnly: true,
		Columns: []column{{"name", ""}, {"state", "alert"}, {"severity", "status"}, {"means", ""}, {"do", "runbook"}},
	},
	{
		Key: "tenants", API: "/api/tenants", Section: "operator", Read: "admin", Write: "admin",
		Columns: []column{{"name", ""}, {"enabled", "tick"}, {"campaignsEnabled", "tick"}, {"region", ""}, {"timezone", ""}, {"currency", ""}, {"balance", "count"}, {"reserved", "count"}, {"createdAt", "time"}},
		Fields: []field{
			{Name: "name", Required: true},
			{Name: "region", Default: "IT"},
			{Name: "timezone"},
			{Name: "currency", New: true, Default: "EUR"},
			{Name: "credit", As: "number", New: true},
			{Name: "defaultSender"},
			{Name: "defaultRoute"},
			{Name: "maxActiveCampaigns", As: "number"},
			{Name: "maxContacts", As: "number"},
			{Name: "maxSegments", As: "number"},
			{Name: "rate", As: "number"},
			{Name: "weight", As: "number"},
			{Name: "enabled", As: "check", Default: "true"},
			{Name: "campaignsEnabled", As: "check", Default: "true"},
		},
	},
}

// resourceRoutes adds the screens to the router.
func (u *UI) resourceRoutes(r chi.Router) {
	for _, s := range resourceScreens {
		r.Get(s.Path(), u.resourceList(s))
		if s.ReadOnly {
			continue
		}
		r.Get(s.Path()+"/new", u.resourceNew(s))
		r.Post(s.Path(), u.resourceCreate(s))
		if !s.Own && !s.NoEdit {
			r.Get(s.Path()+"/{id}", u.resourceForm(s))
			r.Post(s.Path()+"/{id}", u.resourceSave(s))
		}
		r.Post(s.Path()+"/{id}/delete", u.resourceDelete(s))
		r.Post(s.Path()+"/{id}/do/{verb}", u.resourceMove(s))
	}
}

const resourceRows = 25

func (u *UI) resourceList(s *resourceScreen) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := personOf(r.Context())
		q := r.URL.Query()
		page, _ := strconv.Atoi(q.Get("page"))
		page = max(page, 0)
		var found struct {
			Data  []resourceRow `json:"data"`
			Total int           `json:"total"`
		}
		ask := url.Values{"search": {q.Get("search")}, "status": {q.Get("status")}}
		if s.paged() {
			ask.Set("page", strconv.Itoa(page))
			ask.Set("limit", strconv.Itoa(resourceRows))
		}
		if err := u.get(r.Context(), p, s.API, ask, &found); err != nil {
			u.fail(w, r, err)
			return
		}
		limit := resourceRows
		if !s.paged() {
			limit = max(1, found.Total)
		}
		u.render(w, r, http.StatusOK, "resources", &resourcePage{
			Screen: s, Person: p, Rows: found.Data, Query: q, Pager: newPager(r.URL.RequestURI(), page, limit, found.Total, "pager."+s.Key),
		})
	}
}

// paged reports whether the API returns the rows in pages. It returns keys, people and tenants all at once.
func (s *resourceScreen) paged() bool {
	return !slices.Contains([]string{"keys", "users", "tenants", "doctor", "alerts"}, s.Key)
}

func (u *UI) resourceNew(s *resourceScreen) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		values := map[string]string{}
		for _, f := range s.Fields {
			values[f.Name] = f.Default
		}
		u.render(w, r, http.StatusOK, "resource", &resourcePage{Screen: s, Person: personOf(r.Context()), Row: resourceRow{}, Values: values, IsNew: true})
	}
}

// input makes the body of a request from the form. On a change, an empty text field is sent too, because it removes the
// value.
func (s *resourceScreen) input(r *http.Request, isNew bool) (map[string]any, map[string]string) {
	in, values := map[string]any{}, map[string]string{}
	for _, f := range s.Fields {
		if f.New && !isNew || f.Old && isNew {
			continue
		}
		typed := strings.Join(r.PostForm[f.Name], ", ")
		values[f.Name] = typed
		switch f.As {
		case "check":
			in[f.Name] = typed != ""
		case "checks":
			in[f.Name] = r.PostForm[f.Name]
		case "words":
			if typed != "" {
				in[f.Name] = splitList(typed)
			}
		case "pairs":
			in[f.Name] = pairs(typed)
		case "json": // a text that is not JSON is sent as text, which the API refuses with the field's name
			switch {
			case json.Valid([]byte(typed)):
				in[f.Name] = json.RawMessage(typed)
			case strings.TrimSpace(typed) != "":
				in[f.Name] = typed
			}
		case "number":
			if v := number(typed); v != nil {
				in[f.Name] = v
			}
		default:
			if typed != "" || !isNew && f.As != "password" && f.As != "select" {
				in[f.Name] = strings.ReplaceAll(typed, "\r\n", "\n")
			}
		}
	}
	return in, values
}

func (u *UI) resourceCreate(s *resourceScreen) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := personOf(r.Context())
		if !parseForm(w, r) {
			return
		}
		in, values := s.input(r, true)
		var made resourceRow
		if err := u.call(r.Context(), p, http.MethodPost, s.API, in, &made); err != nil {
			u.resourceRefused(w, r, &resourcePage{Screen: s, Person: p, Row: resourceRow{}, Values: values, IsNew: true}, err)
			return
		}
		if secret := made.Text(s.Secret); s.Secret != "" && secret != "" {
			u.render(w, r, http.StatusCreated, "secret", &resourcePage{Screen: s, Person: p, Row: made, Secret: secret})
			return
		}
		u.done(w, r, s.Path(), mustSay("done.created", made.Title()))
	}
}

// resourceRefused shows the form again with the errors beside its fields.
func (u *UI) resourceRefused(w http.ResponseWriter, r *http.Request, page *resourcePage, err error) {
	problem, ok := asProblem(err)
	if !ok {
		u.fail(w, r, err)
		return
	}
	page.Errors = problem.Fields()
	u.render(w, r, problem.Status, "resource", page)
}

func (u *UI) resourceForm(s *resourceScreen) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := personOf(r.Context())
		var row resourceRow
		if err := u.get(r.Context(), p, s.API+"/"+url.PathEscape(chi.URLParam(r, "id")), nil, &row); err != nil {
			u.fail(w, r, err)
			return
		}
		values := map[string]string{}
		for _, f := range s.Fields {
			values[f.Name] = row.Text(f.Name)
			if f.As == "json" {
				values[f.Name] = row.json(f.Name)
			}
		}
		u.render(w, r, http.StatusOK, "resource", &resourcePage{Screen: s, Person: p, Row: row, Values: values})
	}
}

func (u *UI) resourceSave(s *resourceScreen) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := personOf(r.Context())
		if !parseForm(w, r) {
			return
		}
		in, values := s.input(r, false)
		path := s.API + "/" + url.PathEscape(chi.URLParam(r, "id"))
		var saved resourceRow
		if err := u.callTagged(r.Context(), p, http.MethodPut, path, r.PostForm.Get("etag"), in, &saved); err != nil {
			var row resourceRow
			if u.get(r.Context(), p, path, nil, &row) != nil {
				u.fail(w, r, err)
				return
			}
			u.resourceRefused(w, r, &resourcePage{Screen: s, Person: p, Row: row, Values: values}, err)
			return
		}
		u.done(w, r, s.Path(), mustSay("done.saved", saved.Title()))
	}
}

func (u *UI) resourceDelete(s *resourceScreen) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var gone resourceRow
		if err := u.call(r.Context(), personOf(r.Context()), http.MethodDelete, s.API+"/"+url.PathEscape(chi.URLParam(r, "id")), nil, &gone); err != nil {
			u.refused(w, r, s.Path(), err)
			return
		}
		u.done(w, r, s.Path(), mustSay("done.deleted", gone.Title()))
	}
}

func (u *UI) resourceMove(s *resourceScreen) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		verb := chi.URLParam(r, "verb")
		if !slices.ContainsFunc(s.Moves, func(m move) bool { return m.Verb == verb }) {
			http.NotFound(w, r)
			return
		}
		var in any
		if reason := r.PostFormValue("reason"); reason != "" {
			in = map[string]string{"reason": reason}
		}
		var row resourceRow
		p := personOf(r.Context())
		if err := u.call(r.Context(), p, http.MethodPost, s.API+"/"+url.PathEscape(chi.URLParam(r, "id"))+"/"+verb, in, &row); err != nil {
			u.refused(w, r, back(r, s.Path()), err)
			return
		}
		if secret := row.Text(s.Secret); s.Secret != "" && secret != "" {
			u.render(w, r, http.StatusOK, "secret", &resourcePage{Screen: s, Person: p, Row: row, Secret: secret})
			return
		}
		u.done(w, r, back(r, s.Path()), mustSay("done."+verb, row.Title()))
	}
}

// pairs parses lines such as `city: Rome`.
func pairs(typed string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(typed) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) != "" {
			out[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return out
}

// parseForm reads a form of at most a megabyte.
func parseForm(w http.ResponseWriter, r *http.Request) bool {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	if err := r.ParseForm(); err != nil {
		http.Error(w, mustSay("error.form"), http.StatusBadRequest)
		return false
	}
	return true
}

// tabsOf returns the screens of the same section, for the row of tabs above the table.
func tabsOf(s *resourceScreen, p *Person) (out []*resourceScreen) {
	for _, other := range resourceScreens {
		if other.Section == s.Section && p.Can(other.Read) {
			out = append(out, other)
		}
	}
	return out
}
