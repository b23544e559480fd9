package embedded_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"fanfare/deploy/embedded"
)

// as returns a client that logs in, and does not retry for long.
func as(t *testing.T, addr, user, password string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	opts = append(opts, kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.RetryTimeout(time.Second), kgo.RecordDeliveryTimeout(2*time.Second), kgo.MetadataMinAge(10*time.Millisecond))
	if user != "" {
		opts = append(opts, kgo.SASL(plain.Auth{User: user, Pass: password}.AsMechanism()))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// The embedded services refuse every client without a login. A consumer may read the public topics, and can write
// nothing.
func TestServicesWantALogin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	login, err := embedded.OpenLogin(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := embedded.Start(embedded.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), Kafka: true, Redis: true, Login: login, Public: []string{"public"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	for name, cl := range map[string]*kgo.Client{
		"no login": as(t, s.Kafka, "", ""), "wrong password": as(t, s.Kafka, login.Kafka.User, "x"), "wrong user": as(t, s.Kafka, "x", login.Kafka.Password),
	} {
		if topics, err := kadm.NewClient(cl).ListTopics(ctx); err == nil {
			t.Errorf("%s: got %v, want no answer", name, topics.Names())
		}
	}
	admin := as(t, s.Kafka, login.Kafka.User, login.Kafka.Password)
	for _, topic := range []string{"public", "private"} {
		if _, err := kadm.NewClient(admin).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
		if err := admin.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(topic)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	c, err := embedded.ReadConnection(dir)
	if err != nil || c.Brokers != s.Kafka || c.User != login.Consumer.User || c.Password != login.Consumer.Password {
		t.Fatalf("got %+v, %v, want what a consumer needs", c, err)
	}
	reader := as(t, c.Brokers, c.User, c.Password, kgo.ConsumeTopics("public"), kgo.ConsumerGroup("anything"))
	if records := reader.PollFetches(ctx).Records(); len(records) != 1 || string(records[0].Value) != "public" {
		t.Errorf("a consumer got %d records, want the one of the public topic", len(records))
	}
	consumer := as(t, c.Brokers, c.User, c.Password)
	for _, topic := range []string{"public", "private"} {
		if err := consumer.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("forged")}).FirstErr(); err == nil {
			t.Errorf("a consumer wrote to %s", topic)
		}
	}
	if end, err := kadm.NewClient(consumer).ListEndOffsets(ctx, "private"); err == nil && end.Error() == nil && len(end.Offsets()["private"]) > 0 {
		t.Errorf("a consumer sees the private topic: %v", end)
	}
	if _, err := kadm.NewClient(consumer).DeleteTopic(ctx, "public"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("a consumer deletes a topic: got %v, want %v", err, kerr.TopicAuthorizationFailed)
	}

	for password, want := range map[string]bool{"": false, "wrong": false, login.Redis: true} {
		rdb := redis.NewClient(&redis.Options{Addr: s.Redis, Password: password})
		if err := rdb.Set(ctx, "k", "v", 0).Err(); (err == nil) != want {
			t.Errorf("Redis with the password %q: got %v, want obeyed: %v", password, err, want)
		}
		_ = rdb.Close()
	}
}

// The accounts are made once, and only their owner can read them.
func TestLoginIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := embedded.OpenLogin(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := embedded.OpenLogin(dir)
	if err != nil || again != first {
		t.Errorf("got %v, want the accounts of the first start", err)
	}
	if first.Kafka.Password == first.Consumer.Password || len(first.Kafka.Password) < 20 || len(first.Redis) < 20 {
		t.Error("the passwords must be long and differ")
	}
	other, err := embedded.OpenLogin(t.TempDir())
	if err != nil || other.Kafka.Password == first.Kafka.Password {
		t.Errorf("another installation has the same password (%v)", err)
	}
	path := filepath.Join(dir, "credentials.json")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", st.Mode(), err)
	}
	if err := os.WriteFile(path, []byte(`{"kafka":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.OpenLogin(dir); err == nil {
		t.Error("a file without passwords must be refused, not replaced")
	}
}
