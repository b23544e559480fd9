package tracker

import (
	_ "embed"
	"fmt"
	"strings"

	"fanfare/schemas"
)

//go:embed codes.csv
var codesFile string

// codeKey is a carrier's code within a connector.
type codeKey struct{ scope, raw string }

// anyScope is the scope of codes that mean the same for every connector.
const anyScope = "*"

// codes maps carriers' codes to our sub-statuses.
type codes map[codeKey]schemas.Code

// parseCodes reads codes.csv. Its errors name the line.
func parseCodes(file string) (codes, error) {
	table := codes{}
	n := 0
	for line := range strings.Lines(file) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Split(line, ",")
		if len(f) != 3 {
			return nil, fmt.Errorf("codes, line %d: got %d fields, want scope, code and sub-status", n, len(f))
		}
		code, ok := schemas.ParseCode(f[2])
		if info, known := schemas.LookupCode(code); !ok || !known || !negativeCode(info) {
			return nil, fmt.Errorf("codes, line %d: %s is not a sub-status of a failure", n, f[2])
		}
		key := codeKey{f[0], f[1]}
		if _, twice := table[key]; twice || key != (codeKey{strings.ToLower(key.scope), strings.ToUpper(key.raw)}) {
			return nil, fmt.Errorf("codes, line %d: %s of %s occurs twice, or is not in capitals", n, f[1], f[0])
		}
		table[key] = code
	}
	return table, nil
}

// negativeCode reports whether a negative receipt may have this sub-status.
func negativeCode(info schemas.CodeInfo) bool {
	switch info.Bucket {
	case schemas.BucketUndelivered, schemas.BucketNotSent, schemas.BucketSkipped:
		return true
	default:
		return false
	}
}

// failure returns the sub-status of a negative receipt: the connector's, else that of the raw code in the table, else
// OTHER.
func (t codes) failure(connector string, code schemas.Code, raw string) schemas.Code {
	if info, ok := schemas.LookupCode(code); ok && negativeCode(info) {
		return code
	}
	raw = strings.ToUpper(strings.TrimSpace(raw))
	if c, ok := t[codeKey{connector, raw}]; ok {
		return c
	}
	if c, ok := t[codeKey{anyScope, raw}]; ok {
		return c
	}
	return schemas.CodeUndeliveredOther
}
