package smpp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/deploy/testinfra/peers"
	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/smpp"
	"fanfare/sinks/carrier/smpp/smsc"
)

// certificate creates a certificate for the loopback address, and its key.
func certificate(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "smsc"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// load collects the results and the receipts of many messages.
type load struct {
	mu       sync.Mutex
	outcomes map[carrier.Outcome]int
	refs     map[string]string // phone number, by the message centre's id
	results  map[string]carrier.Outcome
	receipts map[string]int // by phone number
}

// run hands over n messages, each to another number, and repeats those that are throttled if again is set.
func (l *load) run(t testing.TB, c *smpp.Connector, n, batchSize int, again bool) {
	t.Helper()
	l.outcomes, l.refs, l.results, l.receipts = map[carrier.Outcome]int{}, map[string]string{}, map[string]carrier.Outcome{}, map[string]int{}
	todo := make(chan int, n)
	for i := range n {
		todo <- i
	}
	left := n
	done := make(chan struct{})
	body := strings.Repeat("Ciao Ada, il tuo ordine parte oggi. ", 3)[:77]
	send := func(batch []carrier.Outbound) {
		numbers := make([]int, len(batch))
		for i := range batch {
			numbers[i], _ = strconv.Atoi(batch[i].To[6:])
		}
		err := c.Send(t.Context(), batch, func(i int, r carrier.Result) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.outcomes[r.Outcome]++
			to := fmt.Sprintf("+39347%07d", numbers[i])
			if again && (r.Outcome == carrier.Throttled || r.Outcome == carrier.Retryable) {
				todo <- numbers[i]
				return
			}
			l.results[to] = r.Outcome
			if r.Outcome == carrier.Accepted {
				l.refs[r.Ref] = to
			}
			if left--; left == 0 {
				close(done)
			}
		})
		if err != nil {
			t.Errorf("send: %v", err)
		}
	}
	keys := testKeys(t)
	for {
		batch := make([]carrier.Outbound, 0, batchSize)
		select {
		case i := <-todo:
			for {
				batch = append(batch, carrier.Outbound{
					Key: keys.Submission(10001, uint32(i), 1), Channel: schemas.ChannelSMS, To: fmt.Sprintf("+39347%07d", i), From: "FANFARE",
					Body: carrier.Body{Text: carrier.Text{Body: body, Encoding: schemas.EncodingGSM7, Segments: 1}},
				})
				if len(batch) == batchSize {
					break
				}
				select {
				case i = <-todo:
					continue
				default:
				}
				break
			}
			send(batch)
		case <-done:
			return
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// take takes receipts in the background.
func (l *load) take(t *testing.T, c *smpp.Connector) {
	rec := receipts(t, c)
	go func() {
		for r := range rec {
			l.mu.Lock()
			l.receipts[r.To]++
			l.mu.Unlock()
		}
	}()
}

// eventually waits until f returns true.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

// TestIntegrationNodeSMPP runs against a message centre that we did not write, in each of its modes. Every message must
// have a result. No message may be accepted twice, no accepted message may be reported as not accepted, and every
// receipt must come.
func TestIntegrationNodeSMPP(t *testing.T) {
	peers.Need(t, peers.NodeSMPP)
	cert, key := certificate(t)
	for _, tc := range []struct {
		name string
		n    int
		peer peers.SMSCOptions
		cfg  smpp.Config
	}{
		{"plain", 10_000, peers.SMSCOptions{}, smpp.Config{Window: 100}},
		{"receipt before the answer", 10_000, peers.SMSCOptions{Mode: "before"}, smpp.Config{Window: 100}},
		{"four sessions for each way", 10_000, peers.SMSCOptions{}, smpp.Config{Window: 50, Binds: 4, Split: true}},
		{"TLS", 10_000, peers.SMSCOptions{Key: key, Cert: cert}, smpp.Config{Window: 100, TLS: &smpp.TLS{CA: cert}}},
		{"throttled to 1,000 a second", 4_000, peers.SMSCOptions{Mode: "throttle", Rate: 1000}, smpp.Config{Window: 50}},
		{"paced below its limit", 3_000, peers.SMSCOptions{Mode: "throttle", Rate: 1000}, smpp.Config{Window: 50, Throughput: 990}},
		{"chaos", 4_000, peers.SMSCOptions{Mode: "chaos"}, smpp.Config{Window: 50, Binds: 2, ReconnectMin: smpp.Duration(20 * time.Millisecond), ReconnectMax: smpp.Duration(100 * time.Millisecond)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.peer.DLR, tc.peer.Truth = true, filepath.Join(t.TempDir(), "truth")
			centre := peers.StartSMSC(t, tc.peer)
			cfg := tc.cfg
			cfg.Host, cfg.SystemID, cfg.Password = "127.0.0.1", "fanfare", "secret"
			cfg.Port, _ = strconv.Atoi(centre.Port)
			c := dial(t, cfg)
			var l load
			l.take(t, c)
			began := time.Now()
			l.run(t, c, tc.n, 50, true)
			took := time.Since(began)
			stats := centre.Stats()
			if tc.peer.Mode != "chaos" {
				eventually(t, "every receipt", func() bool {
					l.mu.Lock()
					defer l.mu.Unlock()
					return len(l.receipts) == tc.n
				})
				eventually(t, "every receipt's answer", func() bool { return centre.Stats().Taken == tc.n })
				stats = centre.Stats()
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			taken := peers.Truth(t, tc.peer.Truth)
			doubtful := 0
			for to, outcome := range l.results {
				switch n := taken[to]; {
				case n > 1:
					t.Errorf("a number was taken %d times", n)
				case outcome == carrier.Accepted && n != 1, outcome == carrier.Rejected:
					t.Errorf("%v, and taken %d times", outcome, n)
				case outcome == carrier.Unknown:
					doubtful += n
				}
			}
			if tc.peer.Mode == "chaos" {
				if l.outcomes[carrier.Unknown] == 0 || stats.Resets == 0 {
					t.Errorf("got outcomes %v with %d resets, want doubt: else nothing is shown", l.outcomes, stats.Resets)
				}
			} else if l.results == nil || len(taken) != tc.n || stats.Refused != 0 {
				t.Errorf("the message centre has %d messages, and %d receipts were refused, want %d and none", len(taken), stats.Refused, tc.n)
			}
			if tc.cfg.Throughput > 0 && l.outcomes[carrier.Throttled] > 0 {
				t.Errorf("paced below the limit: got %d throttled, want none", l.outcomes[carrier.Throttled])
			}
			t.Logf("%d messages in %v (%.0f/s), outcomes %v, of the doubtful %d were taken, throttled %d, resets %d",
				tc.n, took.Round(time.Millisecond), float64(tc.n)/took.Seconds(), maps.Collect(maps.All(l.outcomes)), doubtful, stats.Throttled, stats.Resets)
		})
	}
	t.Run("wrong password", func(t *testing.T) {
		centre := peers.StartSMSC(t, peers.SMSCOptions{})
		port, _ := strconv.Atoi(centre.Port)
		_, err := smpp.Dial(t.Context(), smpp.Config{Host: "127.0.0.1", Port: port, SystemID: "fanfare", Password: "wrong"}, smpp.Deps{})
		if err == nil || !strings.Contains(err.Error(), "ESME_RINVPASWD") {
			t.Errorf("got %v, want the refusal", err)
		}
	})
}

// TestIntegrationHammer: a client that we did not write hands messages over to our message centre.
func TestIntegrationHammer(t *testing.T) {
	peers.Need(t, peers.NetSMPP)
	peer := startPeer(t, sim.Profile{}, smsc.Config{})
	const n = 2000
	began := time.Now()
	said := peers.Hammer(t, peer.addr.Port, n)
	took := time.Since(began)
	if !strings.Contains(said, "Done.") {
		t.Errorf("esme-hammer said:\n%s", said)
	}
	truth, err := sim.ReadTruth(peer.truth)
	if err != nil {
		t.Fatal(err)
	}
	if got := truth.Outcomes()[sim.Accepted]; got != n {
		t.Errorf("got %v messages, want %d accepted", truth.Outcomes(), n)
	}
	if len(truth.Doubles()) > 0 || len(truth.Entries) > 0 && truth.Entries[0].Body != "Hello" {
		t.Errorf("got %d doubles, first body %q, want none, Hello", len(truth.Doubles()), truth.Entries[0].Body)
	}
	t.Logf("%d messages in %v (%.0f/s, one at a time)", n, took.Round(time.Millisecond), n/took.Seconds())
}
