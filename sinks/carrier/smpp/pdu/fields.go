package pdu

import (
	"fmt"
	"strings"
)

// fields reads the fields of a body one after another. After the first error, all further fields are zero.
type fields struct {
	s      string
	failed bool
}

func (f *fields) fail() {
	f.s, f.failed = "", true
}

func (f *fields) byte() byte {
	if len(f.s) == 0 {
		f.fail()
		return 0
	}
	c := f.s[0]
	f.s = f.s[1:]
	return c
}

// text reads a C-octet string: the octets before the next zero.
func (f *fields) text() string {
	i := strings.IndexByte(f.s, 0)
	if i < 0 {
		f.fail()
		return ""
	}
	v := f.s[:i]
	f.s = f.s[i+1:]
	return v
}

// lastText reads the last text of a body. Some message centres omit its final zero, or the whole field.
func (f *fields) lastText() string {
	if i := strings.IndexByte(f.s, 0); i >= 0 {
		v := f.s[:i]
		f.s = f.s[i+1:]
		return v
	}
	v := f.s
	f.s = ""
	return v
}

func (f *fields) octets(n int) string {
	if n > len(f.s) {
		f.fail()
		return ""
	}
	v := f.s[:n]
	f.s = f.s[n:]
	return v
}

func (f *fields) address() Address {
	return Address{TON: f.byte(), NPI: f.byte(), Addr: f.text()}
}

func (f *fields) err(c Command) error {
	if f.failed {
		return fmt.Errorf("%w of %v", ErrMalformed, c)
	}
	return nil
}

// The maximum sizes of texts in octets, without the final zero (SMPP 3.4 §4). Carriers hand out some texts that are
// longer than the standard allows, such as passwords and ids; for these, the maximum is what their documents need.
const (
	maxSystemID    = 32
	maxPassword    = 64
	maxSystemType  = 12
	maxServiceType = 5
	maxAddress     = 64 // data_sm; 20 in other units, which message centres check themselves
	maxTime        = 16
	maxMessageID   = 64
	maxShort       = 254
)

// writer appends fields. After the first field that does not fit, err names it.
type writer struct {
	b   []byte
	err error
}

func (w *writer) text(s string, most int, name string) {
	if len(s) > most || strings.IndexByte(s, 0) >= 0 {
		if w.err == nil {
			w.err = fmt.Errorf("%w: %s has %d octets, at most %d fit and none may be zero", ErrTooLong, name, len(s), most)
		}
		return
	}
	w.b = append(append(w.b, s...), 0)
}

func (w *writer) bytes(v ...byte) { w.b = append(w.b, v...) }

func (w *writer) address(a Address, name string) {
	w.b = append(w.b, a.TON, a.NPI)
	w.text(a.Addr, maxAddress, name)
}

// done sets the length of the unit, or removes the unit from the buffer after an error.
func (w *writer) done(start int) ([]byte, error) {
	if w.err == nil && len(w.b)-start > MaxLen {
		w.err = fmt.Errorf("%w: the unit has %d octets, at most %d are read", ErrTooLong, len(w.b)-start, MaxLen)
	}
	if w.err != nil {
		return w.b[:start], w.err
	}
	return end(w.b, start), nil
}
