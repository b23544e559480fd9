package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/deploy/testinfra"
	"fanfare/schemas"
)

// clusterEnv is many processes on real Kafka, Redis, ClickHouse and Postgres.
type clusterEnv struct {
	prefix  string
	kafka   string
	flags   []string // where the services are
	rate    int
	cl      *client
	parts   []*process
	http    map[*process]string
	carrier *process
	file    string
}

// newClusterEnv starts one process with api and relay, two schedulers (one of them on standby), two expanders, two
// processes with sender and tracker, one with analytics, and one simulated carrier that they share.
func newClusterEnv(t *testing.T, rate int, profile string) *clusterEnv {
	t.Helper()
	addr := testinfra.Need(t, testinfra.All...)
	secret := make([]byte, 16)
	_, _ = rand.Read(secret)
	key := hex.EncodeToString(secret)
	w := &clusterEnv{
		prefix: "e2e" + strings.ToLower(rand.Text()[:8]) + ".", kafka: addr[testinfra.Kafka], rate: rate, http: map[*process]string{},
		file: filepath.Join(t.TempDir(), "carrier-sim.ndjson"),
	}
	w.carrier = startProcess(t, "carriersim", filepath.Join(filepath.Dir(fanfareBinary(t)), "carriersim"),
		"--listen", freeAddr(t), "--truth", w.file, "--profile", profile, "--id-key", key)
	carrierURL := w.carrierURL(t)
	connection := []string{
		"--data", t.TempDir(), "--kafka", w.kafka, "--redis", addr[testinfra.Redis], "--clickhouse", addr[testinfra.ClickHouse],
		"--store", addr[testinfra.Postgres], "--prefix", w.prefix, "--id-key", key, "--log-level", "warn",
	}
	w.flags = append(connection, "--sim-rate", fmt.Sprint(rate), "--receipt-window", "20s", "--carrier-sim", carrierURL)
	runBinary(t, append([]string{"tenants", "create", "Acme Retail", "--region", "IT", "--timezone", "Europe/Rome"}, connection...)...)
	apiKey := runBinary(t, append([]string{"keys", "create", "--tenant", "Acme Retail"}, connection...)...)

	api := w.serve(t, "api,relay")
	w.cl = &client{base: "http://" + w.http[api], key: apiKey}
	for _, roles := range []string{"scheduler", "scheduler", "expander", "expander", "sender,tracker", "sender,tracker", "analytics"} {
		w.serve(t, roles)
	}
	for _, p := range w.parts {
		(&client{base: "http://" + w.http[p]}).waitReady(t)
	}
	return w
}

// serve starts a process with some roles.
func (w *clusterEnv) serve(t *testing.T, roles string) *process {
	t.Helper()
	addr := freeAddr(t)
	name := fmt.Sprintf("%s-%d", strings.ReplaceAll(roles, ",", "+"), len(w.parts))
	p := startProcess(t, name, fanfareBinary(t), append([]string{"serve", "--roles", roles, "--http", addr}, w.flags...)...)
	w.parts = append(w.parts, p)
	w.http[p] = addr
	return p
}

// carrierURL waits for the URL that carriersim prints first.
func (w *clusterEnv) carrierURL(t *testing.T) string {
	t.Helper()
	for range 200 {
		out, err := exec.Command("cat", w.carrier.log.Name()).Output()
		if err != nil {
			t.Fatal(err)
		}
		for s := bufio.NewScanner(strings.NewReader(string(out))); s.Scan(); {
			if strings.HasPrefix(s.Text(), "http://") {
				return s.Text()
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("carriersim printed no URL")
	return ""
}

func (w *clusterEnv) api() *client                          { return w.cl }
func (w *clusterEnv) brokers() ([]string, []kgo.Opt, error) { return []string{w.kafka}, nil, nil }
func (w *clusterEnv) truth() string                         { return w.file }

func (w *clusterEnv) names() schemas.Names {
	n, _ := schemas.NewNames(w.prefix)
	return n
}

// kill kills the processes in turn: the nth of the run.
func (w *clusterEnv) kill(t *testing.T, nth int) int {
	p := w.parts[nth%len(w.parts)]
	t.Logf("kill -9 of %s", p.name)
	p.kill()
	w.startAgain(t, p)
	if !strings.Contains(p.name, "sender") {
		return 0
	}
	return min(2000, int(float64(w.rate)*(0.25+simP99.Seconds())))
}

// startAgain restarts a process and waits until it is ready. If the process ends because a service is away, startAgain
// restarts it as a supervisor does (deploy/systemd: Restart=always): the ClickHouse of testinfra ends and is restarted
// when a connection breaks during an insert.
func (w *clusterEnv) startAgain(t *testing.T, p *process) {
	t.Helper()
	p.start()
	ready := make(chan struct{})
	go func() {
		defer close(ready)
		(&client{base: "http://" + w.http[p]}).untilReady(t.Context())
	}()
	deadline := time.After(60 * time.Second)
	for {
		select {
		case <-ready:
			return
		case <-p.done:
			t.Logf("%s ended while it started, with exit code %d; it is started again", p.name, p.cmd.ProcessState.ExitCode())
			if code := p.cmd.ProcessState.ExitCode(); code != exitError {
				t.Fatalf("%s ended with exit code %d, want it ready, or %d because a service is away", p.name, code, exitError)
			}
			time.Sleep(time.Second)
			p.start()
		case <-deadline:
			t.Fatalf("%s is not ready after 60 s", p.name)
		}
	}
}

// stop stops all processes, first those that accept work.
func (w *clusterEnv) stop(t *testing.T) {
	for _, p := range w.parts {
		w.end(t, p)
	}
}

// end stops one process with SIGTERM.
func (w *clusterEnv) end(t *testing.T, p *process) {
	t.Helper()
	if took, code := p.stop(); code != 0 || took > 15*time.Second {
		t.Errorf("%s stopped with exit code %d after %s, want 0 within 15 s", p.name, code, took)
	}
}

// clusterStale is the greatest age that statistics may name: after the analytics process is killed, its partitions are
// read again only after a session time-out.
const clusterStale = 20 * time.Second

// Eight processes on real services; each is killed once while it works.
func TestIntegrationEndToEnd(t *testing.T) {
	w := newClusterEnv(t, 1000, "chaos")
	endToEnd(t, w, e2eConfig{people: 20_000, kills: len(w.parts), seed: seed(t, 11), stale: clusterStale, limit: 15 * time.Minute})
	w.stop(t)
}

// rollingEnv is a cluster without kills: a worker joins, one leaves, and then each process is restarted in turn.
type rollingEnv struct{ *clusterEnv }

func (w rollingEnv) kill(t *testing.T, nth int) int {
	switch nth {
	case 0:
		joined := w.serve(t, "expander,sender,tracker")
		(&client{base: "http://" + w.http[joined]}).waitReady(t)
		t.Logf("%s joined", joined.name)
	case 1:
		leaves := slices.IndexFunc(w.parts, func(p *process) bool { return strings.Contains(p.name, "sender") })
		t.Logf("%s leaves", w.parts[leaves].name)
		w.end(t, w.parts[leaves])
		w.parts = slices.Delete(w.parts, leaves, leaves+1)
	default:
		p := w.parts[(nth-2)%len(w.parts)]
		t.Logf("%s is restarted", p.name)
		w.end(t, p)
		w.startAgain(t, p)
	}
	return 0
}

// A worker joins and one leaves in the middle of a campaign, then the processes are restarted one after the other. At
// the end no message is uncertain.
func TestIntegrationRollingRestart(t *testing.T) {
	w := rollingEnv{newClusterEnv(t, 500, "fast")}
	endToEnd(t, w, e2eConfig{people: 10_000, kills: 2 + len(w.parts), seed: seed(t, 13), stale: clusterStale, limit: 15 * time.Minute})
	w.stop(t)
}
