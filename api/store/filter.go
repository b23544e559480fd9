package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"unicode/utf8"

	"fanfare/schemas/audience"
	"fanfare/schemas/text"
)

// addSearchable adds to a filter what [Store.BlobsWithout] looks for: the number, the name and the e-mail address of a
// recipient, in lower case. It returns buf, which it may have grown.
func addSearchable(f *audience.Filter, e *audience.Entry, buf []byte) []byte {
	f.Add([]byte(e.To))
	first, _ := e.Value(text.FieldFirstName)
	last, _ := e.Value(text.FieldLastName)
	buf = append(append(append(buf[:0], first...), ' '), last...)
	f.Add(lower(buf))
	email, _ := e.Value(text.FieldEmail)
	buf = append(buf[:0], email...)
	f.Add(lower(buf))
	return buf
}

// lower returns a text in lower case; it may change the text.
func lower(s []byte) []byte {
	for i, c := range s {
		if c >= utf8.RuneSelf {
			return bytes.ToLower(s)
		}
		if c >= 'A' && c <= 'Z' {
			s[i] = c + 'a' - 'A'
		}
	}
	return s
}

// BlobsWithout returns the numbers of blobs of a frozen audience in which no recipient has any of the texts in its
// number, its name (the first and the last with a space between) or its e-mail address. The texts are in lower case. A
// blob that is not returned may have a match or not.
func (s *Store) BlobsWithout(ctx context.Context, freezeID string, texts ...string) (map[uint32]bool, error) {
	rows, err := s.d.read.QueryContext(ctx, `SELECT i.blob, f.data FROM freeze_index i
JOIN freeze_filters f ON f.freeze_id = i.freeze_id AND f.part = i.part WHERE i.freeze_id = ?`, freezeID)
	if err != nil {
		return nil, fmt.Errorf("search audience %s: %w", freezeID, err)
	}
	defer rows.Close()
	without := map[uint32]bool{}
	var filter sql.RawBytes
	for rows.Next() {
		var blob int64
		if err := rows.Scan(&blob, &filter); err != nil {
			return nil, fmt.Errorf("search audience %s: %w", freezeID, err)
		}
		may := false
		for _, text := range texts {
			may = may || audience.MayHold(filter, text)
		}
		if !may {
			without[uint32(blob)] = true
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("search audience %s: %w", freezeID, err)
	}
	return without, nil
}
