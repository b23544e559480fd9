// Package audience has the format of a frozen audience: immutable blobs of at most [BlobSize] recipients each. The
// store writes them once after a campaign is confirmed, and the expander reads them. A recipient's position in the
// audience is its seq and never changes.
//
// A blob is one version byte and an S2 block. The block has a dictionary of repeated strings (zones, countries,
// attribute names) and then the entries. Decoding makes one string of the whole block and slices the entries out of it,
// so reading an entry allocates nothing.
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

// BlobSize is the most recipients of a blob. The expander handles one blob in one transaction.
const BlobSize = 5000

// MaxAttributes is the most bytes of attributes, names and values together, that an entry keeps.
const MaxAttributes = 1024

const version = 1

// Flag says whether a recipient may be sent to, as decided by the freeze.
type Flag uint8

// Flags. All but OK become an outcome instead of a message.
const (
	OK        Flag = iota
	Invalid        // not a number that can receive messages
	Duplicate      // an earlier seq has the same number
	OptedOut
	Capped // has reached the frequency cap
	NotOptedIn
	OverQuota // the cap of its country is used up
)

// Attr is one attribute of a contact.
type Attr struct{ Name, Value string }

// ErasedHash names the only attribute of a recipient who was erased: the keyed hash of the number, in hexadecimal. No
// merge field has this name.
const ErasedHash = "#"

// Entry is one recipient.
type Entry struct {
	ContactID uint64
	To        string // E.164 with +; for an invalid number, the stored text
	Zone      string // IANA; all zones of the recipient, joined by hours.Join, when the campaign asks for them
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

// Writer collects entries and encodes them. The zero value is ready to use.
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

// ErrBlob marks every error about a blob that does not decode: the error wraps it.
var ErrBlob = errors.New("audience blob is damaged")

// Reader reads the entries of a blob in order of seq.
type Reader struct {
	s       string
	at      int
	dict    []string
	err     error
	next    int
	total   int
	offsets []uint32 // of the entries read so far, so that Seek can go back
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

// Holds reports whether an entry of the blob may contain a text, regardless of case; text must be in lower case. If it
// returns false, no entry contains the text. It is much faster than reading the entries, unless the text has non-ASCII
// letters.
func (r *Reader) Holds(text string) bool {
	if text == "" {
		return true
	}
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return true
		}
	}
	if !strings.ContainsFunc(text, isLower) {
		return strings.Contains(r.s, text)
	}
	// The letters k and i each have a second upper-case form: the Kelvin sign and the Turkish İ.
	if strings.ContainsAny(text, "ki") && (strings.Contains(r.s, "\u212a") || strings.Contains(r.s, "\u0130")) {
		return true
	}
	pivot := rarest(text)
	small := text[pivot]
	capital := small - 'a' + 'A'
	found := func(letter byte) bool {
		for at := pivot; at < len(r.s); at++ {
			next := strings.IndexByte(r.s[at:], letter)
			if next < 0 {
				return false
			}
			at += next
			from := at - pivot
			if len(r.s)-from < len(text) {
				return false
			}
			if equalLower(r.s[from:from+len(text)], text) {
				return true
			}
		}
		return false
	}
	return found(small) || found(capital)
}

func isLower(c rune) bool { return c >= 'a' && c <= 'z' }

// rarest returns the index of the letter of a text that is rarest in names and e-mail addresses; text has a letter.
func rarest(text string) int {
	const byRarity = "qxjwkyzvfhbpgudtcmslnrioea"
	at, least := 0, len(byRarity)
	for i := range len(text) {
		if rank := strings.IndexByte(byRarity, text[i]); rank >= 0 && rank < least {
			at, least = i, rank
		}
	}
	return at
}

// equalLower compares ASCII letters without regard to case; lower must be in lower case.
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

// Seek makes entry i (from 0) the next one. It returns false when there is no such entry, or when the blob is damaged
// before it. Seeking to an entry that was already passed is fast; seeking further reads the entries in between.
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

// Next reads the next entry into e and reuses e.Attrs. It returns false at the end and when the blob is damaged; Err
// distinguishes the two.
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

// Index is one row of the index of a frozen audience: it says which seqs a blob has. Blobs follow each other without a
// gap, in order of zone, and all recipients of a blob have the same zone, or the same list of zones.
type Index struct {
	Blob  uint32
	First uint32 // seq of its first entry
	Count uint32 // 1 to BlobSize
	Zone  string // as of its entries
}
