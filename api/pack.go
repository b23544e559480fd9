package api

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"

	"fanfare/schemas"
)

// pack compresses an answer that is stored under an Idempotency-Key: the answer of a batch of 1,000 is 200 kB of JSON,
// and 10 kB packed. It takes the ids out of the JSON and writes each in 7 bytes, because consecutive ids have
// consecutive seqs and differ otherwise only in their signatures. It deflates the rest. unpack restores exactly the
// same bytes, and needs no id key.
//
// The form: the length of the deflated text as a uvarint, the deflated text, the ids in their order. In the text, a
// mark replaces each id, and an escaped mark replaces a byte that is equal to a mark.
func pack(answer []byte) []byte {
	text := make([]byte, 0, len(answer))
	var ids []byte
	var last schemas.ID
	for i := 0; i < len(answer); {
		if answer[i] == markID || answer[i] == markEscape {
			text = append(text, markEscape, answer[i])
			i++
			continue
		}
		if id, ok := idAt(answer[i:]); ok {
			text = append(text, markID)
			ids = appendID(ids, last, id)
			last = id
			i += idLen
			continue
		}
		text = append(text, answer[i])
		i++
	}
	var deflated bytes.Buffer
	w, _ := flate.NewWriter(&deflated, flate.BestSpeed) // fails only for an unknown level
	_, _ = w.Write(text)                                // to memory
	_ = w.Close()
	out := binary.AppendUvarint(nil, uint64(deflated.Len()))
	out = append(out, deflated.Bytes()...)
	return append(out, ids...)
}

// packedAnswer is an answer together with its packed form.
type packedAnswer struct{ answer, packed []byte }

// of returns answer packed, without packing it again if it is the same. A may be nil.
func (a *packedAnswer) of(answer []byte) []byte {
	if a != nil && bytes.Equal(a.answer, answer) {
		return a.packed
	}
	return pack(answer)
}

const (
	markID     = 0x01 // valid JSON never contains this byte unescaped
	markEscape = 0x02
	idLen      = 4 + 26 // msg_ or sub_, and 128 bits in base32
)

var errPacked = errors.New("stored answer cannot be unpacked")

// maxPacked is the most bytes of an unpacked answer.
const maxPacked = 64 << 20

// unpack is the reverse of [pack].
func unpack(packed []byte) ([]byte, error) {
	n, size := binary.Uvarint(packed)
	if size <= 0 || n > uint64(len(packed)-size) {
		return nil, errPacked
	}
	ids := packed[size+int(n):]
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed[size:size+int(n)])), maxPacked))
	if err != nil {
		return nil, errors.Join(errPacked, err)
	}
	out := make([]byte, 0, 2*len(text))
	var last schemas.ID
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case markEscape:
			if i++; i == len(text) {
				return nil, errPacked
			}
			out = append(out, text[i])
		case markID:
			var ok bool
			if last, ids, ok = cutID(ids, last); !ok {
				return nil, errPacked
			}
			out = last.AppendTo(out)
		default:
			out = append(out, text[i])
		}
	}
	if len(ids) > 0 {
		return nil, errPacked
	}
	return out, nil
}

// idAt reads an id at the beginning of b. ok is false when the text is not the canonical form of an id (for example in
// upper case), because unpack would not restore it exactly.
func idAt(b []byte) (schemas.ID, bool) {
	if len(b) < idLen || b[3] != '_' || b[0] != 'm' && b[0] != 's' {
		return schemas.ID{}, false
	}
	id, err := schemas.ParseID(string(b[:idLen]))
	if err != nil || !bytes.Equal(id.AppendTo(nil), b[:idLen]) {
		return schemas.ID{}, false
	}
	return id, true
}

// An id is campaign (6 bytes), seq (3), try (1) and signature (6).
const idHead = 10

// How an id follows the one before it.
const (
	idSame  = iota // the same id again
	idNext         // the next seq: the signature follows
	idOther        // another id: all 16 bytes follow
)

func appendID(b []byte, last, id schemas.ID) []byte {
	next := nextID(last)
	switch {
	case id == last:
		return append(b, idSame)
	case bytes.Equal(id[:idHead], next[:idHead]):
		return append(append(b, idNext), id[idHead:]...)
	}
	return append(append(b, idOther), id[:]...)
}

func cutID(b []byte, last schemas.ID) (id schemas.ID, rest []byte, ok bool) {
	if len(b) == 0 {
		return id, nil, false
	}
	kind, b := b[0], b[1:]
	switch id = last; {
	case kind == idSame:
		return id, b, true
	case kind == idNext && len(b) >= len(id)-idHead:
		id = nextID(last)
		n := copy(id[idHead:], b)
		return id, b[n:], true
	case kind == idOther && len(b) >= len(id):
		n := copy(id[:], b)
		return id, b[n:], true
	}
	return id, nil, false
}

// nextID returns the head of the id with the next seq.
func nextID(id schemas.ID) schemas.ID {
	for i := 8; i >= 6; i-- { // the seq, most significant byte first
		if id[i]++; id[i] != 0 {
			break
		}
	}
	return id
}
