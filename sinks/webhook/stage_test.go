package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/api/store"
	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

// TestMain runs the child process of TestKill if the environment asks for it.
func TestMain(m *testing.M) {
	if text := os.Getenv("WEBHOOK_TEST_CHILD"); text != "" {
		if err := runChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type childSetup struct {
	DSN, Prefix string
	Brokers     []string
}

// runChild is a process with the role webhook, until it is killed.
func runChild(text string) error {
	var setup childSetup
	if err := json.Unmarshal([]byte(text), &setup); err != nil {
		return err
	}
	names, err := schemas.NewNames(setup.Prefix)
	if err != nil {
		return err
	}
	s, err := store.Open(context.Background(), store.Config{DSN: setup.DSN})
	if err != nil {
		return err
	}
	cfg := Config{
		Cluster: stream.Cluster{Brokers: setup.Brokers, Names: names, Logger: slog.New(slog.DiscardHandler)},
		Allow:   loopbackOnly, Lease: 300 * time.Millisecond, Poll: 20 * time.Millisecond, SessionTimeout: 500 * time.Millisecond,
	}
	w, err := New(cfg, s, &fakeView{})
	if err != nil {
		return err
	}
	return w.Run(context.Background())
}

// topics creates the topics that the stage reads.
func topics(t testing.TB, b *streamtest.Broker) {
	t.Helper()
	for _, topic := range b.Names.Fixed() {
		if strings.Contains(topic.Name, "deliveries") || strings.Contains(topic.Name, "campaigns") || strings.Contains(topic.Name, "replies") {
			b.Ensure(t, topic)
		}
	}
}

// stage runs the stage until the test ends.
func (e *env) stage(b *streamtest.Broker) {
	e.Helper()
	cfg := e.config(b.Cluster)
	cfg.Poll, cfg.Lease = 20*time.Millisecond, 2*time.Second
	w, err := New(cfg, e.store, &e.view)
	if err != nil {
		e.Fatal(err)
	}
	ctx, stop := context.WithCancel(e.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	e.Cleanup(func() {
		stop()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			e.Error(err)
		}
	})
}

// single is a campaign of single sends in the store.
func (e *env) single(n uint32) uint64 {
	e.Helper()
	lease, err := e.store.LeaseSeqs(e.Context(), e.tenant.ID, e.now(), n)
	if err != nil {
		e.Fatal(err)
	}
	return lease.Campaign
}

// A hanging endpoint delays no other: while its first request is still open, the others get all of their events.
func TestSlowEndpointDelaysNoOther(t *testing.T) {
	e := newEnv(t)
	e.clock.Store(0)
	b := streamtest.New(t)
	topics(t, b)
	release := make(chan struct{})
	hanging := newReceiver(t, func(_ int, _ post, w http.ResponseWriter) { <-release; w.WriteHeader(http.StatusNoContent) })
	quick := newReceiver(t, nil)
	t.Cleanup(func() { close(release) })
	e.hook("hanging", hanging.URL)
	const others, messages = 9, 40
	for i := range others {
		e.hook(fmt.Sprint("quick ", i), quick.URL)
	}
	campaign := e.single(messages)
	e.stage(b)
	for seq := range messages {
		b.Write(t, e.event(b.Names, campaign, uint32(seq), schemas.KindSent), e.event(b.Names, campaign, uint32(seq), schemas.KindDelivered))
	}
	hanging.wait(t, 1)
	quick.wait(t, others*messages*2)
	if n := len(hanging.got()); n == 0 || n > 40 {
		t.Errorf("got %d requests at the hanging endpoint", n)
	}
}

// No event is lost by kill -9, and the events of a message arrive in their order. The test kills a process with the
// role again and again while events are queued and posted.
func TestKill(t *testing.T) {
	e := newEnv(t)
	e.clock.Store(0)
	b := streamtest.New(t)
	topics(t, b)
	// One endpoint refuses some events the first time, so that retries are under way when the process is killed.
	var refused sync.Map
	flaky := func(_ int, p post, w http.ResponseWriter) {
		if _, again := refused.LoadOrStore(p.id, true); refusedFirst(p.id) && !again {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}
	receivers := []*receiver{newReceiver(t, nil), newReceiver(t, flaky)}
	for i, r := range receivers {
		e.hook(fmt.Sprint(i), r.URL)
	}
	const messages = 300
	campaign := e.single(messages)
	setup, err := json.Marshal(childSetup{DSN: e.dsn, Prefix: b.Names.Prefix(), Brokers: b.Brokers})
	if err != nil {
		t.Fatal(err)
	}
	start := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "WEBHOOK_TEST_CHILD="+string(setup))
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	kinds := []schemas.Kind{schemas.KindSent, schemas.KindDelivered, schemas.KindRead}
	wrote := make(chan error, 1)
	go func() {
		for seq := range messages {
			var recs []*kgo.Record
			for _, k := range kinds {
				recs = append(recs, e.event(b.Names, campaign, uint32(seq), k, func(d *fanfarev1.Delivery) { d.CustomerRef = "r" }))
			}
			if err := b.Client.ProduceSync(context.WithoutCancel(t.Context()), recs...).FirstErr(); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	cmd := start()
	for i := range 4 { // killed in the middle of the work each time
		receivers[0].wait(t, (i+1)*150)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		cmd = start()
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(2 * time.Minute)
	for i, r := range receivers {
		for {
			taken := firsts(r, i == 1)
			if len(taken) == messages*len(kinds) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("endpoint %d: got %d events, want %d", i, len(taken), messages*len(kinds))
			}
			time.Sleep(20 * time.Millisecond)
		}
		order := map[string][]string{}
		for _, p := range firsts(r, i == 1) {
			var ev struct {
				Type string
				Data struct{ MessageID, CustomerMessageID string }
			}
			if err := json.Unmarshal(p.body, &ev); err != nil {
				t.Fatal(err)
			}
			if ev.Data.CustomerMessageID != "r" {
				t.Fatalf("got %s, want the client's reference", p.body)
			}
			order[ev.Data.MessageID] = append(order[ev.Data.MessageID], strings.TrimPrefix(ev.Type, "message."))
		}
		for id, got := range order {
			if !slices.Equal(got, []string{"sent", "delivered", "read"}) {
				t.Fatalf("endpoint %d: events of %s came as %v", i, id, got)
			}
		}
	}
}

// firsts returns the first request with each id that was answered with 2xx, in order.
func firsts(r *receiver, flaky bool) (out []post) {
	seen := map[string]int{}
	for _, p := range r.got() {
		seen[p.id]++
		taken := 1
		if flaky && refusedFirst(p.id) {
			taken = 2
		}
		if seen[p.id] == taken {
			out = append(out, p)
		}
	}
	return out
}

// refusedFirst reports whether the flaky endpoint refuses an event the first time: one in 32.
func refusedFirst(id string) bool { return strings.HasSuffix(id, "a") }

// X6: on request, an endpoint gets all events since a date that it has not received yet.
func TestRecover(t *testing.T) {
	e := newEnv(t)
	e.clock.Store(0)
	b := streamtest.New(t)
	topics(t, b)
	campaign := e.single(10)
	long := e.event(b.Names, campaign, 0, schemas.KindSent)
	long.Timestamp = time.Now().Add(-2 * time.Hour)
	before := e.event(b.Names, campaign, 1, schemas.KindSent)
	before.Timestamp = time.Now().Add(-30 * time.Minute)
	b.Write(t, long, before)
	r := newReceiver(t, nil)
	w := e.hook("new", r.URL)
	e.stage(b)
	b.Write(t, e.event(b.Names, campaign, 2, schemas.KindSent))
	r.wait(t, 1)
	if n, err := e.store.RecoverWebhook(t.Context(), w.Tenant, w.Number, time.Now().Add(-time.Hour)); err != nil || n != 0 {
		t.Fatalf("got %d, %v: nothing has failed", n, err)
	}
	r.wait(t, 2)
	for h := (schemas.WebhookHealth{Recover: time.Now()}); !h.Recover.IsZero(); time.Sleep(10 * time.Millisecond) {
		var err error
		if h, _, err = e.store.WebhookHealth(t.Context(), w.Tenant, w.Number); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, p := range r.got() {
		var ev struct{ Data struct{ MessageID string } }
		if err := json.Unmarshal(p.body, &ev); err != nil {
			t.Fatal(err)
		}
		got = append(got, ev.Data.MessageID)
	}
	if want := []string{e.keys.Message(campaign, 2).String(), e.keys.Message(campaign, 1).String()}; !slices.Equal(got, want) {
		t.Errorf("got events of %v, want %v: the one from before the hour, and the one it had, not again", got, want)
	}
}
