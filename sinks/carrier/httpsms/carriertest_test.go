package httpsms_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/carriertest"
	"fanfare/sinks/carrier/httpsms"
	"fanfare/sinks/carrier/httpsms/provider"
	"fanfare/sinks/carrier/sim"
)

func testKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("a key of the carriers' conformance suite"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

const token = "an auth token"

// peer is a provider with the simulator behind it.
type peer struct {
	url    string
	truth  string
	server *provider.Server
}

func startPeer(t testing.TB, profile sim.Profile) *peer {
	t.Helper()
	p := &peer{truth: filepath.Join(t.TempDir(), "carrier-sim.ndjson")}
	c, err := sim.Open(sim.Config{Keys: testKeys(t), Profile: profile, Seed: 1, Truth: p.truth})
	if err != nil {
		t.Fatal(err)
	}
	p.server, err = provider.New(provider.Config{Keys: testKeys(t), AuthToken: token, Open: func(sid string) (provider.Line, error) {
		return c.Connector(sim.Options{Account: sid}), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(p.server)
	p.url = srv.URL
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- c.Run(ctx) }()
	go func() { ended <- p.server.Run(ctx) }()
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("peer: %v", err)
			}
		}
		if err := c.Close(); err != nil {
			t.Errorf("peer: %v", err)
		}
	})
	return p
}

func (p *peer) config() httpsms.Config {
	return httpsms.Config{
		Preset: "twilio", CallbackURL: "http://127.0.0.1:1/api/callback/twilio",
		Values: map[string]httpsms.Secret{"accountSid": "AC1", "authToken": token, "baseUrl": httpsms.Secret(p.url)},
	}
}

func open(t testing.TB, cfg httpsms.Config) *httpsms.Connector {
	t.Helper()
	c, err := httpsms.New(cfg, httpsms.Deps{Account: "twilio"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if err := c.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
	})
	return c
}

// TestContract holds the connector to the contract of package carrier.
func TestContract(t *testing.T) {
	carriertest.Run(t, func(t *testing.T, p carriertest.Peer) carriertest.Subject {
		profile := sim.Profile{Answer: sim.Lognormal{P50: p.Latency}, Lost: 1}
		if p.Silent {
			profile.Silent = 1
		}
		peer := startPeer(t, profile)
		cfg := peer.config()
		cfg.Window = p.Window
		return carriertest.Subject{
			Connector: open(t, cfg),
			Again:     func() (carrier.Connector, error) { return open(t, cfg), nil },
			Seen: func() (map[carrier.Key]int, error) {
				truth, err := sim.ReadTruth(peer.truth)
				if err != nil {
					return nil, err
				}
				seen := map[carrier.Key]int{}
				for _, e := range truth.Entries {
					seen[e.Submission]++
				}
				return seen, nil
			},
		}
	})
}

// message returns one message.
func message(t testing.TB, seq int, body string) carrier.Outbound {
	t.Helper()
	return carrier.Outbound{
		Key: testKeys(t).Submission(10001, uint32(seq), 1), Channel: schemas.ChannelSMS, To: fmt.Sprintf("+39347%07d", seq), From: "FANFARE",
		Body: carrier.Body{Text: carrier.Text{Body: body, Encoding: schemas.EncodingGSM7, Segments: 1}},
	}
}

// hand hands a batch over and waits for its answers.
func hand(t testing.TB, c carrier.Connector, batch ...carrier.Outbound) []carrier.Result {
	t.Helper()
	out := make([]carrier.Result, len(batch))
	done := make(chan int, len(batch))
	if err := c.Send(t.Context(), batch, func(i int, r carrier.Result) {
		out[i] = r
		done <- i
	}); err != nil {
		t.Fatal(err)
	}
	for range batch {
		<-done
	}
	return out
}
