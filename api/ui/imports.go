package ui

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"
)

// upload is an uploaded file of contacts, with its columns and a preview of its first rows.
type upload struct {
	ID       string `json:"uploadId"`
	Filename string `json:"filename"`
	Format   string `json:"format"`
	Columns  []struct {
		Header string `json:"header"`
		Field  string `json:"field"`
	} `json:"columns"`
	Preview []struct {
		Line        uint64   `json:"line"`
		Values      []string `json:"values"`
		PhoneNumber *string  `json:"phoneNumber"`
		Reason      *string  `json:"reason"`
	} `json:"preview"`
	Warnings []string `json:"warnings"`
}

// importPage is the form of an import. The first step asks for the file, the second for the mapping of its columns and
// the list.
type importPage struct {
	Upload *upload
	// Kept is the upload, encoded in the form for the next step.
	Kept   string
	Values map[string]string
	Errors map[string]string
	Lists  []resourceRow
}

// importRow is an import, running or ended.
type importRow struct {
	ID          string  `json:"id"`
	ListID      string  `json:"listId"`
	Filename    string  `json:"filename"`
	Status      string  `json:"status"`
	Error       *string `json:"error"`
	Progress    float64 `json:"progress"`
	RowsRead    uint64  `json:"rowsRead"`
	Imported    uint64  `json:"imported"`
	Updated     uint64  `json:"updated"`
	Unchanged   uint64  `json:"unchanged"`
	Duplicates  uint64  `json:"duplicates"`
	Invalid     uint64  `json:"invalid"`
	Unreachable uint64  `json:"unreachable"`
	OptedOut    uint64  `json:"optedOut"`
	StartedAt   string  `json:"startedAt"`
	FinishedAt  *string `json:"finishedAt"`
}

// Running reports whether the import has not ended.
func (i *importRow) Running() bool { return jobRuns(i.Status) }

// Part returns the share of the file that was read, in thousandths.
func (i *importRow) Part() int { return int(i.Progress * 1000) }

// Tone returns the colour of the status.
func (i *importRow) Tone() string { return jobTone(i.Status) }

func (u *UI) importScreens(r chi.Router) {
	r.Get("/import", u.importStart)
	r.Post("/import", u.importUpload)
	r.Post("/import/start", u.importRun)
	r.Get("/imports", importJobs.list(u))
	r.Get("/imports/{id}", importJobs.one(u))
	r.Get("/live/imports/{id}", importJobs.live(u))
	r.Post("/imports/{id}/cancel", u.importCancel)
	r.Get("/imports/{id}/rejects", u.importRejects)
}

func (u *UI) importStart(w http.ResponseWriter, r *http.Request) {
	u.render(w, r, http.StatusOK, "import", &importPage{Values: map[string]string{"list": r.URL.Query().Get("list")}})
}

// importUpload streams the form with the file to the API, however large it is.
func (u *UI) importUpload(w http.ResponseWriter, r *http.Request) {
	p := personOf(r.Context())
	v := &importPage{Values: map[string]string{"list": r.URL.Query().Get("list")}}
	a, err := u.send(r.Context(), p, http.MethodPost, "/api/contacts/upload", map[string]string{"Content-Type": r.Header.Get("Content-Type")}, r.Body)
	if err != nil {
		problem, ok := asProblem(err)
		if !ok {
			u.fail(w, r, err)
			return
		}
		v.Errors = problem.Fields()
		u.render(w, r, problem.Status, "import", v)
		return
	}
	v.Kept = a.body.String()
	u.showMapping(w, r, http.StatusOK, v)
}

// showMapping shows the second step.
func (u *UI) showMapping(w http.ResponseWriter, r *http.Request, status int, v *importPage) {
	v.Upload = &upload{}
	if err := json.Unmarshal([]byte(v.Kept), v.Upload); err != nil {
		u.refused(w, r, "/import", &Problem{Status: http.StatusUnprocessableEntity, Detail: mustSay("import.again")})
		return
	}
	var found struct {
		Data []resourceRow `json:"data"`
	}
	if err := u.get(r.Context(), personOf(r.Context()), "/api/contacts/list", url.Values{"limit": {"1000"}}, &found); err != nil {
		u.fail(w, r, err)
		return
	}
	v.Lists = found.Data
	for i, c := range v.Upload.Columns {
		if name := fmt.Sprintf("map.%d", i); v.Values[name] == "" {
			v.Values[name] = c.Field
		}
	}
	u.render(w, r, status, "import", v)
}

// importRun starts the import into an existing list, or into a new one.
func (u *UI) importRun(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	p := personOf(r.Context())
	v := &importPage{Values: typed(r), Kept: r.PostForm.Get("upload")}
	var up upload
	if err := json.Unmarshal([]byte(v.Kept), &up); err != nil {
		u.refused(w, r, "/import", &Problem{Status: http.StatusUnprocessableEntity, Detail: mustSay("import.again")})
		return
	}
	refuse := func(err error) {
		problem, ok := asProblem(err)
		if !ok {
			u.fail(w, r, err)
			return
		}
		v.Errors = problem.Fields()
		u.showMapping(w, r, problem.Status, v)
	}
	mapping := map[string]string{}
	for i, c := range up.Columns {
		if c.Header != "" {
			mapping[c.Header] = strings.TrimSpace(v.Values[fmt.Sprintf("map.%d", i)])
		}
	}
	list := v.Values["list"]
	if name := strings.TrimSpace(v.Values["name"]); list == "" && name != "" {
		var made struct {
			ID string `json:"id"`
		}
		if err := u.call(r.Context(), p, http.MethodPost, "/api/contacts/list", map[string]any{"name": name}, &made); err != nil {
			refuse(err)
			return
		}
		list = made.ID
		v.Values["list"], v.Values["name"] = made.ID, ""
	}
	in := map[string]any{"uploadId": up.ID, "contactList": list, "mapping": mapping}
	if region := strings.TrimSpace(v.Values["region"]); region != "" {
		in["region"] = region
	}
	if up.Format == "vcard" {
		delete(in, "mapping")
	}
	var started importRow
	if err := u.call(r.Context(), p, http.MethodPost, "/api/contacts/mapped/file", in, &started); err != nil {
		refuse(err)
		return
	}
	http.Redirect(w, r, "/imports/"+url.PathEscape(started.ID), http.StatusSeeOther)
}

func (u *UI) importCancel(w http.ResponseWriter, r *http.Request) {
	to := "/imports/" + url.PathEscape(chi.URLParam(r, "id"))
	var row importRow
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPost, importJobs.apiOf(chi.URLParam(r, "id"))+"/cancel", nil, &row); err != nil {
		u.refused(w, r, to, err)
		return
	}
	u.done(w, r, to, mustSay("done.import_cancelled", row.Filename))
}

// importRejects passes on the API's file of refused rows.
func (u *UI) importRejects(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "id")
	a, err := u.send(r.Context(), personOf(r.Context()), http.MethodGet, importJobs.apiOf(id)+"/rejects", nil, http.NoBody)
	if err != nil {
		u.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="rejects-`+strings.Map(fileName, id)+`.csv"`)
	_, _ = w.Write(a.body.Bytes())
}

// fileName drops characters that are not safe in the name of a file.
func fileName(r rune) rune {
	if r == '_' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
		return r
	}
	return -1
}
