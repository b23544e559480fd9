package pdu

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// HeaderLen is the size of a header in octets.
const HeaderLen = 16

// MaxLen is the size of the largest unit that a reader accepts: the largest TLV (65,535 octets of message_payload), and
// room for all other fields.
const MaxLen = 68 << 10

// Header precedes every body.
type Header struct {
	Command  Command
	Status   Status
	Sequence uint32
}

// ErrLength is returned for a unit with an impossible length: shorter than its header, or longer than MaxLen. The
// reader then cannot find the next unit, so the session must end.
var ErrLength = errors.New("smpp: impossible command_length")

// ErrMalformed is returned for a body that ends within a field.
var ErrMalformed = errors.New("smpp: malformed body")

// ErrTooLong is returned when a field does not fit into the unit.
var ErrTooLong = errors.New("smpp: field is too long")

// Append writes a unit without a body: enquire_link, unbind, their responses, generic_nack, cancel_sm_resp, or the
// response to a command that failed.
func (h Header) Append(b []byte) []byte { return end(begin(b, h), len(b)) }

// begin writes a header; end fills in its length.
func begin(b []byte, h Header) []byte {
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Command))
	b = binary.BigEndian.AppendUint32(b, uint32(h.Status))
	return binary.BigEndian.AppendUint32(b, h.Sequence)
}

func end(b []byte, start int) []byte {
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// SetSequence changes the sequence number of the unit at the beginning of b.
func SetSequence(b []byte, sequence uint32) { binary.BigEndian.PutUint32(b[12:], sequence) }

// Reader cuts a stream into units.
type Reader struct {
	r   *bufio.Reader
	buf []byte
}

// NewReader returns a reader with a buffer of 64 KiB, so that one read of a busy session gets hundreds of units.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Next reads one unit. The body is valid until the next call. Next returns the error of the stream, io.EOF if the
// stream ends between two units, io.ErrUnexpectedEOF if it ends within a unit, or [ErrLength].
func (r *Reader) Next() (Header, []byte, error) {
	head, err := r.r.Peek(HeaderLen)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Header{}, nil, err
	}
	length := binary.BigEndian.Uint32(head)
	h := Header{
		Command: Command(binary.BigEndian.Uint32(head[4:])), Status: Status(binary.BigEndian.Uint32(head[8:])),
		Sequence: binary.BigEndian.Uint32(head[12:]),
	}
	if length < HeaderLen || length > MaxLen {
		return h, nil, fmt.Errorf("%w: %d", ErrLength, length)
	}
	// A unit that is completely in the buffer is not copied.
	if int(length) <= r.r.Size() {
		unit, err := r.r.Peek(int(length))
		if err != nil {
			return h, nil, unexpected(err)
		}
		if _, err := r.r.Discard(int(length)); err != nil {
			return h, nil, err
		}
		return h, unit[HeaderLen:], nil
	}
	if cap(r.buf) < int(length) {
		r.buf = make([]byte, MaxLen)
	}
	unit := r.buf[:length]
	if _, err := io.ReadFull(r.r, unit); err != nil {
		return h, nil, unexpected(err)
	}
	return h, unit[HeaderLen:], nil
}

// Ready reports whether the next unit is in the buffer already, so that Next does not wait.
func (r *Reader) Ready() bool {
	n := r.r.Buffered()
	if n < HeaderLen {
		return false
	}
	head, err := r.r.Peek(4)
	return err == nil && int64(binary.BigEndian.Uint32(head)) <= int64(n)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
