package clickhouse

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
)

func small(seqs ...uint32) string {
	b := []byte{0, byte(len(seqs))}
	for _, s := range seqs {
		b = binary.LittleEndian.AppendUint32(b, s)
	}
	return string(b)
}

func large(t *testing.T, seqs []uint32) string {
	t.Helper()
	set, err := roaring.BitmapOf(seqs...).ToBytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(append(binary.AppendUvarint([]byte{1}, uint64(len(set))), set...))
}

// readState accepts both forms of a groupBitmap state, and returns an error for other bytes.
func TestReadState(t *testing.T) {
	many := make([]uint32, 5000)
	for i := range many {
		many[i] = uint32(i * 3)
	}
	for name, c := range map[string]struct {
		state string
		want  []uint32
	}{
		"empty":     {small(), nil},
		"unordered": {small(7, 3, 5), []uint32{3, 5, 7}},
		"large":     {large(t, many), many},
	} {
		got := roaring.New()
		if err := readState(c.state, got); err != nil || !slices.Equal(got.ToArray(), c.want) && len(c.want) > 0 {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, c.want)
		}
	}
	whole := large(t, many)
	for name, state := range map[string]string{
		"nothing": "", "kind alone": "\x00", "count without numbers": "\x00\x02aaaa", "more than counted": small(1) + "x",
		"another kind": "\x02\x00", "no length": "\x01\xff", "cut off": whole[:len(whole)-1], "longer": whole + "x", "not Roaring": "\x01\x04abcd",
	} {
		if err := readState(state, roaring.New()); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// The keys of a dictionary grow from one byte to two and four, and a block keeps its values in order.
func TestWords(t *testing.T) {
	for _, n := range []int{1, 255, 256, 65_535, 65_536, 70_000} {
		var w words
		w.known = map[string]uint32{}
		for range 2 { // the columns are reused
			w.reset()
			want := make([]string, 0, 2*n)
			for i := range n {
				s := string(binary.AppendUvarint(nil, uint64(i)))
				want = append(want, s, s)
				w.append(s)
				w.append(s)
			}
			c := w.column()
			if c.Rows() != len(want) {
				t.Fatalf("%d words: got %d rows, want %d", n, c.Rows(), len(want))
			}
			for i := range want {
				var key int
				switch {
				case len(c.Keys8) > 0:
					key = int(c.Keys8[i])
				case len(c.Keys16) > 0:
					key = int(c.Keys16[i])
				default:
					key = int(c.Keys32[i])
				}
				if got := w.index.Row(key); got != want[i] {
					t.Fatalf("%d words: row %d is %q, want %q", n, i, got, want[i])
				}
			}
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"nonsense":       {DSN: "not a DSN at all ://"},
		"odd database":   {DSN: "clickhouse://127.0.0.1:1/x", Database: "a`; DROP DATABASE b"},
		"no server":      {DSN: "clickhouse://127.0.0.1:1/x?dial_timeout=200ms"},
		"digit at first": {DSN: "clickhouse://127.0.0.1:1/x", Database: "1a"},
	} {
		if s, err := Open(t.Context(), cfg); err == nil {
			s.Close()
			t.Errorf("%s: got no error", name)
		}
	}
}
