package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
)

const (
	secret = "00112233445566778899aabbccddeeff"
	asMain = "CARRIERSIM_TEST_AS_MAIN" // if set, this binary runs as the program, so that a test can kill it
)

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
	}
	os.Exit(m.Run())
}

func noEnv(string) string { return "" }

func TestUsage(t *testing.T) {
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--help", exitOK, "-truth"},
		{"", exitUsage, "FANFARE_ID_KEY"},
		{"--id-key xyz", exitUsage, "hexadecimal"},
		{"--id-key 0011", exitUsage, "16 bytes"},
		{"--id-key-file " + keyFile, exitUsage, "hexadecimal"},
		{"--id-key-file /does/not/exist", exitUsage, "no such file"},
		{"--id-key " + secret + " --profile nice", exitUsage, "want one of [default fast chaos]"},
		{"--id-key " + secret + " --rate many", exitUsage, "--help"},
		{"--id-key " + secret + " serve", exitUsage, `"serve"`},
		{"--id-key " + secret + " --listen nowhere", exitError, "--listen"},
		{"--id-key " + secret + " --smpp nowhere", exitError, "--smpp"},
		{"--id-key " + secret + " --graph nowhere", exitError, "--graph"},
		{"--id-key " + secret + " --rbm nowhere", exitUsage, "--rbm-account"},
		{"--id-key " + secret + " --rbm 127.0.0.1:0 --rbm-account " + keyFile, exitError, "--rbm-account"},
		{"--id-key " + secret + " --rbm 127.0.0.1:0 --rbm-account x --rbm-unreachable 2", exitUsage, "--rbm-unreachable"},
		{"--id-key " + secret + " --profile chaos --rbm 127.0.0.1:0 --rbm-account x", exitUsage, "chaos+id"},
		{"--id-key " + secret + " --ari nowhere", exitError, "--ari"},
		{"--id-key " + secret + " --ari 127.0.0.1:0 --ari-busy 2", exitUsage, "--ari-busy"},
		{"--id-key " + secret + " --ari 127.0.0.1:0 --ari-busy 0.6 --ari-no-answer 0.6", exitUsage, "at most 1"},
		{"--id-key " + secret + " --ari 127.0.0.1:0 --ari-user fanfare", exitUsage, "user:password"},
		{"--id-key " + secret + " --ari 127.0.0.1:0 --ari-play 2h", exitUsage, "--ari-play"},
		{"--id-key " + secret + " --smpp-quirks perhaps", exitUsage, "want one of"},
		{"--id-key " + secret + " --smpp-quirks ids=roman", exitUsage, "decimal, hex"},
		{"--id-key " + secret + " --smpp-cert /does/not/exist", exitUsage, "--smpp-cert"},
		{"--id-key " + secret + " --truth /does/not/exist/truth", exitError, "no such file"},
	} {
		var out, errs bytes.Buffer
		code := Main(t.Context(), strings.Fields(c.args), noEnv, &out, &errs)
		if code != c.code || !strings.Contains(errs.String(), c.says) || out.Len() > 0 {
			t.Errorf("%q: got code %d and %q, want %d and %q", c.args, code, errs.String(), c.code, c.says)
		}
		if strings.Contains(errs.String(), secret) {
			t.Errorf("%q: the secret is printed", c.args)
		}
	}
}

func TestMagicIsPrinted(t *testing.T) {
	var out bytes.Buffer
	if code := Main(t.Context(), []string{"--magic"}, noEnv, &out, io.Discard); code != exitOK {
		t.Errorf("got code %d, want 0", code)
	}
	for _, m := range sim.Magic {
		if !strings.Contains(out.String(), m.Number()+"  "+m.Does+"\n") {
			t.Errorf("%s is missing in:\n%s", m.Number(), out.String())
		}
	}
}

func batch(t *testing.T, first, n int) []carrier.Outbound {
	t.Helper()
	keys, err := parseKeys(secret)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]carrier.Outbound, n)
	for i := range b {
		b[i] = carrier.Outbound{
			Key: keys.Submission(10001, uint32(first+i), 1), Channel: schemas.ChannelSMS,
			To: fmt.Sprintf("+39347%07d", first+i), Body: carrier.Body{Text: carrier.Text{Body: "hello", Segments: 1}},
		}
	}
	return b
}

// TestGraceful: after an interrupt, the process answers all messages that it has accepted, and exits in time.
func TestGraceful(t *testing.T) {
	truth := filepath.Join(t.TempDir(), "carrier-sim.ndjson")
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	read, write := io.Pipe()
	exit := make(chan int, 1)
	env := func(name string) string { return map[string]string{"FANFARE_ID_KEY": secret}[name] }
	go func() { exit <- Main(ctx, []string{"--truth", truth, "--seed", "3"}, env, write, io.Discard) }()
	url, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	n, err := sim.Dial(t.Context(), strings.TrimSpace(url), sim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	receipts, stop := context.WithCancel(t.Context())
	defer stop()
	// This request is still open at the interrupt.
	go func() { _ = n.Receipts(receipts, func([]carrier.Receipt) error { return nil }) }()
	var mu sync.Mutex
	answers := map[carrier.Outcome]int{}
	const count = 500
	if err := n.Send(t.Context(), batch(t, 0, count), func(_ int, r carrier.Result) {
		mu.Lock()
		defer mu.Unlock()
		answers[r.Outcome]++
	}); err != nil {
		t.Fatal(err)
	}
	for len(readTruth(t, truth).Entries) == 0 {
		time.Sleep(time.Millisecond)
	}
	interrupt()
	began := time.Now()
	if code := <-exit; code != exitOK {
		t.Errorf("got code %d, want 0", code)
	}
	if took := time.Since(began); took > grace+20*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	mu.Lock()
	defer mu.Unlock()
	if answers[carrier.Accepted] < count*9/10 || answers[carrier.Unknown] > 0 {
		t.Errorf("got %v, want the answers to all %d it had taken", answers, count)
	}
}

func readTruth(t *testing.T, path string) *sim.Truth {
	t.Helper()
	tr, err := sim.ReadTruth(path)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// process is a running carriersim.
type process struct {
	cmd  *exec.Cmd
	url  string
	smpp string // address of its SMPP face, if any
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asMain+"=1", "FANFARE_ID_KEY="+secret)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewReader(out)
	address := func() string {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("it printed no address: %v", err)
		}
		return strings.TrimSpace(line)
	}
	p := &process{cmd: cmd, url: address()}
	if slices.Contains(args, "--smpp") {
		p.smpp = strings.TrimPrefix(address(), "smpp://")
	}
	return p
}

// TestKill kills the process again and again while two clients submit and take receipts. The truth has every message
// that the process answered, and none that it certainly did not accept. In the end the clients get every receipt that
// the truth owes.
func TestKill(t *testing.T) {
	truth := filepath.Join(t.TempDir(), "carrier-sim.ndjson")
	p := startProcess(t, "--truth", truth, "--profile", "fast")
	address := strings.TrimPrefix(p.url, "http://")

	type answerLog struct {
		sync.Mutex
		outcome  map[carrier.Key]carrier.Outcome
		receipts map[string]int
	}
	log := answerLog{outcome: map[carrier.Key]carrier.Outcome{}, receipts: map[string]int{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	submitting, enough := context.WithCancel(ctx)
	var submitters, consumers sync.WaitGroup
	for client := range 2 {
		n, err := sim.Dial(ctx, p.url, sim.Options{Window: 400, AnswerTimeout: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		consumers.Go(func() {
			_ = n.Receipts(ctx, func(list []carrier.Receipt) error {
				log.Lock()
				defer log.Unlock()
				for _, r := range list {
					log.receipts[fmt.Sprint(r.Ref, r.Status, r.Sub)]++
				}
				return nil
			})
		})
		submitters.Go(func() {
			for i := 0; submitting.Err() == nil; i++ {
				b := batch(t, client<<20|i*50, 50)
				_ = n.Send(submitting, b, func(i int, r carrier.Result) {
					log.Lock()
					defer log.Unlock()
					log.outcome[b[i].Key] = r.Outcome
				})
				time.Sleep(5 * time.Millisecond)
			}
			if err := n.Drain(ctx); err != nil {
				t.Errorf("drain: %v", err)
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 3 {
		time.Sleep(time.Duration(200+r.IntN(500)) * time.Millisecond)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait()
		p = startProcess(t, "--truth", truth, "--profile", "fast", "--listen", address)
	}
	time.Sleep(300 * time.Millisecond) // some hand-overs after the last start; the verdict compares what there is
	enough()
	submitters.Wait()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		owed, err := sim.StillOwed(truth)
		if err != nil {
			t.Fatal(err)
		}
		if owed == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d receipts are still owed", owed)
		}
	}
	stop()
	consumers.Wait()

	want := map[string]carrier.Outcome{sim.Accepted: carrier.Accepted, sim.Refused: carrier.Rejected, sim.Throttled: carrier.Throttled, sim.Busy: carrier.Retryable}
	inTruth := map[schemas.ID]bool{}
	owed := 0
	tr := readTruth(t, truth)
	for _, e := range tr.Entries {
		if inTruth[e.Submission] {
			t.Errorf("submission %v is in the truth twice", e.Submission)
		}
		inTruth[e.Submission] = true
		if got := log.outcome[e.Submission]; got != want[e.Outcome] && got != carrier.Unknown {
			t.Errorf("%s in truth, and the client was told %v", e.Outcome, got)
		}
		for _, x := range e.Receipts {
			owed++
			if log.receipts[fmt.Sprint(e.Ref, x.Status, x.Code)] == 0 {
				t.Errorf("a receipt of %v never came", e.Submission)
			}
		}
	}
	counts := map[carrier.Outcome]int{}
	for key, o := range log.outcome {
		counts[o]++
		if !inTruth[key] && o != carrier.Retryable && o != carrier.Unknown {
			t.Errorf("the client was told %v, and the truth has nothing", o)
		}
	}
	// Only messages that were on their way to a process that died may be in doubt.
	if most := 3 * 2 * 400; counts[carrier.Unknown] > most {
		t.Errorf("got %d unknown after three kills, want at most the two windows of each, %d", counts[carrier.Unknown], most)
	}
	if len(tr.Entries) < 1000 || owed < 800 {
		t.Errorf("got %d submissions and %d receipts: too few to show anything", len(tr.Entries), owed)
	}
	t.Logf("%d submissions in truth, %d receipts, answers %v", len(tr.Entries), owed, counts)
}
