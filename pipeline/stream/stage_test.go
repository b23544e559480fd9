package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/schemas"
)

// modes are the two modes of a stage; most of its promises hold in both.
var modes = []struct {
	name  string
	exact bool
}{{"at least once", false}, {"exactly once", true}}

// copyTo is a handler that copies the values to a topic.
func copyTo(topic string) stream.HandlerFunc {
	return func(_ context.Context, batch []*kgo.Record) (stream.Result, error) {
		var res stream.Result
		for _, r := range batch {
			res.Publish = append(res.Publish, &kgo.Record{Topic: topic, Key: r.Value, Value: r.Value})
		}
		return res, nil
	}
}

// pipe is a broker with topics in, in.dlq and out.
type pipe struct {
	*streamtest.Broker
	in, out, dlq string
}

func newPipe(t testing.TB, partitions int32) *pipe {
	t.Helper()
	b := streamtest.New(t)
	return &pipe{b, b.Topic(t, "in", partitions), b.Topic(t, "out", 3), b.Topic(t, "in.dlq", 1)}
}

func (p *pipe) config(exact bool) stream.StageConfig {
	return stream.StageConfig{
		Cluster: p.Cluster, Name: "copy", Group: p.Names.Group("copy"), Topics: []string{p.in}, ExactlyOnce: exact,
		SessionTimeout: time.Second, DrainTimeout: 5 * time.Second, TransactionTimeout: 2 * time.Second,
	}
}

func (p *pipe) stage(t testing.TB, cfg stream.StageConfig, h stream.Handler) *stream.Stage {
	t.Helper()
	s, err := stream.NewStage(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// counts returns how often each value is in a topic.
func counts(t testing.TB, b *streamtest.Broker, topic string) map[string]int {
	t.Helper()
	n := map[string]int{}
	for _, r := range b.Read(t, topic) {
		n[string(r.Value)]++
	}
	return n
}

func awaitValues(t testing.TB, b *streamtest.Broker, topic string, want int) {
	t.Helper()
	var got int
	deadline := time.Now().Add(40 * time.Second)
	for time.Now().Before(deadline) {
		if got = len(counts(t, b, topic)); got >= want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s: got %d different values, want %d", topic, got, want)
}

func TestStageCopiesEverything(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := newPipe(t, 4)
			p.Produce(t, p.in, 4, 500)
			stop := streamtest.Run(t, p.stage(t, p.config(mode.exact), copyTo(p.out)).Run)
			awaitValues(t, p.Broker, p.out, 2000)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			for v, n := range counts(t, p.Broker, p.out) {
				if n != 1 {
					t.Errorf("%s: got %d times, want once: nothing was disturbed", v, n)
				}
			}
			streamtest.Run(t, p.stage(t, p.config(mode.exact), stream.HandlerFunc(func(_ context.Context, batch []*kgo.Record) (stream.Result, error) {
				t.Errorf("after a stop %d records were given again", len(batch))
				return stream.Result{}, nil
			})).Run)
			// If the sleep is too short, the test may only miss a record that is handled again.
			time.Sleep(500 * time.Millisecond)
		})
	}
}

// Stages are killed and join while records flow: nothing is lost, and in transactions nothing is doubled.
func TestStageThroughKillsAndRebalances(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			const perPartition, partitions, kills = 2500, 4, 3
			p := newPipe(t, partitions)
			cfg := p.config(mode.exact)
			cfg.MaxRecords, cfg.DrainTimeout = 50, 500*time.Millisecond
			start := func() (k *streamtest.Killer, stop func() error, batches *atomic.Int64) {
				k, batches = &streamtest.Killer{}, &atomic.Int64{}
				c := cfg
				c.Cluster.Options = []kgo.Opt{k.Option()}
				slow := stream.HandlerFunc(func(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
					batches.Add(1)
					time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
					return copyTo(p.out)(ctx, batch)
				})
				return k, streamtest.Run(t, p.stage(t, c, slow).Run), batches
			}
			start()
			victim, stopVictim, batches := start()
			p.Produce(t, p.in, partitions, perPartition)
			for range kills {
				// Do not kill the member while it joins: kfake would keep it, and its partitions, for ever.
				streamtest.Eventually(t, "the victim to work", func() bool { return batches.Load() > 2 })
				time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
				victim.Kill()
				_ = stopVictim()
				victim, stopVictim, batches = start()
			}
			awaitValues(t, p.Broker, p.out, partitions*perPartition)
			again := 0
			for v, n := range counts(t, p.Broker, p.out) {
				again += n - 1
				if mode.exact && n != 1 {
					t.Fatalf("%s: got %d times, want once", v, n)
				}
			}
			t.Logf("%d records after %d kills, %d of them again", partitions*perPartition, kills, again)
		})
	}
}

func TestPoisonRecordsBecomeDeadLetters(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := newPipe(t, 1)
			p.Produce(t, p.in, 1, 40)
			p.Write(t, &kgo.Record{
				Topic: p.in, Key: []byte("k"), Value: []byte("panic"), Headers: []kgo.RecordHeader{{Key: "tenant", Value: []byte("tn_a")}},
			}, &kgo.Record{Topic: p.in, Value: []byte("refuse")})
			p.Produce(t, p.in, 1, 40)
			var calls atomic.Int64
			h := stream.HandlerFunc(func(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
				calls.Add(1)
				var good []*kgo.Record
				var dead []stream.Dead
				for _, r := range batch {
					switch string(r.Value) {
					case "panic":
						panic("cannot do this one")
					case "refuse":
						dead = append(dead, stream.Dead{Record: r, Cause: errors.New("no such thing")})
					default:
						good = append(good, r)
					}
				}
				res, err := copyTo(p.out)(ctx, good)
				res.Dead = dead
				return res, err
			})
			streamtest.Run(t, p.stage(t, p.config(mode.exact), h).Run)
			awaitValues(t, p.Broker, p.out, 40)
			awaitValues(t, p.Broker, p.dlq, 2)
			if got := len(p.Read(t, p.out)); got != 80 {
				t.Errorf("records beside the poison: got %d, want 80", got)
			}
			want := map[string]string{"panic": "panic: cannot do this one", "refuse": "no such thing"}
			for _, r := range p.Read(t, p.dlq) {
				value := string(r.Value)
				if got := string(schemas.Header(r, schemas.HeaderCause)); got != want[value] {
					t.Errorf("cause of %s: got %q, want %q", value, got, want[value])
				}
				if got := string(schemas.Header(r, schemas.HeaderStage)); got != "copy" {
					t.Errorf("stage: got %q, want copy", got)
				}
				if got := string(schemas.Header(r, schemas.HeaderSourceTopic)); got != p.in {
					t.Errorf("source topic: got %q, want %q", got, p.in)
				}
				if got, want := string(schemas.Header(r, schemas.HeaderSource)), fmt.Sprintf("%s/0/", p.in); !strings.HasPrefix(got, want) {
					t.Errorf("source: got %q, want %q and the offset", got, want)
				}
				if value == "panic" && (string(r.Key) != "k" || string(schemas.Header(r, "tenant")) != "tn_a") {
					t.Errorf("the record has changed: key %q, headers %v", r.Key, r.Headers)
				}
			}
			if got := p.Metric(t, "fanfare_stage_dead_letters_total"); got != 2 {
				t.Errorf("dead letters counted: got %g, want 2", got)
			}
		})
	}
}

// Results that Kafka refuses permanently must not block the partition either.
func TestResultsThatKafkaRefusesBecomeDeadLetters(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := newPipe(t, 1)
			p.Produce(t, p.in, 1, 20)
			p.Write(t, &kgo.Record{Topic: p.in, Value: []byte("huge")})
			p.Write(t, &kgo.Record{Topic: p.in, Value: []byte("after")})
			h := stream.HandlerFunc(func(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
				res, err := copyTo(p.out)(ctx, batch)
				for _, r := range res.Publish {
					if string(r.Value) == "huge" {
						r.Value = bytes.Repeat([]byte{'x'}, 3<<20)
					}
				}
				return res, err
			})
			streamtest.Run(t, p.stage(t, p.config(mode.exact), h).Run)
			awaitValues(t, p.Broker, p.dlq, 1)
			awaitValues(t, p.Broker, p.out, 21)
			dead := p.Read(t, p.dlq)
			if got := string(schemas.Header(dead[0], schemas.HeaderCause)); len(dead) != 1 || !strings.Contains(got, "MESSAGE_TOO_LARGE") || string(dead[0].Value) != "huge" {
				t.Errorf("got %d dead letters, the first %q with cause %q; want huge, with MESSAGE_TOO_LARGE", len(dead), dead[0].Value, got)
			}
		})
	}
}

// Only the record whose results Kafka refuses becomes a dead letter, with whichever partition the next poll begins.
func TestRefusedResultsDoNotCondemnOtherPartitions(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			const partitions = 6
			p := newPipe(t, partitions)
			want := map[string]bool{}
			for id := range int32(partitions) {
				for i := range 10 {
					value := fmt.Sprintf("good %d/%d", id, i)
					if i == 5 && id%2 == 0 {
						value = fmt.Sprintf("huge %d", id)
						want[value] = true
					}
					p.Write(t, &kgo.Record{Topic: p.in, Partition: id, Value: []byte(value)})
				}
			}
			h := stream.HandlerFunc(func(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
				res, err := copyTo(p.out)(ctx, batch)
				for _, r := range res.Publish {
					if strings.HasPrefix(string(r.Value), "huge") {
						r.Value = bytes.Repeat([]byte{'x'}, 3<<20)
					}
				}
				return res, err
			})
			streamtest.Run(t, p.stage(t, p.config(mode.exact), h).Run)
			streamtest.Eventually(t, "every record copied or dead", func() bool {
				return len(counts(t, p.Broker, p.out))+len(counts(t, p.Broker, p.dlq)) >= 10*partitions
			})
			for value := range counts(t, p.Broker, p.dlq) {
				if !want[value] {
					t.Errorf("%q is a dead letter, want only those that are refused", value)
				}
			}
		})
	}
}

// An error is temporary: the batch is handled again until it succeeds, and nothing of it is published before.
func TestHandlerErrorsAreRetried(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := newPipe(t, 1)
			p.Produce(t, p.in, 1, 10)
			var calls atomic.Int64
			h := stream.HandlerFunc(func(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
				res, err := copyTo(p.out)(ctx, batch)
				if calls.Add(1) <= 4 {
					return res, errors.New("the store is away")
				}
				return res, err
			})
			log, text := logged()
			cfg := p.config(mode.exact)
			cfg.Cluster.Logger = log
			stop := streamtest.Run(t, p.stage(t, cfg, h).Run)
			awaitValues(t, p.Broker, p.out, 10)
			for v, n := range counts(t, p.Broker, p.out) {
				if n != 1 {
					t.Errorf("%s: got %d times, want once", v, n)
				}
			}
			if got := calls.Load(); got < 5 {
				t.Errorf("calls: got %d, want at least 5", got)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if failed, again := strings.Count(text(), "batch failed; retrying"), strings.Count(text(), "batches succeed again"); failed != 1 || again != 1 {
				t.Errorf("log: got %d lines of failure and %d of success, want one each for a state that lasts:\n%s", failed, again, text())
			}
		})
	}
}

// A member whose handler always fails must let other members take its partitions.
func TestAFailingMemberLetsGo(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := newPipe(t, 2)
			p.Produce(t, p.in, 2, 10)
			failing := make(chan struct{})
			var once sync.Once
			streamtest.Run(t, p.stage(t, p.config(mode.exact), stream.HandlerFunc(func(context.Context, []*kgo.Record) (stream.Result, error) {
				once.Do(func() { close(failing) })
				return stream.Result{}, errors.New("always")
			})).Run)
			<-failing
			streamtest.Run(t, p.stage(t, p.config(mode.exact), copyTo(p.out)).Run)
			awaitValues(t, p.Broker, p.out, 10) // the records of the partition that moved
		})
	}
}

// A stop finishes and commits the current batch, although its context has ended.
func TestStopFinishesTheBatchInHand(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := newPipe(t, 1)
			p.Produce(t, p.in, 1, 10)
			inHand, stopping := make(chan struct{}), make(chan struct{})
			var once sync.Once
			h := stream.HandlerFunc(func(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
				once.Do(func() { close(inHand) })
				<-stopping
				// The stop overlaps the batch; without the overlap the test is only weaker
				time.Sleep(50 * time.Millisecond)
				if ctx.Err() != nil {
					return stream.Result{}, ctx.Err()
				}
				return copyTo(p.out)(ctx, batch)
			})
			s := p.stage(t, p.config(mode.exact), h)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			<-inHand
			cancel()
			close(stopping)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got := len(counts(t, p.Broker, p.out)); got != 10 {
				t.Errorf("published: got %d, want 10", got)
			}
			if got := committed(t, p.Broker, p.Names.Group("copy"), p.in)[0].At; got != 10 {
				t.Errorf("committed: got %d, want 10", got)
			}
		})
	}
}

// The stage gives up a handler that does not return in time, and does not commit its batch.
func TestStopDoesNotWaitForEver(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := newPipe(t, 1)
			p.Produce(t, p.in, 1, 1)
			cfg := p.config(mode.exact)
			cfg.DrainTimeout = 300 * time.Millisecond
			inHand := make(chan struct{})
			s := p.stage(t, cfg, stream.HandlerFunc(func(ctx context.Context, _ []*kgo.Record) (stream.Result, error) {
				close(inHand)
				<-ctx.Done()
				return stream.Result{}, ctx.Err()
			}))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			<-inHand
			began := time.Now()
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("stopped after %s, want about 0.3 s", took)
			}
			if got := committed(t, p.Broker, p.Names.Group("copy"), p.in)[0]; got.At > 0 {
				t.Errorf("committed: got %d, want nothing", got.At)
			}
		})
	}
}

// An unreachable broker must not keep a process from ending.
func TestStopWithoutABroker(t *testing.T) {
	streamtest.FakeOnly(t)
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			p := newPipe(t, 1)
			cfg := p.config(mode.exact)
			cfg.DrainTimeout = 300 * time.Millisecond
			k := &streamtest.Killer{}
			cfg.Cluster.Options = []kgo.Opt{k.Option()}
			p.Produce(t, p.in, 1, 10)
			inHand := make(chan struct{})
			var once sync.Once
			s := p.stage(t, cfg, stream.HandlerFunc(func(ctx context.Context, batch []*kgo.Record) (stream.Result, error) {
				k.Kill()
				once.Do(func() { close(inHand) })
				return copyTo(p.out)(ctx, batch)
			}))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			<-inHand
			began := time.Now()
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 30*time.Second {
				t.Errorf("stopped after %s, want about 0.3 s", took)
			}
		})
	}
}
