package smpp_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/carriertest"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/smpp"
	"fanfare/sinks/carrier/smpp/smsc"
)

// suiteKeys are the keys of the conformance suite.
func suiteKeys(t testing.TB) *schemas.Keys {
	t.Helper()
	keys, err := schemas.NewKeys([]byte("a key of the carriers' conformance suite"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// peer is a message centre with the simulator behind it.
type peer struct {
	addr    *net.TCPAddr
	carrier *sim.Carrier
	server  *smsc.Server
	truth   string
	stop    func()
}

// startPeer starts a message centre on the loopback interface. It ends with the test.
func startPeer(t testing.TB, profile sim.Profile, cfg smsc.Config) *peer {
	t.Helper()
	p := &peer{truth: filepath.Join(t.TempDir(), "carrier-sim.ndjson")}
	cfg.Keys = suiteKeys(t)
	var err error
	if p.carrier, err = sim.Open(sim.Config{Keys: cfg.Keys, Profile: profile, Seed: 1, Truth: p.truth}); err != nil {
		t.Fatal(err)
	}
	cfg.Open = func(systemID string) (smsc.Line, error) {
		return p.carrier.Connector(sim.Options{Account: systemID}), nil
	}
	if p.server, err = smsc.New(cfg); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().(*net.TCPAddr)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- p.carrier.Run(ctx) }()
	go func() { ended <- p.server.Serve(ctx, l) }()
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("peer: %v", err)
			}
		}
		if err := p.carrier.Close(); err != nil {
			t.Errorf("peer: %v", err)
		}
	}
	t.Cleanup(p.stop)
	return p
}

// config returns the configuration of an account at the peer.
func (p *peer) config() smpp.Config {
	return smpp.Config{Host: "127.0.0.1", Port: p.addr.Port, SystemID: "fanfare", Password: "secret", ReferenceTLV: uint16(smsc.DefaultReferenceTLV)}
}

// dial opens a connector that is drained when the test ends.
func dial(t testing.TB, cfg smpp.Config) *smpp.Connector {
	t.Helper()
	c, err := tryDial(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryDial(t testing.TB, cfg smpp.Config) (*smpp.Connector, error) {
	c, err := smpp.Dial(t.Context(), cfg, smpp.Deps{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := c.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
	})
	return c, nil
}

// TestContract holds the connector to the contract of package carrier: as a transceiver, with one session for each
// direction, and with receipts in the spellings that message centres use.
func TestContract(t *testing.T) {
	for name, tc := range map[string]struct {
		quirks smsc.Config
		cfg    func(*smpp.Config)
	}{
		"transceiver":                  {},
		"transmitter and receiver":     {cfg: func(c *smpp.Config) { c.Split = true }},
		"our id is echoed":             {quirks: smsc.Config{Echo: true}, cfg: func(c *smpp.Config) { c.ReferenceEchoed = true }},
		"hexadecimal and decimal":      {quirks: smsc.Config{Quirks: smsc.Quirks{IDs: smsc.Hex, ReceiptTLVIDs: smsc.Zeros, NoNUL: true}}},
		"text only, ids with zeros":    {quirks: smsc.Config{Quirks: smsc.Quirks{Form: smsc.TextOnly, ReceiptIDs: smsc.HexUpper, Unmarked: true}}},
		"parameters only, not marked":  {quirks: smsc.Config{Quirks: smsc.Quirks{Form: smsc.TLVsOnly, Unmarked: true}}},
		"a list, ids once per session": {quirks: smsc.Config{Quirks: smsc.Quirks{Form: smsc.CSV, PerSession: true}}, cfg: func(c *smpp.Config) { c.ReceiptFields, c.IDs = []string{"id", "stat", "err", "done"}, "same" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			carriertest.Run(t, func(t *testing.T, p carriertest.Peer) carriertest.Subject {
				profile := sim.Profile{Answer: sim.Lognormal{P50: p.Latency}}
				if p.Silent {
					profile.Silent, profile.Lost = 1, 1
				}
				if !p.Receipts {
					profile.Lost = 1
				}
				peer := startPeer(t, profile, tc.quirks)
				cfg := peer.config()
				cfg.Window = p.Window
				if tc.cfg != nil {
					tc.cfg(&cfg)
				}
				return carriertest.Subject{
					Connector: dial(t, cfg),
					Again:     func() (carrier.Connector, error) { return tryDial(t, cfg) },
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
		})
	}
}
