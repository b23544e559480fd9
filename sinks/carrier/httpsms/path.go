package httpsms

import (
	"encoding/json"
	"strconv"
	"strings"
)

// look returns the value that a path names in decoded JSON: names and numbers with dots in between. An empty path names
// the whole document.
func look(v any, path string) (any, bool) {
	for path != "" {
		var step string
		step, path, _ = strings.Cut(path, ".")
		switch x := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = x[step]; !ok {
				return nil, false
			}
		case []any:
			n, err := strconv.Atoi(step)
			if err != nil || n < 0 || n >= len(x) {
				return nil, false
			}
			v = x[n]
		default:
			return nil, false
		}
	}
	return v, v != nil
}

// lookText returns the value of a path as text if it is a text, a number or a boolean; otherwise it returns "".
func lookText(v any, path string) string {
	if path == "" {
		return ""
	}
	found, _ := look(v, path)
	switch x := found.(type) {
	case string:
		return x
	case json.Number:
		return x.String()
	case bool:
		return strconv.FormatBool(x)
	default:
		return ""
	}
}

// lookFirst returns the text of the first path that names one.
func lookFirst(v any, paths []string) string {
	for _, p := range paths {
		if s := lookText(v, p); s != "" {
			return s
		}
	}
	return ""
}

// decode decodes JSON, and keeps numbers as they are written.
func decode(raw []byte) (any, error) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return v, nil
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		return append(b, `""`...) // cannot happen: a string always marshals
	}
	return append(b, quoted...)
}
