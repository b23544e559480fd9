package smpp_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
	"fanfare/sinks/carrier/sim"
	"fanfare/sinks/carrier/smpp"
	"fanfare/sinks/carrier/smpp/smsc"
)

// TestEverySubmitHasOneResult (P3): connections are reset in the middle of windows, answers get lost, the message
// centre throttles, some texts have several parts, and at the end the connector is drained during all of this. Every
// hand-over must have one result, which agrees with what the message centre has.
func TestEverySubmitHasOneResult(t *testing.T) {
	profile := sim.Chaos()
	profile.Receipt, profile.Answer = sim.Lognormal{}, sim.Lognormal{P50: time.Millisecond, P99: 20 * time.Millisecond}
	profile.Disconnect = 0.05
	for _, quirks := range []smsc.Quirks{{ResetAfter: 150}, {Rate: 2000, Window: 10}} {
		peer := startPeer(t, profile, smsc.Config{Quirks: quirks})
		cfg := peer.config()
		cfg.Binds, cfg.Window, cfg.AnswerTimeout = 3, 20, smpp.Duration(300*time.Millisecond)
		cfg.ReconnectMin, cfg.ReconnectMax = smpp.Duration(10*time.Millisecond), smpp.Duration(50*time.Millisecond)
		c := dial(t, cfg)
		var (
			mu      sync.Mutex
			answers = map[carrier.Key][]carrier.Result{}
			handed  = map[carrier.Key]bool{}
			wg      sync.WaitGroup
		)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() { _ = c.Receipts(ctx, func([]carrier.Receipt) error { return nil }) }()
		const senders, batches = 6, 60
		for sender := range senders {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, uint64(sender)))
				for n := range batches {
					batch := make([]carrier.Outbound, 1+r.IntN(12))
					for i := range batch {
						seq := uint32(sender*100_000 + n*100 + i)
						batch[i] = message(t, seq, strings.Repeat("a", 1+r.IntN(400)))
						batch[i].To = fmt.Sprintf("+39347%07d", seq)
						batch[i].Deadline = time.Now().Add(time.Duration(r.IntN(2000)) * time.Millisecond)
					}
					keys := make([]carrier.Key, len(batch))
					mu.Lock()
					for i := range batch {
						keys[i] = batch[i].Key
						handed[keys[i]] = true
					}
					mu.Unlock()
					err := c.Send(ctx, batch, func(i int, r carrier.Result) {
						mu.Lock()
						defer mu.Unlock()
						answers[keys[i]] = append(answers[keys[i]], r)
					})
					if err != nil {
						mu.Lock()
						for _, k := range keys {
							delete(handed, k)
						}
						mu.Unlock()
						if errors.Is(err, carrier.ErrDrained) {
							return
						}
					}
				}
			})
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		// Drain while half of the messages are on their way.
		for sent := 0; sent < senders*batches*3; {
			select {
			case <-done:
				sent = senders * batches * 100
			case <-time.After(time.Millisecond):
				mu.Lock()
				sent = len(answers)
				mu.Unlock()
			}
		}
		drain(t, c, 20*time.Millisecond)
		<-done
		peer.stop()
		truth, err := sim.ReadTruth(peer.truth)
		if err != nil {
			t.Fatal(err)
		}
		taken := map[carrier.Key]int{}
		for _, e := range truth.Entries {
			if e.Outcome == sim.Accepted {
				taken[e.Submission]++
			}
		}
		count := map[carrier.Outcome]int{}
		for key := range handed {
			list := answers[key]
			if len(list) != 1 {
				t.Fatalf("%+v: got %d answers, want 1: %+v", quirks, len(list), list)
			}
			r := list[0]
			count[r.Outcome]++
			switch n := taken[key]; {
			case n > 1:
				t.Errorf("%+v: taken %d times", quirks, n)
			case r.Outcome == carrier.Accepted && r.PartRefs == nil && n != 1:
				t.Errorf("%+v: accepted as %s, and the message centre does not have it", quirks, r.Ref)
			case r.Outcome != carrier.Accepted && r.Outcome != carrier.Unknown && n != 0:
				t.Errorf("%+v: %v (%s), and the message centre has it", quirks, r.Outcome, r.Code)
			}
		}
		if len(answers) != len(handed) {
			t.Errorf("%+v: got answers to %d hand-overs, made %d", quirks, len(answers), len(handed))
		}
		if count[carrier.Accepted] == 0 || count[carrier.Unknown] == 0 || count[carrier.Throttled] == 0 || count[carrier.Retryable] == 0 {
			t.Errorf("%+v: got outcomes %v, want all of them: else nothing is shown", quirks, count)
		}
		if doubles := truth.Doubles(); len(doubles) > 0 {
			t.Errorf("%+v: %d doubles", quirks, len(doubles))
		}
		t.Logf("%+v: outcomes %v, sessions %d", quirks, count, peer.server.Stats().Sessions)
	}
}

// TestReceiptsOfParts: each part of a text has its own id and its own receipt. No receipt may be lost while connections
// break.
func TestReceiptsOfParts(t *testing.T) {
	peer := startPeer(t, sim.Profile{}, smsc.Config{Quirks: smsc.Quirks{IDs: smsc.Hex, ReceiptIDs: smsc.Zeros, Form: smsc.TextOnly}})
	cfg := peer.config()
	cfg.Binds = 2
	c := dial(t, cfg)
	const n = 50
	batch := make([]carrier.Outbound, n)
	for i := range batch {
		batch[i] = message(t, uint32(i), strings.Repeat("a", 400))
		batch[i].To = fmt.Sprintf("+39347%07d", i)
	}
	var mu sync.Mutex
	refs := map[string]string{} // id of a part → number
	answered := make(chan carrier.Result, n)
	send(t, c, func(i int, r carrier.Result) {
		mu.Lock()
		defer mu.Unlock()
		for _, ref := range r.PartRefs {
			refs[ref] = fmt.Sprintf("+39347%07d", i)
		}
		answered <- r
	}, batch...)
	for range n {
		if r := <-answered; r.Outcome != carrier.Accepted || len(r.PartRefs) != 3 {
			t.Fatalf("got %+v, want accepted in 3 parts", r)
		}
	}
	rec := receipts(t, c)
	seen := map[string]bool{}
	deadline := time.After(20 * time.Second)
	for len(seen) < 3*n {
		select {
		case r := <-rec:
			found := ""
			for _, ref := range append([]string{r.Ref}, r.AltRefs...) {
				if refs[ref] == r.To {
					found = ref
				}
			}
			if found == "" || r.Status != schemas.ReceiptStatusDelivered {
				t.Fatalf("got receipt %+v, which no part has", r)
			}
			seen[found] = true
		case <-deadline:
			t.Fatalf("got receipts of %d parts, want %d", len(seen), 3*n)
		}
	}
	truth, err := sim.ReadTruth(peer.truth)
	if err != nil {
		t.Fatal(err)
	}
	if len(truth.Entries) != n || len(truth.Entries[0].Body) != 400 {
		t.Errorf("the truth has %d messages, the first of %d characters, want %d whole ones", len(truth.Entries), len(truth.Entries[0].Body), n)
	}
}
