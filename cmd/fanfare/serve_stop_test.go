package main

import (
	"bufio"
	"context"
	"database/sql"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/store"
	"fanfare/schemas"
)

// A stop in the middle of a campaign leaves no message uncertain, even while a browser shows the live page and an
// import hangs. The stop cuts both off and uses the rest of its time for the messages in flight.
func TestStopDoesNotWaitForStreams(t *testing.T) {
	addr := freeAddr(t)
	w := newWiring(testConfig(t, func(c *Config) { c.HTTP, c.SimRate, c.SimProfile = addr, 500, "default" }), slog.New(slog.DiscardHandler))
	defer w.close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stalled, body := io.Pipe()
	defer body.Close()
	began := time.Now()
	served := serveReady(ctx, t, w)
	streams := openStreams(t, w, "http://"+addr, stalled)
	_, _ = io.WriteString(body, "phone\n+393331234567\n")
	time.Sleep(300 * time.Millisecond) // both streams are open by now; if one is not, the stop only has less to end
	interrupt()
	err := <-served
	if err != nil {
		t.Errorf("got %v, want a clean stop", err)
	}
	if remains := strings.Join(w.remains, "; "); !strings.Contains(remains, "uncertain: none") || !strings.Contains(remains, "campaigns under way: 1") {
		t.Errorf("got %q, want nothing uncertain and one campaign under way", remains)
	}
	t.Logf("%s after %s", strings.Join(w.remains, "; "), time.Since(began).Round(time.Millisecond))
	_ = body.Close() // Go's HTTP client waits for this
	for what, ended := range streams {
		select {
		case err := <-ended:
			t.Logf("%s ended: %v", what, err)
		case <-time.After(2 * time.Second):
			t.Errorf("%s continues after the stop", what)
		}
	}
}

// serveReady runs the roles of w and returns once they are ready; what serve returns comes later.
func serveReady(ctx context.Context, t *testing.T, w *wiring) (served chan error) {
	t.Helper()
	ready := make(chan struct{})
	served = make(chan error, 1)
	go func() { served <- w.serve(ctx, func(context.Context) error { close(ready); return nil }) }()
	select {
	case <-ready:
	case err := <-served:
		t.Fatal(err)
	}
	return served
}

// openStreams starts a campaign, opens the live page, and starts an import that reads body. Each channel gets the error
// with which its stream ends.
func openStreams(t *testing.T, w *wiring, base string, body io.Reader) map[string]chan error {
	tenant, err := w.store.CreateTenant(t.Context(), store.TenantSpec{Name: "Acme", Region: "IT"})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := w.store.CreateKey(t.Context(), tenant.ID, "", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	api := &client{base: base, key: key}
	runningCampaign(t, api, 5000)
	jar, _ := cookiejar.New(nil)
	page := &http.Client{Jar: jar}
	link, err := demoLogin(t.Context(), w.store, base)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := page.Post(link, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp, err = page.Get(base + "/live/campaigns"); err != nil {
		t.Fatal(err)
	}
	stream := bufio.NewReader(resp.Body)
	if _, err := stream.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	streams := map[string]chan error{"the live page": make(chan error, 1), "the import": make(chan error, 1)}
	go func() {
		_, err := io.Copy(io.Discard, stream)
		_ = resp.Body.Close()
		streams["the live page"] <- err
	}()
	go func() {
		_, err := api.call(t.Context(), http.MethodPost, "/api/contacts/list/everybody/import", body, nil, "text/csv")
		streams["the import"] <- err
	}()
	return streams
}

// runningCampaign starts a campaign to n people and returns once some messages are handed over.
func runningCampaign(t testing.TB, api *client, n int) (id string) {
	t.Helper()
	var list, campaign struct {
		ID string `json:"id"`
	}
	api.must(t, http.MethodPost, "/api/contacts/list", map[string]any{"name": "everybody"}, &list, "")
	api.must(t, http.MethodPost, "/api/contacts/list/"+list.ID+"/import", italians(n), nil, "text/csv")
	api.must(t, http.MethodPost, "/api/campaigns", map[string]any{
		"name": "Running", "channel": "sms", "message": "Ciao {{first_name}}", "contactList": list.ID, "sendImmediately": true,
	}, &campaign, "")
	api.must(t, http.MethodPut, "/api/campaigns/"+campaign.ID+"/confirm", nil, nil, "")
	for range 1200 {
		var stats statsAnswer
		if api.must(t, http.MethodGet, "/api/campaigns/"+campaign.ID+"/stats", nil, &stats, ""); stats.Sent > 0 {
			return campaign.ID
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("nothing was sent within a minute")
	return ""
}

// The API reads opt-outs from the topic, as senders do. In this test the store has no opt-out.
func TestAPIKnowsOptOutsFromTheLog(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	w := newWiring(testConfig(t, func(c *Config) { c.HTTP = addr }), slog.New(slog.DiscardHandler))
	defer w.close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	served := serveReady(ctx, t, w)
	tenant, err := w.store.CreateTenant(ctx, store.TenantSpec{Name: "Acme", Region: "IT"})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := w.store.CreateKey(ctx, tenant.ID, "", nil, false)
	if err != nil {
		t.Fatal(err)
	}
	const number = "+393331234567"
	record := &kgo.Record{Topic: w.names.Suppressions(), Key: []byte(schemas.SuppressionKey(tenant.ID, w.keys.NumberHash(tenant.ID, number))), Value: []byte{0}}
	if err := w.ops.ProduceSync(ctx, record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	api := &client{base: "http://" + addr, key: key}
	for range 100 {
		_, err = api.call(ctx, http.MethodPost, "/api/message-server/sms/send", map[string]any{"phoneNumber": number, "message": "m"}, nil, "")
		if err != nil && strings.Contains(err.Error(), "opted_out") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err == nil || !strings.Contains(err.Error(), "opted_out") {
		t.Errorf("got %v, want opted_out", err)
	}
	interrupt()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// A process with the store removes expired data from it: here an old idempotency key.
func TestServeCollects(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, func(c *Config) { c.HTTP = freeAddr(t) })
	w := newWiring(cfg, slog.New(slog.DiscardHandler))
	defer w.close()
	if err := w.openStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(cfg.Data, "store.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(t.Context(), `INSERT INTO idempotency (tenant, route, key, body_hash, token, done, status, response, reserved, created_ms, updated_ms)
		VALUES ('tn_a', 'POST /x', 'k', x'00', 1, TRUE, 200, NULL, NULL, 1, 1)`)
	if err != nil {
		t.Fatal(err)
	}
	served := newWiring(cfg, slog.New(slog.DiscardHandler))
	defer served.close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	done := serveReady(ctx, t, served)
	left := 1
	for began := time.Now(); left > 0 && time.Since(began) < 30*time.Second; time.Sleep(20 * time.Millisecond) {
		if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM idempotency").Scan(&left); err != nil {
			t.Fatal(err)
		}
	}
	if left > 0 {
		t.Errorf("got %d expired keys after half a minute, want none", left)
	}
	interrupt()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
