package api_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"fanfare/api"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/sinks/analytics"
)

// traces returns where one of the texts stands in the files of the store and of the statistics: in their bytes, and in
// what is compressed.
func (w *env) traces(texts ...string) (out []string) {
	w.Helper()
	found := func(where string, b []byte) {
		for _, text := range texts {
			if bytes.Contains(b, []byte(text)) {
				out = append(out, fmt.Sprintf("%q in %s", text, where))
			}
		}
	}
	dir := filepath.Dir(w.dsn)
	files, err := os.ReadDir(dir)
	w.check(err)
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		w.check(err)
		found(f.Name(), b)
	}
	db, err := sql.Open("sqlite", "file:"+w.dsn+"?mode=ro")
	w.check(err)
	defer db.Close()
	unzip, err := zstd.NewReader(nil)
	w.check(err)
	defer unzip.Close()
	w.blobs(db, "SELECT data FROM job_parts", func(b []byte) {
		plain, err := unzip.DecodeAll(b, nil)
		w.check(err)
		found("job_parts", plain)
	})
	w.blobs(db, "SELECT data FROM upload_parts", func(b []byte) {
		plain, err := s2.Decode(nil, b)
		w.check(err)
		found("upload_parts", plain)
	})
	w.blobs(db, "SELECT data FROM freeze_blobs", func(b []byte) {
		r, err := audience.NewReader(b)
		w.check(err)
		for e := new(audience.Entry); r.Next(e); {
			found("freeze_blobs", fmt.Appendf(nil, "%s %v", e.To, e.Attrs))
		}
	})
	return out
}

func (w *env) blobs(db *sql.DB, query string, each func([]byte)) {
	w.Helper()
	rows, err := db.QueryContext(w.Context(), query)
	w.check(err)
	defer rows.Close()
	for rows.Next() {
		var b []byte
		w.check(rows.Scan(&b))
		each(b)
	}
	w.check(rows.Err())
}

// erasureDone waits until an erasure is done.
func (w *env) erasureDone(id string) (got api.Erasure) {
	w.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		w.call("GET", "/api/erasures/"+id, "").want(200).into(&got)
		if got.Status == "done" {
			return got
		}
		if time.Now().After(deadline) {
			w.Fatalf("erasure: got %+v after a minute\n%s", got, w.logs)
		}
	}
}

// A person is erased from the files of the installation: contacts, frozen audiences, statistics, exports, uploads,
// answers. The record of it has a hash, and the opt-out goes on.
func TestErasure(t *testing.T) {
	w := newEnv(t)
	w.runJobs(w.server)
	const phone, email, name, ref, city = "+393471239876", "zacharias@quixote.example", "Zacharias", "order-4711-zq", "Roccamonfina"
	digits := strings.TrimPrefix(phone, "+")
	w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":%q,"firstName":%q}`, phone, name), header{"Idempotency-Key", "k"}).want(201)
	again := func() *answer {
		return w.call("POST", "/api/contacts", fmt.Sprintf(`{"phoneNumber":%q,"firstName":%q}`, phone, name), header{"Idempotency-Key", "k"}).want(201)
	}
	list := w.call("POST", "/api/contacts/list", `{"name":"people"}`).want(201).id()
	csv := "phone,first_name,email,city\n" + phone + "," + name + "," + email + "," + city + "\n+393471230000,Anna,anna@example.com,Torino\n"
	w.call("POST", "/api/contacts/list/"+list+"/import", csv, header{"Content-Type", "text/csv"}).want(200)
	// Refused
	w.call("POST", "/api/contacts/list/"+list+"/import", "phone\n"+digits+"x\n", header{"Content-Type", "text/csv"}).want(200)
	id := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"C","channel":"sms","message":"Hello","contactList":%q,"sendImmediately":true}`, list)).want(201).id()
	w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200)
	w.freeze(id, 2)
	events := w.events(w.tenant.ID, id, 0, 2, schemas.KindSent, schemas.CodeAwaitingDLR)
	seq := uint32(0)
	for i, m := range w.members(id, "limit=2").Data {
		events[i].To, events[i].CustomerRef = *m.Phone, "another"
		if *m.Phone == phone {
			events[i].CustomerRef, seq = ref, m.Seq
		}
	}
	w.check(w.stats.Append(t.Context(), analytics.Batch{Events: events}))
	w.check(w.store.Suppress(t.Context(), w.tenant.ID, "api", phone))
	w.exported(w.export("contacts", `{}`))
	w.call("POST", "/api/contacts/upload", csv, header{"Content-Type", "text/csv"}).want(201)
	before := w.traces(digits, email, name, ref, city)
	for _, where := range []string{"store.db", "stats.db", "job_parts", "upload_parts", "freeze_blobs"} {
		if !strings.Contains(strings.Join(before, "\n"), where) {
			t.Fatalf("before it is erased the person is in %q, want also in %s", before, where)
		}
	}

	asOf := func(d time.Duration) {
		w.check(w.stats.Mark(t.Context(), analytics.TopicID{1}, []analytics.Mark{{AsOf: w.clock.now().Add(d)}}))
	}
	asOf(-time.Second)
	made := w.call("POST", "/api/erasures", fmt.Sprintf(`{"phoneNumber":%q}`, phone)).want(202)
	var got api.Erasure
	// An event that was on its way comes once the rows are erased. The erasure waits for it.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if w.call("GET", "/api/erasures/"+made.id(), "").want(200).into(&got); got.Removed.Contacts == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("erasure: got %+v after a minute\n%s", got, w.logs)
		}
	}
	if got.Status != "running" {
		t.Errorf("before the statistics are as new as the order: got %+v, want it running", got)
	}
	w.call("POST", "/api/contacts/list/"+list+"/import", csv, header{"Content-Type", "text/csv"}).problem(409, "changed_meanwhile", "")
	late := w.events(w.tenant.ID, id, seq, seq+1, schemas.KindDelivered, schemas.CodeDelivered)
	late[0].To, late[0].CustomerRef = phone, ref
	w.check(w.stats.Append(t.Context(), analytics.Batch{Events: late}))
	asOf(time.Second)
	got = w.erasureDone(made.id())
	if after := w.traces(digits, email, name, ref, city); len(after) > 0 {
		t.Errorf("after it is erased the person is in %q", after)
	}
	if r := got.Removed; r.Contacts != 1 || r.OptOuts != 2 || r.Audiences != 1 || r.Recipients != 1 || r.Exports != 1 || r.Uploads != 1 || r.Rejects == 0 || r.Answers != 1 {
		t.Errorf("removed: got %+v", r)
	}
	hash := w.keys.NumberHash(w.tenant.ID, phone)
	if got.NumberHash != fmt.Sprintf("%x", hash[:]) || len(got.Stays) < 5 || got.FinishedAt == nil {
		t.Errorf("record: got %+v, want the keyed hash and what stays", got)
	}
	subset(t, "list", w.call("GET", "/api/erasures", "").want(200).body, `{"total":1}`)
	// What happened stays, without who it was.
	for _, m := range w.members(id, "limit=2").Data {
		want := "sent"
		if m.Seq == seq {
			want = "delivered"
		}
		if m.Status != want || m.Seq == seq && (m.Phone != nil && *m.Phone != "" || m.Name != nil && *m.Name != "") {
			t.Errorf("member %d: got %+v", m.Seq, m)
		}
	}
	if out, err := w.store.Suppressed(t.Context(), w.tenant.ID, phone, schemas.ChannelSMS); err != nil || !out {
		t.Errorf("opted out: got %v, %v, want the opt-out to hold", out, err)
	}
	subset(t, "consent", w.call("GET", "/api/consent?phoneNumber=%2B"+digits, "").want(200).body, `{"optedIn":false,"optedOut":["all"],"changes":[]}`)
	subset(t, "contacts", w.call("GET", "/api/contacts", "").want(200).body, `{"total":1}`)
	// A repeated request has an answer, and does not make the contact again.
	if a := again(); string(a.body) != `{"erased":true}` {
		t.Errorf("the request once more: got %s", a.body)
	}
	subset(t, "contacts", w.call("GET", "/api/contacts", "").want(200).body, `{"total":1}`)
	// Another tenant's record is none of ours, and a number must be one.
	_, other := w.newTenant("Other")
	w.callAs(other, "GET", "/api/erasures/"+made.id(), "").problem(404, "not_found", "")
	w.call("POST", "/api/erasures", `{"phoneNumber":"nobody"}`).want(422)
	w.call("POST", "/api/erasures", `{}`).problem(422, "required", "phoneNumber")
}

// An erasure whose job has failed says so, and why; it may be ordered again.
func TestErasureFailed(t *testing.T) {
	w := newEnv(t)
	made := w.call("POST", "/api/erasures", `{"phoneNumber":"+393471239876"}`).want(202)
	subset(t, "ordered", made.body, `{"status":"running","error":null}`)
	db, err := sql.Open("sqlite", "file:"+w.dsn+"?_pragma=busy_timeout(10000)")
	w.check(err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), "UPDATE jobs SET state = 'failed', error = 'it did not end within a day', finished_ms = 1 WHERE id = ?", made.id())
	w.check(err)
	subset(t, "failed", w.call("GET", "/api/erasures/"+made.id(), "").want(200).body, `{"status":"failed","error":"it did not end within a day","finishedAt":null}`)
	subset(t, "list", w.call("GET", "/api/erasures", "").want(200).body, `{"total":1}`)
	w.call("POST", "/api/erasures", `{"phoneNumber":"+393471239876"}`).want(202)
}
