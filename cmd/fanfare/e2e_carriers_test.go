package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Of each campaign of TestEndToEndCarriers.
const (
	carrierPeople = 1500
	carrierRate   = 500
)

// A campaign by SMPP, one by HTTP, one by WhatsApp and one by RCS, to a carrier in a process of its own. Fanfare is
// killed with kill -9 in the middle of each. By the carrier's own record no recipient got the message again, unless the
// carrier had said that it could not deliver the first one; each recipient without a message is named: not sent, or
// ambiguous (P2, P3). Receipts come back on the SMPP session, and by callbacks that are signed.
func TestEndToEndCarriers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute; left out by -short")
	}
	const idKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	dir, addr, smpp, web, graph, rbm := t.TempDir(), freeAddr(t), freeAddr(t), freeAddr(t), freeAddr(t), freeAddr(t)
	account := filepath.Join(dir, "service-account.json")
	truth := &truthFile{path: filepath.Join(dir, "truth.ndjson")}
	startProcess(t, "carriersim", filepath.Join(filepath.Dir(fanfareBinary(t)), "carriersim"),
		"--id-key", idKey, "--truth", truth.path, "--smpp", smpp, "--http-sms", web, "--http-sms-token", "s3cret-token",
		"--graph", graph, "--graph-token", "s3cret-bearer", "--graph-app-secret", "s3cret-app", "--graph-verify-token", "s3cret-word", "--graph-webhook", "http://"+addr+"/api/callback/wa",
		"--rbm", rbm, "--rbm-account", account, "--rbm-client-token", "s3cret-client", "--rbm-webhook", "http://"+addr+"/api/callback/rcs")
	waitListening(t, smpp, web, graph, rbm)
	key, err := os.ReadFile(account)
	if err != nil {
		t.Fatal(err)
	}

	host, port, err := net.SplitHostPort(smpp)
	if err != nil {
		t.Fatal(err)
	}
	routes := filepath.Join(dir, "routes.yaml")
	file := fmt.Sprintf(`routes:
  - name: smsc
    connector: smpp
    rate: %[1]d
    receiptWindow: 3600
    configuration: {host: %[2]s, port: %[3]s, systemId: acme, reconnectMin: 50ms}
    credentials: {password: s3cret}
  - name: web
    connector: httpsms
    rate: %[1]d
    receiptWindow: 3600
    configuration: {preset: twilio, callbackUrl: "http://%[4]s/api/callback/web"}
    credentials: {values: {accountSid: AC1, authToken: s3cret-token, baseUrl: "http://%[5]s"}}
  - name: wa
    connector: whatsapp
    rate: %[1]d
    receiptWindow: 3600
    configuration: {phoneNumberId: "106540352242922", baseUrl: "http://%[6]s"}
    credentials: {accessToken: s3cret-bearer, appSecret: s3cret-app, verifyToken: s3cret-word}
  - name: rcs
    connector: rcs
    rate: %[1]d
    receiptWindow: 3600
    configuration: {agentId: acme_agent, baseUrl: "http://%[7]s", tokenUrl: "http://%[7]s/token", capabilities: true}
    credentials: {clientToken: s3cret-client, serviceAccount: %[8]q}
`, carrierRate, host, port, addr, web, graph, rbm, key)
	if err := os.WriteFile(routes, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	runBinary(t, "tenants", "create", "Acme", "--data", data)
	api := &client{base: "http://" + addr, key: runBinary(t, "keys", "create", "--tenant", "Acme", "--data", data, "--scope", "read,campaigns,confirm,contacts,send,admin")}
	proc := startProcess(t, "fanfare", fanfareBinary(t), "serve", "--data", data, "--http", addr, "--id-key", idKey, "--route-file", routes, "--log-level", "warn")
	api.waitReady(t)

	type o = map[string]any
	var template, card struct{ ID string }
	api.must(t, http.MethodPost, "/api/channels", o{"name": "Acme on WhatsApp", "channel": "whatsapp", "address": "+390612345678"}, nil, "")
	api.must(t, http.MethodPost, "/api/templates", o{"name": "order_shipped", "channel": "whatsapp", "language": "it", "body": "Ciao {{1}}"}, &template, "")
	api.must(t, http.MethodPost, "/api/templates/"+template.ID+"/approve", nil, nil, "")
	api.must(t, http.MethodPost, "/api/agents", o{"name": "Acme Agent", "providerId": "acme_agent"}, nil, "")
	api.must(t, http.MethodPost, "/api/templates", o{"name": "Card", "channel": "rcs", "type": "rich_card", "body": "Hi {{name}}", "header": o{"type": "image", "url": "https://example.com/a.png"}}, &card, "")
	api.must(t, http.MethodPost, "/api/templates/"+card.ID+"/approve", nil, nil, "")

	campaigns := map[string]o{
		"smsc": {"channel": "sms", "message": "Hello"}, "web": {"channel": "sms", "message": "Hello"},
		"wa":  {"channel": "whatsapp", "message": "order_shipped", "parameters": o{"1": "{{name}}"}},
		"rcs": {"channel": "rcs", "message": "Card"},
	}
	for i, route := range []string{"smsc", "web", "wa", "rcs"} {
		t.Run(route, func(t *testing.T) {
			var csv bytes.Buffer
			csv.WriteString("phone,name\n")
			prefix := fmt.Sprintf("+39340%d", i)
			for n := range carrierPeople {
				fmt.Fprintf(&csv, "%s%06d,Anna\n", prefix, n)
			}
			var list, made struct{ ID string }
			api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": route}, &list, "")
			api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", bytes.NewReader(csv.Bytes()), nil, "text/csv")
			campaign := campaigns[route]
			campaign["name"], campaign["contactList"], campaign["sendImmediately"], campaign["route"] = route, list.ID, true, route
			api.must(t, http.MethodPost, "/api/campaigns", campaign, &made, "")
			api.must(t, http.MethodPut, "/api/campaigns/"+made.ID+"/confirm", nil, nil, "")

			before := acceptedBy(t, truth, prefix)
			for before < carrierPeople/3 {
				time.Sleep(20 * time.Millisecond)
				if t.Context().Err() != nil {
					t.Fatal("the campaign does not start")
				}
				before = acceptedBy(t, truth, prefix)
			}
			proc.kill()
			proc.start()
			api.waitReady(t)

			var stats statsAnswer
			for deadline := time.Now().Add(8 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
				api.must(t, http.MethodGet, "/api/campaigns/"+made.ID+"/stats", nil, &stats, "")
				// Receipts come back, too
				if stats.State == "completed" && stats.Pending == 0 && stats.Delivered >= carrierPeople/2 {
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
			missing := 0
			for n := range carrierPeople {
				to := fmt.Sprintf("%s%06d", prefix, n)
				tries := taken[to]
				if len(tries) == 0 {
					missing++
					continue
				}
				for i, try := range tries[1:] {
					// A next try is right only when the carrier had said that the one before failed
					if !tries[i].failedBefore(try.Time) {
						t.Errorf("%s got the message twice", to)
						explainTwice(t, api, made.ID, n, tries)
						break
					}
				}
			}
			if stats.TotalMessages != carrierPeople || missing > stats.Ambiguous+stats.NotSent {
				t.Errorf("the carrier did not get %d of %d: want each of them not sent or ambiguous: %+v", missing, carrierPeople, stats)
			}
			// P6: the stored statistics equal those that are counted again from the log while the process runs.
			// Receipts may still come between the two counts.
			for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
				out, err := exec.Command(fanfareBinary(t), "rebuild", "--data", data, "--id-key", idKey, "--campaign", made.ID).CombinedOutput()
				if err == nil && strings.Contains(string(out), "Identical: 1 campaigns.") {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("rebuild: got %v\n%s", err, out)
				}
			}
			t.Logf("killed after %d of %d; at the carrier %d; %+v", before, carrierPeople, carrierPeople-missing, stats)
		})
	}
}

// carrierSubmission is a message that the carrier accepted, from its own record.
type carrierSubmission struct {
	submission
	Receipts []struct {
		Status string    `json:"status"`
		Time   time.Time `json:"time"`
	} `json:"receipts"`
}

// failedBefore reports whether the carrier had said by then that it could not deliver the message.
func (s *carrierSubmission) failedBefore(then time.Time) bool {
	for _, r := range s.Receipts {
		if r.Status == "failed" && r.Time.Before(then) {
			return true
		}
	}
	return false
}

// explainTwice logs the entries of the n-th recipient in the carrier's record and in Fanfare's events.
func explainTwice(t *testing.T, api *client, campaign string, n int, tries []carrierSubmission) {
	t.Helper()
	var member json.RawMessage
	_, err := api.call(t.Context(), http.MethodGet, fmt.Sprintf("/api/campaigns/%s/members/%d", campaign, n), nil, &member, "")
	t.Logf("at the carrier: %+v; member (%v): %s", tries, err, member)
}

// acceptedBy returns how many numbers that begin with prefix the carrier has accepted so far.
func acceptedBy(t *testing.T, f *truthFile, prefix string) int {
	t.Helper()
	if _, err := f.read(); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for to := range f.accepted {
		if strings.HasPrefix(to, prefix) {
			n++
		}
	}
	return n
}

// acceptances returns the messages to each number that the carrier has accepted, in order.
func acceptances(t *testing.T, path, prefix string) map[string][]carrierSubmission {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := map[string][]carrierSubmission{}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var s carrierSubmission
		if json.Unmarshal(lines.Bytes(), &s) == nil && s.accepted() && strings.HasPrefix(s.To, prefix) {
			out[s.To] = append(out[s.To], s)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// waitListening waits until each address accepts connections.
func waitListening(t *testing.T, addrs ...string) {
	t.Helper()
	for _, addr := range addrs {
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			conn, err := net.DialTimeout("tcp", addr, time.Second)
			if err == nil {
				_ = conn.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
}
