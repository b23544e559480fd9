package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/nyaruka/phonenumbers"
)

// fortyCountries are the countries of the end-to-end audience.
var fortyCountries = strings.Fields("IT FR DE ES PT GB IE NL BE CH AT PL CZ SK HU RO BG GR SE NO DK FI EE LV LT HR SI RS TR UA IL AE IN ID TH VN ZA NG BR AU")

// people is an audience as a CSV, and the outcomes it must have.
type people struct {
	csv []byte
	// reachable are the E.164 numbers that can be sent to, in the order of the file.
	reachable []string
	// unreachable have the form of numbers but do not exist: they are stored, and nothing is sent to them (C30).
	unreachable []string
	// rows of the file without the header; duplicates and refused ones are among them.
	rows, duplicates, refused int
}

// makePeople returns n rows of realistic numbers of forty countries, one in fifty a repeat, one in a hundred not a
// number at all, one in a hundred a number that does not exist. The same seed gives the same people.
func makePeople(t testing.TB, n int, seed uint64) people {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	p := people{rows: n}
	var b strings.Builder
	b.WriteString("\ufeffphone;first_name;last_name;email;city\r\n") // as a spreadsheet saves it
	taken := map[string]bool{}
	for i := range n {
		var phone string
		switch {
		case i%100 == 41:
			phone = []string{"", "call me", "3.93E+11", "+39"}[rng.IntN(4)]
			p.refused++
		case i%100 == 73:
			// The number has the right form but does not exist: Italy has no mobile prefix 300.
			phone = fmt.Sprintf("+39300%07d", rng.IntN(1e7))
			if taken[phone] {
				p.duplicates++
			} else {
				p.unreachable = append(p.unreachable, phone)
			}
			taken[phone] = true
		case i%50 == 7 && len(p.reachable) > 0:
			phone = p.reachable[rng.IntN(len(p.reachable))]
			p.duplicates++
		default:
			phone = mobile(t, rng, fortyCountries[i%len(fortyCountries)], taken)
			p.reachable = append(p.reachable, phone)
		}
		fmt.Fprintf(&b, "%s;Name%d;Surname%d;p%d@example.org;City%d\r\n", phone, i, i, i, i%50)
	}
	p.csv = []byte(b.String())
	return p
}

// mobile returns a valid mobile number of a country that is not taken yet.
func mobile(t testing.TB, rng *rand.Rand, country string, taken map[string]bool) string {
	t.Helper()
	example := phonenumbers.GetExampleNumberForType(country, phonenumbers.MOBILE)
	if example == nil {
		t.Fatalf("no example of a mobile number of %s", country)
	}
	e164 := []byte(phonenumbers.Format(example, phonenumbers.E164))
	for range 1000 {
		for i := len(e164) - 5; i < len(e164); i++ {
			e164[i] = byte('0' + rng.IntN(10))
		}
		s := string(e164)
		if taken[s] {
			continue
		}
		num, err := phonenumbers.Parse(s, country)
		if err != nil || !phonenumbers.IsValidNumber(num) {
			continue
		}
		if kind := phonenumbers.GetNumberType(num); kind != phonenumbers.MOBILE && kind != phonenumbers.FIXED_LINE_OR_MOBILE {
			continue
		}
		taken[s] = true
		return s
	}
	t.Fatalf("no free mobile number of %s", country)
	return ""
}
