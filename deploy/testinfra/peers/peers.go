// Package peers starts programs that speak to carriers, or are one, and that we did not write, so that tests do not
// only hold our code against itself:
//
//	NodeSMPP   npm smpp 0.5.1, as a message centre (smsc.js)
//	Kannel     Debian's kannel, as a client of our message centre and as an HTTP gateway
//	NetSMPP    Debian's libnet-smpp-perl: a client that loads a message centre, and another codec
//	Tshark     Wireshark's dissector of SMPP and of short messages
//	Twilio     npm twilio 6.3.1, as the maker and the judge of callbacks' signatures (twilio.js)
//	Kapso      npm @kapso/whatsapp-cloud-api 0.3.0, as a client of the Graph API and the judge of webhooks (kapso.js)
//	Isbot      npm isbot 5.2.3, with lists of user agents from npm, as the judge of who opened a link (isbot.js)
//
// They are installed by the script install, from Debian and npm; nothing of their code is kept here. A test that needs
// one is skipped unless FANFARE_TEST_INTEGRATION is set, as make integration does: then a peer that is missing is
// installed, and if that fails the test does.
package peers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Peer is a program that we did not write.
type Peer string

// Peers.
const (
	NodeSMPP Peer = "smpp"
	Kannel   Peer = "kannel"
	NetSMPP  Peer = "libnet-smpp-perl"
	Tshark   Peer = "tshark"
	Twilio   Peer = "twilio"
	Kapso    Peer = "@kapso/whatsapp-cloud-api"
	Isbot    Peer = "isbot"
)

// integrationEnv is set if the peers must be installed: then a missing one is a failure.
const integrationEnv = "FANFARE_TEST_INTEGRATION"

// installed is where each peer is found.
var installed = map[Peer]func() bool{
	NodeSMPP: func() bool { return exists(filepath.Join(Dir(), "node_modules", "smpp")) && program("node") },
	Kannel:   func() bool { return program("bearerbox") && program("smsbox") },
	NetSMPP:  func() bool { return exists(hammer) },
	Tshark:   func() bool { return program("tshark") },
	Twilio:   func() bool { return exists(filepath.Join(Dir(), "node_modules", "twilio")) && program("node") },
	Kapso:    func() bool { return exists(filepath.Join(Dir(), "node_modules", string(Kapso))) && program("node") },
	Isbot: func() bool {
		for _, m := range []string{"isbot", "crawler-user-agents", "top-user-agents"} {
			if !exists(filepath.Join(Dir(), "node_modules", m)) {
				return false
			}
		}
		return program("node")
	},
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func program(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil || exists("/usr/sbin/"+name)
}

// Dir is where npm modules are.
func Dir() string {
	if d := os.Getenv("FANFARE_PEERS_DIR"); d != "" {
		return d
	}
	tmp := os.Getenv("TMPDIR")
	if tmp == "" {
		tmp = "/var/tmp"
	}
	return filepath.Join(tmp, "fanfare-peers")
}

// here is this folder in the source tree. Tests run in the folder of their package, wherever the binary was built.
func here() string {
	if _, file, _, _ := runtime.Caller(0); exists(file) {
		return filepath.Dir(file)
	}
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if at := filepath.Join(dir, "deploy", "testinfra", "peers"); exists(at) {
			return at
		}
		dir = filepath.Dir(dir)
	}
	return "."
}

var installing sync.Mutex

// Need skips the test unless the peers are to be used, and installs those that are missing.
func Need(tb testing.TB, peers ...Peer) {
	tb.Helper()
	for _, p := range peers {
		if os.Getenv(integrationEnv) == "" {
			tb.Skipf("needs %s: run make integration", p)
		}
	}
	installing.Lock()
	defer installing.Unlock()
	for _, p := range peers {
		if installed[p]() {
			continue
		}
		if out, err := exec.Command(filepath.Join(here(), "install")).CombinedOutput(); err != nil {
			tb.Fatalf("%s is missing and cannot be installed: %v: %s", p, err, out)
		}
		if !installed[p]() {
			tb.Fatalf("%s is missing, and was not there after it was installed", p)
		}
	}
}

// Process is a running peer.
type Process struct {
	tb    testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string
	log   *tail
}

// start starts a program. When the test ends, the program and all processes that it started are killed.
func start(tb testing.TB, dir string, name string, args ...string) *Process {
	tb.Helper()
	p := &Process{tb: tb, cmd: exec.Command(name, args...), lines: make(chan string, 1024), log: &tail{}}
	p.cmd.Dir = dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = p.log
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		tb.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(stdout); s.Scan(); {
			_, _ = p.log.Write(append(s.Bytes(), '\n'))
			select {
			case p.lines <- s.Text():
			default: // the test reads no lines
			}
		}
	}()
	tb.Cleanup(func() {
		p.Kill()
		<-read
		_ = p.cmd.Wait()
		if tb.Failed() {
			tb.Logf("%s said:\n%s", name, p.log)
		}
	})
	return p
}

// Kill ends the process and all processes that it started.
func (p *Process) Kill() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// Line waits for a line of standard output that begins with prefix, and returns the rest of it.
func (p *Process) Line(prefix string) string {
	p.tb.Helper()
	patience := time.After(30 * time.Second)
	for {
		select {
		case line := <-p.lines:
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return rest
			}
		case <-patience:
			p.tb.Fatalf("waited 30 s for %q; it said:\n%s", prefix, p.log)
		}
	}
}

// tail keeps the end of a process's output.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if n := len(t.buf) - 16<<10; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}

// SMSC is a message centre of the npm module.
type SMSC struct {
	*Process
	Port string
}

// SMSCOptions are the options of smsc.js.
type SMSCOptions struct {
	Mode  string `json:"mode,omitempty"` // plain, before, throttle, chaos
	DLR   bool   `json:"dlr"`
	Rate  int    `json:"rate,omitempty"`
	Key   string `json:"key,omitempty"` // PEM; with Cert it speaks TLS
	Cert  string `json:"cert,omitempty"`
	Truth string `json:"truth,omitempty"`
	Seed  int    `json:"seed,omitempty"`
}

// StartSMSC starts a message centre on the loopback interface.
func StartSMSC(tb testing.TB, o SMSCOptions) *SMSC {
	tb.Helper()
	Need(tb, NodeSMPP)
	arg, err := json.Marshal(o)
	if err != nil {
		tb.Fatal(err)
	}
	s := &SMSC{Process: start(tb, "", "node", filepath.Join(here(), "smsc.js"), string(arg))}
	s.Port = s.Line("listening ")
	return s
}

// SMSCStats are what a message centre has counted.
type SMSCStats struct {
	Sessions, Submits, Accepted, Throttled, Receipts, Taken, Refused, Resets int
}

// Stats asks for them.
func (s *SMSC) Stats() (n SMSCStats) {
	s.tb.Helper()
	if _, err := fmt.Fprintln(s.stdin); err != nil {
		s.tb.Fatal(err)
	}
	if err := json.Unmarshal([]byte("{"+s.Line("{")), &n); err != nil {
		s.tb.Fatal(err)
	}
	return n
}

// Truth reads the file of SMSCOptions.Truth: how many messages to each number, in E.164 with a +, it accepted.
func Truth(tb testing.TB, file string) map[string]int {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	taken := map[string]int{}
	for line := range strings.Lines(string(b)) {
		if _, to, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok {
			taken["+"+strings.TrimPrefix(to, "+")]++
		}
	}
	return taken
}

// hammer is the client that Net::SMPP comes with.
const hammer = "/usr/share/doc/libnet-smpp-perl/examples/esme-hammer.pl"

// Hammer runs the client against a message centre: n messages, one after the other. It returns the client's output.
func Hammer(tb testing.TB, port, n int) string {
	tb.Helper()
	Need(tb, NetSMPP)
	script, err := os.ReadFile(hammer)
	if err != nil {
		tb.Fatal(err)
	}
	// Its port and numbers are constants in its source.
	text := strings.NewReplacer("$port = 9900", fmt.Sprintf("$port = %d", port), "077747772777", "393470000001", "data_coding => 9", "data_coding => 0", "$host = 'localhost'", "$host = '127.0.0.1'").Replace(string(script))
	at := filepath.Join(tb.TempDir(), "esme-hammer.pl")
	if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	out, err := exec.Command("timeout", "60", "perl", at, "34", fmt.Sprint(n)).CombinedOutput()
	if err != nil {
		tb.Fatalf("esme-hammer: %v: %s", err, out)
	}
	return string(out)
}

// Signer computes and checks signatures of callbacks with npm twilio.
type Signer struct{ *Process }

// StartSigner starts it.
func StartSigner(tb testing.TB) *Signer {
	tb.Helper()
	Need(tb, Twilio)
	s := &Signer{start(tb, "", "node", filepath.Join(here(), "twilio.js"))}
	s.Line("ready")
	return s
}

// Signed is a callback for the Signer. With Body, whose hash is in the URL, Params do not count.
type Signed struct {
	Token     string            `json:"token"`
	URL       string            `json:"url"`
	Params    map[string]string `json:"params,omitempty"`
	Body      *string           `json:"body,omitempty"`
	Signature string            `json:"signature"`
}

// Check returns the signature that npm twilio computes from URL and Params, and whether it accepts the given one.
func (s *Signer) Check(q Signed) (expected string, valid bool) {
	s.tb.Helper()
	raw, err := json.Marshal(q)
	if err != nil {
		s.tb.Fatal(err)
	}
	if _, err := fmt.Fprintf(s.stdin, "%s\n", raw); err != nil {
		s.tb.Fatal(err)
	}
	var a struct {
		Expected string
		Valid    bool
	}
	if err := json.Unmarshal([]byte("{"+s.Line("{")), &a); err != nil {
		s.tb.Fatal(err)
	}
	return a.Expected, a.Valid
}

// WhatsApp is a program that speaks to WhatsApp with npm @kapso/whatsapp-cloud-api.
type WhatsApp struct {
	*Process
	asked int
}

// StartWhatsApp starts it.
func StartWhatsApp(tb testing.TB) *WhatsApp {
	tb.Helper()
	Need(tb, Kapso)
	w := &WhatsApp{Process: start(tb, "", "node", filepath.Join(here(), "kapso.js"))}
	w.Line("ready")
	return w
}

// Ask sends one question of kapso.js, and reads the answer. Only one goroutine may ask at a time.
func (w *WhatsApp) Ask(kind string, question, answer any) {
	w.tb.Helper()
	w.asked++
	raw, err := json.Marshal(map[string]any{"id": w.asked, kind: question})
	if err != nil {
		w.tb.Fatal(err)
	}
	if _, err := fmt.Fprintf(w.stdin, "%s\n", raw); err != nil {
		w.tb.Fatal(err)
	}
	if err := json.Unmarshal([]byte(fmt.Sprintf(`{"id":%d`, w.asked)+w.Line(fmt.Sprintf(`{"id":%d`, w.asked))), answer); err != nil {
		w.tb.Fatal(err)
	}
}

// Agents returns user agents of programs and of people's browsers, as npm isbot and lists of user agents have them.
func Agents(tb testing.TB) (bots, people []string) {
	tb.Helper()
	Need(tb, Isbot)
	out, err := exec.Command("node", filepath.Join(here(), "isbot.js")).Output()
	if err != nil {
		tb.Fatal(err)
	}
	var a struct{ Bots, People []string }
	if err := json.Unmarshal(out, &a); err != nil {
		tb.Fatal(err)
	}
	return a.Bots, a.People
}
