package window_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
	"fanfare/schemas"
)

// Rule 7: a duplicate is dropped: in the same window, after a takeover, and when its first copy was uncertain.
func TestRule7WhatWasSeenIsDropped(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, e *env) {
		again := func(from, to uint32) {
			for seq := from; seq < to; seq++ {
				e.Write(t, e.message(t, 0, seq))
			}
		}
		again(0, 20)
		e.commitByHand(t, 0, 5, "fanfare1:10")
		again(10, 20) // duplicates of records above the committed offset
		_, stop := e.sender(t, "a", nil)
		e.awaitOutcomes(t, 15, 20*time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		again(0, 20) // duplicates of records below the committed offset, of uncertain ones and of handed-over ones
		again(20, 30)
		d, _ := e.sender(t, "b", nil)
		e.awaitOutcomes(t, 25, 20*time.Second)
		time.Sleep(200 * time.Millisecond)
		if got := e.check(t, 25); got != 5 {
			t.Errorf("in doubt: got %d, want 5", got)
		}
		if got := e.handedOver(); got != 20 {
			t.Errorf("handed over: got %d, want 10 at first and 10 later", got)
		}
		if got := e.Metric(t, "fanfare_window_seen_drops_total"); got != 30 {
			t.Errorf("dropped: got %g, want 30", got)
		}
		if got := d.count(&d.released); got != 10 {
			t.Errorf("released to the second: got %d, want 10", got)
		}
	})
}

// Rule 7: a submission of an aborted transaction does not count as seen; the copy that follows is handed over.
func TestRule7AbortedRecordsWereNotSeen(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, e *env) {
		cl, err := e.Named("writer").Client(kgo.TransactionalID(e.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
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
				if err := cl.ProduceSync(t.Context(), e.message(t, 0, seq)).FirstErr(); err != nil {
					t.Fatal(err)
				}
			}
			if err := cl.EndTransaction(t.Context(), tx.how); err != nil {
				t.Fatal(err)
			}
		}
		_, stop := e.sender(t, "a", nil)
		e.awaitOutcomes(t, 5, 20*time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		for _, seq := range []uint32{3, 5, 6, 7, 8, 9, 11} { // the first is a duplicate
			e.Write(t, e.message(t, 0, seq))
		}
		e.sender(t, "b", nil)
		e.awaitOutcomes(t, 11, 20*time.Second)
		time.Sleep(100 * time.Millisecond)
		e.check(t, 11)
		if got := e.handedOver(); got != 11 {
			t.Errorf("handed over: got %d, want 11", got)
		}
	})
}

// suspensions collects the suspensions that a window reports.
type suspensions struct {
	mu  sync.Mutex
	all []*window.SuspendedError
}

func (s *suspensions) add(e *window.SuspendedError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, e)
}

func (s *suspensions) first() *window.SuspendedError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		return nil
	}
	return s.all[0]
}

// Rule 8: a committed offset that is missing, not in the log or not ours suspends the partition with a named reason,
// and the other partitions go on. Nothing is handed over from a guessed offset.
func TestRule8NoGuessing(t *testing.T) {
	tests := []struct {
		name   string
		reason window.Reason
		spoil  func(t *testing.T, e *env)
	}{
		{"above the log", window.ReasonOutOfRange, func(t *testing.T, e *env) { e.commitByHand(t, 0, 500, "") }},
		{"below the log", window.ReasonOutOfRange, func(t *testing.T, e *env) {
			cut := kadm.Offsets{}
			cut.AddOffset(e.in, 0, 5, -1)
			if _, err := e.Admin.DeleteRecords(t.Context(), cut); err != nil {
				t.Fatal(err)
			}
		}},
		{"no offset", window.ReasonNoOffset, func(t *testing.T, e *env) {
			var set kadm.TopicsSet
			set.Add(e.in, 0)
			if _, err := e.Admin.DeleteOffsets(t.Context(), e.group, set); err != nil {
				t.Fatal(err)
			}
		}},
		{"foreign metadata", window.ReasonMetadata, func(t *testing.T, e *env) { e.commitByHand(t, 0, 3, "not ours") }},
		{"a later version's metadata", window.ReasonMetadata, func(t *testing.T, e *env) { e.commitByHand(t, 0, 3, "fanfare2:9") }},
		{"broken metadata", window.ReasonMetadata, func(t *testing.T, e *env) { e.commitByHand(t, 0, 3, "fanfare1:2") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, e *env) {
				fill(t, e.Broker, e.in, 2, 40)
				tt.spoil(t, e)
				var told suspensions
				e.sender(t, "a", func(cfg *window.Config, _ *fakeSender) { cfg.Suspended = told.add })
				e.awaitOutcomes(t, 20, 20*time.Second)
				streamtest.Eventually(t, "a suspension", func() bool { return told.first() != nil })
				time.Sleep(100 * time.Millisecond)
				if got := told.first(); got.Reason != tt.reason || got.Partition != 0 || got.Fix == "" {
					t.Errorf("got %v, want partition 0 for %s with a fix", got, tt.reason)
				}
				for s := range e.outcomes(t) {
					if strings.HasPrefix(s, e.in+"/0/") {
						t.Errorf("%s was touched", s)
					}
				}
				if got := e.Metric(t, "fanfare_window_suspended_partitions"); got != 1 {
					t.Errorf("suspended partitions: got %g, want 1", got)
				}
			})
		})
	}
}

// Rule 8: without a Suspended function Run ends with the error.
func TestRule8SuspensionEndsTheRun(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, 10)
	e.commitByHand(t, 0, 3, "not ours")
	err := e.window(t, e.config(), &fakeSender{env: e, name: "a"}).Run(t.Context())
	var s *window.SuspendedError
	if !errors.As(err, &s) || s.Reason != window.ReasonMetadata {
		t.Errorf("got %v, want a suspension for foreign metadata", err)
	}
}

// Rule 8: a log that is truncated while it is read suspends the partition, too.
func TestRule8ALogThatIsCutUnderTheReader(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	fill(t, e.Broker, e.in, 1, 10)
	var told suspensions
	e.sender(t, "a", func(cfg *window.Config, _ *fakeSender) { cfg.Suspended = told.add })
	e.awaitOutcomes(t, 10, 20*time.Second)
	// The open transaction of another producer keeps the reader below the cut.
	cl, err := e.Named("writer").Client(kgo.TransactionalID(e.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), e.message(t, 0, 100)).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for seq := uint32(101); seq < 110; seq++ {
		e.Write(t, e.message(t, 0, seq))
	}
	cut := kadm.Offsets{}
	cut.AddOffset(e.in, 0, 15, -1)
	if _, err := e.Admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	streamtest.Eventually(t, "a suspension", func() bool { return told.first() != nil })
	if got := told.first(); got.Reason != window.ReasonOutOfRange {
		t.Errorf("got %v, want out of range", got)
	}
	if got := e.handedOver(); got != 10 {
		t.Errorf("handed over: got %d, want the 10 from before", got)
	}
}

// Rule 8: a log that was settled to its end and has expired since does not suspend the partition. Its last record is
// the marker of a transaction's end; a base that stayed below the marker would be out of range once retention has
// removed it.
func TestRule8AnIdleLogMayExpire(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	cl, err := e.Named("writer").Client(kgo.TransactionalID(e.Names.TransactionalID("w", "1")), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for seq := range uint32(5) {
		if err := cl.ProduceSync(t.Context(), e.message(t, 0, seq)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	_, stop := e.sender(t, "a", nil)
	e.awaitOutcomes(t, 5, 20*time.Second)
	ends, err := e.Admin.ListEndOffsets(t.Context(), e.in)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(e.in, 0)
	streamtest.Eventually(t, "the base at the end of the log", func() bool { base, _ := e.intent(t, 0); return base == end.Offset })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	cut := kadm.Offsets{}
	cut.AddOffset(e.in, 0, end.Offset, -1)
	if _, err := e.Admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	var told suspensions
	e.sender(t, "b", func(cfg *window.Config, _ *fakeSender) { cfg.Suspended = told.add })
	e.Write(t, e.message(t, 0, 5))
	e.awaitOutcomes(t, 6, 20*time.Second)
	e.check(t, 6)
	if got := told.first(); got != nil {
		t.Errorf("got %v, want no suspension", got)
	}
}

// Rule 8: an outcome of a record above the committed head means that the broker has lost commits.
func TestRule8LostCommits(t *testing.T) {
	t.Parallel()
	const n = 100
	e := newEnv(t, 2)
	fill(t, e.Broker, e.in, 2, n)
	_, stop := e.sender(t, "a", nil)
	e.awaitOutcomes(t, n, 20*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	e.commitByHand(t, 1, 20, "fanfare1:25") // the commit as it was some commits earlier
	for seq := uint32(1000); seq < 1200; seq++ {
		e.Write(t, e.message(t, 1, seq))
	}
	d, _ := e.sender(t, "b", func(cfg *window.Config, _ *fakeSender) { cfg.Size = func() int { return 30 } })
	e.awaitOutcomes(t, n+200, 30*time.Second)
	e.check(t, n+200)
	// 20 to 49 have outcomes, so nothing about them is uncertain. The records of one window above the last of them may
	// have been handed over.
	if got := d.count(&d.uncertain); got != 30 {
		t.Errorf("uncertain: got %d, want a window of 30 above the last outcome", got)
	}
	if got := e.Metric(t, "fanfare_window_lost_commits_total"); got != 1 {
		t.Errorf("lost commits: got %g, want 1", got)
	}
}

// 3.4: after a crash only the records without an outcome are uncertain, and one line in the log says how many, of which
// campaigns. An outcome of another submission at the same offset settles no record; a topic that was deleted and
// created again leaves such outcomes behind.
func TestATakeoverReportsWhatIsUncertain(t *testing.T) {
	t.Parallel()
	e := newEnv(t, 1)
	const n, declared, answered = 40, 30, 10
	fill(t, e.Broker, e.in, 1, n)
	e.commitByHand(t, 0, 0, fmt.Sprintf("fanfare1:%d", declared))
	outcome := func(offset int, of uint32, kind string) *kgo.Record {
		id := testKeys(t).Submission(1, of, 1).String()
		return &kgo.Record{Topic: e.out, Key: []byte(id), Value: []byte(kind), Headers: []kgo.RecordHeader{
			{Key: schemas.HeaderSource, Value: fmt.Appendf(nil, "%s/0/%d", e.in, offset)},
		}}
	}
	for i := range answered {
		e.Write(t, outcome(i, uint32(i), "sent"))
	}
	e.Write(t, outcome(answered, answered, "ambiguous"), outcome(answered+1, 77, "sent"))

	var log lockedBuffer
	d, stop := e.sender(t, "b", func(cfg *window.Config, _ *fakeSender) {
		cfg.Cluster.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	e.awaitOutcomes(t, n, 20*time.Second)
	want := fmt.Sprintf("uncertain=%d campaigns=camp_1:%d", declared-answered, declared-answered)
	streamtest.Eventually(t, "a line in the log with "+want, func() bool { return strings.Contains(log.String(), want) })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(log.String(), "takeover: "); got != 1 {
		t.Errorf("lines in the log: got %d, want 1:\n%s", got, log.String())
	}
	if got := d.count(&d.uncertain); got != declared-answered {
		t.Errorf("uncertain: got %d, want %d", got, declared-answered)
	}
	if got := e.handedOver(); got != n-declared {
		t.Errorf("handed over: got %d, want the %d that were not declared", got, n-declared)
	}
}

// lockedBuffer is a buffer that several goroutines may use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
