package api_test

import (
	"bytes"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fanfare/api"
	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

var people = flag.Int("people", 1_000_000, "recipients of the campaign of BenchmarkScaleAnswers")

// BenchmarkScaleAnswers measures what users request for one large campaign, on SQLite: the answer of confirm, the
// freeze, pages of members, searches, the preview of a selection, the preparation of a replay, a segment, and an export
// of everything. It takes longer than a benchmark's time, so it runs once.
func BenchmarkScaleAnswers(b *testing.B) {
	w := newEnvOf(b)
	n := *people
	var csv bytes.Buffer
	csv.WriteString("phone,first_name\n")
	for i := range n {
		fmt.Fprintf(&csv, "%s,Name%d\n", phoneOf(i), i)
	}
	list := w.call("POST", "/api/contacts/list", `{"name":"all"}`).want(201).id()
	number, _ := store.ListNumber(list)
	r, err := w.store.Import(b.Context(), w.tenant.ID, number, store.ImportOptions{Format: importfile.CSV}, &csv, nil)
	if err != nil || r.Imported != uint64(n) {
		b.Fatalf("import: got %+v, %v, want %d", r, err, n)
	}
	once := func(metric string, do func()) {
		began := time.Now()
		do()
		b.ReportMetric(float64(time.Since(began).Microseconds())/1e3, metric+"-ms")
	}
	p99 := func(metric string, do func(i int)) {
		const times = 100
		var took []time.Duration
		for i := range times {
			began := time.Now()
			do(i)
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[times*99/100].Microseconds())/1e3, metric+"-p99-ms")
	}
	id := w.call("POST", "/api/campaigns", fmt.Sprintf(`{"name":"C","channel":"sms","message":"Hello","contactList":%q,"sendImmediately":true}`, list)).want(201).id()
	once("confirm", func() { w.call("PUT", "/api/campaigns/"+id+"/confirm", "").want(200) })
	once("freeze", func() { w.freeze(id, uint32(n)) })
	for from := 0; from < n; from += 20_000 {
		to := min(from+20_000, n)
		batch := analytics.Batch{Topic: analytics.TopicID{1}, First: int64(2 * from), End: int64(2 * to)}
		batch.Events = append(w.events(w.tenant.ID, id, uint32(from), uint32(to), schemas.KindSent, schemas.CodeAwaitingDLR),
			w.events(w.tenant.ID, id, uint32(from), uint32(to), schemas.KindDelivered, schemas.CodeDelivered)...)
		for i := range batch.Events {
			batch.Events[i].Offset = batch.First + int64(i)
		}
		w.check(w.stats.Append(b.Context(), batch))
	}
	w.complete(id)
	w.clock.forward(48 * time.Hour)
	at := "/api/campaigns/" + id
	p99("stats", func(int) { w.call("GET", at+"/stats", "").want(200) })
	cursor := ""
	p99("members", func(int) {
		var page struct{ Next *string }
		w.call("GET", at+"/members?limit=50&cursor="+cursor, "").want(200).into(&page)
		cursor = *page.Next
	})
	p99("search-number", func(i int) {
		w.call("GET", at+"/members?limit=50&search="+strings.TrimPrefix(phoneOf((i*7919)%n), "+"), "").want(200)
	})
	p99("search-name", func(i int) {
		w.call("GET", at+fmt.Sprintf("/members?limit=50&search=name%d", (i*7919)%n), "").want(200)
	})
	p99("search-nobody", func(i int) { w.call("GET", at+fmt.Sprintf("/members?limit=50&search=nobody%d", i), "").want(200) })
	p99("selection", func(int) { w.call("POST", at+"/selection", `{"selection":{"status":"delivered"}}`).want(200) })
	p99("replay-options", func(int) { w.call("GET", at+"/replay", "").want(200) })
	once("replay", func() { w.call("POST", at+"/replay", `{"statuses":["Delivered"]}`).want(201) })
	stop := w.runJobs(w.server)
	segment := func(metric, selection string) {
		once(metric, func() {
			seg := w.call("POST", at+"/segments", fmt.Sprintf(`{"name":%q,"selection":%s}`, metric, selection)).want(202).id()
			for !strings.Contains(string(w.call("GET", "/api/segments/"+seg, "").want(200).body), `"status":"done"`) {
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	segment("segment", `{"status":"delivered"}`)
	once("export", func() {
		var e api.Export
		exp := w.export("members", fmt.Sprintf(`{"campaignId":%q}`, id))
		for e.Status != "done" {
			time.Sleep(10 * time.Millisecond)
			w.call("GET", "/api/exports/"+exp, "").want(200).into(&e)
		}
	})
	stop()
}
