package tracker

import (
	"strings"
	"testing"

	"fanfare/schemas"
)

func TestCodesFile(t *testing.T) {
	table, err := parseCodes(codesFile)
	if err != nil {
		t.Fatal(err)
	}
	if len(table) < 100 {
		t.Errorf("got %d codes, want the whole table", len(table))
	}
	for key := range table {
		// 450 is documented with two meanings; 3 means delivered for one product of a vendor and rejected for another.
		if digits := strings.Trim(key.raw, "0123456789") == ""; digits && key.scope == anyScope || key.raw == "450" {
			t.Errorf("code %s has no scope, though numbers differ between carriers", key.raw)
		}
	}
	for _, tc := range []struct {
		connector, raw string
		code           schemas.Code
		want           schemas.Code
	}{
		{"kaleyra", "001", 0, schemas.CodeUnknownSubscriber},
		{"smpp", "001", 0, schemas.CodeAbsentSubscriber},
		{"sim", "001", 0, schemas.CodeUndeliveredOther},
		{"", "expired", 0, schemas.CodeExpired},
		{"kaleyra", "450", 0, schemas.CodeUndeliveredOther},
		{"", "EXPIRED", schemas.CodeBarred, schemas.CodeBarred},
	} {
		if got := table.failure(tc.connector, tc.code, tc.raw); got != tc.want {
			t.Errorf("%s %q %v: got %s, want %s", tc.connector, tc.raw, tc.code, schemas.CodeName(got), schemas.CodeName(tc.want))
		}
	}
}

func TestParseCodesErrors(t *testing.T) {
	for _, tc := range []struct{ file, want string }{
		{"# x\n*,A", "line 2: got 2 fields"},
		{"*,A,NO_SUCH", "line 1: NO_SUCH is not a sub-status of a failure"},
		{"*,A,DELIVERED", "line 1: DELIVERED is not a sub-status of a failure"},
		{"*,A,EXPIRED\n*,A,BARRED", "line 2: A of * occurs twice"},
		{"*,a,EXPIRED", "line 1: a of * occurs twice, or is not in capitals"},
	} {
		if _, err := parseCodes(tc.file); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.file, err, tc.want)
		}
	}
}
