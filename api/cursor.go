package api

import (
	"encoding/base64"
	"strconv"
	"strings"

	"fanfare/api/problem"
)

// A cursor continues a list behind the last row of the answer before. Unlike with page numbers, rows that are added or
// removed meanwhile cause no gap and no repetition. The cursor is opaque to clients. It contains the name of its list,
// so that a cursor of another list is refused.

// nextCursor returns the cursor behind the last row of a full page, and nil for the last page.
func nextCursor(list string, rows, limit int, last func() string) *string {
	if rows == 0 || rows < limit {
		return nil
	}
	return orNull(base64.RawURLEncoding.EncodeToString([]byte(list + ":" + last())))
}

// readCursor returns the position that a cursor of that list continues behind, "" without a cursor.
func readCursor(list, cursor string) (string, *problem.Problem) {
	if cursor == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	after, ok := strings.CutPrefix(string(b), list+":")
	if err != nil || !ok || after == "" {
		return "", problem.Field(problem.CodeInvalid, "cursor", "The cursor is not one of this list.").WithFix("Send the value of next of the answer before, or leave cursor out to begin.")
	}
	return after, nil
}

// readNumberCursor is [readCursor] for lists in the order of a number.
func readNumberCursor(list, cursor string) (uint64, *problem.Problem) {
	after, p := readCursor(list, cursor)
	if p != nil || after == "" {
		return 0, p
	}
	n, err := strconv.ParseUint(after, 10, 63)
	if err != nil || n == 0 {
		return 0, problem.Field(problem.CodeInvalid, "cursor", "The cursor is not one of this list.")
	}
	return n, nil
}

func numberCursor(n uint64) func() string {
	return func() string { return strconv.FormatUint(n, 10) }
}
