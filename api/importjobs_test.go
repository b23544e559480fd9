package api_test

import (
	"bytes"
	"context"
	"fmt"
	"mime/multipart"
	"strings"
	"testing"
	"time"

	"fanfare/api"
)

// runImports runs imports of uploaded files, as a process does.
func (w *env) runImports() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.store.RunImports(ctx) }()
	w.Cleanup(func() {
		cancel()
		w.check(<-done)
	})
}

// imported waits until an import has ended.
func (w *env) imported(id string) (got api.Import) {
	w.Helper()
	w.eventually("the import has ended", &got, func() bool {
		w.call("GET", "/api/imports/"+id, "").want(200).into(&got)
		return got.FinishedAt != nil
	})
	return got
}

// X1: a file is uploaded, its columns are mapped with a preview at hand, a job imports it, and what it refused can be
// had as a file.
func TestImportJob(t *testing.T) {
	w := newEnv(t)
	w.relay()
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	w.call("POST", "/api/suppressions", `{"phoneNumber":"+393331234568"}`).want(201)
	const file = "Cellulare;Nome;Città\n333 1234567;Anna;Roma\n3331234568;Bert;Milano\n+393331234567;Again;Roma\nnonsense;X;Y\n=cmd;Z;Y\n"
	var up api.Upload
	w.call("POST", "/api/contacts/upload?filename=people.csv", file, csv).want(201).into(&up)
	if up.Format != "csv" || up.Bytes != uint64(len(file)) || up.Filename != "people.csv" || len(up.Preview) != 5 || len(up.Warnings) != 0 {
		t.Errorf("upload: got %+v, want 5 rows of CSV", up)
	}
	if up.Mapping["Cellulare"] != "phone" || up.Mapping["Nome"] != "first_name" || up.Mapping["Città"] == "" {
		t.Errorf("mapping: got %v, want phone and first_name", up.Mapping)
	}
	if r := up.Preview[0]; r.PhoneNumber == nil || *r.PhoneNumber != "+393331234567" || r.Line != 2 || fmt.Sprint(r.Values) != "[333 1234567 Anna Roma]" {
		t.Errorf("preview: got %+v, want the first row as it would be imported", r)
	}
	if r := up.Preview[3]; r.PhoneNumber != nil || r.Reason == nil || r.Column == nil || *r.Column != "Cellulare" {
		t.Errorf("preview: got %+v, want why it would be refused", r)
	}
	order := fmt.Sprintf(`{"uploadId":%q,"contactList":"l","mapping":{"Città":"town"}}`, up.ID)
	a := w.call("POST", "/api/contacts/mapped/file", order).want(202)
	subset(t, "ordered", a.body, `{"status":"queued","progress":0,"filename":"people.csv"}`)
	if a.header.Get("Location") != "/api/imports/"+a.id() {
		t.Errorf("Location: got %q", a.header.Get("Location"))
	}
	w.runImports()
	got := w.imported(a.id())
	if got.Status != "done" || got.Imported != 2 || got.Duplicates != 1 || got.Invalid != 2 || got.OptedOut != 1 || got.Progress == nil || *got.Progress != 1 {
		t.Errorf("import: got %+v, want 2 new, 1 repeated, 2 refused, 1 opted out", got)
	}
	if body := string(w.call("GET", "/api/contacts?search=anna", "").body); !strings.Contains(body, `"attributes":{"town":"Roma"}`) {
		t.Errorf("mapped: got %s, want the attribute town", body)
	}
	rejects := w.call("GET", "/api/imports/"+got.ID+"/rejects", "").want(200)
	if want := "row,column,value,reason\n5,Cellulare,nonsense,"; !strings.HasPrefix(string(rejects.body), want) || !strings.Contains(string(rejects.body), "\n6,Cellulare,'=cmd,") {
		t.Errorf("rejects: got %s, want %s… and no formula", rejects.body, want)
	}
	if ct := rejects.header.Get("Content-Type"); !strings.HasPrefix(ct, "text/csv") {
		t.Errorf("rejects: got Content-Type %s", ct)
	}
	subset(t, "all", w.call("GET", "/api/imports", "").want(200).body, `{"total":1}`)
	w.call("POST", "/api/imports/"+got.ID+"/cancel", "").problem(409, "wrong_state", "")

	// A form, and a file without a header that says phone.
	var form bytes.Buffer
	mw := multipart.NewWriter(&form)
	part, err := mw.CreateFormFile("file", "x.csv")
	w.check(err)
	_, err = part.Write([]byte("a;b\n1;2\n"))
	w.check(err)
	w.check(mw.Close())
	w.call("POST", "/api/contacts/upload", form.String(), header{"Content-Type", mw.FormDataContentType()}).want(201).into(&up)
	if up.Filename != "x.csv" || len(up.Warnings) != 1 {
		t.Errorf("form: got %+v, want its name and a warning", up)
	}
	order = fmt.Sprintf(`{"uploadId":%q,"contactList":"l"`, up.ID)
	w.call("POST", "/api/contacts/mapped/file", order+"}").problem(422, "invalid_value", "file")
	w.call("POST", "/api/contacts/mapped/file", order+`,"mapping":{"c":"phone"}}`).problem(422, "invalid_value", "mapping")
	w.call("POST", "/api/contacts/mapped/file", `{"uploadId":"upl_none","contactList":"l"}`).problem(404, "not_found", "uploadId")
	w.call("POST", "/api/contacts/mapped/file", `{}`).problem(422, "required", "uploadId")
	w.call("POST", "/api/contacts/upload", "", csv).problem(422, "required", "file")
	w.call("POST", "/api/contacts/upload", "x", header{"Content-Type", "application/pdf"}).problem(415, "unsupported_media_type", "")
	w.call("GET", "/api/imports/imp_none", "").problem(404, "not_found", "")
	w.call("GET", "/api/imports/imp_none/rejects", "").problem(404, "not_found", "")
	// X14: a test key imports into test lists only.
	test := w.newKey(w.tenant.ID, nil, true)
	w.callAs(test, "POST", "/api/contacts/mapped/file", order+`,"mapping":{"a":"phone"}}`).problem(403, "test_key", "")
}

// X1: the list of imports has a cursor that skips and repeats none.
func TestImportsPage(t *testing.T) {
	w := newEnv(t)
	w.call("POST", "/api/contacts/list", `{"name":"l"}`).want(201)
	want := map[string]bool{}
	for i := range 5 {
		want[w.call("POST", "/api/contacts/list/l/import", fmt.Sprintf("phone\n+3933300000%02d\n", i), csv).want(200).id()] = true
		if i == 2 {
			w.clock.forward(time.Second)
		}
	}
	for at := "/api/imports?limit=2"; ; {
		var page struct {
			Data []api.Import `json:"data"`
			Next *string      `json:"next"`
		}
		w.call("GET", at, "").want(200).into(&page)
		for _, r := range page.Data {
			if !want[r.ID] {
				t.Errorf("got %s twice, or never made", r.ID)
			}
			delete(want, r.ID)
		}
		if page.Next == nil {
			break
		}
		at = "/api/imports?limit=2&cursor=" + *page.Next
	}
	if len(want) != 0 {
		t.Errorf("got no %v", want)
	}
	w.call("GET", "/api/imports?cursor=x", "").problem(422, "invalid_value", "cursor")
}
