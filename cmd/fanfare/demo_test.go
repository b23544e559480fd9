package main

import (
	"encoding/csv"
	"testing"

	"github.com/nyaruka/phonenumbers"
)

// Everybody in the demo can be sent to: a newcomer's first account must not begin with numbers that do not exist.
func TestMadeUpPeopleCanBeSentTo(t *testing.T) {
	rows, err := csv.NewReader(madeUpPeople(demoPeople)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := len(rows) - 1; got != demoPeople {
		t.Fatalf("got %d people, want %d", got, demoPeople)
	}
	bad := map[string]int{}
	for _, row := range rows[1:] {
		n, err := phonenumbers.Parse(row[0], "")
		if err != nil || !phonenumbers.IsValidNumber(n) || phonenumbers.GetNumberType(n) != phonenumbers.MOBILE {
			bad[row[0][:5]]++
		}
	}
	if len(bad) > 0 {
		t.Errorf("numbers that are no mobile numbers, by prefix: %v", bad)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
