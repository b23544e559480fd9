package sim

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

func TestKeyMemory(t *testing.T) {
	ours, other := testKeys(t), otherKeys(t)
	m := newKeyMemory(1_000)
	put := []struct {
		account uint32
		key     carrier.Key
		ref     uint64
	}{
		{0, ours.Submission(10001, 0, 1), 1_000},
		{0, ours.Submission(10001, 511, 1), 1_001},
		{0, ours.Submission(10001, 512, 1), 1_002},
		{0, ours.Submission(10001, 0, 2), 1_003},
		{1, ours.Submission(10001, 0, 1), 1_004},
		{0, other.Submission(10001, 0, 1), 1_005}, // the same message of another installation
		{0, ours.Submission(10002, 0, 1), 7},      // of an earlier run
		{0, ours.Submission(10002, 1, 1), 1 << 50},
	}
	for _, p := range put {
		if ref, ok := m.get(p.account, p.key); ok {
			t.Errorf("account %d, %s: got %d before it was put", p.account, p.key, ref)
		}
		m.put(p.account, p.key, p.ref)
	}
	check := func(when string) {
		t.Helper()
		for _, p := range put {
			if ref, ok := m.get(p.account, p.key); !ok || ref != p.ref {
				t.Errorf("%s: account %d, %s: got %d, %v, want %d", when, p.account, p.key, ref, ok, p.ref)
			}
		}
	}
	check("at once")
	m.records = maxKeys
	m.put(0, ours.Submission(10003, 0, 1), 1_006)
	check("in the older generation")
	m.forget(0, ours.Submission(10003, 0, 1))
	if _, ok := m.get(0, ours.Submission(10003, 0, 1)); ok {
		t.Error("got a key that was forgotten")
	}
}

func otherKeys(t *testing.T) *schemas.Keys {
	t.Helper()
	k, err := schemas.NewKeys([]byte("fedcba9876543210"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// After a kill, the carrier knows the keys of the submissions that it accepted before. It does not know the key in a
// line that the kill cut, because that submission was never answered.
func TestKeysSurviveAKill(t *testing.T) {
	for _, doubt := range []carrier.Doubt{carrier.DoubtKeyHeader, carrier.DoubtQuery} {
		synctest.Test(t, func(t *testing.T) {
			path := truthPath(t)
			cfg := Config{Profile: Profile{Doubt: doubt}, Truth: path}
			c, stop := startStop(t, cfg)
			l := newLog()
			batch := messages(t, 0, 4, 1)
			l.send(t, c.Connector(Options{}), batch[:3])
			stop()
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, text[:len(text)-10], 0o600); err != nil {
				t.Fatal(err)
			}
			c, stop = startStop(t, cfg)
			defer stop()
			n := c.Connector(Options{})
			if doubt == carrier.DoubtQuery {
				keys := []carrier.Key{batch[0].Key, batch[1].Key, batch[2].Key, batch[3].Key}
				got, err := n.Query(t.Context(), keys)
				if err != nil {
					t.Fatal(err)
				}
				for i, want := range []carrier.Outcome{carrier.Accepted, carrier.Accepted, carrier.Retryable, carrier.Retryable} {
					if got[i].Outcome != want || want == carrier.Accepted && got[i].Ref != l.answers[keys[i]][0].Ref {
						t.Errorf("message %d: got %+v, want %v as before the kill", i, got[i], want)
					}
				}
				return
			}
			l.send(t, n, batch)
			pass(time.Second)
			truth := readTruth(t, path)
			if got := truth.Outcomes(); got[Accepted] != 4 || got[Duplicate] != 2 || len(truth.Doubles()) != 0 {
				t.Errorf("got %v and %d doubles, want 4 accepted, 2 duplicates and no double", got, len(truth.Doubles()))
			}
			for i := range 2 {
				if a := l.answers[batch[i].Key]; a[0].Ref != a[1].Ref {
					t.Errorf("message %d: got refs %q and %q, want the same", i, a[0].Ref, a[1].Ref)
				}
			}
		})
	}
}

func TestProfilesByName(t *testing.T) {
	for name, want := range map[string]carrier.Doubt{
		"default": carrier.DoubtKeyHeader, "fast": carrier.DoubtKeyHeader, "chaos": carrier.DoubtNone, "chaos+query": carrier.DoubtQuery,
		"default+none": carrier.DoubtNone, "fast+id": carrier.DoubtNaturalID, "chaos+key": carrier.DoubtKeyHeader,
	} {
		p, err := ProfileNamed(name)
		if err != nil || p.Doubt != want || p.Name != name {
			t.Errorf("%s: got %q, %v, %v, want %v", name, p.Name, p.Doubt, err, want)
		}
	}
	for _, name := range []string{"", "nice", "chaos+", "chaos+hope"} {
		if p, err := ProfileNamed(name); err == nil {
			t.Errorf("%q: got %q, want an error", name, p.Name)
		}
	}
}
