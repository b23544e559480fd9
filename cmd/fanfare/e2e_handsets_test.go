package main

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"fanfare/sinks/carrier/sim"
)

// Phones tap links, scan them with programs and opt out, through the whole product with a kill -9 in the middle (R138,
// X10). Clickers, click-through rate and opt-outs equal the record of the carrier and its phones, person by person.
func TestEndToEndHandsets(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute; left out by -short")
	}
	const people = 2000
	public := freeAddr(t)
	w := newEmbeddedEnv(t, 400, "--edge", public, "--proxies", "127.0.0.0/8", "--sim-handsets", "--receipt-window", "1h", "--log-level", "warn")
	api := w.api()
	var csv bytes.Buffer
	csv.WriteString("phone\n")
	for n := range people {
		fmt.Fprintf(&csv, "+39340%07d\n", n)
	}
	var list, made struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "people"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(csv.Bytes()), nil, "text/csv")
	api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
		"name": "phones", "channel": "sms", "message": "Sale {{link:https://shop.example/sale}} Stop: {{opt_out}}", "contactList": list.ID, "sendImmediately": true,
	}, &made, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")
	var stats struct {
		statsAnswer
		Clicked, OptedOut int
		ClickRate         float64
	}
	ask := func() { api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/stats", nil, &stats, "") }
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if ask(); stats.Clicked > 20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no handset clicks: %+v", stats)
		}
	}
	w.kill(t, 0)
	// The phones are done when their record no longer grows and the figures agree with it.
	record := filepath.Join(w.dir, handsetsRecord)
	tapped, left := map[string]bool{}, map[string]bool{}
	read := func() int {
		t.Helper()
		clear(tapped)
		clear(left)
		list, err := sim.ReadHandsets(record)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			switch d.Did {
			case sim.DidTap:
				tapped[d.To] = true
			case sim.DidOptOut:
				left[d.To] = true
			}
		}
		return len(list)
	}
	var page struct {
		Next *string
		Data []struct {
			Phone, State      string
			Clicked, OptedOut bool
		}
	}
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		n := read()
		ask()
		if stats.State == "completed" && stats.Awaiting == 0 && stats.Ambiguous == 0 && n > people/10 && stats.Clicked == len(tapped) && stats.OptedOut == len(left) && read() == n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %d clickers and %d opt-outs, the phones say %d and %d: %+v", stats.Clicked, stats.OptedOut, len(tapped), len(left), stats)
		}
	}
	w.stop(t)
	w.proc.start()
	api.waitReady(t)
	read()
	both := 0
	for next := ""; ; next = "&cursor=" + *page.Next {
		page.Next = nil
		api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/members?limit=1000"+next, nil, &page, "")
		for _, m := range page.Data {
			if m.Clicked != tapped[m.Phone] || m.OptedOut != left[m.Phone] {
				t.Errorf("%s: got clicked %v and opted out %v, want %v and %v", m.Phone, m.Clicked, m.OptedOut, tapped[m.Phone], left[m.Phone])
			}
			if m.Clicked && m.State == "delivered" {
				both++
			}
		}
		if page.Next == nil {
			break
		}
	}
	ask()
	if want := math.Round(float64(both)/float64(stats.Delivered)*1e4) / 1e4; stats.ClickRate != want {
		t.Errorf("got a click-through rate of %v, want %v", stats.ClickRate, want)
	}
	var out struct{ Total int }
	api.must(t, http.MethodGet, "/api/suppressions?limit=1", nil, &out, "")
	if out.Total != len(left) || len(left) == 0 {
		t.Errorf("got %d opt-outs in the store, want %d", out.Total, len(left))
	}
	w.stop(t)
}
