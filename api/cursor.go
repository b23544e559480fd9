package api

import (
	"encoding/base64"
	"strconv"
	"strings"

	"fanfare/api/problem"
)

// A cursor continues a list after the row that came last, wherever that row would be by now: unlike a page number it skips and repeats
// no row while others come and go. Clients pass it on as it is. It names its list, so that it is not taken for that of another.

// nextCursor returns the cursor after the last row of a page that is full, null for the last page.
func nextCursor(list string, rows, limit int, last func() string) *string {
	if rows == 0 || rows < limit {
		return nil
	}
	return orNull(base64.RawURLEncoding.EncodeToString([]byte(list + ":" + last())))
}

// readCursor returns what a cursor of that list continues after, "" without one.
func readCursor(list, cursor string) (string, *problem.Problem) {
	if cursor == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	after, ok := strings.CutPrefix(string(b), list+":")
	if err != nil || !ok || after == "" {
		return "", problem.Field(problem.CodeInvalid, "cursor", "The cursor is not one of this list.").WithFix("Pass on next of the answer before, or leave cursor out to begin.")
	}
	return after, nil
}

// readNumberCursor is [readCursor] of lists in the order of a number.
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
