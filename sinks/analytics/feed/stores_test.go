package feed

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"

	"fanfare/sinks/analytics"
	"fanfare/sinks/analytics/analyticstest"
	"fanfare/sinks/analytics/clickhouse"
	"fanfare/sinks/analytics/sqlite"
)

func newStore(t testing.TB) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "analytics.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// tokenStore recognises batches by their tokens, as ClickHouse does, and reports a token that comes again with other
// rows.
type tokenStore struct {
	analytics.Store // hides the Positioner of the store below
	mu              sync.Mutex
	tokens          map[string][sha256.Size]byte
	again           int // repeated batches
	violations      []string
	fail            func() (before, after error)
}

func newTokenStore(t testing.TB) *tokenStore {
	return &tokenStore{Store: struct{ analytics.Store }{newStore(t)}, tokens: map[string][sha256.Size]byte{}}
}

func (s *tokenStore) Append(ctx context.Context, batches ...analytics.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range batches {
		var before, after error
		if s.fail != nil {
			before, after = s.fail()
		}
		if before != nil {
			return before
		}
		h := sha256.New()
		for i := range b.Events {
			e := b.Events[i]
			fmt.Fprintf(h, "%s %s", e.Campaign.Tenant, e.Campaign.ID)
			e.Campaign = nil
			fmt.Fprintf(h, "%+v\n", e)
		}
		for _, d := range b.Deals {
			fmt.Fprintf(h, "%s %d %d %d %d %v %v\n", d.Campaign.ID, d.Offset, d.Number, d.TimeMS, d.Try, d.Cancel, d.Members.ToArray())
		}
		sum := [sha256.Size]byte(h.Sum(nil))
		token := b.Token()
		if known, ok := s.tokens[token]; ok {
			s.again++
			if known != sum {
				s.violations = append(s.violations, token)
			}
		} else {
			b.Topic = analytics.TopicID{}
			if err := s.Store.Append(ctx, b); err != nil {
				return err
			}
			s.tokens[token] = sum
		}
		if after != nil {
			return after
		}
	}
	return nil
}

// tiles checks that the batches cover every partition from its beginning to its end without overlap.
func (s *tokenStore) tiles(t *testing.T, w *env) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	topics, err := w.adm.ListTopics(t.Context(), w.Names.Deliveries())
	if err != nil {
		t.Fatal(err)
	}
	id := analytics.TopicID(topics[w.Names.Deliveries()].ID).String()
	next := map[int64]map[int64]int64{} // partition, first, end
	for token := range s.tokens {
		if !strings.HasPrefix(token, id) {
			continue // of deals
		}
		var partition, first, last int64
		if _, err := fmt.Sscanf(token[2*len(analytics.TopicID{}):], "-%d-%d-%d", &partition, &first, &last); err != nil {
			t.Fatalf("token %s: %v", token, err)
		}
		if next[partition] == nil {
			next[partition] = map[int64]int64{}
		}
		next[partition][first] = last + 1
	}
	ends, err := w.adm.ListCommittedOffsets(t.Context(), w.Names.Deliveries())
	if err != nil {
		t.Fatal(err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		at, n := int64(0), 0
		for ; at < o.Offset; n++ {
			end, ok := next[int64(o.Partition)][at]
			if !ok {
				t.Errorf("partition %d: no batch begins at %d", o.Partition, at)
				return
			}
			at = end
		}
		if n != len(next[int64(o.Partition)]) || at != o.Offset {
			t.Errorf("partition %d: got %d batches, the last of those that follow one another ending at %d, want %d to %d", o.Partition, len(next[int64(o.Partition)]), at, n, o.Offset)
		}
	})
}

// newClickHouse opens a store in a database that is dropped at the end. If the store is reached over a line, it also
// opens a second one that is reached directly.
func newClickHouse(t testing.TB, over *line) (store, beside analytics.Store) {
	t.Helper()
	dsn := os.Getenv("FANFARE_TEST_CLICKHOUSE")
	database := "test_" + strings.ToLower(rand.Text()[:12])
	open := func(dsn string) analytics.Store {
		s, err := clickhouse.Open(t.Context(), clickhouse.Config{DSN: dsn, Database: database})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	t.Cleanup(func() {
		opts, err := chgo.ParseDSN(dsn)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := chgo.Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Exec(context.Background(), "DROP DATABASE IF EXISTS "+database+" SYNC"); err != nil {
			t.Error(err)
		}
	})
	store = open(dsn)
	if over != nil {
		opts, err := chgo.ParseDSN(dsn)
		if err != nil {
			t.Fatal(err)
		}
		over.mu.Lock()
		over.to = opts.Addr[0]
		over.mu.Unlock()
		beside, store = store, open(strings.Replace(dsn, opts.Addr[0], over.addr, 1))
	}
	return store, beside
}

// caughtUp waits until the store is complete as of the time of the call.
func caughtUp(t testing.TB, s analytics.Store) {
	t.Helper()
	now := time.Now()
	// On a busy machine the group may remove members, and kfake then needs a minute to settle
	deadline := now.Add(3 * time.Minute)
	for {
		at, err := s.AsOf(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if at.After(now) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the store is complete as of %v, want %v", at, now)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func compareAll(t *testing.T, s analytics.Store, m *analyticstest.Model, campaigns []*analytics.Campaign) {
	t.Helper()
	// The deals come from another topic, which as_of does not cover.
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		behind := ""
		for _, c := range campaigns {
			flying, err := s.InFlight(t.Context(), c.Tenant, c.ID)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := flying[c.ID], m.InFlight(c.Tenant, c.ID); got != want {
				behind = fmt.Sprintf("%s: got %d in flight, want %d", c.ID, got, want)
			}
		}
		if behind == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(behind)
		}
	}
	for _, c := range campaigns {
		analyticstest.Compare(t, s, m, c.Tenant, c.ID)
	}
}

// counted returns the value of a counter.
func counted(c prometheus.Counter) float64 {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		return -1
	}
	return m.GetCounter().GetValue()
}
