package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/sinks/carrier"
)

// kill copies both files as a kill may leave them, including a torn end.
func kill(t *testing.T, path string, r *rand.Rand) (copied string) {
	t.Helper()
	copied = truthPath(t)
	for _, f := range [][2]string{{path, copied}, {ackedPath(path), ackedPath(copied)}} {
		b, err := os.ReadFile(f[0])
		if err != nil {
			t.Fatal(err)
		}
		if r.IntN(2) == 0 {
			b = append(b, `{"time":"20`[:1+r.IntN(7)]...)
		}
		if err := os.WriteFile(f[1], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return copied
}

// TestRestart kills the carrier at eight random moments while it accepts messages and sends receipts to a consumer that
// sometimes fails. In the end every receipt that the truth owes was taken at least once, no acknowledged receipt comes
// again, and nothing is owed.
func TestRestart(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			path := truthPath(t)
			// A receipt has no id, so the test identifies it by the provider's id and its content.
			name := func(ref string, status, code any, at time.Time, part uint8) string {
				return fmt.Sprint(ref, status, code, at.UnixMilli(), part)
			}
			taken := map[string]int{}
			again := 0
			first := 0
			profile := Chaos()
			profile.Duplicate, profile.EnrouteLate, profile.Ref = 0, 0, RefHex // otherwise two receipts would have the same name
			for run := range 8 {
				c, err := Open(Config{Keys: testKeys(t), Profile: profile, Seed: seed, Truth: path})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{}, 2)
				go func() { _ = c.Run(ctx); ended <- struct{}{} }()
				n := c.Connector(Options{})
				thisRun := map[string]bool{}
				moods := rand.New(rand.NewPCG(seed, uint64(run)))
				go func() {
					_ = n.Receipts(ctx, func(list []carrier.Receipt) error {
						if moods.IntN(5) == 0 {
							return errors.New("not durable")
						}
						for _, x := range list {
							k := name(x.Ref, x.Status, x.Sub, x.At, x.Part)
							if thisRun[k] {
								t.Errorf("run %d: a receipt that was acknowledged came again", run)
							}
							thisRun[k] = true
							if taken[k]++; taken[k] > 1 {
								again++
							}
						}
						return nil
					})
					ended <- struct{}{}
				}()
				for range r.IntN(20) {
					size := 1 + r.IntN(200)
					newLog().send(t, n, messages(t, first, size, 1))
					first += size
					pass(time.Duration(r.IntN(300)) * time.Millisecond)
				}
				if run == 7 {
					pass(time.Minute)
				}
				next := kill(t, path, r)
				cancel() // after this, the old carrier changes only its own files
				<-ended
				<-ended
				_ = c.Close()
				path = next
			}
			truth := readTruth(t, path)
			owed := 0
			for _, e := range truth.Entries {
				for _, x := range e.Receipts {
					owed++
					if taken[name(e.Ref, x.Status, x.Code, x.At, x.Part)] == 0 {
						t.Errorf("a receipt of the submission at %v never came", e.Time)
					}
				}
			}
			if len(taken) != owed || owed == 0 {
				t.Errorf("got %d receipts, want the %d that the truth owes", len(taken), owed)
			}
			if left, err := StillOwed(path); err != nil || left != 0 {
				t.Errorf("got %d still owed (error %v), want 0", left, err)
			}
			if again > 0 {
				t.Errorf("%d receipts came again after a kill, though they were acknowledged before it", again)
			}
			if d := truth.Doubles(); len(d) > 0 {
				t.Errorf("got %d doubles, want 0", len(d))
			}
			refs := map[string]bool{}
			for _, e := range truth.Entries {
				if e.Ref != "" && refs[e.Ref] {
					t.Fatalf("provider's id %s was given out twice", e.Ref)
				}
				refs[e.Ref] = true
			}
		})
	}
}

// TestRestartInTheMiddleOfAck: if a kill comes after emit and before the acknowledgement is written, the receipt comes
// again. The contract is at least once.
func TestRestartInTheMiddleOfAck(t *testing.T) {
	path := truthPath(t)
	c, stop := startStop(t, Config{Truth: path})
	n, l := c.Connector(Options{}), newLog()
	l.send(t, n, messages(t, 0, 10, 1))
	id, list, _ := c.take(DefaultAccount, 100, 0)
	if len(list) != 10 || id == 0 {
		t.Fatalf("got %d receipts, want 10", len(list))
	}
	stop() // killed before settle
	c = start(t, Config{Truth: path})
	l.listen(t, c.Connector(Options{}))
	eventually(t, "the ten again", func() bool { return l.received() == 10 })
}

// TestWatermark: the carrier does not read the part of the file again whose receipts are all acknowledged, and still
// does not lose one old receipt that is owed.
func TestWatermark(t *testing.T) {
	for _, oldest := range []string{"acknowledged", "owed"} {
		t.Run(oldest, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := truthPath(t)
				c, stop := startStop(t, Config{Truth: path})
				n := c.Connector(Options{})
				slow := c.Connector(Options{Account: "slow"}) // has no consumer yet
				newLog().send(t, slow, messages(t, 0, 1, 1))
				l := newLog()
				stopListening := l.listen(t, n)
				if oldest == "acknowledged" {
					defer newLog().listen(t, slow)()
				}
				for i := range 13 {
					newLog().send(t, n, messages(t, 1000*i+1, 1000, 1))
					pass(time.Second)
				}
				pass(2 * time.Second)
				stopListening()
				newLog().send(t, n, messages(t, 14_000, 5, 1))
				pass(time.Second)
				stop()

				var complaints bytes.Buffer
				c, err := Open(Config{Keys: testKeys(t), Truth: path, Logger: slog.New(slog.NewTextHandler(&complaints, nil))})
				if err != nil {
					t.Fatal(err)
				}
				if moved := c.readFrom >= 3*segment; moved != (oldest == "acknowledged") {
					t.Errorf("reading again begins at %d of %d; the oldest receipt is %s", c.readFrom, c.journal.size, oldest)
				}
				if c.Stats().Loaded {
					t.Error("Open has read the file")
				}
				defer run(t, c)()
				l = newLog()
				defer l.listen(t, c.Connector(Options{}))()
				defer l.listen(t, c.Connector(Options{Account: "slow"}))()
				pass(time.Second)
				want := 5
				if oldest == "owed" {
					want = 6
				}
				if got := l.received(); got != want {
					t.Errorf("got %d receipts, want %d", got, want)
				}
				if !c.Stats().Loaded {
					t.Error("the file was not read to its end")
				}
				if complaints.Len() > 0 {
					t.Errorf("reading again complains: %s", complaints.String())
				}
				info, err := os.Stat(ackedPath(path))
				if err != nil {
					t.Fatal(err)
				}
				if small := info.Size() < 8*13_000/2; small != (oldest == "acknowledged") {
					t.Errorf("the acknowledged file has %d bytes; the oldest receipt is %s", info.Size(), oldest)
				}
			})
		})
	}
}

// TestRestartHoldsBack: while the queue is full and there is no consumer, reading the truth file waits.
func TestRestartHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := truthPath(t)
		c, stop := startStop(t, Config{Truth: path})
		for i := range 5 {
			newLog().send(t, c.Connector(Options{}), messages(t, 1000*i, 1000, 1))
		}
		stop()
		c, stop = startStop(t, Config{Truth: path, MaxOwed: 1500})
		defer stop()
		pass(time.Minute)
		if s := c.Stats(); s.Owed > 1500 || s.Loaded {
			t.Errorf("got %+v, want at most 1500 owed and the rest still in the file", s)
		}
		l := newLog()
		defer l.listen(t, c.Connector(Options{}))()
		pass(time.Minute)
		if s := c.Stats(); l.received() != 5000 || s.Owed != 0 || !s.Loaded {
			t.Errorf("got %d receipts and %+v, want all 5000", l.received(), s)
		}
	})
}

// TestDeletedTruth: if a user deletes the truth file, the acknowledgements do not count any more.
func TestDeletedTruth(t *testing.T) {
	path := truthPath(t)
	for range 2 {
		c, stop := startStop(t, Config{Truth: path})
		n, l := c.Connector(Options{}), newLog()
		l.listen(t, n)
		l.send(t, n, messages(t, 0, 10, 1))
		eventually(t, "ten receipts", func() bool { return l.received() == 10 })
		stop()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	c, stop := startStop(t, Config{Truth: path})
	newLog().send(t, c.Connector(Options{}), messages(t, 0, 10, 1))
	stop()
	if owed, err := StillOwed(path); err != nil || owed != 10 {
		t.Errorf("got %d still owed (error %v), want 10", owed, err)
	}
}

// BenchmarkRestart opens a carrier with a million lines; a tenth of them owes a receipt.
func BenchmarkRestart(b *testing.B) {
	path := truthPath(b)
	c, stop := startStop(b, Config{Truth: path, Profile: Profile{Lost: 0.9}})
	n := c.Connector(Options{})
	for i := range 1000 {
		if err := n.Send(b.Context(), benchBatch(testKeys(b), 1000*i, 1000), func(int, carrier.Result) {}); err != nil {
			b.Fatal(err)
		}
	}
	stop()
	var opened, loaded time.Duration
	for b.Loop() {
		began := time.Now()
		c, err := Open(Config{Keys: testKeys(b), Truth: path})
		if err != nil {
			b.Fatal(err)
		}
		opened += time.Since(began)
		stop := run(b, c)
		eventually(b, "the file to be read", func() bool { return c.Stats().Loaded })
		loaded += time.Since(began)
		if got := c.Stats().Owed; got < 90_000 || got > 110_000 {
			b.Fatalf("got %d owed, want a tenth of a million", got)
		}
		stop()
	}
	b.ReportMetric(float64(opened.Microseconds())/float64(b.N), "µs-to-open")
	b.ReportMetric(float64(loaded.Milliseconds())/float64(b.N), "ms-to-loaded")
}

// TestOldLease: a consumer that outlives the carrier settles a lease of the earlier run. The carrier does not mistake
// it for a lease of this run.
func TestOldLease(t *testing.T) {
	path := truthPath(t)
	c, stop := startStop(t, Config{Truth: path})
	newLog().send(t, c.Connector(Options{}), messages(t, 0, 10, 1))
	old, list, _ := c.take(DefaultAccount, 100, time.Minute)
	stop()
	c = start(t, Config{Truth: path})
	var again []owed
	eventually(t, "the receipts again", func() bool {
		_, again, _ = c.take(DefaultAccount, 100, time.Minute)
		return len(again) > 0
	})
	c.settle(DefaultAccount, old, true)
	if s := c.Stats(); len(list) != 10 || s.Owed != 10 || s.Acknowledged != 0 {
		t.Errorf("got %+v after a lease of %d receipts of an earlier run was settled, want all 10 still owed", s, len(list))
	}
}

// TestRefsAreNeverReused: ids are not used again, even by a run that starts in the millisecond in which the run before
// it ended.
func TestRefsAreNeverReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := truthPath(t)
		for i := range 3 {
			c, stop := startStop(t, Config{Truth: path})
			newLog().send(t, c.Connector(Options{}), messages(t, 100*i, 100, 1))
			stop()
		}
		refs := map[string]bool{}
		for _, e := range readTruth(t, path).Entries {
			if refs[e.Ref] {
				t.Fatalf("provider's id %s was given out twice", e.Ref)
			}
			refs[e.Ref] = true
		}
		if len(refs) != 300 {
			t.Errorf("got %d ids, want 300", len(refs))
		}
	})
}
