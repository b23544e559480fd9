package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/schemas/text"
)

// people reads the frozen audience of one campaign: the recipient of each seq. It keeps the blob that was read last, so
// reading in the order of seq loads each blob once. It is not safe for concurrent use.
type people struct {
	store *store.Store
	id    string
	index []audience.Index
	gone  bool // the audience was removed: the campaign ended too long ago

	open   int // of index; -1: none
	reader *audience.Reader
	entry  audience.Entry
}

// peopleOf returns the people of a campaign. A campaign that is not frozen has none.
func (s *server) peopleOf(ctx context.Context, c *store.Campaign) (*people, error) {
	p := &people{store: s.Store, id: c.FreezeID, open: -1}
	if c.FreezeID == "" || c.Hidden {
		return p, nil
	}
	var err error
	p.index, err = s.Store.Blobs(ctx, c.FreezeID)
	if errors.Is(err, schemas.ErrNotFound) {
		p.gone = true
		return p, nil
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return p, nil
}

// of returns the entry of a seq, valid until the next call; nil if the audience does not have it.
func (p *people) of(ctx context.Context, seq uint32) (*audience.Entry, error) {
	i, ok := slices.BinarySearchFunc(p.index, seq, func(x audience.Index, seq uint32) int {
		switch {
		case x.First+x.Count <= seq:
			return -1
		case x.First > seq:
			return 1
		}
		return 0
	})
	if !ok {
		return nil, nil
	}
	if err := p.load(ctx, i); err != nil || p.reader == nil {
		return nil, err
	}
	if !p.reader.Seek(int(seq-p.index[i].First)) || !p.reader.Next(&p.entry) {
		return nil, fmt.Errorf("recipient %d of audience %s: %w", seq, p.id, p.reader.Err())
	}
	return &p.entry, nil
}

// load opens a blob of the index.
func (p *people) load(ctx context.Context, i int) error {
	if p.open == i {
		return nil
	}
	p.open, p.reader = -1, nil
	blob, err := p.store.Blob(ctx, p.id, p.index[i].Blob)
	if errors.Is(err, schemas.ErrNotFound) { // removed since the index was read
		p.gone, p.open = true, i
		return nil
	}
	if err != nil {
		return err
	}
	if p.reader, err = audience.NewReader(blob); err != nil {
		return fmt.Errorf("audience %s, blob %d: %w", p.id, p.index[i].Blob, err)
	}
	p.open = i
	return nil
}

// nameOf returns first and last name of a recipient.
func nameOf(e *audience.Entry) string {
	first, _ := e.Value(text.FieldFirstName)
	last, _ := e.Value(text.FieldLastName)
	return strings.TrimSpace(first + " " + last)
}

// needle is a search text for the names, numbers and e-mail addresses of recipients.
type needle struct {
	text   string // in lower case
	word   string // the longest word of text: a blob without this word has no match
	digits string // text as a part of a number; "" if it cannot be one
}

func newNeedle(search string) needle {
	n := needle{text: strings.ToLower(strings.Join(strings.Fields(search), " "))}
	for word := range strings.FieldsSeq(n.text) {
		if len(word) > len(n.word) {
			n.word = word
		}
	}
	digits := strings.NewReplacer(" ", "", "-", "", "(", "", ")", "", ".", "", "/", "").Replace(n.text)
	if number := strings.TrimPrefix(digits, "+"); number != "" && strings.Trim(number, "0123456789") == "" {
		n.digits = digits
		if strings.HasPrefix(digits, "00") {
			n.digits = "+" + digits[2:]
		}
	}
	return n
}

// fewBlobs is how many blobs a search reads without asking first which of them have no match: two blobs take as long to
// read as the filters of twenty.
const fewBlobs = 2

// texts returns the texts one of which a match has.
func (n needle) texts() []string {
	if n.digits != "" {
		return []string{n.digits, n.text}
	}
	return []string{n.text}
}

// mayBeIn reports whether the blob of r may have a match.
func (n needle) mayBeIn(r *audience.Reader) bool {
	return r.Holds(n.word) || n.digits != "" && r.Holds(n.digits)
}

func (n needle) matches(e *audience.Entry) bool {
	if n.digits != "" && strings.Contains(e.To, n.digits) {
		return true
	}
	if strings.Contains(strings.ToLower(nameOf(e)), n.text) {
		return true
	}
	email, _ := e.Value(text.FieldEmail)
	return strings.Contains(strings.ToLower(email), n.text)
}
