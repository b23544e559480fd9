package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"fanfare/schemas"
)

// standstill is longer than a session of the embedded broker: when the process goes on, every member of a group has
// been removed, and another may own its partitions.
const standstill = 11 * time.Second

// A small campaign through hardships that processes meet: kill -9 that leaves half a batch at the end of every log of
// the embedded broker, and SIGSTOP for longer than a session. No recipient is lost, none gets two messages, and the
// statistics agree with the carrier's own record (P1, P2, P3).
//
// On a machine so slow that everything is handed over before a hardship comes, the hardship meets no hand-over. The test
// does not fail for that: its verdict must not depend on the machine's speed.
func TestEndToEndHardships(t *testing.T) {
	t.Parallel()
	const people, rate = 400, 100
	w := newEmbeddedEnv(t, rate, "--receipt-window", "20s", "--log-level", "warn")
	api := w.api()
	var csv bytes.Buffer
	csv.WriteString("phone\n")
	var numbers []string
	for n := range people {
		numbers = append(numbers, fmt.Sprintf("+39340%07d", n))
		csv.WriteString(numbers[n] + "\n")
	}
	var list, made struct{ ID string }
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "people"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", &csv, nil, "text/csv")
	api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
		"name": "hardships", "channel": "sms", "message": "Good morning", "contactList": list.ID, "sendImmediately": true, "maxRetries": 0,
	}, &made, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")
	follower := &deliveriesFollower{names: w.names(), campaign: made.ID, brokers: w.brokers, states: map[uint32]schemas.Precedence{}}
	follower.setTotal(people)
	go follower.run(t.Context())
	truth := &truthFile{path: w.truth()}
	until := func(what string, done func() bool) {
		t.Helper()
		for range 3600 { // three minutes, for a busy machine
			if done() {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Fatalf("%s: not within three minutes", what)
	}
	accepted := func(n int) func() bool {
		return func() bool {
			got, err := truth.read()
			return err == nil && got >= n
		}
	}

	until("an eighth is handed over", accepted(people/8))
	follower.lost()
	w.proc.kill()
	tearTails(t, filepath.Join(w.dir, "kafka"))
	w.proc.start()
	api.waitReady(t)
	follower.back()

	until("a third is handed over", accepted(people/3))
	if err := w.proc.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(standstill) // the process stands still; the test's verdict does not depend on how long
	if err := w.proc.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}

	var stats statsAnswer
	until("settled", func() bool {
		api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/stats", nil, &stats, "")
		return stats.Settled
	})
	window := min(2000, int(float64(rate)*(0.25+simP99.Seconds())))
	judge := func() []error {
		subs, fates := truth.all(t)
		deliveries, _, _ := follower.snapshot()
		api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/stats", nil, &stats, "")
		return append(checkDoubles(subs, deliveries), checkEnd(outcome{
			audience: numbers, total: people, truth: subs, deliveries: deliveries, final: stats, maxAmbiguous: 2 * window, fates: fates,
		})...)
	}
	errs := judge()
	for range 600 { // the last events reach this test and the statistics a little later
		if len(errs) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
		errs = judge()
	}
	for _, err := range errs[:min(len(errs), 10)] {
		t.Error(err)
	}
	t.Logf("%+v", stats)
}

// tearTails leaves half a batch at the end of every log that has one, as a kill in the middle of a write does.
func tearTails(t *testing.T, dir string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "partitions", "*", "*.dat"))
	if err != nil {
		t.Fatal(err)
	}
	torn := 0
	for _, path := range append(logs, filepath.Join(dir, "groups.log")) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < 40 {
			continue
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(b[:40]); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		torn++
	}
	if torn < 5 {
		t.Errorf("%d logs have anything in them: the test tears nothing", torn)
	}
}
