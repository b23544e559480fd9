package ui

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"

	"fanfare/schemas"
	"fanfare/schemas/text"
)

// The wizard creates a campaign step by step (R89). The first step creates a draft and every later step changes it, so
// that a person may stop and continue at any step (R46 to R49).
var wizardSteps = []string{"type", "audience", "content", "when", "review"}

// wizard is the data of the steps.
type wizard struct {
	Step     string
	Steps    []string
	ID       string
	Version  string // the ETag
	Locked   bool   // the name of an RCS campaign cannot be changed (R4)
	Values   map[string]string
	Errors   map[string]string
	Person   *Person
	Channels []string
	Lists    []resourceRow
	Agents   []resourceRow
	Senders  []resourceRow
	Ways     []resourceRow // channels of the tenant
	Texts    []resourceRow // templates
	Meter    *meter
	Review   *review
	Years    []int
}

// Channel returns the channel of the campaign.
func (w *wizard) Channel() string { return w.Values["channel"] }

// Number returns the number of the step, from 1.
func (w *wizard) Number() int { return slices.Index(w.Steps, w.Step) + 1 }

// Done reports whether a step is before this one.
func (w *wizard) Done(step string) bool {
	return slices.Index(w.Steps, step) < slices.Index(w.Steps, w.Step)
}

// Before returns the step before this one.
func (w *wizard) Before() string { return w.Steps[max(0, slices.Index(w.Steps, w.Step)-1)] }

// review is the data of the last step: cost and duration.
type review struct {
	Campaign campaignDetail
	Price    struct {
		TotalContacts uint64  `json:"totalContacts"`
		EstimatedCost float64 `json:"estimatedCost"`
		MaxCost       float64 `json:"maxCost"`
		Currency      string  `json:"currency"`
		PriceVersion  string  `json:"priceVersion"`
		Exclusions    struct {
			Invalid    uint64 `json:"invalid"`
			Duplicates uint64 `json:"duplicates"`
			OptedOut   uint64 `json:"optedOut"`
			NotOptedIn uint64 `json:"notOptedIn"`
			Capped     uint64 `json:"capped"`
			OverQuota  uint64 `json:"overQuota"`
		} `json:"exclusions"`
		Warning    []string `json:"warning"`
		Compliance []struct {
			Detail  string `json:"detail"`
			Fix     string `json:"fix"`
			Source  string `json:"source"`
			Refused bool   `json:"refused"`
		} `json:"compliance"`
	}
	Duration *string `json:"estimatedDuration"`
	Problem  *Problem
}

// Refused reports whether confirm would be refused because of a rule of a country (R43).
func (r *review) Refused() bool {
	for _, f := range r.Price.Compliance {
		if f.Refused {
			return true
		}
	}
	return false
}

// meter has the size of a text as an SMS.
type meter struct {
	Segments, Units, Room, Characters int
	Encoding                          string
	Costly                            string
	Pieces                            []piece
	Fields                            []string
}

// piece is a part of the text. Characters that make the text longer in segments are marked.
type piece struct {
	Text   string
	Costly bool
}

func (u *UI) wizardScreens(r chi.Router) {
	r.Get("/campaigns/new", u.wizardNew)
	r.Post("/campaigns/new", u.wizardCreate)
	r.Get("/campaigns/{id}/edit", u.wizardEdit)
	r.Post("/campaigns/{id}/edit", u.wizardSave)
	r.Get("/campaigns/{id}/confirm", u.confirmPage)
	r.Post("/campaigns/{id}/confirm", u.confirm)
	r.Get("/campaigns/{id}/delete", u.deletePage)
	r.Post("/campaigns/{id}/delete", u.deleteCampaign)
	r.Post("/meter", u.meterPart)
}

func (u *UI) wizardNew(w http.ResponseWriter, r *http.Request) {
	channel := r.URL.Query().Get("channel")
	if !slices.Contains(channels, channel) {
		channel = "sms"
	}
	v := &wizard{Step: "type", Steps: wizardSteps, Person: personOf(r.Context()), Channels: channels, Values: map[string]string{"channel": channel, "name": r.URL.Query().Get("name")}}
	u.showWizard(w, r, http.StatusOK, v)
}

// showWizard loads the choices of a step and renders it.
func (u *UI) showWizard(w http.ResponseWriter, r *http.Request, status int, v *wizard) {
	if err := u.loadChoices(r.Context(), v); err != nil {
		u.fail(w, r, err)
		return
	}
	if v.Step == "content" && v.Channel() == "sms" {
		v.Meter = measure(v.Values["message"])
	}
	if v.Step == "when" {
		for i := range 3 {
			v.Years = append(v.Years, u.Now().Year()+i)
		}
	}
	u.render(w, r, status, "wizard", v)
}

func (u *UI) loadChoices(ctx context.Context, v *wizard) error {
	type rows struct {
		Data []resourceRow `json:"data"`
	}
	fill := func(path string, query url.Values, to *[]resourceRow) error {
		var found rows
		query.Set("limit", "1000")
		if err := u.get(ctx, v.Person, path, query, &found); err != nil {
			return err
		}
		*to = found.Data
		return nil
	}
	content := v.Step == "content" || v.Step == "type" && v.Channel() == "rcs"
	var errs []error
	if v.Step == "audience" {
		errs = append(errs, fill("/api/contacts/list", url.Values{}, &v.Lists))
	}
	if content && v.Channel() == "rcs" {
		errs = append(errs, fill("/api/agents", url.Values{"status": {"launched"}}, &v.Agents))
	}
	if content && (v.Channel() == "whatsapp" || v.Channel() == "voice") {
		errs = append(errs, fill("/api/channels", url.Values{"status": {"active"}}, &v.Ways))
		v.Ways = slices.DeleteFunc(v.Ways, func(r resourceRow) bool { return r.Text("channel") != v.Channel() })
	}
	if content && v.Channel() != "voice" {
		errs = append(errs, fill("/api/templates", url.Values{"status": {"approved"}}, &v.Texts))
		v.Texts = slices.DeleteFunc(v.Texts, func(r resourceRow) bool { return r.Text("channel") != v.Channel() })
	}
	if content && v.Channel() == "sms" {
		errs = append(errs, fill("/api/senders", url.Values{"status": {"approved"}}, &v.Senders))
	}
	return errors.Join(errs...)
}

// typed returns the values of a form, each field as one text.
func typed(r *http.Request) map[string]string {
	out := make(map[string]string, len(r.PostForm))
	for name, values := range r.PostForm {
		out[name] = strings.ReplaceAll(strings.Join(values, ", "), "\r\n", "\n")
	}
	return out
}

func (u *UI) wizardCreate(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	p := personOf(r.Context())
	v := &wizard{Step: "type", Steps: wizardSteps, Person: p, Channels: channels, Values: typed(r)}
	in := map[string]any{"draft": true, "name": v.Values["name"], "channel": v.Values["channel"], "tags": splitList(v.Values["tags"]), "notes": v.Values["notes"]}
	if v.Channel() == "rcs" { // R50: a draft of RCS needs an agent and a template
		in["sender"], in["message"] = v.Values["sender"], v.Values["message"]
	}
	var made campaign
	if err := u.call(r.Context(), p, http.MethodPost, "/api/campaigns", in, &made); err != nil {
		problem, ok := asProblem(err)
		if !ok {
			u.fail(w, r, err)
			return
		}
		v.Errors = problem.Fields()
		u.showWizard(w, r, problem.Status, v)
		return
	}
	if r.PostFormValue("go") == "save" {
		u.done(w, r, "/", mustSay("done.saved", made.Name))
		return
	}
	http.Redirect(w, r, "/campaigns/"+made.ID+"/edit?step=audience", http.StatusSeeOther)
}

// loadWizard reads the draft into the values of the form.
func (u *UI) loadWizard(ctx context.Context, p *Person, id, step string) (*wizard, error) {
	if !slices.Contains(wizardSteps, step) {
		step = "type"
	}
	var c struct {
		campaignDetail
		ContactListIDs    []string `json:"contactListIds"`
		SendImmediately   bool     `json:"sendImmediately"`
		ScheduledLocal    *string  `json:"scheduledTimeLocal"`
		ScheduledTimezone *string  `json:"scheduledTimezone"`
		FallbackMessage   *string  `json:"fallbackMessage"`
		Fallback          bool     `json:"fallback"`
		MissingField      string   `json:"missingField"`
		MissingDefault    string   `json:"missingDefault"`
		RequireOptIn      bool     `json:"requireOptIn"`
		FrequencyCap      *struct {
			Max  int `json:"max"`
			Days int `json:"days"`
		} `json:"frequencyCap"`
		wizardContent
	}
	if err := u.get(ctx, p, apiCampaign(id), nil, &c); err != nil {
		return nil, err
	}
	val := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	v := &wizard{Step: step, Steps: wizardSteps, ID: id, Version: `"` + strconv.FormatUint(c.Version, 10) + `"`, Person: p, Channels: channels}
	v.Values = map[string]string{
		"name": c.Name, "channel": val(c.Channel), "tags": strings.Join(c.Tags, ", "), "notes": c.Notes, "contactList": strings.Join(c.ContactListIDs, ", "),
		"message": val(c.Message), "sender": c.Sender, "fallbackMessage": val(c.FallbackMessage), "missingField": c.MissingField, "missingDefault": c.MissingDefault,
		"templateId": val(c.TemplateID), "callingHoursStart": val(c.CallingHoursStart), "callingHoursEnd": val(c.CallingHoursEnd), "callingHoursTimezone": val(c.CallingHoursTimezone), "when": "ready",
	}
	if c.Fallback {
		v.Values["fallback"] = "true"
	}
	if c.RecipientTimezone {
		v.Values["recipientTimezone"] = "true"
	}
	if c.RequireOptIn {
		v.Values["requireOptIn"] = "true"
	}
	if f := c.FrequencyCap; f != nil {
		v.Values["frequencyMax"], v.Values["frequencyDays"] = strconv.Itoa(f.Max), strconv.Itoa(f.Days)
	}
	c.fill(v.Values, c.Texts)
	local := func(instantText string) time.Time {
		at := instant(instantText)
		if zone, err := time.LoadLocation(p.Tenant.Timezone); err == nil {
			at = at.In(zone)
		}
		return at
	}
	for i, b := range c.Batches {
		v.Values["when"] = "batches"
		v.Values[batchField(i, "at")] = local(b.At).Format(localMinute)
		for part, n := range map[string]*int{"share": b.Share, "count": b.Count} {
			if n != nil {
				v.Values[batchField(i, part)] = strconv.Itoa(*n)
			}
		}
	}
	switch {
	case len(c.Batches) > 0:
	case c.SendImmediately:
		v.Values["when"] = "now"
	case c.ScheduledTime != nil:
		v.Values["when"] = "later"
		at := local(*c.ScheduledTime)
		v.Values["year"], v.Values["month"], v.Values["day"] = strconv.Itoa(at.Year()), strconv.Itoa(int(at.Month())), strconv.Itoa(at.Day())
		v.Values["hour"], v.Values["minute"] = strconv.Itoa(at.Hour()), strconv.Itoa(at.Minute())
	}
	v.Locked = v.Channel() == "rcs"
	return v, nil
}

func (u *UI) wizardEdit(w http.ResponseWriter, r *http.Request) {
	p, id, step := personOf(r.Context()), chi.URLParam(r, "id"), r.URL.Query().Get("step")
	v, err := u.loadWizard(r.Context(), p, id, step)
	if err != nil {
		u.fail(w, r, err)
		return
	}
	if v.Step == "review" {
		if v.Review, err = u.loadReview(r.Context(), p, id); err != nil {
			u.fail(w, r, err)
			return
		}
	}
	u.showWizard(w, r, http.StatusOK, v)
}

// input makes the body of the request of a step.
func (w *wizard) input() map[string]any {
	val := w.Values
	switch w.Step {
	case "type":
		in := map[string]any{"tags": splitList(val["tags"]), "notes": val["notes"]}
		if !w.Locked {
			in["name"] = val["name"]
		}
		return in
	case "audience":
		in := map[string]any{"contactList": splitList(val["contactList"]), "requireOptIn": val["requireOptIn"] != "", "frequencyCap": nil}
		if most, days := number(val["frequencyMax"]), number(val["frequencyDays"]); most != nil || days != nil {
			in["frequencyCap"] = map[string]any{"max": most, "days": days}
		}
		return in
	case "content":
		return w.content()
	case "when":
		in := map[string]any{
			"callingHoursStart": orNil(val["callingHoursStart"]), "callingHoursEnd": orNil(val["callingHoursEnd"]), "callingHoursTimezone": orNil(val["callingHoursTimezone"]),
			"recipientTimezone": val["recipientTimezone"] != "", "sendImmediately": val["when"] == "now", "scheduledTime": nil, "batches": nil,
		}
		switch val["when"] {
		case "later":
			in["scheduledTime"] = w.localTime(w.local())
		case "batches":
			delete(in, "scheduledTime") // the time of the first batch is the start of the campaign
			in["batches"] = w.batches()
		}
		return in
	}
	return nil
}

// localTime returns a local time in the tenant's zone, in the form that the API reads.
func (w *wizard) localTime(at string) map[string]any {
	return map[string]any{"local": at, "timezone": w.Person.Tenant.Timezone}
}

const (
	// batchSlots is how many batches the form has room for. The API takes up to 20; those of a draft are all shown.
	batchSlots = 6
	// localMinute is how a browser writes the value of a datetime-local input.
	localMinute = "2006-01-02T15:04"
)

// batchField is the name of a field of the n-th batch in the form.
func batchField(n int, part string) string { return fmt.Sprintf("batch.%d.%s", n, part) }

// BatchSlots are the numbers of the batches that the form shows.
func (w *wizard) BatchSlots() []int {
	n := batchSlots
	for w.Values[batchField(n, "at")] != "" {
		n++
	}
	return slices.Collect(func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	})
}

// batches are the batches that were filled in, in the form that the API reads.
func (w *wizard) batches() []map[string]any {
	out := []map[string]any{}
	for _, i := range w.BatchSlots() {
		at, share, count := w.Values[batchField(i, "at")], number(w.Values[batchField(i, "share")]), number(w.Values[batchField(i, "count")])
		if at == "" && share == nil && count == nil {
			continue
		}
		b := map[string]any{}
		if at != "" {
			b["at"] = w.localTime(at)
		}
		if share != nil {
			b["share"] = share
		}
		if count != nil {
			b["count"] = count
		}
		out = append(out, b)
	}
	return out
}

// local returns the chosen local time (R28) in the form that the API reads. The API refuses values that are not a date.
func (w *wizard) local() string {
	two := func(name string) string {
		if v := w.Values[name]; len(v) == 1 {
			return "0" + v
		}
		return w.Values[name]
	}
	return w.Values["year"] + "-" + two("month") + "-" + two("day") + "T" + two("hour") + ":" + two("minute")
}

// boxes are the check boxes of each step.
var boxes = map[string][]string{"audience": {"requireOptIn"}, "content": {"fallback", "transliterate", "amdEnabled"}, "when": {"recipientTimezone"}}

func (u *UI) wizardSave(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	p, id := personOf(r.Context()), chi.URLParam(r, "id")
	v, err := u.loadWizard(r.Context(), p, id, r.PostFormValue("step"))
	if err != nil {
		u.fail(w, r, err)
		return
	}
	for _, box := range boxes[v.Step] { // browsers do not send a box that is not ticked
		delete(v.Values, box)
	}
	maps.Copy(v.Values, typed(r))
	if in := v.input(); in != nil {
		in["draft"] = true
		if err := u.callTagged(r.Context(), p, http.MethodPut, apiCampaign(id), r.PostForm.Get("etag"), in, nil); err != nil {
			problem, ok := asProblem(err)
			if !ok {
				u.fail(w, r, err)
				return
			}
			v.Errors = problem.Fields()
			u.showWizard(w, r, problem.Status, v)
			return
		}
	}
	if r.PostFormValue("go") == "save" {
		u.done(w, r, "/", mustSay("done.saved", v.Values["name"]))
		return
	}
	next := v.Steps[min(len(v.Steps)-1, slices.Index(v.Steps, v.Step)+1)]
	http.Redirect(w, r, "/campaigns/"+url.PathEscape(id)+"/edit?step="+next, http.StatusSeeOther)
}

// loadReview gets the price of the campaign. If fields are missing or wrong, the review shows the problems instead of a
// price.
func (u *UI) loadReview(ctx context.Context, p *Person, id string) (*review, error) {
	v := &review{}
	if err := u.get(ctx, p, apiCampaign(id), nil, &v.Campaign); err != nil {
		return nil, err
	}
	err := u.get(ctx, p, apiCampaign(id)+"/price", nil, &v.Price)
	if err == nil {
		err = u.call(ctx, p, http.MethodPost, apiCampaign(id)+"/calculateGoal", nil, v)
	}
	if problem, ok := asProblem(err); ok {
		v.Problem = problem
		return v, nil
	}
	return v, err
}

// confirmPage is the Estimated Cost pop-up (R109).
func (u *UI) confirmPage(w http.ResponseWriter, r *http.Request) {
	v, err := u.loadReview(r.Context(), personOf(r.Context()), chi.URLParam(r, "id"))
	if err != nil {
		u.fail(w, r, err)
		return
	}
	u.dialog(w, r, "confirm", v)
}

// dialog answers with a pop-up if the request is for one, else with a page of the same content.
func (u *UI) dialog(w http.ResponseWriter, r *http.Request, name string, data any) {
	if strings.HasSuffix(r.Header.Get("HX-Target"), "#dialog") {
		u.part(w, r, http.StatusOK, name, "dialog", data)
		return
	}
	u.render(w, r, http.StatusOK, name, data)
}

func (u *UI) confirm(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "id")
	in := map[string]any{"priceVersion": r.PostFormValue("priceVersion")}
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodPut, apiCampaign(id)+"/confirm", in, nil); err != nil {
		u.refused(w, r, "/campaigns/"+url.PathEscape(id)+"/edit?step=review", err)
		return
	}
	u.done(w, r, "/", mustSay("done.submitted", id))
}

// deletePage asks before it deletes (R59).
func (u *UI) deletePage(w http.ResponseWriter, r *http.Request) {
	var c campaign
	if err := u.get(r.Context(), personOf(r.Context()), apiCampaign(chi.URLParam(r, "id")), nil, &c); err != nil {
		u.fail(w, r, err)
		return
	}
	u.dialog(w, r, "delete", &c)
}

func (u *UI) deleteCampaign(w http.ResponseWriter, r *http.Request) {
	var c campaign
	if err := u.call(r.Context(), personOf(r.Context()), http.MethodDelete, apiCampaign(chi.URLParam(r, "id")), nil, &c); err != nil {
		u.refused(w, r, "/", err)
		return
	}
	u.done(w, r, "/", mustSay("done.deleted", c.Name))
}

// meterPart answers with the meter of a text while it is typed.
func (u *UI) meterPart(w http.ResponseWriter, r *http.Request) {
	if !parseForm(w, r) {
		return
	}
	u.part(w, r, http.StatusOK, "wizard", "meter", measure(strings.ReplaceAll(r.PostForm.Get("message"), "\r\n", "\n")))
}

// measure counts the segments of a text as the price and the sender do, and marks the characters that increase the
// count.
func measure(message string) *meter {
	size := text.Measure(message)
	m := &meter{Segments: size.Segments, Units: size.Units, Characters: utf8.RuneCountInString(message), Encoding: "GSM-7"}
	single, part := 160, 153
	if size.Encoding == schemas.EncodingUCS2 {
		m.Encoding, single, part = "UCS-2", 70, 67
	}
	m.Room = single
	if size.Segments > 1 {
		m.Room = part * size.Segments
	}
	if t, err := text.Parse(message); err == nil {
		for _, f := range t.Fields() {
			m.Fields = append(m.Fields, f.Name)
		}
	}
	costly := map[rune]bool{}
	if c, ok := text.Explain(message); ok {
		m.Costly = c.String()
		for _, r := range c.Characters {
			costly[r] = true
		}
	}
	for _, r := range message {
		last := len(m.Pieces) - 1
		if last >= 0 && m.Pieces[last].Costly == costly[r] {
			m.Pieces[last].Text += string(r)
			continue
		}
		m.Pieces = append(m.Pieces, piece{string(r), costly[r]})
	}
	return m
}
