package smpp_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"fanfare/deploy/testinfra/peers"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/smpp/smsc"
)

// TestIntegrationKannel: Kannel hands 10,000 messages over to our message centre, and must get a receipt for each.
func TestIntegrationKannel(t *testing.T) {
	peers.Need(t, peers.Kannel)
	const n = 10_000
	profile := sim.Profile{Answer: sim.Lognormal{P50: time.Millisecond, P99: 5 * time.Millisecond}, Receipt: sim.Lognormal{P50: 50 * time.Millisecond}}
	peer := startPeer(t, profile, smsc.Config{})
	gateway := peers.StartGateway(t, peers.GatewayOptions{Port: peer.addr.Port, SystemID: "kannel"})

	var mu sync.Mutex
	heard := map[string]map[string]int{} // by type, then by phone number
	callbacks := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		mu.Lock()
		defer mu.Unlock()
		if heard[q.Get("type")] == nil {
			heard[q.Get("type")] = map[string]int{}
		}
		heard[q.Get("type")][q.Get("to")]++
	}))
	t.Cleanup(callbacks.Close)

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	work := make(chan int)
	var wg sync.WaitGroup
	began := time.Now()
	for range 32 {
		wg.Go(func() {
			for i := range work {
				to := fmt.Sprintf("39347%07d", i)
				q := url.Values{
					"username": {gateway.User}, "password": {gateway.Password}, "to": {"+" + to}, "from": {"48333"}, "text": {"Ciao Zoe, no. " + to}, "coding": {"0"},
					"dlr-mask": {"31"}, "dlr-url": {callbacks.URL + "/?type=%d&to=" + to},
				}
				resp, err := client.Get(gateway.SendSMS + "?" + q.Encode())
				if err != nil {
					t.Errorf("send: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					t.Errorf("send: got %s", resp.Status)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	sent := time.Since(began)
	eventually(t, "every receipt", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(heard["1"]) == n && len(heard["8"]) == n
	})
	took := time.Since(began)
	truth, err := sim.ReadTruth(peer.truth)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if truth.Outcomes()[sim.Accepted] != n || len(truth.Entries) != n || len(truth.Doubles()) > 0 || truth.Entries[0].Body[:4] != "Ciao" {
		t.Errorf("the truth has outcomes %v and %d doubles, want %d accepted and none", truth.Outcomes(), len(truth.Doubles()), n)
	}
	for _, times := range heard["1"] {
		if times != 1 {
			t.Errorf("a receipt came %d times, want 1", times)
		}
	}
	t.Logf("%d messages: %.0f requests/s, every receipt after %v", n, n/sent.Seconds(), took.Round(time.Millisecond))
}
