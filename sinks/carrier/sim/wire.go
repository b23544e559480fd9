package sim

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"fanfare/schemas"
	"fanfare/sinks/carrier"
)

// The format between client and server: frames, each a length as a varint followed by its fields, ended by a frame of
// length 0. A batch or a list without that end is incomplete and is ignored. The version is in the path.

// maxFrame is more than any message has: an RCS message may have 250 KB.
const maxFrame = 512 << 10

var errFrame = errors.New("malformed frame")

// appendFrame appends what fill appends, with its length before it.
func appendFrame(b []byte, fill func([]byte) []byte) []byte {
	// The length takes three bytes at most: it is written last, over the room left for it.
	start := len(b)
	b = append(b, 0, 0, 0)
	b = fill(b)
	n := len(b) - start - 3
	b[start], b[start+1], b[start+2] = byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)
	return b
}

// readFrame reads one frame into buf and returns it; nil at the end.
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	if n > maxFrame {
		return nil, fmt.Errorf("%w: %d bytes", errFrame, n)
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return buf, nil
}

// fields reads the fields of a frame. After the first failure everything is zero and err says so.
type fields struct {
	b   []byte
	err error
}

func (f *fields) fail() {
	f.b, f.err = nil, errFrame
}

func (f *fields) uint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.fail()
		return 0
	}
	f.b = f.b[n:]
	return v
}

// below reads a number less than limit.
func (f *fields) below(limit uint64) int {
	v := f.uint()
	if v >= limit {
		f.fail()
		return 0
	}
	return int(v)
}

func (f *fields) bytes() []byte {
	n := f.uint()
	if n > uint64(len(f.b)) {
		f.fail()
		return nil
	}
	v := f.b[:n:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) string() string { return string(f.bytes()) }

func (f *fields) key() (k carrier.Key) {
	if len(f.b) < len(k) {
		f.fail()
		return k
	}
	f.b = f.b[copy(k[:], f.b):]
	return k
}

// time reads milliseconds since the epoch; 0: no time.
func (f *fields) time() time.Time {
	ms := f.uint()
	if ms == 0 {
		return time.Time{}
	}
	if ms > 1<<47 { // the year 6429
		f.fail()
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

// end returns the first error, or an error when bytes are left over.
func (f *fields) end() error {
	if f.err == nil && len(f.b) > 0 {
		f.fail()
	}
	return f.err
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendMillis(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(max(t.UnixMilli(), 1)))
}

// Kinds of bodies.
const (
	wireText = iota
	wireTemplate
	wireRich
	wireCall
	wireKinds
)

// appendOutbound appends the fields of a message that the carrier needs. The deadline and the cost stay with the
// sender.
func appendOutbound(b []byte, i int, o *carrier.Outbound) []byte {
	b = binary.AppendUvarint(b, uint64(i))
	b = append(b, o.Key[:]...)
	b = binary.AppendUvarint(b, uint64(o.Channel))
	b = appendText(b, o.To)
	b = appendText(b, o.From)
	b = appendMillis(b, o.NotAfter)
	switch body := &o.Body; {
	case body.Template != nil:
		b = append(b, wireTemplate)
		b = appendText(b, body.Template.Name)
		b = appendText(b, body.Template.Language)
		b = binary.AppendUvarint(b, uint64(len(body.Template.Params)))
		for _, p := range body.Template.Params {
			b = appendText(b, p)
		}
		b = appendText(b, string(body.Template.Components))
	case body.Rich != nil:
		b = append(b, wireRich)
		b = appendText(b, string(body.Rich.JSON))
	case body.Call != nil:
		b = append(b, wireCall)
		b = appendText(b, body.Call.Queue)
		b = appendText(b, body.Call.MachineAction)
		b = appendText(b, body.Call.Media)
		b = appendText(b, body.Call.Text)
		b = appendText(b, body.Call.Language)
		b = binary.AppendUvarint(b, uint64(body.Call.Ring.Milliseconds()))
	default:
		b = append(b, wireText)
		b = appendText(b, body.Text.Body)
		b = binary.AppendUvarint(b, uint64(body.Text.Encoding))
		b = binary.AppendUvarint(b, uint64(max(body.Text.Segments, 0)))
	}
	return b
}

// parseOutbound reads one message and its number within its batch.
func parseOutbound(frame []byte) (i int, o carrier.Outbound, err error) {
	f := &fields{b: frame}
	i = f.below(1 << 20)
	o.Key = f.key()
	o.Channel = schemas.Channel(f.below(1 << 8))
	o.To, o.From = f.string(), f.string()
	o.NotAfter = f.time()
	switch f.below(wireKinds) {
	case wireTemplate:
		t := &carrier.Template{Name: f.string(), Language: f.string()}
		for range f.below(1 << 10) {
			t.Params = append(t.Params, f.string())
		}
		if raw := f.string(); raw != "" {
			t.Components = []byte(raw)
		}
		o.Body.Template = t
	case wireRich:
		o.Body.Rich = &carrier.Rich{JSON: []byte(f.string())}
	case wireCall:
		o.Body.Call = &carrier.Call{Queue: f.string(), MachineAction: f.string(), Media: f.string(), Text: f.string(), Language: f.string()}
		o.Body.Call.Ring = time.Duration(f.below(1<<32)) * time.Millisecond
	default:
		o.Body.Text = carrier.Text{Body: f.string(), Encoding: schemas.Encoding(f.below(1 << 8)), Segments: f.below(1 << 16)}
	}
	return i, o, f.end()
}

// appendResult appends the answer to message i of a batch.
func appendResult(b []byte, i int, r *carrier.Result) []byte {
	b = binary.AppendUvarint(b, uint64(i))
	b = append(b, byte(r.Outcome))
	b = appendText(b, r.Ref)
	b = appendText(b, r.Code)
	b = binary.AppendUvarint(b, uint64(r.Sub))
	b = binary.AppendUvarint(b, uint64(r.RetryAfter.Milliseconds()))
	return binary.AppendUvarint(b, uint64(r.Parts))
}

func parseResult(frame []byte) (i int, r carrier.Result, err error) {
	f := &fields{b: frame}
	i = f.below(1 << 20)
	r.Outcome = carrier.Outcome(f.below(uint64(carrier.Unsupported) + 1))
	r.Ref, r.Code = f.string(), f.string()
	r.Sub = carrier.Sub(f.below(1 << 16))
	r.RetryAfter = time.Duration(f.below(1<<32)) * time.Millisecond
	r.Parts = f.below(1 << 8)
	return i, r, f.end()
}

func appendReceipt(b []byte, r *carrier.Receipt) []byte {
	b = appendText(b, r.Ref)
	b = binary.AppendUvarint(b, uint64(len(r.AltRefs)))
	for _, alt := range r.AltRefs {
		b = appendText(b, alt)
	}
	b = append(b, r.Key[:]...)
	b = appendText(b, r.To)
	b = binary.AppendUvarint(b, uint64(r.Status))
	b = appendText(b, r.Code)
	b = binary.AppendUvarint(b, uint64(r.Sub))
	b = appendMillis(b, r.At)
	b = append(b, r.Part, r.Parts)
	return appendText(b, string(r.Raw))
}

func parseReceipt(frame []byte) (r carrier.Receipt, err error) {
	f := &fields{b: frame}
	r.Ref = f.string()
	for range f.below(16) {
		r.AltRefs = append(r.AltRefs, f.string())
	}
	r.Key = f.key()
	r.To = f.string()
	r.Status = carrier.Status(f.below(1 << 8))
	r.Code = f.string()
	r.Sub = carrier.Sub(f.below(1 << 16))
	r.At = f.time()
	if len(f.b) < 2 {
		f.fail()
		return carrier.Receipt{}, f.err
	}
	r.Part, r.Parts = f.b[0], f.b[1]
	f.b = f.b[2:]
	r.Raw = []byte(f.string())
	return r, f.end()
}

// wireCaps are the server's capabilities as it reports them.
type wireCaps struct {
	EchoesKey bool          `json:"echoesKey"`
	Doubt     carrier.Doubt `json:"doubt"`
}
