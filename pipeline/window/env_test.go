package window_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/pipeline/window"
	"fanfare/schemas"
)

// env has a topic of messages, the group of their senders, and a carrier that remembers every hand-over.
type env struct {
	*streamtest.Broker
	in, out, group string
	partitions     int32
	tenant         func(*kgo.Record) string // of the windows; nil: the order of the log

	mu     sync.Mutex
	handed map[string][]string // submission: who handed it over
}

func newEnv(t testing.TB, partitions int32) *env {
	t.Helper()
	return envOn(t, streamtest.New(t), partitions)
}

// inBubble runs f in a bubble of its own time, in which a wait proves that no goroutine can do anything more.
func inBubble(t *testing.T, partitions int32, f func(t *testing.T, e *env)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(t, envOn(t, streamtest.NewVirtual(t), partitions)) })
}

func envOn(t testing.TB, b *streamtest.Broker, partitions int32) *env {
	t.Helper()
	e := &env{Broker: b, partitions: partitions, in: b.Topic(t, "messages", partitions), out: b.Topic(t, "deliveries", 3), group: b.Names.Group("sender"), handed: map[string][]string{}}
	if err := stream.EnsureOffsets(t.Context(), b.Admin, e.group, e.in); err != nil {
		t.Fatal(err)
	}
	return e
}

func source(r *kgo.Record) string { return fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset) }

func submission(r *kgo.Record) string { return string(schemas.Header(r, schemas.HeaderSubmission)) }

func (e *env) handOver(who string, r *kgo.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handed[submission(r)] = append(e.handed[submission(r)], who)
}

func (e *env) handedOver() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.handed)
}

// fakeSender hands over every item that it may begin, and settles it when the carrier has answered.
type fakeSender struct {
	env  *env
	name string
	// answer is how long the carrier takes; nil: no time.
	answer func() time.Duration
	// wait is how long it waits for tokens before it hands over; nil: not at all.
	wait func() time.Duration
	// judge decides what becomes of an item before it is handed over; "" hands it over.
	judge func(*window.Item) string

	mu        sync.Mutex
	released  int
	uncertain int
	refused   int // Begin refused
}

func (d *fakeSender) Release(items []*window.Item) {
	d.mu.Lock()
	d.released += len(items)
	d.mu.Unlock()
	go func() {
		for _, it := range items {
			if d.wait == nil {
				d.handle(it)
			} else {
				time.AfterFunc(d.wait(), func() { d.handle(it) })
			}
		}
	}()
}

func (d *fakeSender) handle(it *window.Item) {
	count := func(n *int) {
		d.mu.Lock()
		*n++
		d.mu.Unlock()
	}
	if it.Uncertain() {
		count(&d.uncertain)
		it.Settle(d.env.outcome(it.Record, "ambiguous"))
		return
	}
	if d.judge != nil {
		if kind := d.judge(it); kind != "" {
			it.Settle(d.env.outcome(it.Record, kind))
			return
		}
	}
	if !it.Begin() {
		count(&d.refused)
		return
	}
	d.env.handOver(d.name, it.Record)
	if d.answer == nil {
		it.Settle(d.env.outcome(it.Record, "sent"))
		return
	}
	time.AfterFunc(d.answer(), func() { it.Settle(d.env.outcome(it.Record, "sent")) })
}

func (d *fakeSender) count(n *int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return *n
}

func (e *env) outcome(r *kgo.Record, kind string) *kgo.Record {
	return &kgo.Record{Topic: e.out, Key: schemas.Header(r, schemas.HeaderSubmission), Value: []byte(kind)}
}

// finalOutcomeOf returns the submission that a final outcome is about.
func finalOutcomeOf(r *kgo.Record) (schemas.ID, error) {
	if string(r.Value) == "ambiguous" {
		return schemas.ID{}, errors.New("not final")
	}
	return schemas.ParseID(string(r.Key))
}

func (e *env) config() window.Config {
	return window.Config{
		Tenant:  e.tenant,
		Cluster: e.Cluster, Topic: e.in, Group: e.group, Outcomes: e.out, Size: func() int { return 60 }, Identity: identity,
		OutcomeOf: finalOutcomeOf, SessionTimeout: 2 * time.Second, GuardMargin: 500 * time.Millisecond, DrainTimeout: 2 * time.Second,
	}
}

func (e *env) window(t testing.TB, cfg window.Config, rel window.Releaser) *window.Window {
	t.Helper()
	w, err := window.New(cfg, rel)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// sender starts a fakeSender with a window and returns what stops it gracefully.
func (e *env) sender(t testing.TB, name string, change func(*window.Config, *fakeSender)) (*fakeSender, func() error) {
	t.Helper()
	d, cfg := &fakeSender{env: e, name: name}, e.config()
	cfg.Cluster.Name = name
	if change != nil {
		change(&cfg, d)
	}
	return d, streamtest.Run(t, e.window(t, cfg, d).Run)
}

// outcomes returns the kinds of outcomes by the source they name.
func (e *env) outcomes(t testing.TB) map[string][]string {
	t.Helper()
	return e.kinds(t, func(r *kgo.Record) string { return string(schemas.Header(r, schemas.HeaderSource)) })
}

func (e *env) kinds(t testing.TB, by func(*kgo.Record) string) map[string][]string {
	t.Helper()
	kinds := map[string][]string{}
	for _, r := range e.Read(t, e.out) {
		kinds[by(r)] = append(kinds[by(r)], string(r.Value))
	}
	return kinds
}

// awaitOutcomes waits until n records have an outcome.
func (e *env) awaitOutcomes(t testing.TB, n int, within time.Duration) {
	t.Helper()
	e.await(t, "records", n, within, func() int { return len(e.outcomes(t)) })
}

// awaitSubmissions waits until n submissions have an outcome, some of which were written twice.
func (e *env) awaitSubmissions(t testing.TB, n int, within time.Duration) {
	t.Helper()
	e.await(t, "submissions", n, within, func() int { return len(e.kinds(t, func(r *kgo.Record) string { return string(r.Key) })) })
}

func (e *env) await(t testing.TB, what string, n int, within time.Duration, have func() int) {
	t.Helper()
	got, deadline := 0, time.Now().Add(within)
	for time.Now().Before(deadline) {
		if got = have(); got >= n {
			return
		}
		time.Sleep(30 * time.Millisecond)
	}
	t.Fatalf("%s with an outcome: got %d, want %d within %s; the group: %s", what, got, n, within, e.describe(t))
}

// describe lists the group's members, their partitions and the committed offsets, for a test that hangs.
func (e *env) describe(t testing.TB) string {
	t.Helper()
	groups, err := e.Admin.DescribeGroups(t.Context(), e.group)
	if err != nil {
		return err.Error()
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s", groups[e.group].State)
	for _, m := range groups[e.group].Members {
		fmt.Fprintf(&s, "\n  %s %s:", m.ClientID, m.MemberID)
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, topic := range a.Topics {
				fmt.Fprint(&s, " ", topic.Partitions)
			}
		}
	}
	ends, err := e.Admin.ListEndOffsets(t.Context(), e.in)
	if err != nil {
		return err.Error()
	}
	for p := range e.partitions {
		at, metadata := e.intent(t, p)
		end, _ := ends.Lookup(e.in, p)
		fmt.Fprintf(&s, "\n  partition %d: committed %d %q of %d", p, at, metadata, end.Offset)
	}
	return s.String()
}

// check compares every submission with what the carrier has seen: handed over at most once, an outcome for each of the
// n, and no outcome that contradicts the carrier. It returns how many ended in doubt.
func (e *env) check(t testing.TB, n int) (doubtful int) {
	t.Helper()
	kinds := e.kinds(t, func(r *kgo.Record) string { return string(r.Key) })
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(kinds) != n {
		t.Errorf("submissions with an outcome: got %d, want %d", len(kinds), n)
	}
	twice := 0
	for s, who := range e.handed {
		if len(who) > 1 {
			if twice++; twice <= 3 {
				t.Errorf("%s was handed over %d times: %v", s, len(who), who)
			}
		}
	}
	if twice > 0 {
		t.Errorf("handed over more than once: got %d, want none", twice)
	}
	for s, ks := range kinds {
		sent, other := false, ""
		for _, k := range ks {
			switch k {
			case "sent":
				sent = true
			case "returned", "skipped":
				other = k
			}
		}
		if sent && len(e.handed[s]) == 0 {
			t.Errorf("%s: outcome sent, but it was not handed over", s)
		}
		if other != "" && len(e.handed[s]) > 0 {
			t.Errorf("%s: outcome %s, but it was handed over", s, other)
		}
		if !sent && other == "" {
			doubtful++
		}
	}
	return doubtful
}

// stable waits until the group has settled. kfake keeps a member that dies while it joins, and its partitions, for
// ever; a real broker drops it.
func (e *env) stable(t testing.TB, members int) {
	t.Helper()
	streamtest.Eventually(t, fmt.Sprintf("the group to be stable with %d members", members), func() bool {
		groups, err := e.Admin.DescribeGroups(t.Context(), e.group)
		return err == nil && groups[e.group].State == "Stable" && len(groups[e.group].Members) == members
	})
}

// intent returns the committed offset and metadata of a partition.
func (e *env) intent(t testing.TB, partition int32) (base int64, metadata string) {
	t.Helper()
	c := committed(t, e.Broker, e.group, e.in)[partition]
	return c.At, c.Metadata
}

// blocks gives each run of 40 records to one of three tenants.
func blocks(r *kgo.Record) string { return string('a' + rune(r.Offset/40%3)) }

// jitter is an answer time between 0 and most.
func jitter(most time.Duration) func() time.Duration {
	return func() time.Duration { return rand.N(most) }
}
