package tracker

import (
	_ "embed"
	"fmt"
	"strings"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
)

//go:embed codes.csv
var codesFile string

// codeKey is a carrier's code within a connector.
type codeKey struct{ scope, raw string }

// anyScope is that of words which mean the same everywhere.
const anyScope = "*"

// codes is the table of what carriers' codes mean.
type codes map[codeKey]fanfarev1.Code

// parseCodes reads the table; its errors name the line.
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
		if info, known := schemas.LookupCode(code); !ok || !known || !negative(info) {
			return nil, fmt.Errorf("codes, line %d: %s is no sub-status of a failure", n, f[2])
		}
		key := codeKey{f[0], f[1]}
		if _, twice := table[key]; twice || key != (codeKey{strings.ToLower(key.scope), strings.ToUpper(key.raw)}) {
			return nil, fmt.Errorf("codes, line %d: %s of %s stands there twice, or not in capitals", n, f[1], f[0])
		}
		table[key] = code
	}
	return table, nil
}

// negative reports whether a sub-status can be that of a negative receipt.
func negative(info schemas.CodeInfo) bool {
	switch info.Bucket {
	case schemas.BucketUndelivered, schemas.BucketNotSent, schemas.BucketSkipped:
		return true
	default:
		return false
	}
}

// failure returns the sub-status of a negative receipt: what the connector says, else what the table says of the raw code, else OTHER.
func (t codes) failure(connector string, code fanfarev1.Code, raw string) fanfarev1.Code {
	if info, ok := schemas.LookupCode(code); ok && negative(info) {
		return code
	}
	raw = strings.ToUpper(strings.TrimSpace(raw))
	if c, ok := t[codeKey{connector, raw}]; ok {
		return c
	}
	if c, ok := t[codeKey{anyScope, raw}]; ok {
		return c
	}
	return fanfarev1.Code_CODE_UNDELIVERED_OTHER
}
