package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/schemas"
)

// Entry is one line of a truth file: a submission that the carrier saw.
type Entry struct {
	Time       time.Time
	Message    schemas.ID
	Submission schemas.ID
	To         string
	Body       string
	// Outcome is one of the words of this package, such as Accepted.
	Outcome string
	Account string
	// From is the sender if it is a number or a short code; "" means that a phone cannot answer.
	From string
	// Unanswered: the sender never got an answer.
	Unanswered bool
	// Code says why it was refused.
	Code schemas.Code
	// Ref is the provider's id as the answer said it.
	Ref      string
	Receipts []Owed
	// Offset of the line within the file; with the number of a receipt it names the receipt for good.
	Offset int64
}

// Owed is a receipt that the carrier owes, or owed, for a submission.
type Owed struct {
	Status schemas.ReceiptStatus
	Code   schemas.Code
	// At is when it is said to have happened, Due when it is sent.
	At, Due     time.Time
	Part, Parts uint8
}

// Final returns the state that this submission brings its recipient to once all its receipts are in: as package schemas
// joins them, without the campaign's policy (a negative receipt is undelivered). It is 0 for what was not taken.
func (e *Entry) Final() schemas.Precedence {
	if e.Outcome != Accepted {
		return 0
	}
	p := schemas.PrecedenceOf(schemas.KindSent, uint32(e.Submission.Try()), 0)
	for _, r := range e.Receipts {
		var kind schemas.Kind
		switch r.Status {
		case buffered:
			kind = schemas.KindBuffered
		case delivered:
			kind = schemas.KindDelivered
		case read:
			kind = schemas.KindRead
		case failed:
			kind = schemas.KindUndelivered
		default:
			continue
		}
		p = schemas.Join(p, schemas.PrecedenceOf(kind, uint32(e.Submission.Try()), r.Code))
	}
	return p
}

// Retryable reports whether one of the receipts is negative with a code that is worth another try, so that a later
// submission to the same recipient is no double.
func (e *Entry) Retryable() bool {
	for _, r := range e.Receipts {
		if r.Status == failed {
			if info, _ := schemas.LookupCode(r.Code); info.Retry != schemas.RetryNo || info.Fallback {
				return true
			}
		}
	}
	return false
}

// jsonEntry is the line as JSON has it.
type jsonEntry struct {
	Time         time.Time  `json:"time"`
	MessageID    string     `json:"message_id"`
	SubmissionID string     `json:"submission_id"`
	To           string     `json:"to"`
	Body         string     `json:"body"`
	Outcome      string     `json:"outcome"`
	Account      string     `json:"account"`
	From         string     `json:"from"`
	Answer       string     `json:"answer"`
	Code         string     `json:"code"`
	Ref          string     `json:"ref"`
	Receipts     []jsonOwed `json:"receipts"`
	_            struct{}   `json:"-"`
}

type jsonOwed struct {
	Status string    `json:"status"`
	Code   string    `json:"code"`
	Time   time.Time `json:"time"`
	Due    time.Time `json:"due"`
	Part   uint8     `json:"part"`
	Parts  uint8     `json:"parts"`
}

// parseEntry reads one line.
func parseEntry(line []byte) (Entry, error) {
	var j jsonEntry
	if err := json.Unmarshal(line, &j); err != nil {
		return Entry{}, err
	}
	e := Entry{
		Time: j.Time, To: j.To, Body: j.Body, Outcome: j.Outcome, Account: j.Account, From: j.From,
		Unanswered: j.Answer == "none", Ref: j.Ref,
	}
	var err error
	if e.Message, err = schemas.ParseID(j.MessageID); err != nil {
		return Entry{}, fmt.Errorf("message_id %q: %w", j.MessageID, err)
	}
	if e.Submission, err = schemas.ParseID(j.SubmissionID); err != nil {
		return Entry{}, fmt.Errorf("submission_id %q: %w", j.SubmissionID, err)
	}
	e.Code, _ = schemas.ParseCode(j.Code)
	for _, r := range j.Receipts {
		o := Owed{Status: parseStatus(r.Status), At: r.Time, Due: r.Due, Part: r.Part, Parts: r.Parts}
		if o.Status == 0 {
			return Entry{}, fmt.Errorf("receipt: status %q", r.Status)
		}
		o.Code, _ = schemas.ParseCode(r.Code)
		if o.Due.IsZero() {
			o.Due = o.At
		}
		e.Receipts = append(e.Receipts, o)
	}
	return e, nil
}

// Tail reads a truth file while it grows. It is not safe for use by several goroutines.
type Tail struct {
	path   string
	offset int64
}

// NewTail returns a tail that begins at the first line of path. The file need not exist yet.
func NewTail(path string) *Tail { return &Tail{path: path} }

// Poll hands each line that was completed since the last call to f. A last line without its end is left for the next
// call: it is still being written, or was torn by a kill. An error of f ends the call before its line counts as read.
func (t *Tail) Poll(f func(Entry) error) error {
	file, err := os.Open(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the carrier's truth: %w", err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Seek(t.offset, io.SeekStart); err != nil {
		return fmt.Errorf("read the carrier's truth: %w", err)
	}
	return scanLines(file, t.offset, func(offset int64, line []byte) error {
		e, err := parseEntry(line)
		if err != nil {
			return fmt.Errorf("%s: line at offset %d: %w", t.path, offset, err)
		}
		e.Offset = offset
		if err := f(e); err != nil {
			return err
		}
		t.offset = offset + int64(len(line)) + 1
		return nil
	})
}

// scanLines calls f with each complete line of r, without its end, and the offset of its first byte; r is at offset.
// The line is f's until it returns.
func scanLines(r io.Reader, offset int64, f func(offset int64, line []byte) error) error {
	br := bufio.NewReaderSize(r, 1<<18)
	var long []byte
	for {
		part, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = append(long, part...)
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		line := part
		if len(long) > 0 {
			long = append(long, part...)
			line = long
		}
		if err := f(offset, line[:len(line)-1]); err != nil {
			return err
		}
		offset += int64(len(line))
		long = long[:0]
	}
}

// Truth is a whole truth file in memory, for tests and the demonstration. Use [Tail] for files of millions of lines.
type Truth struct {
	Entries []Entry
}

// ReadTruth reads the file that Config.Truth names. A file that does not exist is an empty truth.
func ReadTruth(path string) (*Truth, error) {
	t := &Truth{}
	err := NewTail(path).Poll(func(e Entry) error {
		t.Entries = append(t.Entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Outcomes counts the submissions by outcome.
func (t *Truth) Outcomes() map[string]int {
	n := map[string]int{}
	for i := range t.Entries {
		n[t.Entries[i].Outcome]++
	}
	return n
}

// Accepted returns the accepted submissions of each message, in the order in which the carrier took them.
func (t *Truth) Accepted() map[schemas.ID][]*Entry {
	m := map[schemas.ID][]*Entry{}
	for i := range t.Entries {
		if e := &t.Entries[i]; e.Outcome == Accepted {
			m[e.Message] = append(m[e.Message], e)
		}
	}
	return m
}

// Doubles returns the accepted submissions that the sender should not have made: the carrier had accepted an earlier
// submission of the same message, and no receipt of that one was negative and worth another try; or the carrier
// accepted the same submission twice.
func (t *Truth) Doubles() []*Entry {
	var doubles []*Entry
	earlier := map[schemas.ID]*Entry{}
	for i := range t.Entries {
		e := &t.Entries[i]
		if e.Outcome != Accepted {
			continue
		}
		if before := earlier[e.Message]; before != nil && (before.Submission == e.Submission || !before.Retryable()) {
			doubles = append(doubles, e)
		}
		earlier[e.Message] = e
	}
	return doubles
}

// Final returns the state of every message of which anything was accepted: the greatest of [Entry.Final] of its
// submissions.
func (t *Truth) Final() map[schemas.ID]schemas.Precedence {
	m := map[schemas.ID]schemas.Precedence{}
	for i := range t.Entries {
		e := &t.Entries[i]
		if p := e.Final(); p != 0 {
			m[e.Message] = schemas.Join(m[e.Message], p)
		}
	}
	return m
}

// StillOwed counts the receipts of a truth file that are not acknowledged yet.
func StillOwed(path string) (int, error) {
	acked, watermark, err := readAcked(ackedPath(path))
	if err != nil {
		return 0, err
	}
	n := 0
	err = NewTail(path).Poll(func(e Entry) error {
		for i := range e.Receipts {
			if e.Offset >= watermark && !acked.has(receiptID(e.Offset, i)) {
				n++
			}
		}
		return nil
	})
	return n, err
}

// OwedTo calls each with every submission of a campaign in a truth file, and returns the recipients with a receipt that
// is not acknowledged yet. It stops at the first error of each.
func OwedTo(path string, campaign uint64, each func(*Entry) error) (*roaring.Bitmap, error) {
	acked, watermark, err := readAcked(ackedPath(path))
	if err != nil {
		return nil, err
	}
	owed := roaring.New()
	err = NewTail(path).Poll(func(e Entry) error {
		if e.Message.CampaignNumber() != campaign {
			return nil
		}
		for i := range e.Receipts {
			if e.Offset >= watermark && !acked.has(receiptID(e.Offset, i)) {
				owed.Add(e.Message.Seq())
			}
		}
		return each(&e)
	})
	return owed, err
}

// cutTorn removes what follows the last end of a line and returns the size of the file then.
func cutTorn(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	buf := make([]byte, 64<<10)
	for end := size; end > 0; {
		start := max(0, end-int64(len(buf)))
		b := buf[:end-start]
		if _, err := f.ReadAt(b, start); err != nil {
			return 0, err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			end = start + int64(i) + 1
			if end == size {
				return size, nil
			}
			return end, f.Truncate(end)
		}
		end = start
	}
	if size == 0 {
		return 0, nil
	}
	return 0, f.Truncate(0)
}
