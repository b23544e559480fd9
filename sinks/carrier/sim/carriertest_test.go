package sim

import (
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/carriertest"
)

// peerProfile is a profile that does what the suite asks for.
func peerProfile(p carriertest.Peer, base Profile) Profile {
	base.Answer = Lognormal{P50: p.Latency}
	if p.Silent {
		base.Silent = 1
		base.Lost = 1
	}
	if !p.Receipts {
		base.Lost = 1
	}
	return base
}

func subject(t *testing.T, c *Carrier, truth string, open func() (carrier.Connector, error)) carriertest.Subject {
	t.Helper()
	connector, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return carriertest.Subject{
		Connector: connector,
		Again:     open,
		Seen: func() (map[carrier.Key]int, error) {
			tr, err := ReadTruth(truth)
			if err != nil {
				return nil, err
			}
			seen, n := map[carrier.Key]int{}, 0
			for _, e := range tr.Entries {
				if e.Outcome != Duplicate {
					seen[e.Submission]++
					n++
				}
			}
			if n > 0 && c.Stats().Submissions[Accepted] != uint64(n) {
				t.Errorf("got %d accepted in the statistics, want %d as in the truth", c.Stats().Submissions[Accepted], n)
			}
			return seen, nil
		},
	}
}

// conformance are the profiles in which a connector behaves differently.
var conformance = map[string]Profile{
	"plain":           {},
	"hides our id":    {HidesKey: true, Ref: RefMixed},
	"key header":      {Doubt: carrier.DoubtKeyHeader},
	"query":           {Doubt: carrier.DoubtQuery},
	"natural id":      {Doubt: carrier.DoubtNaturalID, Ref: RefUUID},
	"receipt is soon": {Receipt: Lognormal{P50: 20 * time.Millisecond}, Ref: RefHex},
}

// TestConnector holds the connector in process to the contract of package carrier.
func TestConnector(t *testing.T) {
	for name, base := range conformance {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			carriertest.Run(t, func(t *testing.T, p carriertest.Peer) carriertest.Subject {
				truth := filepath.Join(t.TempDir(), "carrier-sim.ndjson")
				c := start(t, Config{Profile: peerProfile(p, base), Seed: 1, Truth: truth})
				return subject(t, c, truth, func() (carrier.Connector, error) {
					return c.Connector(Options{Window: p.Window}), nil
				})
			})
		})
	}
}

// TestClient holds the connector to another process to the same contract.
func TestClient(t *testing.T) {
	for name, base := range conformance {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			carriertest.Run(t, func(t *testing.T, p carriertest.Peer) carriertest.Subject {
				truth := filepath.Join(t.TempDir(), "carrier-sim.ndjson")
				c := start(t, Config{Profile: peerProfile(p, base), Seed: 1, Truth: truth})
				srv := httptest.NewServer(NewHandler(c))
				t.Cleanup(srv.Close)
				t.Cleanup(func() { _ = c.Close() }) // ends what is held open
				return subject(t, c, truth, func() (carrier.Connector, error) {
					return Dial(t.Context(), srv.URL, Options{Window: p.Window})
				})
			})
		})
	}
}
