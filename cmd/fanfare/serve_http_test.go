//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// With 1,100 idle connections and 100 clients that do not read their answers, on a process that may have 1,024 files
// open, the API still answers, and a campaign that is confirmed meanwhile completes. The stages have the files, the
// memory and the time that they need.
func TestClientsDoNotHoldUpTheStages(t *testing.T) {
	dir, addr := t.TempDir(), freeAddr(t)
	runBinary(t, "tenants", "create", "Acme", "--region", "IT", "--data", dir)
	api := &client{base: "http://" + addr, key: runBinary(t, "keys", "create", "--tenant", "Acme", "--data", dir)}
	var readers []string // a key may make 50 requests a second
	for range 4 {
		readers = append(readers, runBinary(t, "keys", "create", "--tenant", "Acme", "--data", dir))
	}
	p := startProcess(t, "fanfare", "/bin/sh", "-c", `ulimit -n 1024; exec "$@"`, "sh", fanfareBinary(t), "serve", "--data", dir, "--http", addr,
		"--sim-rate", "1000", "--sim-profile", "fast", "--log-level", "warn")
	api.waitReady(t)
	var list struct{ ID string }
	var report struct {
		Imported int
		Rejected []struct{ Reason string }
	}
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "all"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", wideContacts(1000), &report, "text/csv")
	if report.Imported != 1000 {
		t.Fatalf("got %+v, want 1,000 imported", report)
	}

	for i := range 1200 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		if i%12 == 0 { // sends requests and does not read the answers
			request := fmt.Sprintf("GET /api/contacts?limit=1000 HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\n\r\n", readers[i/12%len(readers)])
			// the answers are larger than the buffers of the connection
			_, _ = io.WriteString(c, strings.Repeat(request, 3))
		}
	}
	var campaign struct{ ID string }
	api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
		"name": "Meanwhile", "channel": "sms", "message": "Ciao {{first_name}}", "contactList": list.ID, "sendImmediately": true,
	}, &campaign, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+campaign.ID+"/confirm", nil, nil, "")
	var stats statsAnswer
	for began := time.Now(); stats.State != "completed" || stats.Pending > 0; time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("the campaign is not completed after a minute: %+v", stats)
		}
		api.must(t, http.MethodGet, "/api/campaigns/"+campaign.ID+"/stats", nil, &stats, "")
	}
	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(p.cmd.Process.Pid), "status"))
	if err == nil {
		for s := bufio.NewScanner(strings.NewReader(string(status))); s.Scan(); {
			if strings.HasPrefix(s.Text(), "VmHWM") {
				t.Log("peak memory", strings.TrimSpace(strings.TrimPrefix(s.Text(), "VmHWM:")))
			}
		}
	}
	if stats.TotalMessages != 1000 || stats.Sent != 1000 {
		t.Errorf("got %+v, want 1,000 sent", stats)
	}
}

// wideContacts is a CSV of n contacts of about 900 bytes each.
func wideContacts(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		out := bufio.NewWriter(w)
		fmt.Fprint(out, "phone,first_name")
		for i := range 8 {
			fmt.Fprintf(out, ",attribute%d", i)
		}
		fmt.Fprintln(out)
		for i := range n {
			fmt.Fprintf(out, "+39347%07d,Name%d", i, i)
			for range 8 {
				fmt.Fprint(out, ",", strings.Repeat("x", 100))
			}
			fmt.Fprintln(out)
		}
		_ = w.CloseWithError(out.Flush())
	}()
	return r
}
