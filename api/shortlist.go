package api

import (
	"slices"
	"strings"

	"fanfare/api/problem"
)

// shortIn asks for a page of a short list: the store reads these lists whole.
type shortIn struct {
	Page   int    `query:"page" minimum:"0"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"1000"`
	Cursor string `query:"cursor" doc:"The value of next in an earlier answer: continues behind its last row."`
	Search string `query:"search" maxLength:"100" doc:"Only rows whose name or id contains this, in upper or lower case."`
}

// pageOf returns the page of a short list that in asks for. names returns what search looks in; the first of them names
// the row in the cursor.
func pageOf[T, V any](list string, in *shortIn, rows []T, names func(*T) []string, view func(*T) (V, error)) (*Page[V], error) {
	if search := strings.ToLower(strings.TrimSpace(in.Search)); search != "" {
		rows = slices.DeleteFunc(slices.Clone(rows), func(row T) bool {
			return !slices.ContainsFunc(names(&row), func(name string) bool { return strings.Contains(strings.ToLower(name), search) })
		})
	}
	after, p := readCursor(list, in.Cursor)
	if p != nil {
		return nil, p
	}
	out := &Page[V]{Data: []V{}, Page: in.Page, Limit: in.Limit, Total: len(rows)}
	from := len(rows)
	if in.Page <= len(rows)/in.Limit {
		from = in.Page * in.Limit
	}
	if after != "" {
		i := slices.IndexFunc(rows, func(row T) bool { return names(&row)[0] == after })
		if i < 0 {
			return nil, problem.Field(problem.CodeInvalid, "cursor", "The last row of the answer before is not in this list any more.").WithFix("Leave cursor out to begin again.")
		}
		out.Page, from = 0, i+1
	}
	rows = rows[from:min(from+in.Limit, len(rows))]
	for i := range rows {
		v, err := view(&rows[i])
		if err != nil {
			return nil, err
		}
		out.Data = append(out.Data, v)
	}
	if from+len(rows) < out.Total {
		out.Next = nextCursor(list, len(rows), in.Limit, func() string { return names(&rows[len(rows)-1])[0] })
	}
	return out, nil
}
