package expander

import (
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"fanfare/pipeline/stream"
)

// TestSlab: a slab does not hand out kept bytes again before a reset.
func TestSlab(t *testing.T) {
	var s slab
	for round := range 2 {
		var kept [][]byte
		for i := range 3000 {
			n := i % 100
			if i == 1500 {
				n = 3 * slabSize
			}
			b := s.take(n)
			if cap(b) != n || len(b) != 0 {
				t.Fatalf("take %d: got %d bytes with room for %d", n, len(b), cap(b))
			}
			for range n {
				b = append(b, byte(i))
			}
			s.keep(b[:n/2])
			kept = append(kept, b[:n/2])
		}
		for i, b := range kept {
			for _, c := range b {
				if c != byte(i) {
					t.Fatalf("piece %d was written over", i)
				}
			}
		}
		pieces := len(s.pieces)
		s.reset()
		if round == 1 && len(s.pieces) != pieces {
			t.Errorf("got %d pieces after a reset, want the %d there were", len(s.pieces), pieces)
		}
	}
}

// TestArenaComesBackWhole: an arena is used again only when the client has released each of its records, whether the
// record was written, failed or was aborted.
func TestArenaComesBackWhole(t *testing.T) {
	w := newEnv(t, people(4))
	h := w.handler(t)
	expand := func() []*kgo.Record {
		res, err := h.Handle(t.Context(), []*kgo.Record{record(t, chunk())})
		if err != nil {
			t.Fatal(err)
		}
		return res.Publish
	}
	letGo := func(recs []*kgo.Record, err error) {
		for _, r := range recs {
			home{}.OnProduceRecordUnbuffered(r, err)
		}
	}
	first := expand()
	second := expand()
	if first[0] == second[0] {
		t.Fatal("an arena was used again while its records were nowhere")
	}
	letGo(first[:3], nil)
	if third := expand(); third[0] == first[0] || third[0] == second[0] {
		t.Fatal("an arena was used again while the client held a record of it")
	}
	letGo(second, errors.New("aborted"))
	again := expand()
	if again[0] != second[0] {
		t.Error("an arena whose records all came back was not used again")
	}
	if got := decode(t, stream.Result{Publish: again}).messages; len(got) != 4 || got[3].GetTo() != "+393400000003" {
		t.Errorf("in an arena used again: got %v", got)
	}
	if n := len(h.arenas.kept); n > h.cfg.Chunks {
		t.Errorf("got %d arenas kept, want at most %d", n, h.cfg.Chunks)
	}
	home{}.OnProduceRecordUnbuffered(&kgo.Record{}, nil) // of no chunk
}
