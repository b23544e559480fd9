package httpsms_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"fanfare/deploy/testinfra/peers"
	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/httpsms"
	"fanfare/sinks/carrier/httpsms/provider"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/smpp/smsc"
)

// TestIntegrationTwilioSignatures: npm twilio accepts the signatures that our provider makes, and we accept those that
// npm twilio makes.
func TestIntegrationTwilioSignatures(t *testing.T) {
	signer := peers.StartSigner(t)
	c := open(t, httpsms.Config{Preset: "twilio", Values: map[string]httpsms.Secret{"accountSid": "AC1", "authToken": "12345"}})
	r := rand.New(rand.NewPCG(1, 1))
	letters := []rune("abc XYZ019+&=%/?#'\"\n€ж😀")
	word := func() string {
		out := make([]rune, r.IntN(12))
		for i := range out {
			out[i] = letters[r.IntN(len(letters))]
		}
		return string(out)
	}
	for n := range 300 {
		params, form := map[string]string{}, url.Values{}
		for range r.IntN(8) {
			name, value := fmt.Sprintf("P%d", r.IntN(1000)), word()
			params[name] = value
			form.Set(name, value)
		}
		address := "https://edge.example.org/api/callback/r?" + url.Values{"k": {word()}, "z": {word()}}.Encode()
		expected, _ := signer.Check(peers.Signed{Token: "12345", URL: address, Params: params})
		if got := provider.Sign("12345", address, form); got != expected {
			t.Errorf("%d: our provider signs %s, it signs %s", n, got, expected)
		}
		cb := carrier.Callback{Method: "POST", URL: address, Header: http.Header{"X-Twilio-Signature": {expected}, "Content-Type": {"application/x-www-form-urlencoded"}}, Body: []byte(form.Encode())}
		if err := c.Verify(&cb); err != nil {
			t.Errorf("%d: what it signed is refused: %v", n, err)
		}
		if _, valid := signer.Check(peers.Signed{Token: "12346", URL: address, Params: params, Signature: expected}); valid {
			t.Errorf("%d: it takes a signature of another token", n)
		}
	}
	// A JSON body is signed by its hash in the address.
	body := `{"a":"è"}`
	sum := sha256.Sum256([]byte(body))
	address := "https://edge.example.org/api/callback/r?bodySHA256=" + hex.EncodeToString(sum[:])
	signature := provider.Sign("12345", address, nil)
	if _, valid := signer.Check(peers.Signed{Token: "12345", URL: address, Body: &body, Signature: signature}); !valid {
		t.Error("it refuses our signature of a JSON body")
	}
	cb := carrier.Callback{Method: "POST", URL: address, Header: http.Header{"X-Twilio-Signature": {signature}}, Body: []byte(body)}
	if err := c.Verify(&cb); err != nil {
		t.Errorf("JSON body: %v", err)
	}
}

// TestIntegrationKannel hands 10,000 messages over to Kannel by HTTP, and Kannel hands them to our message centre by
// SMPP. Each message arrives once with its unchanged text, and each receipt arrives here by Kannel's callbacks.
func TestIntegrationKannel(t *testing.T) {
	peers.Need(t, peers.Kannel)
	const n = 10_000
	truth := filepath.Join(t.TempDir(), "carrier-sim.ndjson")
	simulator, err := sim.Open(sim.Config{Keys: testKeys(t), Profile: sim.Profile{Receipt: sim.Lognormal{P50: 50 * time.Millisecond}}, Seed: 1, Truth: truth})
	if err != nil {
		t.Fatal(err)
	}
	centre, err := smsc.New(smsc.Config{Keys: testKeys(t), Open: func(id string) (smsc.Line, error) { return simulator.Connector(sim.Options{Account: id}), nil }})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- simulator.Run(ctx) }()
	go func() { ended <- centre.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		_ = simulator.Close()
	})
	gateway := peers.StartGateway(t, peers.GatewayOptions{Port: l.Addr().(*net.TCPAddr).Port, SystemID: "kannel"})

	// This is what the endpoint does: verify, then parse.
	var (
		c        *httpsms.Connector
		mu       sync.Mutex
		receipts = map[carrier.Key]map[schemas.ReceiptStatus]int{}
	)
	endpoint := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		cb := carrier.Callback{Method: r.Method, URL: "http://" + r.Host + r.URL.RequestURI(), Header: r.Header, Body: body}
		if err := c.Verify(&cb); err != nil {
			t.Errorf("verify: %v", err)
		}
		list, _, err := c.Parse(&cb)
		if err != nil || len(list) != 1 {
			t.Errorf("parse: %v, %d receipts", err, len(list))
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if receipts[list[0].Key] == nil {
			receipts[list[0].Key] = map[schemas.ReceiptStatus]int{}
		}
		receipts[list[0].Key][list[0].Status]++
	}))
	t.Cleanup(endpoint.Close)
	c = open(t, httpsms.Config{Preset: "kannel", CallbackURL: endpoint.URL + "/api/callback/kannel", Window: 32, Values: map[string]httpsms.Secret{
		"url": httpsms.Secret(gateway.SendSMS), "username": httpsms.Secret(gateway.User), "password": httpsms.Secret(gateway.Password), "callbackSecret": "a-long-random-text",
	}})
	texts := []carrier.Text{
		{Body: "Ciao Ada", Encoding: schemas.EncodingGSM7}, {Body: "€5 {caffè} [è]", Encoding: schemas.EncodingGSM7}, {Body: `Ciao Zoë — "été" жук`, Encoding: schemas.EncodingUCS2},
	}
	var wg sync.WaitGroup
	outcomes := map[carrier.Outcome]int{}
	began := time.Now()
	for i := range n {
		out := message(t, i, "")
		out.From, out.Body.Text = "48333", texts[i%len(texts)]
		out.Body.Text.Segments = 1
		wg.Add(1)
		if err := c.Send(t.Context(), []carrier.Outbound{out}, func(_ int, r carrier.Result) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			outcomes[r.Outcome]++
		}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	handed := time.Since(began)
	deadline := time.Now().Add(60 * time.Second)
	for done := 0; done < n; time.Sleep(20 * time.Millisecond) {
		mu.Lock()
		done = 0
		for _, r := range receipts {
			if r[schemas.ReceiptStatusDelivered] > 0 {
				done++
			}
		}
		mu.Unlock()
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d receipts came", done, n)
		}
	}
	took := time.Since(began)
	entries, err := sim.ReadTruth(truth)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if outcomes[carrier.Accepted] != n || len(entries.Entries) != n || len(receipts) != n {
		t.Errorf("got outcomes %v, %d in the truth, receipts of %d, want %d of each", outcomes, len(entries.Entries), len(receipts), n)
	}
	want := map[string]bool{}
	for _, x := range texts {
		want[x.Body] = true
	}
	numbers := map[string]bool{}
	for _, e := range entries.Entries {
		if !want[e.Body] {
			t.Fatalf("Kannel made %q of a text", e.Body)
		}
		if numbers[e.To] {
			t.Errorf("a number is there twice")
		}
		numbers[e.To] = true
	}
	t.Logf("%d messages: %.0f requests/s, every receipt after %v", n, n/handed.Seconds(), took.Round(time.Millisecond))
}
