// Package audience is the shape of a frozen audience: immutable blobs of at most [BlobSize] recipients each, written once when
// a campaign is confirmed and read by the expander. A recipient's place in them is its seq, for ever.
//
// A blob is one version byte and an S2 block of: a dictionary of the strings that repeat (zones, countries, attribute names),
// then the entries. Decoding makes one string of the whole block and cuts entries out of it, so reading an entry allocates nothing.
package audience

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/klauspost/compress/s2"
)

// BlobSize is the most recipients in a blob: one blob is one transaction of the expander.
const BlobSize = 5000

// MaxAttributes is the most bytes of attributes, names and values together, that an entry keeps.
const MaxAttributes = 1024

const version = 1

// Flag says whether a recipient may be sent to at all, as far as the freeze knows.
type Flag uint8

// Flags. All but OK become an outcome instead of a message.
const (
	OK        Flag = iota
	Invalid        // not a number that can receive messages
	Duplicate      // an earlier seq has the same number
	OptedOut
	Capped // had enough messages already
	NotOptedIn
	OverQuota // its country has had enough messages
)

// Attr is one attribute of a contact.
type Attr struct{ Name, Value string }

// Entry is one recipient.
type Entry struct {
	ContactID uint64
	To        string // E.164 with +; of an invalid number, the text that was stored
	Zone      string // IANA
	Country   string // ISO 3166-1 alpha-2, "" when unknown
	Class     Class
	Flag      Flag
	Attrs     []Attr
}

// Value returns the attribute of that name.
func (e *Entry) Value(name string) (string, bool) {
	for i := range e.Attrs {
		if e.Attrs[i].Name == name {
			return e.Attrs[i].Value, true
		}
	}
	return "", false
}

// Writer gathers entries and encodes them. The zero value is ready.
type Writer struct {
	words map[string]uint64
	dict  []string
	body  []byte
	count int
}

// Len returns the number of entries since the last Flush.
func (w *Writer) Len() int { return w.count }

// Add appends an entry, in order of seq.
func (w *Writer) Add(e *Entry) {
	b := binary.AppendUvarint(w.body, e.ContactID)
	b = appendString(b, e.To)
	b = binary.AppendUvarint(b, w.word(e.Zone))
	b = binary.AppendUvarint(b, w.word(e.Country))
	b = append(b, byte(e.Class), byte(e.Flag))
	b = binary.AppendUvarint(b, uint64(len(e.Attrs)))
	for _, a := range e.Attrs {
		b = binary.AppendUvarint(b, w.word(a.Name))
		b = appendString(b, a.Value)
	}
	w.body = b
	w.count++
}

// Flush returns the blob of the entries added and starts a new one.
func (w *Writer) Flush() []byte {
	head := binary.AppendUvarint(nil, uint64(len(w.dict)))
	for _, s := range w.dict {
		head = appendString(head, s)
	}
	head = binary.AppendUvarint(head, uint64(w.count))
	plain := append(head, w.body...)
	blob := append([]byte{version}, s2.Encode(nil, plain)...)
	*w = Writer{body: w.body[:0]}
	return blob
}

func (w *Writer) word(s string) uint64 {
	if i, ok := w.words[s]; ok {
		return i
	}
	if w.words == nil {
		w.words = map[string]uint64{}
	}
	i := uint64(len(w.dict))
	w.words[s] = i
	w.dict = append(w.dict, s)
	return i
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// ErrBlob is wrapped by every error about a blob that does not decode.
var ErrBlob = errors.New("audience blob is damaged")

// Reader reads the entries of a blob in order of seq.
type Reader struct {
	s       string
	at      int
	dict    []string
	err     error
	next    int
	total   int
	offsets []uint32 // of the entries passed so far, which Seek goes back to
}

// NewReader opens a blob.
func NewReader(blob []byte) (*Reader, error) {
	if len(blob) == 0 || blob[0] != version {
		return nil, fmt.Errorf("%w: version", ErrBlob)
	}
	if n, err := s2.DecodedLen(blob[1:]); err != nil || n > 64<<20 {
		return nil, fmt.Errorf("%w: length", ErrBlob)
	}
	plain, err := s2.Decode(nil, blob[1:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBlob, err)
	}
	r := &Reader{s: unsafe.String(unsafe.SliceData(plain), len(plain))} // no other code has plain
	words := r.uvarint()
	if words > uint64(len(r.s)) {
		return nil, fmt.Errorf("%w: dictionary", ErrBlob)
	}
	r.dict = make([]string, 0, words)
	for range words {
		r.dict = append(r.dict, r.str())
	}
	r.total = int(min(r.uvarint(), uint64(len(r.s))))
	r.offsets = make([]uint32, 0, min(r.total, BlobSize))
	return r, r.err
}

// Len returns the number of entries of the blob.
func (r *Reader) Len() int { return r.total }

// Bytes returns about how much memory the reader holds.
func (r *Reader) Bytes() int { return len(r.s) + 4*cap(r.offsets) + 16*len(r.dict) }

// Holds reports whether a text may stand in an entry of the blob, in capital or small letters; text has small letters only. If it
// returns false, no entry holds the text. It is much quicker than reading the entries, unless the text has other letters than ASCII.
func (r *Reader) Holds(text string) bool {
	if text == "" {
		return true
	}
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return true
		}
	}
	small, capital := text[0], text[0]
	if small >= 'a' && small <= 'z' {
		capital -= 'a' - 'A'
	}
	// The letters k and i have a second capital each, the Kelvin sign and the Turkish İ.
	if strings.ContainsAny(text, "ki") && (strings.Contains(r.s, "\u212a") || strings.Contains(r.s, "\u0130")) {
		return true
	}
	found := func(first byte) bool {
		for at := 0; ; at++ {
			next := strings.IndexByte(r.s[at:], first)
			if next < 0 || len(r.s)-at-next < len(text) {
				return false
			}
			if at += next; equalLower(r.s[at:at+len(text)], text) {
				return true
			}
		}
	}
	return found(small) || capital != small && found(capital)
}

// equalLower compares ASCII letters without regard to case; lower has small letters only.
func equalLower(s, lower string) bool {
	for i := range len(lower) {
		c := s[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Seek makes entry i the next one, 0 for the first; false when there is none, and on damage before it. Going to where the
// reader has been takes no time; going on from there reads what lies between.
func (r *Reader) Seek(i int) bool {
	if r.err != nil || i < 0 || i >= r.total {
		return false
	}
	if i < len(r.offsets) {
		r.at, r.next = int(r.offsets[i]), i
		return true
	}
	if n := len(r.offsets); n > r.next {
		r.at, r.next = int(r.offsets[n-1]), n-1
	}
	for e := new(Entry); r.next < i; {
		if !r.Next(e) {
			return false
		}
	}
	return true
}

// Next reads the next entry into e, whose Attrs it reuses; false at the end and on damage, which Err tells apart.
func (r *Reader) Next(e *Entry) bool {
	if r.next == r.total || r.err != nil {
		return false
	}
	if r.next == len(r.offsets) {
		r.offsets = append(r.offsets, uint32(r.at))
	}
	r.next++
	e.ContactID = r.uvarint()
	e.To = r.str()
	e.Zone = r.word()
	e.Country = r.word()
	e.Class = Class(r.byte())
	e.Flag = Flag(r.byte())
	e.Attrs = e.Attrs[:0]
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		e.Attrs = append(e.Attrs, Attr{Name: r.word(), Value: r.str()})
	}
	return r.err == nil
}

// Err returns why Next stopped before the end.
func (r *Reader) Err() error { return r.err }

func (r *Reader) fail() { r.err = fmt.Errorf("%w: at byte %d", ErrBlob, r.at) }

func (r *Reader) byte() byte {
	if r.at >= len(r.s) {
		r.fail()
		return 0
	}
	r.at++
	return r.s[r.at-1]
}

// uvarint reads a number; most are below 128, a single byte.
func (r *Reader) uvarint() uint64 {
	if at := r.at; at < len(r.s) && r.s[at] < 0x80 {
		r.at++
		return uint64(r.s[at])
	}
	return r.long()
}

func (r *Reader) long() (v uint64) {
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		if r.err != nil {
			return 0
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.fail()
	return 0
}

func (r *Reader) str() string {
	n := r.uvarint()
	if n > uint64(len(r.s)-r.at) {
		r.fail()
		return ""
	}
	s := r.s[r.at : r.at+int(n)]
	r.at += int(n)
	return s
}

func (r *Reader) word() string {
	i := r.uvarint()
	if i >= uint64(len(r.dict)) {
		if r.err == nil {
			r.fail()
		}
		return ""
	}
	return r.dict[i]
}

// Index is one row of the index of a frozen audience: which seqs a blob holds. Blobs follow each other without a gap, and all
// recipients of a blob are in one time zone.
type Index struct {
	Blob  uint32
	First uint32 // seq of its first entry
	Count uint32 // 1 to BlobSize
	Zone  string // IANA
}
