package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// A voice campaign to an Asterisk in a process of its own, with a route that was made by the API. Fanfare is killed
// with kill -9 three times in the middle. By the record of the carrier no recipient was called again unless the first
// call had failed; each recipient without a call has a named reason, not sent or ambiguous; and by the count of the
// exchange there were never more concurrent calls than the account may have (P2, P3).
func TestEndToEndVoice(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; left out by -short")
	}
	const (
		idKey  = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
		people = 400
		most   = 40
		prefix = "+393405"
	)
	dir, addr, exchange := t.TempDir(), freeAddr(t), freeAddr(t)
	truth := &truthFile{path: filepath.Join(dir, "truth.ndjson")}
	startProcess(t, "carriersim", filepath.Join(filepath.Dir(fanfareBinary(t)), "carriersim"),
		"--id-key", idKey, "--truth", truth.path, "--ari", exchange, "--ari-user", "fanfare:s3cret", "--ari-busy", "0.1",
		"--ari-ring", "300ms", "--ari-ring-longest", "2s", "--ari-detect", "100ms", "--ari-play", "300ms")
	waitListening(t, exchange)

	data := filepath.Join(dir, "data")
	runBinary(t, "tenants", "create", "Acme", "--data", data)
	api := &client{base: "http://" + addr, key: runBinary(t, "keys", "create", "--tenant", "Acme", "--data", data, "--scope", "read,campaigns,confirm,contacts,send,admin")}
	proc := startProcess(t, "fanfare", fanfareBinary(t), "serve", "--data", data, "--http", addr, "--id-key", idKey, "--log-level", "warn")
	api.waitReady(t)

	type o = map[string]any
	configuration := o{
		"baseUrl": "http://" + exchange + "/ari", "username": "fanfare", "endpoint": "PJSIP/{number}@trunk", "maxConcurrent": most,
		"machineContext": "fanfare-amd", "textToSpeech": "https://tts.example.org/say?lang={language}&text={text}",
	}
	route := o{"name": "phone", "connector": "voice", "rate": 100, "receiptWindow": 3600, "configuration": o{"baseUrl": "nowhere"}, "credentials": o{"password": "s3cret"}}
	if status, err := api.call(t.Context(), http.MethodPost, "/api/routes", route, nil, ""); err == nil || status/100 != 4 {
		t.Errorf("a route with a configuration that cannot be: got %d (%v), want that it is refused", status, err)
	}
	route["configuration"] = configuration
	api.must(t, http.MethodPost, "/api/routes", route, nil, "")
	var tested struct{ OK bool }
	if api.must(t, http.MethodPost, "/api/routes/phone/test", nil, &tested, ""); !tested.OK {
		t.Error("the test of the route failed")
	}
	api.must(t, http.MethodPost, "/api/channels", o{"name": "Acme phone", "channel": "voice", "address": "+390612345678"}, nil, "")

	var csv bytes.Buffer
	csv.WriteString("phone,name\n")
	for n := range people {
		fmt.Fprintf(&csv, "%s%06d,Anna\n", prefix, n)
	}
	var list, made struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", o{"name": "voice"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(csv.Bytes()), nil, "text/csv")
	api.must(t, http.MethodPost, "/api/campaigns", o{
		"name": "voice", "channel": "voice", "message": "Good morning {{name}}", "contactList": list.ID, "sendImmediately": true, "route": "phone",
		"amdEnabled": true, "amdAction": "hangup", "maxConcurrent": most, "maxRetries": 1, "retryDelay": 1,
	}, &made, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")

	for _, share := range []int{5, 3, 2} { // after a fifth, a third and a half of the calls
		for acceptedBy(t, truth, prefix) < people/share {
			time.Sleep(20 * time.Millisecond)
			if t.Context().Err() != nil {
				t.Fatal("the campaign does not go on")
			}
		}
		proc.kill()
		proc.start()
		api.waitReady(t)
	}
	var stats statsAnswer
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/stats", nil, &stats, "")
		if stats.State == "completed" && stats.Pending == 0 && stats.Delivered >= people/3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not completed, or too few receipts came: %+v", stats)
		}
	}
	if err := stats.identities(); err != nil {
		t.Error(err)
	}
	taken := acceptances(t, truth.path, prefix)
	missing, again := 0, 0
	for n := range people {
		tries := taken[fmt.Sprintf("%s%06d", prefix, n)]
		if len(tries) == 0 {
			missing++
			continue
		}
		for i, try := range tries[1:] {
			if again++; !tries[i].failedBefore(try.Time) {
				t.Errorf("person %d was called twice", n)
				explainTwice(t, api, made.ID, n, tries)
				break
			}
		}
	}
	if stats.TotalMessages != people || missing > stats.Ambiguous+stats.NotSent {
		t.Errorf("%d of %d were not called: want each of them not sent or ambiguous: %+v", missing, people, stats)
	}
	if again == 0 {
		t.Error("no recipient was called again after busy: the test does not exercise that")
	}
	var calls struct{ Calls, Living, Peak int }
	readStats(t, "http://"+exchange+"/stats", &calls)
	if calls.Peak > most || calls.Peak < most/2 {
		t.Errorf("at most %d calls lived at once, want up to %d, and not far below", calls.Peak, most)
	}
	t.Logf("%d calls to %d people, %d again after busy, peak %d of %d; %+v", calls.Calls, people-missing, again, calls.Peak, most, stats)
}

func readStats(t *testing.T, address string, into any) {
	t.Helper()
	resp, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}
