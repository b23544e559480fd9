package stream_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/schemas"
)

// office is messages, their senders' group, and the carrier they are handed over to, which forgets nothing.
type office struct {
	*broker
	in, out, group string
	partitions     int32

	mu     sync.Mutex
	handed map[string][]string // submission: who handed it over
}

func newOffice(t testing.TB, partitions int32) *office {
	t.Helper()
	b := newBroker(t)
	o := &office{broker: b, partitions: partitions, in: b.topic(t, "messages", partitions), out: b.topic(t, "deliveries", 3), group: b.Names.Group("sender"), handed: map[string][]string{}}
	if err := stream.EnsureOffsets(t.Context(), b.adm, o.group, o.in); err != nil {
		t.Fatal(err)
	}
	return o
}

func source(r *kgo.Record) string { return fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset) }

func submission(r *kgo.Record) string { return string(schemas.Header(r, schemas.HeaderSubmission)) }

func (o *office) handOver(who string, r *kgo.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.handed[submission(r)] = append(o.handed[submission(r)], who)
}

func (o *office) handedOver() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.handed)
}

// desk is one sender: it hands over what it may and settles when the carrier has answered.
type desk struct {
	o    *office
	name string
	// answer is how long the carrier takes; nil: no time.
	answer func() time.Duration
	// wait is how long it waits for tokens before it hands over; nil: not at all.
	wait func() time.Duration
	// judge decides what becomes of an item before it is handed over; "" hands it over.
	judge func(*stream.Item) string

	mu        sync.Mutex
	released  int
	uncertain int
	refused   int // Begin said no
}

func (d *desk) Release(items []*stream.Item) {
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

func (d *desk) handle(it *stream.Item) {
	count := func(n *int) {
		d.mu.Lock()
		*n++
		d.mu.Unlock()
	}
	if it.Uncertain {
		count(&d.uncertain)
		it.Settle(d.o.outcome(it.Record, "ambiguous"))
		return
	}
	if d.judge != nil {
		if kind := d.judge(it); kind != "" {
			it.Settle(d.o.outcome(it.Record, kind))
			return
		}
	}
	if !it.Begin() {
		count(&d.refused)
		return
	}
	d.o.handOver(d.name, it.Record)
	if d.answer == nil {
		it.Settle(d.o.outcome(it.Record, "sent"))
		return
	}
	time.AfterFunc(d.answer(), func() { it.Settle(d.o.outcome(it.Record, "sent")) })
}

func (d *desk) count(n *int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return *n
}

func (o *office) outcome(r *kgo.Record, kind string) *kgo.Record {
	return &kgo.Record{Topic: o.out, Key: schemas.Header(r, schemas.HeaderSubmission), Value: []byte(kind)}
}

func (o *office) config() stream.WindowConfig {
	return stream.WindowConfig{
		Cluster: o.Cluster, Topic: o.in, Group: o.group, Outcomes: o.out, Size: func() int { return 60 }, Identity: identity,
		SessionTimeout: 2 * time.Second, GuardMargin: 500 * time.Millisecond, DrainTimeout: 2 * time.Second,
	}
}

func (o *office) window(t testing.TB, cfg stream.WindowConfig, rel stream.Releaser) *stream.Window {
	t.Helper()
	w, err := stream.NewWindow(cfg, rel)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// sender starts a desk with a window and returns what stops it gracefully.
func (o *office) sender(t testing.TB, name string, change func(*stream.WindowConfig, *desk)) (*desk, func() error) {
	t.Helper()
	d, cfg := &desk{o: o, name: name}, o.config()
	cfg.Cluster.Name = name
	if change != nil {
		change(&cfg, d)
	}
	return d, run(t, o.window(t, cfg, d).Run)
}

// outcomes returns the kinds of outcomes by the source they name.
func (o *office) outcomes(t testing.TB) map[string][]string {
	t.Helper()
	return o.kinds(t, func(r *kgo.Record) string { return string(schemas.Header(r, schemas.HeaderSource)) })
}

func (o *office) kinds(t testing.TB, by func(*kgo.Record) string) map[string][]string {
	t.Helper()
	kinds := map[string][]string{}
	for _, r := range o.read(t, o.out) {
		kinds[by(r)] = append(kinds[by(r)], string(r.Value))
	}
	return kinds
}

// awaitOutcomes waits until n records have an outcome.
func (o *office) awaitOutcomes(t testing.TB, n int, within time.Duration) {
	t.Helper()
	o.await(t, "records", n, within, func() int { return len(o.outcomes(t)) })
}

// awaitSubmissions waits until n submissions have an outcome, some of which were written twice.
func (o *office) awaitSubmissions(t testing.TB, n int, within time.Duration) {
	t.Helper()
	o.await(t, "submissions", n, within, func() int { return len(o.kinds(t, func(r *kgo.Record) string { return string(r.Key) })) })
}

func (o *office) await(t testing.TB, what string, n int, within time.Duration, have func() int) {
	t.Helper()
	got, deadline := 0, time.Now().Add(within)
	for time.Now().Before(deadline) {
		if got = have(); got >= n {
			return
		}
		time.Sleep(30 * time.Millisecond)
	}
	t.Fatalf("%s with an outcome: got %d, want %d within %s; the group: %s", what, got, n, within, o.describe(t))
}

// describe says who has which partition and what is committed, for when something hangs.
func (o *office) describe(t testing.TB) string {
	t.Helper()
	groups, err := o.adm.DescribeGroups(t.Context(), o.group)
	if err != nil {
		return err.Error()
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s", groups[o.group].State)
	for _, m := range groups[o.group].Members {
		fmt.Fprintf(&s, "\n  %s %s:", m.ClientID, m.MemberID)
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, topic := range a.Topics {
				fmt.Fprint(&s, " ", topic.Partitions)
			}
		}
	}
	ends, err := o.adm.ListEndOffsets(t.Context(), o.in)
	if err != nil {
		return err.Error()
	}
	for p := range o.partitions {
		at, metadata := o.intent(t, p)
		end, _ := ends.Lookup(o.in, p)
		fmt.Fprintf(&s, "\n  partition %d: committed %d %q of %d", p, at, metadata, end.Offset)
	}
	return s.String()
}

// check holds every submission against the truth: handed over at most once, an outcome for each of the n, and no outcome that
// contradicts the carrier. It returns how many ended in doubt.
func (o *office) check(t testing.TB, n int) (doubtful int) {
	t.Helper()
	kinds := o.kinds(t, func(r *kgo.Record) string { return string(r.Key) })
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(kinds) != n {
		t.Errorf("submissions with an outcome: got %d, want %d", len(kinds), n)
	}
	twice := 0
	for s, who := range o.handed {
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
		if sent && len(o.handed[s]) == 0 {
			t.Errorf("%s: outcome sent, but it was not handed over", s)
		}
		if other != "" && len(o.handed[s]) > 0 {
			t.Errorf("%s: outcome %s, but it was handed over", s, other)
		}
		if !sent && other == "" {
			doubtful++
		}
	}
	return doubtful
}

// stable waits until the group does not rebalance. kfake keeps a member that dies while it joins, and what it gives it, for
// ever; a real broker forgets it.
func (o *office) stable(t testing.TB, members int) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("the group to be stable with %d members", members), func() bool {
		groups, err := o.adm.DescribeGroups(t.Context(), o.group)
		return err == nil && groups[o.group].State == "Stable" && len(groups[o.group].Members) == members
	})
}

// intent returns what is committed of a partition.
func (o *office) intent(t testing.TB, partition int32) (base int64, metadata string) {
	t.Helper()
	c := committed(t, o.broker, o.group, o.in)[partition]
	return c.At, c.Metadata
}

// jitter is an answer time between 0 and most.
func jitter(most time.Duration) func() time.Duration {
	return func() time.Duration { return rand.N(most) }
}
