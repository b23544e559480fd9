package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/smpp"
	"fanfare/sinks/carrier/smpp/smsc"
)

// TestKillSMPP kills the process again and again while a client submits short and long texts by SMPP. The truth has
// every message that the process answered once, and none that it certainly did not accept. In the end the client gets
// every receipt that the truth owes, one for each part, also the receipts that an earlier process owed.
func TestKillSMPP(t *testing.T) {
	truth := filepath.Join(t.TempDir(), "carrier-sim.ndjson")
	args := []string{"--truth", truth, "--profile", "fast", "--smpp-quirks", "ids=hex,receipt-ids=zeros,receipts=text", "--smpp"}
	p := startProcess(t, append(args, "127.0.0.1:0")...)
	address := p.smpp
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	cfg := smpp.Config{
		Host: host, SystemID: "fanfare", Password: "secret", Binds: 2, Window: 100, ReferenceTLV: uint16(smsc.DefaultReferenceTLV),
		AnswerTimeout: smpp.Duration(3 * time.Second), ReconnectMin: smpp.Duration(20 * time.Millisecond), ReconnectMax: smpp.Duration(100 * time.Millisecond),
	}
	cfg.Port, _ = strconv.Atoi(port)
	c, err := smpp.Dial(t.Context(), cfg, smpp.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu       sync.Mutex
		answers  = map[carrier.Key]carrier.Result{}
		receipts = map[string]map[string]bool{} // ids of the delivered parts, by phone number
	)
	ctx, stop := context.WithCancel(context.Background())
	consumed := make(chan error, 1)
	go func() {
		consumed <- c.Receipts(ctx, func(list []carrier.Receipt) error {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range list {
				if receipts[r.To] == nil {
					receipts[r.To] = map[string]bool{}
				}
				receipts[r.To][r.Ref] = true
			}
			return nil
		})
	}()
	submitting, enough := context.WithCancel(ctx)
	var submitters sync.WaitGroup
	for client := range 2 {
		submitters.Go(func() {
			for i := 0; submitting.Err() == nil; i++ {
				b := batch(t, client<<20|i*50, 50)
				for k := range b {
					b[k].Body.Text.Body = strings.Repeat("a", 1+(k*13)%400)
				}
				keys := make([]carrier.Key, len(b))
				for k := range b {
					keys[k] = b[k].Key
				}
				_ = c.Send(submitting, b, func(i int, r carrier.Result) {
					mu.Lock()
					defer mu.Unlock()
					if _, twice := answers[keys[i]]; twice {
						t.Errorf("a hand-over was answered twice")
					}
					answers[keys[i]] = r
				})
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 3 {
		time.Sleep(time.Duration(200+r.IntN(500)) * time.Millisecond)
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait()
		p = startProcess(t, append(args, address)...)
	}
	time.Sleep(300 * time.Millisecond) // some hand-overs after the last start; the verdict compares what there is
	enough()
	submitters.Wait()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		owed, err := sim.StillOwed(truth)
		if err != nil {
			t.Fatal(err)
		}
		if owed == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d receipts are still owed", owed)
		}
	}
	if err := c.Drain(ctx); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-consumed; err != nil {
		t.Error(err)
	}

	mu.Lock()
	defer mu.Unlock()
	tr := readTruth(t, truth)
	if doubles := tr.Doubles(); len(doubles) > 0 {
		t.Errorf("%d doubles", len(doubles))
	}
	taken := map[carrier.Key]bool{}
	parts := 0
	for _, e := range tr.Entries {
		taken[e.Submission] = true
		got := answers[e.Submission]
		if got.Outcome != carrier.Accepted && got.Outcome != carrier.Unknown {
			t.Errorf("%s in truth, and the client was told %v (%s)", e.Outcome, got.Outcome, got.Code)
		}
		want := max(1, len(got.PartRefs))
		if n := len(receipts[e.To]); n < want {
			t.Errorf("receipts of %d of %d parts came", n, want)
		}
		parts += want
	}
	counts := map[carrier.Outcome]int{}
	for key, r := range answers {
		counts[r.Outcome]++
		if r.Outcome == carrier.Accepted && r.PartRefs == nil && !taken[key] {
			t.Errorf("accepted as %s, and the truth has nothing", r.Ref)
		}
	}
	if most := 3 * 2 * 100; counts[carrier.Unknown] > most {
		t.Errorf("got %d unknown after three kills, want at most two windows each, %d", counts[carrier.Unknown], most)
	}
	if len(tr.Entries) < 500 || counts[carrier.Unknown] == 0 {
		t.Errorf("got %d submissions, answers %v: too few to show anything", len(tr.Entries), counts)
	}
	t.Logf("%d submissions in truth, receipts of %s parts, answers %v", len(tr.Entries), fmt.Sprint(parts), counts)
}
