package tracker

import (
	"strings"
	"testing"

	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
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
		// 450 is documented for two things; 3 is delivered with one product of a vendor and rejected with another.
		if digits := strings.Trim(key.raw, "0123456789") == ""; digits && key.scope == anyScope || key.raw == "450" {
			t.Errorf("code %s is known to everybody, though numbers mean different things", key.raw)
		}
	}
	for _, tc := range []struct {
		connector, raw string
		code           fanfarev1.Code
		want           fanfarev1.Code
	}{
		{"kaleyra", "001", 0, fanfarev1.Code_CODE_UNKNOWN_SUBSCRIBER},
		{"smpp", "001", 0, fanfarev1.Code_CODE_ABSENT_SUBSCRIBER},
		{"sim", "001", 0, fanfarev1.Code_CODE_UNDELIVERED_OTHER},
		{"", "expired", 0, fanfarev1.Code_CODE_EXPIRED},
		{"kaleyra", "450", 0, fanfarev1.Code_CODE_UNDELIVERED_OTHER},
		{"", "EXPIRED", fanfarev1.Code_CODE_BARRED, fanfarev1.Code_CODE_BARRED},
	} {
		if got := table.failure(tc.connector, tc.code, tc.raw); got != tc.want {
			t.Errorf("%s %q %v: got %s, want %s", tc.connector, tc.raw, tc.code, schemas.CodeName(got), schemas.CodeName(tc.want))
		}
	}
}

func TestParseCodesErrors(t *testing.T) {
	for _, tc := range []struct{ file, want string }{
		{"# x\n*,A", "line 2: got 2 fields"},
		{"*,A,NO_SUCH", "line 1: NO_SUCH is no sub-status of a failure"},
		{"*,A,DELIVERED", "line 1: DELIVERED is no sub-status of a failure"},
		{"*,A,EXPIRED\n*,A,BARRED", "line 2: A of * stands there twice"},
		{"*,a,EXPIRED", "line 1: a of * stands there twice, or not in capitals"},
	} {
		if _, err := parseCodes(tc.file); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.file, err, tc.want)
		}
	}
}
