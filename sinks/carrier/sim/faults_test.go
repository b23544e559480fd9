package sim

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"

	"github.com/google/go-cmp/cmp"
)

// play hands n messages over to a carrier with the given profile, and waits two minutes of fake time.
func play(t *testing.T, cfg Config, n int, edit func(i int, o *carrier.Outbound)) (l *log, truth *Truth) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg.Truth = truthPath(t)
		c, stop := startStop(t, cfg)
		defer stop()
		connector := c.Connector(Options{Window: n + MaxBatch})
		l = newLog()
		defer l.listen(t, connector)()
		batch := messages(t, 0, n, 1)
		for i := range batch {
			if edit != nil {
				edit(i, &batch[i])
			}
		}
		for b := range slices.Chunk(batch, 100) {
			l.send(t, connector, b)
		}
		pass(2 * time.Minute)
		truth = readTruth(t, cfg.Truth)
	})
	if len(truth.Entries) != n || l.answered() != n {
		t.Fatalf("got %d lines of truth and %d answers, want %d each", len(truth.Entries), l.answered(), n)
	}
	return l, truth
}

// TestFaults sets each fault alone, and checks its effect.
func TestFaults(t *testing.T) {
	base := Profile{Answer: Lognormal{10 * time.Millisecond, 50 * time.Millisecond}, Receipt: Lognormal{time.Second, 5 * time.Second}}
	with := func(edit func(*Profile)) Profile { p := base; edit(&p); return p }
	status := func(list []carrier.Receipt) (s []string) {
		for _, r := range list {
			s = append(s, statusName(r.Status)+" "+schemas.CodeName(r.Sub))
		}
		return s
	}
	for _, c := range []struct {
		name    string
		profile Profile
		edit    func(i int, o *carrier.Outbound)
		outcome carrier.Outcome
		word    string
		says    []string // receipts of each message, in the order in which they come
	}{
		{name: "none", profile: base, outcome: carrier.Accepted, word: Accepted, says: []string{"delivered DELIVERED"}},
		{name: "refused", profile: with(func(p *Profile) { p.Refused = []Refusal{{1, schemas.CodeSpamContent}} }), outcome: carrier.Rejected, word: Refused},
		{name: "throttled", profile: with(func(p *Profile) { p.Throttled = 1 }), outcome: carrier.Throttled, word: Throttled},
		{name: "busy", profile: with(func(p *Profile) { p.Busy = 1 }), outcome: carrier.Retryable, word: Busy},
		{name: "silent", profile: with(func(p *Profile) { p.Silent = 1 }), outcome: carrier.Unknown, word: Accepted, says: []string{"delivered DELIVERED"}},
		{name: "dropped", profile: with(func(p *Profile) { p.Dropped = 1 }), outcome: carrier.Unknown, word: Dropped},
		{name: "lost", profile: with(func(p *Profile) { p.Lost = 1 }), outcome: carrier.Accepted, word: Accepted},
		{name: "silent keeps its receipt", profile: with(func(p *Profile) { p.Lost, p.Silent = 1, 1 }), outcome: carrier.Unknown, word: Accepted, says: []string{"delivered DELIVERED"}},
		{name: "fate", profile: with(func(p *Profile) { p.Fates = []Fate{{1, failed, schemas.CodeBarred}} }), outcome: carrier.Accepted, word: Accepted, says: []string{"failed BARRED"}},
		{name: "unknown", profile: with(func(p *Profile) { p.Fates = []Fate{{1, unknown, 0}} }), outcome: carrier.Accepted, word: Accepted, says: []string{"unknown "}},
		{name: "duplicate", profile: with(func(p *Profile) { p.Duplicate = 1 }), outcome: carrier.Accepted, word: Accepted, says: []string{"delivered DELIVERED", "delivered DELIVERED"}},
		{name: "enroute", profile: with(func(p *Profile) { p.Enroute = 1 }), outcome: carrier.Accepted, word: Accepted, says: []string{"buffered ENROUTE", "delivered DELIVERED"}},
		{name: "enroute late", profile: with(func(p *Profile) { p.EnrouteLate = 1 }), outcome: carrier.Accepted, word: Accepted, says: []string{"delivered DELIVERED", "buffered ENROUTE"}},
		{name: "negative, then positive", profile: with(func(p *Profile) { p.Flip = 1 }), outcome: carrier.Accepted, word: Accepted, says: []string{"failed EXPIRED", "delivered DELIVERED"}},
		{name: "read", profile: with(func(p *Profile) { p.Read = 1 }), edit: func(_ int, o *carrier.Outbound) { o.Channel = schemas.ChannelRCS }, outcome: carrier.Accepted, word: Accepted, says: []string{"delivered DELIVERED", "read READ"}},
		{name: "no SMS is read", profile: with(func(p *Profile) { p.Read = 1 }), outcome: carrier.Accepted, word: Accepted, says: []string{"delivered DELIVERED"}},
		{name: "parts", profile: with(func(p *Profile) { p.Parts = true }), edit: func(_ int, o *carrier.Outbound) { o.Body.Text.Segments = 3 }, outcome: carrier.Accepted, word: Accepted, says: []string{"delivered DELIVERED", "delivered DELIVERED", "delivered DELIVERED"}},
		{name: "not a number", profile: base, edit: func(i int, o *carrier.Outbound) {
			o.To = []string{"", "39347", "+39x", "+0123456", "+1234567890123456"}[i%5]
		}, outcome: carrier.Rejected, word: Refused},
		{name: "validity", profile: with(func(p *Profile) { p.Offline, p.OfflineMean = 1, time.Hour }), edit: func(_ int, o *carrier.Outbound) { o.NotAfter = time.Now().Add(time.Millisecond) }, outcome: carrier.Accepted, word: Accepted, says: []string{"failed EXPIRED"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, truth := play(t, Config{Profile: c.profile, Seed: 1}, 200, c.edit)
			receipts := l.byKey()
			for i, e := range truth.Entries {
				if e.Outcome != c.word || len(e.Receipts) != len(c.says) {
					t.Fatalf("line %d: got %s with %d receipts, want %s with %d", i, e.Outcome, len(e.Receipts), c.word, len(c.says))
				}
				if e.Unanswered != (c.outcome == carrier.Unknown) {
					t.Fatalf("line %d: unanswered is %v, and the answer was %v", i, e.Unanswered, c.outcome)
				}
				if a := l.answers[e.Submission]; len(a) != 1 || a[0].Outcome != c.outcome {
					t.Fatalf("line %d: got answers %v, want one: %v", i, a, c.outcome)
				}
				if diff := cmp.Diff(c.says, status(receipts[e.Submission])); diff != "" {
					t.Fatalf("line %d: receipts (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

// TestEarly: for every message, the receipt comes before the answer.
func TestEarly(t *testing.T) {
	l, _ := play(t, Config{Profile: Profile{Early: 1, Receipt: Lognormal{P50: time.Second}}}, 50, nil)
	if i := slices.Index(l.order, "answer"); i != 50 {
		t.Errorf("got the first answer after %d receipts, want 50", i)
	}
}

// TestParts: each part's receipt names the part, and one part may fail.
func TestParts(t *testing.T) {
	p := Profile{Parts: true, PartFails: 1}
	l, _ := play(t, Config{Profile: p}, 20, func(_ int, o *carrier.Outbound) { o.Body.Text.Segments = 4 })
	for key, list := range l.byKey() {
		failures := 0
		for i, r := range list {
			if int(r.Part) != i+1 || r.Parts != 4 {
				t.Errorf("%v: got part %d of %d, want %d of 4", key, r.Part, r.Parts, i+1)
			}
			if r.Status == failed {
				failures++
			}
		}
		if failures != 1 {
			t.Errorf("%v: got %d failed parts, want 1", key, failures)
		}
	}
}

// TestReordered: receipts of one message change places, but have the times of the events.
func TestReordered(t *testing.T) {
	p := Profile{Enroute: 1, Receipt: Lognormal{P50: 200 * time.Millisecond}, Reordered: 1, ReorderedBy: time.Second}
	l, _ := play(t, Config{Profile: p}, 200, nil)
	swapped := 0
	for _, list := range l.byKey() {
		if len(list) != 2 {
			t.Fatalf("got %d receipts, want 2", len(list))
		}
		if list[0].Status == delivered {
			swapped++
			if !list[0].At.After(list[1].At) {
				t.Errorf("delivered at %v, on its way at %v, want it later", list[0].At, list[1].At)
			}
		}
	}
	if swapped < 50 || swapped > 120 {
		t.Errorf("got %d of 200 in the other order, want about 90", swapped)
	}
}

// TestDisconnect: the connection breaks within each batch. Messages that were accepted after the break are Unknown to
// the client and marked in the truth, and their receipts come.
func TestDisconnect(t *testing.T) {
	p := Profile{Disconnect: 1, Lost: 0.5, Answer: Lognormal{10 * time.Millisecond, 100 * time.Millisecond}, Busy: 0.2}
	l, truth := play(t, Config{Profile: p, Seed: 3}, 400, nil)
	unknown := 0
	for i, e := range truth.Entries {
		a := l.answers[e.Submission][0]
		switch {
		case e.Outcome == Busy && a.Outcome != carrier.Retryable:
			t.Errorf("line %d: not taken, got %v, want retryable", i, a.Outcome)
		case e.Unanswered != (a.Outcome == carrier.Unknown):
			t.Errorf("line %d: unanswered is %v, and the answer was %v", i, e.Unanswered, a.Outcome)
		case e.Unanswered && len(l.byKey()[e.Submission]) != 1:
			t.Errorf("line %d: unknown, and no receipt came", i)
		}
		if a.Outcome == carrier.Unknown {
			unknown++
		}
	}
	if unknown < 40 || unknown > 320 {
		t.Errorf("got %d of 400 unknown in four breaks, want about half", unknown)
	}
}

// TestRate: the carrier accepts at most the limit and its burst. The answer to a throttled submission says how long to
// wait.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := startStop(t, Config{Profile: Profile{Rate: 100, Burst: 10}})
		defer stop()
		n, l := c.Connector(Options{}), newLog()
		for i := range 200 { // 2 s at 500/s
			l.send(t, n, messages(t, 5*i, 5, 1))
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		count := map[carrier.Outcome]int{}
		for _, a := range l.answers {
			count[a[0].Outcome]++
			if r := a[0]; r.Outcome == carrier.Throttled && (r.RetryAfter <= 0 || r.RetryAfter > 10*time.Millisecond) {
				t.Fatalf("throttled: wait %v, want up to 10 ms", r.RetryAfter)
			}
		}
		if got := count[carrier.Accepted]; got < 205 || got > 210 {
			t.Errorf("got %d accepted in 2 s, want 10 + 2 s x 100/s", got)
		}
		if count[carrier.Accepted]+count[carrier.Throttled] != 1000 {
			t.Errorf("got %v, want nothing but accepted and throttled", count)
		}
		if h := n.Health(); h.Throttled < 0.5 {
			t.Errorf("health: %.2f of the last answers throttled, want about 0.8", h.Throttled)
		}
	})
}

// TestFullQueue: when no consumer takes receipts, the carrier stops taking messages before the memory is full.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := startStop(t, Config{MaxOwed: 150})
		defer stop()
		n, l := c.Connector(Options{}), newLog()
		for i := range 4 {
			l.send(t, n, messages(t, 100*i, 100, 1))
		}
		if got := c.Stats(); got.Submissions[Accepted] != 200 || got.Submissions[Throttled] != 200 {
			t.Errorf("got %v, want the batch that passes the limit accepted and the rest throttled", got.Submissions)
		}
		defer l.listen(t, n)()
		pass(time.Second)
		if l.send(t, n, messages(t, 900, 1, 1)); c.Stats().Submissions[Accepted] != 201 {
			t.Error("it did not take messages again after its receipts were taken")
		}
	})
}

// TestIdempotent: if a submission id comes again, the carrier gives the same answer, and makes no second message.
func TestIdempotent(t *testing.T) {
	for _, idempotent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			path := truthPath(t)
			c, stop := startStop(t, Config{Profile: Profile{Doubt: doubtOf(idempotent)}, Truth: path})
			defer stop()
			n, l := c.Connector(Options{}), newLog()
			defer l.listen(t, n)()
			batch := messages(t, 0, 3, 1)
			l.send(t, n, batch)
			l.send(t, n, append(batch, batch[0]))
			pass(time.Second)
			want := map[string]int{Accepted: 7}
			if idempotent {
				want = map[string]int{Accepted: 3, Duplicate: 4}
			}
			truth := readTruth(t, path)
			if diff := cmp.Diff(want, truth.Outcomes()); diff != "" {
				t.Errorf("idempotent %v: outcomes (-want +got):\n%s", idempotent, diff)
			}
			if got := l.received(); got != want[Accepted] {
				t.Errorf("idempotent %v: got %d receipts, want %d", idempotent, got, want[Accepted])
			}
			if got := len(truth.Doubles()); got != want[Accepted]-3 {
				t.Errorf("idempotent %v: got %d doubles, want %d", idempotent, got, want[Accepted]-3)
			}
			a := l.answers[batch[0].Key]
			if same := a[0].Ref == a[1].Ref; same != idempotent {
				t.Errorf("idempotent %v: got the refs %q and %q", idempotent, a[0].Ref, a[1].Ref)
			}
		})
	}
}

func doubtOf(idempotent bool) carrier.Doubt {
	if idempotent {
		return carrier.DoubtKeyHeader
	}
	return carrier.DoubtNone
}

// TestChaosShares: faults are as frequent as the profile says.
func TestChaosShares(t *testing.T) {
	p := Chaos()
	const n = 20_000
	l, truth := play(t, Config{Profile: p, Seed: 11}, n, nil)
	got := map[string]float64{}
	firsts := map[carrier.Key]bool{}
	var statuses, enroute, twice, flips float64
	for i := range truth.Entries {
		e := &truth.Entries[i]
		firsts[e.Submission] = true
		got[e.Outcome]++
		if e.Unanswered {
			got["unanswered"]++
		}
		if e.Outcome != Accepted {
			continue
		}
		if len(e.Receipts) == 0 {
			got["lost"]++
		}
		seen := map[string]int{}
		for _, r := range e.Receipts {
			seen[fmt.Sprint(r.Status, r.At)]++
			if r.Status == buffered {
				enroute++
			}
			if r.Due.Sub(e.Time) > 20*time.Second {
				t.Errorf("a receipt comes after %v, want at most 20 s", r.Due.Sub(e.Time))
			}
		}
		for _, k := range seen {
			if k > 1 {
				twice++
				break
			}
		}
		if e.Final().Kind() == schemas.KindDelivered {
			statuses++
			if slices.ContainsFunc(e.Receipts, func(r Owed) bool { return r.Status == failed }) {
				flips++
			}
		}
	}
	near := func(what string, got, want float64) {
		t.Helper()
		// Four standard deviations: one false alarm in ten thousand seeds, and the seed is fixed.
		if d := 4 * math.Sqrt(want*(1-want)/n); math.Abs(got/n-want) > d {
			t.Errorf("%s: got a share of %.4f, want %.4f ± %.4f", what, got/n, want, d)
		}
	}
	accepted := 1 - 0.02 - p.Throttled - p.Busy
	near("refused", got[Refused], 0.02)
	near("throttled", got[Throttled], p.Throttled)
	near("busy", got[Busy], p.Busy)
	near("accepted", got[Accepted], accepted)
	near("lost", got["lost"], accepted*(1-p.Silent-p.Disconnect/2)*p.Lost)
	near("twice", twice, accepted*(1-p.Lost)*p.Duplicate)
	near("delivered", statuses, accepted*(1-p.Lost)*0.8)
	near("flip", flips, accepted*(1-p.Lost)*0.8*p.Flip)
	// The number of breaks in 200 batches is small: up to six, of half a batch each.
	if u := got["unanswered"] / n; u < p.Silent/2 || u > p.Silent*1.5+0.02 {
		t.Errorf("unanswered: got a share of %.4f, want %.4f and half of the few batches that broke", u, p.Silent)
	}
	if len(firsts) != n || len(l.byKey()) == 0 || enroute == 0 {
		t.Errorf("got %d submissions, %d receipts on the way", len(firsts), int(enroute))
	}
}

// TestSeeded: the seed and the id of a submission determine its fate, whatever else is submitted, and in whatever order
// and batches.
func TestSeeded(t *testing.T) {
	profile := Chaos()
	profile.Disconnect = 0 // a break concerns the whole batch
	type fateOf struct {
		Outcome  string
		Code     schemas.Code
		Silent   bool
		Receipts []string
	}
	fates := func(seed uint64, size int, backwards bool) map[carrier.Key]fateOf {
		m := map[carrier.Key]fateOf{}
		synctest.Test(t, func(t *testing.T) {
			path := truthPath(t)
			c, stop := startStop(t, Config{Profile: profile, Seed: seed, Truth: path})
			defer stop()
			n := c.Connector(Options{})
			batch := messages(t, 0, 2000, 1)
			if backwards {
				slices.Reverse(batch)
			}
			for b := range slices.Chunk(batch, size) {
				newLog().send(t, n, b)
			}
			for _, e := range readTruth(t, path).Entries {
				f := fateOf{Outcome: e.Outcome, Code: e.Code, Silent: e.Unanswered}
				for _, r := range e.Receipts {
					f.Receipts = append(f.Receipts, fmt.Sprint(r.Status, r.Code, r.At.Sub(e.Time), r.Due.Sub(e.Time)))
				}
				m[e.Submission] = f
			}
		})
		return m
	}
	want := fates(1, 100, false)
	if diff := cmp.Diff(want, fates(1, 7, true)); diff != "" {
		t.Errorf("same seed, other order and batches (-want +got):\n%s", diff)
	}
	other, same := fates(2, 100, false), 0
	for key, f := range want {
		if cmp.Equal(f, other[key]) {
			same++
		}
	}
	if same > 200 {
		t.Errorf("another seed gave %d of 2000 the same fate, want few", same)
	}
}

func TestProfiles(t *testing.T) {
	for _, name := range ProfileNames {
		p, err := ProfileNamed(name)
		if err != nil || p.Name != name {
			t.Errorf("%s: got profile %q, error %v", name, p.Name, err)
		}
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ProfileNamed("nice"); err == nil {
		t.Error("a profile that does not exist: got no error")
	}
	for what, edit := range map[string]func(*Profile){
		"share above 1":      func(p *Profile) { p.Lost = 1.1 },
		"share below 0":      func(p *Profile) { p.Early = -0.1 },
		"share not a number": func(p *Profile) { p.Silent = math.NaN() },
		"shares above 1":     func(p *Profile) { p.Busy, p.Throttled = 0.6, 0.6 },
		"negative rate":      func(p *Profile) { p.Rate = -1 },
		"negative weight":    func(p *Profile) { p.Fates = []Fate{{-1, delivered, 0}} },
		"no weight":          func(p *Profile) { p.Fates = []Fate{{0, delivered, 0}} },
		"refusals above 1":   func(p *Profile) { p.Refused = []Refusal{{2, 0}} },
	} {
		p := Default()
		edit(&p)
		if _, err := Open(Config{Keys: testKeys(t), Profile: p}); err == nil {
			t.Errorf("%s: got no error", what)
		}
	}
	if _, err := Open(Config{}); err == nil {
		t.Error("no keys: got no error")
	}
}

// TestLognormal: half of the draws are below P50, 99 of 100 below P99.
func TestLognormal(t *testing.T) {
	d := newDice()
	d.throwFor(1, carrier.Key{})
	l := Lognormal{100 * time.Millisecond, 900 * time.Millisecond}
	const n = 100_000
	var below50, below99 int
	for range n {
		v := l.draw(d.rand)
		if v < l.P50 {
			below50++
		}
		if v < l.P99 {
			below99++
		}
	}
	if math.Abs(float64(below50)/n-0.5) > 0.01 || math.Abs(float64(below99)/n-0.99) > 0.002 {
		t.Errorf("got %d and %d of %d below P50 and P99", below50, below99, n)
	}
}

// TestIdempotentAfterDeadline: the carrier does not remember a message as accepted that it did not accept.
func TestIdempotentAfterDeadline(t *testing.T) {
	c := start(t, Config{Profile: Profile{Doubt: carrier.DoubtKeyHeader}})
	n, l := c.Connector(Options{}), newLog()
	batch := messages(t, 0, 2, 1)
	batch[0].Deadline = time.Now().Add(-time.Second)
	l.send(t, n, batch)
	batch[0].Deadline = time.Time{}
	l.send(t, n, batch[:1])
	if a := l.answers[batch[0].Key]; len(a) != 2 || a[0].Outcome != carrier.Retryable || a[1].Outcome != carrier.Accepted {
		t.Errorf("got %v, want retryable, then accepted", a)
	}
	if s := c.Stats(); s.Submissions[Accepted] != 2 || s.Submissions[Duplicate] != 0 {
		t.Errorf("got %v, want two accepted", s.Submissions)
	}
}
