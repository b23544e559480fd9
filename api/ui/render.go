package ui

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed all:templates
var templateFiles embed.FS

// pages has the parsed templates by name. Every file in templates that defines "content" is a page, shown in the
// layout. Files whose name begins with _ have parts that every page can use.
type pages struct{ byName map[string]*template.Template }

func loadPages(a *assets) (*pages, error) {
	base := template.New("").Funcs(functions(a))
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	var screens []string
	for _, name := range names {
		if !strings.HasPrefix(path.Base(name), "_") {
			screens = append(screens, name)
			continue
		}
		if _, err := base.ParseFS(templateFiles, name); err != nil {
			return nil, fmt.Errorf("ui: %w", err)
		}
	}
	p := &pages{byName: map[string]*template.Template{}}
	for _, name := range screens {
		t, err := base.Clone()
		if err == nil {
			_, err = t.ParseFS(templateFiles, name)
		}
		if err != nil {
			return nil, fmt.Errorf("ui: %w", err)
		}
		p.byName[strings.TrimSuffix(path.Base(name), ".html")] = t
	}
	return p, nil
}

// page is the data of the layout; Data is the data of the screen.
type page struct {
	Name   string // of the template, to mark the place in the navigation
	Path   string
	Person *Person // nil on the log-in page
	Flash  *flash
	Now    time.Time
	Data   any
}

// flash is a sentence that the next page shows once.
type flash struct {
	Text string
	Bad  bool
}

// render writes a page.
func (u *UI) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	view := page{Name: name, Path: r.URL.RequestURI(), Person: personOf(r.Context()), Now: u.Now(), Data: data}
	if text := u.sessions.PopString(r.Context(), keyFlash); text != "" {
		view.Flash = &flash{Text: text[1:], Bad: text[0] == '!'}
	}
	var out bytes.Buffer
	if err := u.execute(&out, name, "layout", view); err != nil {
		u.Logger.ErrorContext(r.Context(), "page rendering failed", "page", name, "err", err)
		http.Error(w, mustSay("error.page"), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes())
}

// fragment renders one named template of a page, for an htmx swap or a live update.
func (u *UI) fragment(name, part string, data any) (string, error) {
	var out bytes.Buffer
	err := u.execute(&out, name, part, data)
	return out.String(), err
}

// part writes one named template of a page as the whole response.
func (u *UI) part(w http.ResponseWriter, r *http.Request, status int, name, part string, data any) {
	html, err := u.fragment(name, part, data)
	if err != nil {
		u.Logger.ErrorContext(r.Context(), "fragment rendering failed", "page", name, "part", part, "err", err)
		http.Error(w, mustSay("error.page"), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(html))
}

func (u *UI) execute(out *bytes.Buffer, name, part string, data any) error {
	t := u.pages.byName[name]
	if t == nil {
		return fmt.Errorf("there is no page %q", name)
	}
	return t.ExecuteTemplate(out, part, data)
}

// done ends an action: it redirects to a page that shows text once.
func (u *UI) done(w http.ResponseWriter, r *http.Request, to, text string) {
	u.sessions.Put(r.Context(), keyFlash, " "+text)
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// refused ends an action that the API refused: it redirects to a page that shows the reason once. It passes other
// errors to fail.
func (u *UI) refused(w http.ResponseWriter, r *http.Request, to string, err error) {
	var p *Problem
	if !errors.As(err, &p) || p.Status >= http.StatusInternalServerError {
		u.fail(w, r, err)
		return
	}
	u.sessions.Put(r.Context(), keyFlash, "!"+p.Error())
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// fail shows an error as a page.
func (u *UI) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		u.Logger.ErrorContext(r.Context(), "console request failed", "path", r.URL.Path, "err", err)
		p = &Problem{Status: http.StatusServiceUnavailable, Title: mustSay("error.title"), Detail: mustSay("error.detail")}
	}
	u.render(w, r, p.Status, "error", p)
}

// back returns the path of the console page that a form was sent from, or other if it is unknown.
func back(r *http.Request, other string) string {
	from, err := url.Parse(r.Referer())
	if err != nil || from.Host != r.Host || from.Path == "" {
		return other
	}
	return ownPath(from.RequestURI())
}

func escape(s string) string { return url.QueryEscape(s) }

func seconds(d time.Duration) string { return strconv.Itoa(int((d + time.Second - 1) / time.Second)) }
