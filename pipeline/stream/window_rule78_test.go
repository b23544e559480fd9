package stream_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
)

// Rule 7: a submission that comes again is dropped, in the same window, after a take-over, and after it was uncertain.
func TestRule7WhatWasSeenIsDropped(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	again := func(from, to uint32) {
		for seq := from; seq < to; seq++ {
			o.write(t, o.message(t, 0, seq))
		}
	}
	again(0, 20)
	o.commitByHand(t, 0, 5, "fanfare1:10")
	again(10, 20) // twins of what is in the log above the committed offset
	_, stop := o.sender(t, "a", nil)
	o.awaitOutcomes(t, 15, 20*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	again(0, 20) // twins of what lies below the committed offset, of what was uncertain, of what was handed over
	again(20, 30)
	d, _ := o.sender(t, "b", nil)
	o.awaitOutcomes(t, 25, 20*time.Second)
	time.Sleep(200 * time.Millisecond)
	if got := o.check(t, 25); got != 5 {
		t.Errorf("in doubt: got %d, want 5", got)
	}
	if got := o.handedOver(); got != 20 {
		t.Errorf("handed over: got %d, want 10 at first and 10 later", got)
	}
	if got := o.metric(t, "fanfare_window_seen_drops_total"); got != 30 {
		t.Errorf("dropped: got %g, want 30", got)
	}
	if got := d.count(&d.released); got != 10 {
		t.Errorf("released to the second: got %d, want 10", got)
	}
}

// Rule 7: a submission of a transaction that was aborted was not seen: the one that follows is it.
func TestRule7AbortedRecordsWereNotSeen(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	cl, err := o.Named("writer").Client(kgo.TransactionalID(o.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, tx := range []struct {
		from, to uint32
		how      kgo.TransactionEndTry
	}{{0, 10, kgo.TryAbort}, {0, 5, kgo.TryCommit}, {10, 15, kgo.TryAbort}} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for seq := tx.from; seq < tx.to; seq++ {
			if err := cl.ProduceSync(t.Context(), o.message(t, 0, seq)).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := cl.EndTransaction(t.Context(), tx.how); err != nil {
			t.Fatal(err)
		}
	}
	_, stop := o.sender(t, "a", nil)
	o.awaitOutcomes(t, 5, 20*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint32{3, 5, 6, 7, 8, 9, 11} { // the first is a twin
		o.write(t, o.message(t, 0, seq))
	}
	o.sender(t, "b", nil)
	o.awaitOutcomes(t, 11, 20*time.Second)
	time.Sleep(100 * time.Millisecond)
	o.check(t, 11)
	if got := o.handedOver(); got != 11 {
		t.Errorf("handed over: got %d, want 11", got)
	}
}

// suspensions collects what a window is told.
type suspensions struct {
	mu  sync.Mutex
	all []*stream.SuspendedError
}

func (s *suspensions) add(e *stream.SuspendedError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, e)
}

func (s *suspensions) first() *stream.SuspendedError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return nil
	}
	return s.all[0]
}

// Rule 8: a place to begin that is missing, not in the log, or written by somebody else suspends the partition with a named
// reason, and the others go on. Nothing is sent from a beginning that was guessed.
func TestRule8NoGuessing(t *testing.T) {
	tests := []struct {
		name   string
		reason stream.Reason
		spoil  func(t *testing.T, o *office)
	}{
		{"above the log", stream.ReasonOutOfRange, func(t *testing.T, o *office) { o.commitByHand(t, 0, 500, "") }},
		{"below the log", stream.ReasonOutOfRange, func(t *testing.T, o *office) {
			cut := kadm.Offsets{}
			cut.AddOffset(o.in, 0, 5, -1)
			if _, err := o.adm.DeleteRecords(t.Context(), cut); err != nil {
				t.Fatal(err)
			}
		}},
		{"no offset", stream.ReasonNoOffset, func(t *testing.T, o *office) {
			var set kadm.TopicsSet
			set.Add(o.in, 0)
			if _, err := o.adm.DeleteOffsets(t.Context(), o.group, set); err != nil {
				t.Fatal(err)
			}
		}},
		{"somebody else's metadata", stream.ReasonMetadata, func(t *testing.T, o *office) { o.commitByHand(t, 0, 3, "not ours") }},
		{"a later version's metadata", stream.ReasonMetadata, func(t *testing.T, o *office) { o.commitByHand(t, 0, 3, "fanfare2:9") }},
		{"broken metadata", stream.ReasonMetadata, func(t *testing.T, o *office) { o.commitByHand(t, 0, 3, "fanfare1:2") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOffice(t, 2)
			o.fill(t, o.in, 2, 40)
			tt.spoil(t, o)
			var told suspensions
			o.sender(t, "a", func(cfg *stream.WindowConfig, _ *desk) { cfg.Suspended = told.add })
			o.awaitOutcomes(t, 20, 20*time.Second)
			eventually(t, 10*time.Second, "a suspension", func() bool { return told.first() != nil })
			time.Sleep(100 * time.Millisecond)
			if got := told.first(); got.Reason != tt.reason || got.Partition != 0 || got.Fix == "" {
				t.Errorf("got %v, want partition 0 for %s with a fix", got, tt.reason)
			}
			for s := range o.outcomes(t) {
				if strings.HasPrefix(s, o.in+"/0/") {
					t.Errorf("%s was touched", s)
				}
			}
			if got := o.metric(t, "fanfare_window_suspended_partitions"); got != 1 {
				t.Errorf("suspended partitions: got %g, want 1", got)
			}
		})
	}
}

// Rule 8: without anybody to tell, the window ends with the reason.
func TestRule8SuspensionEndsTheRun(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 10)
	o.commitByHand(t, 0, 3, "not ours")
	err := o.window(t, o.config(), &desk{o: o, name: "a"}).Run(t.Context())
	var s *stream.SuspendedError
	if !errors.As(err, &s) || s.Reason != stream.ReasonMetadata {
		t.Errorf("got %v, want a suspension for foreign metadata", err)
	}
}

// Rule 8: a log that is cut under the reader suspends the partition too.
func TestRule8ALogThatIsCutUnderTheReader(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	o.fill(t, o.in, 1, 10)
	var told suspensions
	o.sender(t, "a", func(cfg *stream.WindowConfig, _ *desk) { cfg.Suspended = told.add })
	o.awaitOutcomes(t, 10, 20*time.Second)
	// A record of another producer keeps the reader below the cut: it is open until after.
	cl, err := o.Named("writer").Client(kgo.TransactionalID(o.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), o.message(t, 0, 100)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for seq := uint32(101); seq < 110; seq++ {
		o.write(t, o.message(t, 0, seq))
	}
	cut := kadm.Offsets{}
	cut.AddOffset(o.in, 0, 15, -1)
	if _, err := o.adm.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "a suspension", func() bool { return told.first() != nil })
	if got := told.first(); got.Reason != stream.ReasonOutOfRange {
		t.Errorf("got %v, want out of range", got)
	}
	if got := o.handedOver(); got != 10 {
		t.Errorf("handed over: got %d, want the 10 from before", got)
	}
}

// Rule 8: a log that was settled to its end and has expired since is no log that was cut. It ends in the control record of a
// transaction, and a base that stays below that is out of range once retention has taken it.
func TestRule8AnIdleLogMayExpire(t *testing.T) {
	t.Parallel()
	o := newOffice(t, 1)
	cl, err := o.Named("writer").Client(kgo.TransactionalID(o.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for seq := range uint32(5) {
		if err := cl.ProduceSync(t.Context(), o.message(t, 0, seq)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	_, stop := o.sender(t, "a", nil)
	o.awaitOutcomes(t, 5, 20*time.Second)
	ends, err := o.adm.ListEndOffsets(t.Context(), o.in)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(o.in, 0)
	eventually(t, 10*time.Second, "the base at the end of the log", func() bool { base, _ := o.intent(t, 0); return base == end.Offset })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	cut := kadm.Offsets{}
	cut.AddOffset(o.in, 0, end.Offset, -1)
	if _, err := o.adm.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	var told suspensions
	o.sender(t, "b", func(cfg *stream.WindowConfig, _ *desk) { cfg.Suspended = told.add })
	o.write(t, o.message(t, 0, 5))
	o.awaitOutcomes(t, 6, 20*time.Second)
	o.check(t, 6)
	if got := told.first(); got != nil {
		t.Errorf("got %v, want no suspension", got)
	}
}

// Rule 8: the outcomes are a second witness: one above the committed head means that the broker has lost commits.
func TestRule8TheSecondWitness(t *testing.T) {
	t.Parallel()
	const n = 100
	o := newOffice(t, 2)
	o.fill(t, o.in, 2, n)
	_, stop := o.sender(t, "a", nil)
	o.awaitOutcomes(t, n, 20*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	o.commitByHand(t, 1, 20, "fanfare1:25") // as it stood some commits before
	for seq := uint32(1000); seq < 1200; seq++ {
		o.write(t, o.message(t, 1, seq))
	}
	d, _ := o.sender(t, "b", func(cfg *stream.WindowConfig, _ *desk) { cfg.Size = func() int { return 30 } })
	o.awaitOutcomes(t, n+200, 30*time.Second)
	o.check(t, n+200)
	// 20 to 49 have outcomes; the window above the last of them may have been handed over, with the outcome lost as well.
	if got := d.count(&d.uncertain); got != 30+30 {
		t.Errorf("uncertain: got %d, want 30 up to the last outcome and a window of 30 above it", got)
	}
	if got := o.metric(t, "fanfare_window_lost_commits_total"); got != 1 {
		t.Errorf("lost commits: got %g, want 1", got)
	}
}
