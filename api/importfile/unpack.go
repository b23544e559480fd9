package importfile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// The first bytes of files, by format.
var (
	magicGzip  = []byte{0x1f, 0x8b}
	magicZip   = []byte("PK\x03\x04")
	magicOLE   = []byte{0xd0, 0xcf, 0x11, 0xe0} // .xls, and .xlsx with a password
	markUTF8   = []byte("\xef\xbb\xbf")
	markUTF16L = []byte("\xff\xfe")
	markUTF16B = []byte("\xfe\xff")
)

// sniffed is how many bytes of a file decide its format.
const sniffed = 512

// unpack returns the content of the file and its format. It unpacks gzip, decodes the charset to UTF-8 and skips a byte
// order mark; a workbook is returned as it is.
func unpack(in io.Reader, o Options) (io.Reader, Format, error) {
	most := o.MaxBytes
	if most == 0 {
		most = MaxBytes
	}
	packed := bufio.NewReaderSize(in, maxRow)
	head, err := peek(packed)
	if err != nil {
		return nil, "", err
	}
	if bytes.HasPrefix(head, magicGzip) {
		z, err := gzip.NewReader(packed)
		if err != nil {
			return nil, "", &FileError{"file", "", "is damaged: gzip cannot read it"}
		}
		packed = bufio.NewReaderSize(&bounded{z, most, most}, maxRow)
		if head, err = peek(packed); err != nil {
			return nil, "", err
		}
	}
	switch {
	case bytes.HasPrefix(head, magicZip):
		return packed, XLSX, nil
	case bytes.HasPrefix(head, magicOLE):
		return nil, "", &FileError{"file", "", "is a workbook of the old kind (.xls), or one with a password: save it as .xlsx or CSV UTF-8"}
	}
	text, err := decode(packed, head, o.Charset)
	if err != nil {
		return nil, "", err
	}
	format := o.Format
	if format == "" || format == XLSX {
		if head, err = peek(text); err != nil {
			return nil, "", err
		}
		if format = guess(head); o.Format == XLSX && format != CSV {
			return nil, "", &FileError{"file", "", "is not a workbook (.xlsx)"}
		}
	}
	return text, format, nil
}

// peek returns the first bytes of a file, also when the reader returns few bytes at a time. If the file ends or fails
// within them, the next read reports it.
func peek(r *bufio.Reader) ([]byte, error) {
	head, err := r.Peek(sniffed)
	if len(head) == 0 && err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return head, nil
}

// guess guesses the format of a text from its first bytes.
func guess(head []byte) Format {
	head = bytes.TrimSpace(head)
	switch {
	case len(head) > 0 && (head[0] == '[' || head[0] == '{'):
		return JSON
	case len(head) >= len(vCardBegin) && strings.EqualFold(string(head[:len(vCardBegin)]), vCardBegin):
		return VCard
	}
	return CSV
}

// decode returns the text as UTF-8 without a byte order mark. The mark decides the charset; without a mark, the
// declared charset does.
func decode(r *bufio.Reader, head []byte, charset string) (*bufio.Reader, error) {
	var from encoding.Encoding
	switch {
	case bytes.HasPrefix(head, markUTF8):
		_, err := r.Discard(len(markUTF8))
		return r, err
	case bytes.HasPrefix(head, markUTF16L), bytes.HasPrefix(head, markUTF16B):
		from = unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM)
	default:
		var err error
		if from, err = charsetOf(charset); err != nil || from == nil {
			return r, err
		}
	}
	return bufio.NewReaderSize(transform.NewReader(r, from.NewDecoder()), maxRow), nil
}

// charsetOf returns the encoding of a declared charset, nil for UTF-8. Names are resolved as the WHATWG defines:
// iso-8859-1 means Windows-1252, which is what most programs that declare it write, and utf-16 means little-endian.
func charsetOf(name string) (encoding.Encoding, error) {
	name = strings.Trim(strings.TrimSpace(name), `"'`)
	if name == "" {
		return nil, nil
	}
	from, err := htmlindex.Get(name)
	if err != nil {
		return nil, &FileError{"Charset", name, "is not known: want utf-8, utf-16, iso-8859-1, windows-1252 or another IANA name"}
	}
	if canonical, _ := htmlindex.Name(from); canonical == "utf-8" || canonical == "replacement" {
		return nil, nil
	}
	return from, nil
}

// CheckCharset returns a [FileError] for a charset that is not known.
func CheckCharset(name string) error {
	_, err := charsetOf(name)
	return err
}

// bounded fails a file that is too long after unpacking. A small gzip file can become very long.
type bounded struct {
	in         io.Reader
	left, most int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		if n, err := b.in.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, &FileError{"file", "", fmt.Sprintf("is longer than %d MB once it is unpacked", b.most>>20)}
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
