package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"fanfare/schemas"
)

func packKeys(t testing.TB) *schemas.Keys {
	keys, err := schemas.NewKeys([]byte("a secret of the test's own"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// The answer of a batch of 1,000 takes at most 20 kB, and comes back byte for byte.
func TestPackBatch(t *testing.T) {
	keys := packKeys(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	out := SendResult{CustomerMessageID: "order-4711"}
	for i := range 1000 {
		id := keys.Message(10007+uint64(i/700), uint32(123_456+i)).String()
		if i == 0 {
			out.MessageID = id
		}
		out.Results = append(out.Results, SendDestination{
			Destination: fmt.Sprintf("+39%d%d", 320+rnd.IntN(60), 1_000_000+rnd.IntN(9_000_000)), MessageID: &id, Accepted: true, Parts: 1, Reasons: []string{},
		})
	}
	answer, err := json.Marshal(&out)
	if err != nil {
		t.Fatal(err)
	}
	packed := pack(answer)
	t.Logf("%d bytes are %d packed", len(answer), len(packed))
	if len(packed) > 20_000 {
		t.Errorf("got %d bytes, want at most 20,000", len(packed))
	}
	got, err := unpack(packed)
	if err != nil || !bytes.Equal(got, answer) {
		t.Errorf("got another answer back: %v", err)
	}
}

// FuzzPack: whatever is packed comes back byte for byte.
func FuzzPack(f *testing.F) {
	keys := packKeys(f)
	id := keys.Message(10001, 5).String()
	for _, s := range []string{"", "{}", id, id + id, strings.ToUpper(id), id[:29], "\x01\x02", "msg_" + strings.Repeat("0", 26), "sub_" + strings.Repeat("z", 26), keys.Submission(1, 2, 3).String()} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		got, err := unpack(pack(answer))
		if err != nil || !bytes.Equal(got, answer) {
			t.Fatalf("%q: got %q, %v", answer, got, err)
		}
	})
}

// FuzzUnpack: what is not packed is an error and no crash.
func FuzzUnpack(f *testing.F) {
	f.Add(pack([]byte(`{"a":1}`)))
	f.Add([]byte{})
	f.Add([]byte{200, 1, 2})
	f.Fuzz(func(_ *testing.T, packed []byte) { _, _ = unpack(packed) })
}

func BenchmarkPack(b *testing.B) {
	keys := packKeys(b)
	var s strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&s, `{"destination":"+39333%07d","messageId":%q,"accepted":true,"unicode":false,"parts":1,"reasons":[]},`, i*7919, keys.Message(10001, uint32(i)))
	}
	answer := []byte(s.String())
	for b.Loop() {
		pack(answer)
	}
}
