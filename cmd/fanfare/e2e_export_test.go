package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// X7: after kill -9 of the process that makes an export, the export continues from the last saved step. Its file equals
// that of an undisturbed export, byte for byte.
func TestExportGoesOnAfterKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; left out by -short")
	}
	const people = 120_000
	w := newEmbeddedEnv(t, 100, "--log-level", "warn")
	api := w.api()
	var csv bytes.Buffer
	csv.WriteString("phone,first_name,last_name,email,city\n")
	for i := range people {
		fmt.Fprintf(&csv, "+39347%07d,Anna %d,Rossi,anna%d@example.com,Torino\n", i, i, i)
	}
	var list struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "people"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", &csv, nil, "text/csv")
	type export struct {
		ID, Status  string
		Rows        int
		DownloadURL *string
	}
	order := func() (e export) {
		api.must(t, http.MethodPost, "/api/exports/contacts", map[string]any{"contactList": list.ID}, &e, "")
		return e
	}
	now := func(id string) (e export) {
		api.must(t, http.MethodGet, "/api/exports/"+id, nil, &e, "")
		return e
	}
	done := func(id string) []byte {
		t.Helper()
		for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
			e := now(id)
			if e.Status == "done" {
				resp, err := http.Get(api.base + *e.DownloadURL)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				file, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != http.StatusOK {
					t.Fatalf("download: got %s, %v", resp.Status, err)
				}
				return file
			}
			if e.Status == "failed" || e.Status == "cancelled" || time.Now().After(deadline) {
				t.Fatalf("export: got %+v, want it done", e)
			}
		}
	}
	want := done(order().ID)
	if rows := bytes.Count(want, []byte("\n")) - 1; rows != people {
		t.Fatalf("undisturbed: got %d rows, want %d", rows, people)
	}
	// The test kills the process as soon as a part is saved, and repeats that until a kill came before the end of the
	// export, so that the speed of the machine does not affect the result.
	for tries := 1; ; tries++ {
		id := order().ID
		killed := 0
		for range 2 {
			for e := now(id); ; e = now(id) {
				time.Sleep(60 * time.Millisecond) // a key may make a thousand requests a minute
				if e.Status == "done" {
					break
				}
				if e.Rows > killed {
					killed = e.Rows
					break
				}
			}
			w.kill(t, 0)
		}
		before := now(id)
		got := done(id)
		if !bytes.Equal(got, want) {
			t.Fatalf("after a kill at %d rows: got %d bytes, want the %d of the undisturbed export", killed, len(got), len(want))
		}
		if killed > 0 && killed < people {
			t.Logf("killed at %d of %d rows, after the restart it stood at %d; try %d", killed, people, before.Rows, tries)
			break
		}
		if tries == 5 {
			t.Fatal("each export ended before it could be killed")
		}
	}
	w.stop(t)
}
