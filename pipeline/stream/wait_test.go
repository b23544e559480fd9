package stream_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"fanfare/pipeline/stream"
	"fanfare/pipeline/stream/streamtest"
	"fanfare/schemas"
)

// logged returns a logger and a function that returns the lines that it wrote, at Info and above.
func logged() (*slog.Logger, func() string) {
	var b lockedBuffer
	return slog.New(slog.NewTextHandler(&b, nil)), b.String
}

// conditions are the temporary states of a Kafka that starts or has a fault: the request that is affected, the broker's
// answer, and how often the broker gives it.
var conditions = []struct {
	name  string
	fault kfake.Fault
}{
	{"a coordinator is not there yet", kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator}, Err: kerr.CoordinatorNotAvailable}},
	{"a coordinator is loading", kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Err: kerr.CoordinatorLoadInProgress}},
	{"a coordinator has moved", kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Err: kerr.NotCoordinator}},
	{"a transaction is about to commit offsets", kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, Err: kerr.UnstableOffsetCommit}},
	{"a coordinator moves while offsets are committed", kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.NotCoordinator}},
	{"a coordinator is gone while offsets are committed", kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.CoordinatorNotAvailable}},
	{"a group rebalances", kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.RebalanceInProgress}},
	{"the controller has moved", kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.NotController}},
	{"fewer brokers than replicas", kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.InvalidReplicationFactor}},
	{"creating times out", kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.RequestTimedOut}},
	{"a quota is spent", kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.ThrottlingQuotaExceeded}},
	{"a broker does not know the topic yet", kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.UnknownTopicOrPartition}},
	{"a leader is being elected", kfake.Fault{Keys: []kmsg.Key{kmsg.Metadata}, Err: kerr.LeaderNotAvailable}},
	{"a leader has moved", kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.NotLeaderForPartition}},
	{"a replica is not available", kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.ReplicaNotAvailable}},
	{"an offset is not known yet", kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.OffsetNotAvailable}},
	{"a broker has an error of its own", kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.UnknownServerError}},
	{"a broker is not available", kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Err: kerr.BrokerNotAvailable}},
	{"a disk has an error", kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Err: kerr.KafkaStorageError}},
}

// TestPrepareWaits: Prepare creates topics and first offsets on a Kafka that is just starting. It waits for each
// condition to pass, with one log line when the wait begins and one when it ends.
func TestPrepareWaits(t *testing.T) {
	t.Parallel()
	streamtest.FakeOnly(t)
	for _, c := range conditions {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := streamtest.New(t)
			log, text := logged()
			b.Logger = log
			c.fault.Count = 4 // more than the client's own retries
			fault := b.Fake.Fault(c.fault)
			topic := b.Names.Prefix() + "x"
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := b.Prepare(ctx, 1, []schemas.Topic{{Name: topic, Partitions: 2, Retention: time.Hour}}, []stream.Start{{Group: "g", Topic: topic}})
			if err != nil {
				t.Fatal(err)
			}
			if fault.Hits() == 0 {
				t.Fatal("the fault was never met")
			}
			offsets, err := b.Admin.FetchOffsets(t.Context(), "g")
			if err != nil || len(offsets[topic]) != 2 {
				t.Errorf("got offsets %v, %v; want those of 2 partitions", offsets, err)
			}
			begun, over := strings.Count(text(), "kafka is not ready"), strings.Count(text(), "kafka is ready again")
			if begun > 1 || over != begun {
				t.Errorf("got %d lines that say that Kafka is not ready and %d that it is again, want at most one pair:\n%s", begun, over, text())
			}
		})
	}
}

// TestPrepareGivesUp: Prepare returns at once on an error that waiting cannot mend, and at its deadline. Both errors
// give the reason.
func TestPrepareGivesUp(t *testing.T) {
	t.Parallel()
	streamtest.FakeOnly(t)
	for _, c := range []struct {
		key  kmsg.Key
		err  *kerr.Error
		once bool
	}{
		{kmsg.Metadata, kerr.TopicAuthorizationFailed, true},
		{kmsg.CreateTopics, kerr.ClusterAuthorizationFailed, true},
		{kmsg.CreateTopics, kerr.PolicyViolation, true},
		{kmsg.CreateTopics, kerr.UnsupportedVersion, true},
		{kmsg.CreateTopics, kerr.InvalidConfig, true},
		{kmsg.DescribeConfigs, kerr.TopicAuthorizationFailed, true},
		{kmsg.OffsetFetch, kerr.GroupAuthorizationFailed, true},
		{kmsg.CreateTopics, kerr.InvalidReplicationFactor, false},
		{kmsg.OffsetFetch, kerr.CoordinatorLoadInProgress, false},
	} {
		t.Run(fmt.Sprintf("%s %s", c.key.Name(), c.err.Message), func(t *testing.T) {
			t.Parallel()
			b := streamtest.New(t)
			fault := b.Fake.Fault(kfake.Fault{Keys: []kmsg.Key{c.key}, Err: c.err, Count: -1})
			log, text := logged()
			b.Logger = log
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			if !c.once { // the context ends while Prepare waits for the condition to pass
				go func() {
					for retry := time.NewTicker(time.Millisecond); ctx.Err() == nil && !strings.Contains(text(), c.err.Message); <-retry.C {
					}
					cancel()
				}()
			}
			topic := b.Names.Prefix() + "x"
			err := b.Prepare(ctx, 1, []schemas.Topic{{Name: topic, Partitions: 2, Retention: time.Hour}}, []stream.Start{{Group: "g", Topic: topic}})
			if !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			if gaveUp := err != nil && strings.Contains(err.Error(), "gave up after"); gaveUp == c.once {
				t.Errorf("got %v, want it at once: %t", err, c.once)
			}
			if fault.Hits() == 0 {
				t.Error("the fault was never met")
			}
		})
	}
}

// TestPrepareWaitsForTheNetwork: Prepare waits for brokers whose names do not resolve yet, and for brokers that refuse
// or end connections.
func TestPrepareWaitsForTheNetwork(t *testing.T) {
	t.Parallel()
	streamtest.FakeOnly(t)
	for name, fail := range map[string]error{
		"name not found":     &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "kafka", IsNotFound: true}},
		"resolver away":      &net.OpError{Op: "dial", Err: &net.DNSError{Err: "server misbehaving", Name: "kafka", IsTemporary: true}},
		"connection refused": &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		"no route":           &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH},
		"end of file":        io.EOF,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := streamtest.New(t)
			log, text := logged()
			b.Logger = log
			var dials atomic.Int64
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				if dials.Add(1) <= 6 {
					return nil, fail
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
			b.Options = append(b.Options, kgo.Dialer(dial))
			topic := b.Names.Prefix() + "x"
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := b.Prepare(ctx, 1, []schemas.Topic{{Name: topic, Partitions: 1, Retention: time.Hour}}, nil); err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(text(), "kafka is not ready"); n > 1 {
				t.Errorf("got %d lines that say that Kafka is not ready, want at most one:\n%s", n, text())
			}
		})
	}
}

func TestTemporary(t *testing.T) {
	for _, err := range []error{
		kerr.CoordinatorNotAvailable, kerr.UnknownTopicOrPartition, kerr.InvalidReplicationFactor, kerr.ConcurrentTransactions, kerr.UnknownServerError,
		io.EOF, context.DeadlineExceeded, syscall.ECONNREFUSED, &net.DNSError{IsNotFound: true}, fmt.Errorf("fetch: %w", kerr.NotCoordinator),
	} {
		if !stream.Temporary(err) {
			t.Errorf("%v: want temporary", err)
		}
	}
	for _, err := range []error{
		nil, kgo.ErrClientClosed, context.Canceled, kerr.SaslAuthenticationFailed, kerr.GroupAuthorizationFailed, kerr.UnsupportedVersion, &stream.TopicError{},
		&stream.OffsetError{},
		x509.UnknownAuthorityError{},
		fmt.Errorf("topics: %w", errors.Join(&stream.TopicError{}, kerr.NotController)),
		errors.Join(kerr.NotController, kerr.TopicAuthorizationFailed),
	} {
		if stream.Temporary(err) {
			t.Errorf("%v: want lasting", err)
		}
	}
}

// TestStateLogsChanges: State logs a change once, and not each time it sees the same state.
func TestStateLogsChanges(t *testing.T) {
	log, text := logged()
	s := stream.NewState(log)
	s.OK(t.Context())
	for _, err := range []error{kerr.NotController, kerr.NotController, fmt.Errorf("again: %w", kerr.NotController), kerr.RequestTimedOut, kerr.RequestTimedOut} {
		s.Failed(t.Context(), err)
	}
	s.OK(t.Context())
	s.OK(t.Context())
	if lines := strings.Split(strings.TrimSpace(text()), "\n"); len(lines) != 3 {
		t.Errorf("got %d lines, want 3: not ready, another reason, ready again\n%s", len(lines), text())
	}
}

// lockedBuffer is a buffer that may be written and read concurrently.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
