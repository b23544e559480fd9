package schemas_test

import (
	"strings"
	"testing"

	"fanfare/schemas"
)

func TestParseKeys(t *testing.T) {
	const old, fresh = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"
	for text, want := range map[string]string{
		"": "want at least 16 bytes", "xyz": "want hexadecimal digits", "0011": "want at least 16 bytes", old + "," + fresh + "," + old: "one or two",
	} {
		if _, err := schemas.ParseKeys(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q in it", text, err, want)
		}
	}
	before, err := schemas.ParseKeys(old)
	if err != nil {
		t.Fatal(err)
	}
	rotated, err := schemas.ParseKeys(fresh + ", " + old + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := rotated.Verify(before.Message(10001, 7)); err != nil {
		t.Errorf("an id signed with the old secret is refused while two are given: %v", err)
	}
	if before.Verify(rotated.Message(10001, 7)) == nil {
		t.Error("the first of two secrets must sign")
	}
}
