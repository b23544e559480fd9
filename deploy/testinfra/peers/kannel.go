package peers

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Gateway is Kannel: bearerbox, which is a client of a message centre, and smsbox, which takes messages over HTTP and
// reports their results by calling URLs.
type Gateway struct {
	// SendSMS is the URL that accepts messages, without its query; the query must have User and Password.
	SendSMS, User, Password string
	admin                   string
}

// GatewayOptions say how Kannel is bound to its message centre.
type GatewayOptions struct {
	Port     int
	SystemID string
	// Window is the most submit_sm without an answer; 0: 100.
	Window int
}

// freePort finds a free port. Another process may take it before it is used; then the test fails and says so.
func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// StartGateway starts Kannel and waits until it is bound.
func StartGateway(tb testing.TB, o GatewayOptions) *Gateway {
	tb.Helper()
	Need(tb, Kannel)
	if o.Window == 0 {
		o.Window = 100
	}
	dir := tb.TempDir()
	admin, box, send := freePort(tb), freePort(tb), freePort(tb)
	conf := fmt.Sprintf(`group = core
admin-port = %d
admin-interface = 127.0.0.1
admin-password = secret
smsbox-port = %d
smsbox-interface = 127.0.0.1
box-allow-ip = 127.0.0.1
dlr-storage = internal
log-level = 2

group = smsc
smsc = smpp
smsc-id = centre
host = 127.0.0.1
port = %d
transceiver-mode = true
smsc-username = %s
smsc-password = secret
system-type = ""
max-pending-submits = %d
enquire-link-interval = 30
reconnect-delay = 1

group = smsbox
bearerbox-host = 127.0.0.1
smsbox-id = box
sendsms-port = %d
sendsms-interface = 127.0.0.1
global-sender = 48333
log-level = 2

group = sendsms-user
username = fanfare
password = secret
max-messages = 20
concatenation = true
`, admin, box, o.Port, o.SystemID, o.Window, send)
	at := filepath.Join(dir, "kannel.conf")
	if err := os.WriteFile(at, []byte(conf), 0o600); err != nil {
		tb.Fatal(err)
	}
	start(tb, dir, sbin("bearerbox"), "-v", "2", at)
	g := &Gateway{
		SendSMS: "http://127.0.0.1:" + strconv.Itoa(send) + "/cgi-bin/sendsms", User: "fanfare", Password: "secret",
		admin: "http://127.0.0.1:" + strconv.Itoa(admin) + "/status.txt?password=secret",
	}
	g.wait(tb, "a bearerbox", "centre")
	start(tb, dir, sbin("smsbox"), "-v", "2", at)
	g.wait(tb, "a smsbox on line", "smsbox:box")
	g.wait(tb, "a session with the message centre", "(online")
	return g
}

func sbin(name string) string {
	if at := "/usr/sbin/" + name; exists(at) {
		return at
	}
	return name
}

// Status returns the text of Kannel's status page.
func (g *Gateway) Status() (string, error) {
	resp, err := http.Get(g.admin)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return string(b), err
}

// wait waits until the status page has a word.
func (g *Gateway) wait(tb testing.TB, what, word string) {
	tb.Helper()
	var status string
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C {
		var err error
		if status, err = g.Status(); err == nil && strings.Contains(status, word) {
			return
		}
	}
	tb.Fatalf("waited 30 s for %s; its status is:\n%s", what, status)
}
