package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/schemas"
)

// A testEnv is an installation that endToEnd runs on: one process with everything embedded, or many on real services.
type testEnv interface {
	// api returns a client of the API with a key of a new tenant.
	api() *client
	names() schemas.Names
	// brokers returns the current addresses of Kafka, and the options with which a consumer connects.
	brokers() ([]string, []kgo.Opt, error)
	// truth returns the file with the carrier's own record.
	truth() string
	// kill kills one process as kill -9 does and starts it again. It returns how many messages may be uncertain
	// afterwards.
	kill(t *testing.T, nth int) int
	// stop stops all processes gracefully.
	stop(t *testing.T)
}

// e2eConfig sizes a run.
type e2eConfig struct {
	people int
	kills  int
	seed   uint64
	// stale is the greatest age that statistics may name in as_of.
	stale time.Duration
	// limit of the whole run.
	limit time.Duration
}

// endToEnd sends a campaign to people of forty countries through a misbehaving carrier, from the import of a CSV to
// settled. It pauses and resumes the campaign in the middle, and processes are killed at random instants. The oracles
// read the topics and the carrier's own record. All environments run this same body.
func endToEnd(t *testing.T, w testEnv, cfg e2eConfig) {
	began := time.Now()
	api := w.api()
	rng := rand.New(rand.NewPCG(cfg.seed, 2))
	crowd := makePeople(t, cfg.people, cfg.seed)

	// One list, imported as CSV; a second list that repeats some of the first; and some people who opted out.
	var list, second struct {
		ID string `json:"id"`
	}
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "everybody"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "again"}, &second, "")
	var report struct {
		Total, Imported, Updated, Duplicates, Invalid int
		Rejected                                      []struct {
			Line   int
			Column string
			Reason string
		}
	}
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(crowd.csv), &report, "text/csv")
	if report.Total != crowd.rows || report.Imported != len(crowd.reachable)+len(crowd.unreachable) || report.Duplicates != crowd.duplicates || report.Invalid != crowd.refused {
		t.Fatalf("import: got total %d imported %d duplicates %d invalid %d, want %d, %d, %d, %d", report.Total, report.Imported, report.Duplicates, report.Invalid, crowd.rows, len(crowd.reachable)+len(crowd.unreachable), crowd.duplicates, crowd.refused)
	}
	if len(report.Rejected) != min(crowd.refused, 1000) || report.Rejected[0].Line == 0 || report.Rejected[0].Reason == "" {
		t.Fatalf("import: %d rows are named as refused, want %d, each with line and reason", len(report.Rejected), min(crowd.refused, 1000))
	}
	repeats := crowd.reachable[:50]
	var csv bytes.Buffer
	csv.WriteString("phone,first_name\n")
	for _, n := range repeats {
		fmt.Fprintf(&csv, "%s,Again\n", n)
	}
	api.must(t, http.MethodPost, "/api/contacts/list/"+second.ID+"/import", &csv, nil, "text/csv")
	const optedOut = 20
	for _, n := range crowd.reachable[100 : 100+optedOut] {
		api.must(t, http.MethodPost, "/api/suppressions", map[string]any{"phoneNumber": n}, nil, "")
	}
	total := len(crowd.reachable) + len(crowd.unreachable) + len(repeats)

	var campaign struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
		"name": "End to end", "channel": "sms", "message": "Ciao {{first_name}}, saldi a {{city}}!", "contactList": []string{list.ID, second.ID},
		"sendImmediately": true, "maxRetries": 2, "retryDelay": 2,
	}, &campaign, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+campaign.ID+"/confirm", nil, nil, "")
	t.Logf("%s confirmed after %s", campaign.ID, time.Since(began).Round(time.Millisecond))

	// Follow the topic and the record of the carrier, and read /stats every 50 ms.
	ctx, stopWatching := context.WithCancel(t.Context())
	defer stopWatching()
	follower := &deliveriesFollower{names: w.names(), campaign: campaign.ID, brokers: w.brokers, states: map[uint32]schemas.Precedence{}}
	follower.setTotal(total)
	truth := &truthFile{path: w.truth()}
	var watchers sync.WaitGroup
	watchers.Go(func() { follower.run(ctx) })
	var mu sync.Mutex
	var samples []statsSample
	watchers.Go(func() {
		for tick := time.NewTicker(50 * time.Millisecond); ctx.Err() == nil; {
			var s statsAnswer
			at := time.Now()
			if _, err := api.call(ctx, http.MethodGet, "/api/campaigns/"+campaign.ID+"/stats", nil, &s, ""); err == nil {
				until := time.Now()
				accepted, err := truth.read()
				if err != nil {
					t.Errorf("truth: %v", err)
				}
				mu.Lock()
				samples = append(samples, statsSample{at, s, accepted, until})
				mu.Unlock()
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	newest := func() statsAnswer {
		mu.Lock()
		defer mu.Unlock()
		if len(samples) == 0 {
			return statsAnswer{}
		}
		return samples[len(samples)-1].stats
	}
	await := func(what string, ok func(statsAnswer) bool) {
		t.Helper()
		for !ok(newest()) {
			if time.Since(began) > cfg.limit {
				t.Fatalf("%s: not within %s; newest %+v", what, cfg.limit, newest())
			}
			time.Sleep(10 * time.Millisecond)
		}
	}

	// Pause in the middle: senders must stop handing over; resume must continue.
	await("a quarter sent", func(s statsAnswer) bool { return s.Sent >= total/4 })
	api.must(t, http.MethodPut, "/api/campaigns/"+campaign.ID+"/pause", nil, nil, "")
	answered := time.Now()
	time.Sleep(1500 * time.Millisecond) // if the sleep is too short, the test may only miss a late submission
	if _, err := truth.read(); err != nil {
		t.Fatal(err)
	}
	truth.mu.Lock()
	late := truth.last.Sub(answered)
	truth.mu.Unlock()
	if late > pauseGrace {
		t.Errorf("the last submission came %s after pause was answered, want at most %s", late, pauseGrace)
	}
	t.Logf("paused at %d sent; last submission %s after the answer", newest().Sent, late.Round(time.Millisecond))
	api.must(t, http.MethodPut, "/api/campaigns/"+campaign.ID+"/resume", nil, nil, "")

	// Kill processes at random instants of the second half.
	maxAmbiguous := 0
	for i := range cfg.kills {
		share := 0.3 + (float64(i)+rng.Float64())*0.6/float64(cfg.kills)
		await("sent before a kill", func(s statsAnswer) bool { return float64(s.Sent) >= share*float64(total)*0.9 || s.State == "completed" })
		time.Sleep(time.Duration(rng.IntN(150)) * time.Millisecond)
		t.Logf("kill %d at %+v", i+1, newest())
		follower.lost()
		maxAmbiguous += w.kill(t, i)
		follower.back()
	}

	await("completed", func(s statsAnswer) bool { return s.State == "completed" })
	t.Logf("completed after %s: %+v", time.Since(began).Round(time.Millisecond), newest())
	await("settled", func(s statsAnswer) bool { return s.Settled })
	t.Logf("settled after %s: %+v", time.Since(began).Round(time.Millisecond), newest())
	reached := slices.Clone(crowd.reachable)
	reached = slices.DeleteFunc(reached, func(n string) bool { return slices.Contains(crowd.reachable[100:100+optedOut], n) })
	judged := func() outcome {
		subs, fates := truth.all(t)
		deliveries, _, _ := follower.snapshot()
		return outcome{
			audience: reached, total: total, truth: subs, deliveries: deliveries, final: newest(), maxAmbiguous: maxAmbiguous, fates: fates,
		}
	}
	// The last events reach the topics and the statistics in about a second, on a busy machine later.
	o := judged()
	for until := time.Now().Add(90 * time.Second); len(checkEnd(o)) > 0 && time.Now().Before(until); o = judged() {
		time.Sleep(500 * time.Millisecond)
	}
	time.Sleep(time.Second) // a surplus event would arrive in this time; the test misses one that arrives later
	o = judged()
	stopWatching()
	watchers.Wait()
	final, subs := o.final, o.truth
	deliveries, points, gaps := follower.snapshot()
	judging := time.Now()
	for name, errs := range map[string][]error{
		"statistics at every instant": checkSamples(samples), "pending": checkPending(outside(samples, gaps), points, cfg.stale),
		"never twice": checkDoubles(subs, deliveries), "never lost": checkEnd(o),
	} {
		for _, err := range errs[:min(len(errs), 10)] {
			t.Errorf("%s: %v", name, err)
		}
		if len(errs) > 10 {
			t.Errorf("%s: and %d more", name, len(errs)-10)
		}
	}
	if final.TotalMessages != total {
		t.Errorf("total: got %d, want %d", final.TotalMessages, total)
	}
	want := map[schemas.Code]int{
		schemas.CodeOptedOut: optedOut, schemas.CodeDuplicateRecipient: len(repeats),
	}
	got := map[schemas.Code]int{}
	for _, p := range states(deliveries) {
		if _, ok := want[p.Code()]; ok {
			got[p.Code()]++
		}
	}
	for code, n := range want {
		if got[code] != n {
			t.Errorf("%v: got %d recipients, want %d", code, got[code], n)
		}
	}
	crash := 0
	for _, d := range deliveries {
		if d.GetKind() == schemas.KindAmbiguous && d.GetCode() == schemas.CodeCrash {
			crash++
		}
	}
	t.Logf("judged in %s", time.Since(judging).Round(time.Millisecond))
	t.Logf("%d samples, %d delivery events, %d submissions, uncertain at the kills %d, ambiguous at the end %d (at most %d)",
		len(samples), len(deliveries), len(subs), crash, final.Ambiguous, maxAmbiguous)
}

// seed returns the seed of a run. FANFARE_TEST_SEED overrides it (make chaos).
func seed(t *testing.T, usual uint64) uint64 {
	t.Helper()
	if v, err := strconv.ParseUint(os.Getenv("FANFARE_TEST_SEED"), 10, 64); err == nil {
		usual = v
	}
	t.Logf("FANFARE_TEST_SEED=%d", usual)
	return usual
}

// embeddedEnv is one process with everything embedded.
type embeddedEnv struct {
	dir  string
	proc *process
	cl   *client
	rate int
}

func newEmbeddedEnv(t *testing.T, rate int, extra ...string) *embeddedEnv {
	t.Helper()
	dir := t.TempDir()
	addr := freeAddr(t)
	w := &embeddedEnv{dir: dir, rate: rate, cl: &client{base: "http://" + addr}}
	runBinary(t, "tenants", "create", "Acme Retail", "--region", "IT", "--timezone", "Europe/Rome", "--data", dir)
	w.cl.key = runBinary(t, "keys", "create", "--tenant", "Acme Retail", "--data", dir)
	args := append([]string{"serve", "--data", dir, "--http", addr, "--sim-rate", fmt.Sprint(rate)}, extra...)
	w.proc = startProcess(t, "fanfare", fanfareBinary(t), args...)
	w.cl.waitReady(t)
	return w
}

func (w *embeddedEnv) api() *client { return w.cl }

func (w *embeddedEnv) names() schemas.Names {
	n, _ := schemas.NewNames(schemas.DefaultPrefix)
	return n
}

func (w *embeddedEnv) brokers() ([]string, []kgo.Opt, error) { return embeddedBrokers(w.dir) }
func (w *embeddedEnv) truth() string                         { return filepath.Join(w.dir, "carrier-sim.ndjson") }

func (w *embeddedEnv) kill(t *testing.T, _ int) int {
	w.proc.kill()
	w.proc.start()
	t.Logf("ready again after %s", w.cl.waitReady(t).Round(time.Millisecond))
	return min(2000, int(float64(w.rate)*(0.25+simP99.Seconds()))) // the window is rate x (0.25 s + p99), at most 2,000
}

func (w *embeddedEnv) stop(t *testing.T) {
	took, code := w.proc.stop()
	if code != 0 || took > 15*time.Second {
		t.Errorf("stopped with exit code %d after %s, want 0 within 15 s", code, took)
	}
}

// embeddedStale is the greatest age that statistics may name: a busy machine may hold the process up for seconds.
const embeddedStale = 30 * time.Second

// X22: the whole product in one process with nothing installed, killed three times with kill -9 at random instants of a campaign to 20,000 people.
func TestEndToEndEmbedded(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two minutes; left out by -short")
	}
	w := newEmbeddedEnv(t, 2000, "--receipt-window", "20s", "--sim-profile", "chaos", "--log-level", "warn")
	endToEnd(t, w, e2eConfig{people: 20_000, kills: 3, seed: seed(t, 7), stale: embeddedStale, limit: 8 * time.Minute})
	w.stop(t)
}
