package api

import (
	"testing"

	"fanfare/schemas/audience"
)

// R124: a search text that looks like a number is also looked for in names and e-mail addresses: no blob that has it
// there is left out.
func TestNeedleOfDigits(t *testing.T) {
	var w audience.Writer
	w.Add(&audience.Entry{To: "+393331234567", Zone: "Europe/Rome", Country: "IT", Attrs: []audience.Attr{{Name: "email", Value: "12.05.1984@example.com"}}})
	r, err := audience.NewReader(w.Flush())
	if err != nil {
		t.Fatal(err)
	}
	for search, want := range map[string]bool{"12.05.1984": true, "0012345": false, "333 123": true, "+39333": true, "987654": false} {
		if got := newNeedle(search).mayBeIn(r); got != want {
			t.Errorf("%q: got %t, want %t", search, got, want)
		}
	}
}
