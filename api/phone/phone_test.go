package phone

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nyaruka/phonenumbers"

	"fanfare/schemas"
	"fanfare/schemas/audience"
	"fanfare/schemas/hours"
)

// cases is how many numbers the comparison with the library tries: go test ./api/phone -phone.cases 5000000
var cases = flag.Int("phone.cases", 4_000, "numbers to compare with the library")

func newParser(t testing.TB) *Parser {
	t.Helper()
	p, err := NewParser()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// library returns the result of the library's own functions.
func library(text, region string) (n parsed, valid bool, err error) {
	num, err := phonenumbers.Parse(text, region)
	if err != nil {
		return parsed{}, false, err
	}
	return parsed{
		e164:   phonenumbers.Format(num, phonenumbers.E164),
		region: phonenumbers.GetRegionCodeForNumber(num),
		kind:   phonenumbers.GetNumberType(num),
	}, phonenumbers.IsValidNumber(num), nil
}

// compare fails the test if the tables give another result than the library. It returns whether the tables had a
// result, and whether the library accepts the number.
func compare(t *testing.T, p *Parser, text, region string) (ok, number bool) {
	t.Helper()
	got, ok := p.quick(text, region)
	want, valid, err := library(text, region)
	switch {
	case ok && err != nil:
		t.Errorf("%q in %q: got %+v, want error %v", text, region, got, err)
	case ok && got != want:
		t.Errorf("%q in %q: got %+v, want %+v", text, region, got, want)
	case err == nil && valid != (want.kind != phonenumbers.UNKNOWN):
		t.Errorf("%q in %q: the library calls it valid %v and of type %v", text, region, valid, want.kind)
	}
	return ok, err == nil
}

// seeds are the library's example numbers of every region and type.
func seeds(p *Parser) (out []*phonenumbers.PhoneNumber, regions []string) {
	for region := range p.regions {
		regions = append(regions, region)
	}
	slices.Sort(regions)
	kinds := []phonenumbers.PhoneNumberType{
		phonenumbers.FIXED_LINE, phonenumbers.MOBILE, phonenumbers.TOLL_FREE, phonenumbers.PREMIUM_RATE, phonenumbers.SHARED_COST,
		phonenumbers.VOIP, phonenumbers.PERSONAL_NUMBER, phonenumbers.PAGER, phonenumbers.UAN, phonenumbers.VOICEMAIL,
	}
	for _, region := range regions {
		for _, kind := range kinds {
			if n := phonenumbers.GetExampleNumberForType(region, kind); n != nil {
				out = append(out, n)
			}
		}
	}
	for _, cc := range []int{800, 808, 870, 878, 881, 882, 883, 888, 979} {
		if n := phonenumbers.GetExampleNumberForNonGeoEntity(cc); n != nil {
			out = append(out, n)
		}
	}
	return out, regions
}

// Every example number of every region and type, in every way to write it.
func TestExamplesAgreeWithLibrary(t *testing.T) {
	p := newParser(t)
	nums, regions := seeds(p)
	if len(regions) < 240 || len(nums) < 1000 {
		t.Fatalf("got %d regions and %d examples, want all of them", len(regions), len(nums))
	}
	quick, all := 0, 0
	for _, n := range nums {
		region := phonenumbers.GetRegionCodeForNumber(n)
		nsn := phonenumbers.GetNationalSignificantNumber(n)
		for _, text := range []string{
			phonenumbers.Format(n, phonenumbers.E164),
			phonenumbers.Format(n, phonenumbers.INTERNATIONAL),
			phonenumbers.Format(n, phonenumbers.NATIONAL),
			fmt.Sprintf("00%d%s", n.GetCountryCode(), nsn),
			fmt.Sprintf("%d%s", n.GetCountryCode(), nsn),
			"0" + nsn,
			nsn,
		} {
			ok, number := compare(t, p, text, region)
			if number {
				all++
			}
			if ok {
				quick++
			}
		}
	}
	// A number that the tables leave to the library costs 25 µs. That must stay rare, and no plan may leave all its
	// numbers to the library.
	if share := float64(quick) / float64(all); share < 0.98 {
		t.Errorf("got %.3f of %d texts answered by the tables, want 0.98", share, all)
	}
	for region, pl := range p.regions {
		if pl.load().bad {
			t.Errorf("the tables cannot hold the plan of %s", region)
		}
	}
}

// Random neighbours of example numbers, and random digits, in random regions.
func TestRandomNumbersAgreeWithLibrary(t *testing.T) {
	p := newParser(t)
	nums, regions := seeds(p)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i < *cases && !t.Failed(); i++ {
		n := nums[rnd.IntN(len(nums))]
		region := phonenumbers.GetRegionCodeForNumber(n)
		if rnd.IntN(4) == 0 {
			region = regions[rnd.IntN(len(regions))]
		}
		compare(t, p, neighbour(rnd, n), region)
	}
}

// neighbour writes a number that is like n.
func neighbour(rnd *rand.Rand, n *phonenumbers.PhoneNumber) string {
	digits := []byte(phonenumbers.GetNationalSignificantNumber(n))
	if rnd.IntN(8) == 0 {
		digits = make([]byte, 2+rnd.IntN(19))
		for i := range digits {
			digits[i] = byte('0' + rnd.IntN(10))
		}
	}
	for range rnd.IntN(4) {
		digits[rnd.IntN(len(digits))] = byte('0' + rnd.IntN(10))
	}
	switch rnd.IntN(6) {
	case 0:
		digits = digits[:len(digits)-1]
	case 1:
		digits = append(digits, byte('0'+rnd.IntN(10)))
	}
	text := string(digits)
	switch cc := n.GetCountryCode(); rnd.IntN(12) {
	case 0, 1, 2:
		text = fmt.Sprintf("+%d%s", cc, text)
	case 3:
		text = fmt.Sprintf("00%d%s", cc, text)
	case 4:
		text = fmt.Sprintf("%d%s", cc, text)
	case 5:
		text = fmt.Sprintf("+%d0%s", cc, text)
	case 6:
		text = fmt.Sprintf("0%s", text)
	case 7:
		text = fmt.Sprintf("%d%s", rnd.IntN(10), text)
	case 8:
		text = fmt.Sprintf("%d%d%s", []int{0, 8, 11, 9, 1, 15, 119, 810}[rnd.IntN(8)], cc, text)
	case 9:
		text = "+" + text
	}
	if rnd.IntN(3) == 0 && len(text) > 4 {
		at := 2 + rnd.IntN(len(text)-3)
		text = text[:at] + []string{" ", "-", ".", "/", "(", ")", "  "}[rnd.IntN(7)] + text[at:]
	}
	return text
}

func FuzzAgreesWithLibrary(f *testing.F) {
	p := newParser(f)
	for _, s := range []string{"+39 333 1234567", "0039 06 69812345", "(030) 123-456", "011 15 2345-6789", "044 55 1234 5678", "+ 44/20", "3.9E+11"} {
		f.Add(s, "IT")
		f.Add(s, "AR")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, text, region string) {
		compare(t, p, text, region)
		if n, err := p.Parse(text, region); err != nil {
			if !errors.Is(err, ErrNumber) {
				t.Errorf("got error %v, want one that wraps ErrNumber", err)
			}
		} else if again, err := p.Parse(n.E164, ""); err != nil || again.E164 != n.E164 && n.Valid {
			t.Errorf("%q: got %q, and from that %q, %v", text, n.E164, again.E164, err)
		}
	})
}

// The traps by name: 0039, Italian leading zero, Argentina's 9, Mexico's 1, national forms.
func TestParse(t *testing.T) {
	p := newParser(t)
	for _, c := range []struct {
		text, region  string
		e164, country string
		zone          string
		class         audience.Class
		valid         bool
	}{
		{"+39 333 1234567", "US", "+393331234567", "IT", "Europe/Rome", audience.Mobile, true},
		{"0039 333 123 4567", "IT", "+393331234567", "IT", "Europe/Rome", audience.Mobile, true},
		{"333.123.4567", "IT", "+393331234567", "IT", "Europe/Rome", audience.Mobile, true},
		{"393331234567", "IT", "+393331234567", "IT", "Europe/Rome", audience.Mobile, true},
		{"06 4520 1234", "IT", "+390645201234", "IT", "Europe/Rome", audience.FixedLine, true},
		{"0 11 15-2345-6789", "AR", "+5491123456789", "AR", "America/Argentina/Buenos_Aires", audience.Mobile, true},
		{"+54 9 11 2345 6789", "IT", "+5491123456789", "AR", "America/Argentina/Buenos_Aires", audience.Mobile, true},
		{"55 1234 5678", "MX", "+525512345678", "MX", "America/Mexico_City", audience.Mobile, true},
		{"07400 123456", "GB", "+447400123456", "GB", "Europe/London", audience.Mobile, true},
		{"+7 912 345-67-89", "IT", "+79123456789", "RU", "Europe/Moscow", audience.Mobile, true},
		{"(212) 555-0123", "US", "+12125550123", "US", "America/New_York", audience.Mobile, true},
		{"+1 310 555 0123", "IT", "+13105550123", "US", "America/Los_Angeles", audience.Mobile, true},
		{"+1 200 555 0123", "IT", "+12005550123", "", "", audience.Unknown, false},
		{"+800 1234 5678", "IT", "+80012345678", "", "", audience.Freephone, true},
		{"393331234567", World, "+393331234567", "IT", "Europe/Rome", audience.Mobile, true},
		{"+393331234567", World, "+393331234567", "IT", "Europe/Rome", audience.Mobile, true},
	} {
		want := Number{c.e164, schemas.NumberKey(c.e164), c.country, c.zone, c.class, c.valid}
		got, err := p.Parse(c.text, c.region)
		if err != nil || got != want {
			t.Errorf("%q in %s: got %+v, %v, want %+v", c.text, c.region, got, err, want)
		}
	}
	for _, text := range []string{"", "1", "abc", "+", "+999123456789", "3.9E+11", strings.Repeat("1", 300), "+39 3331234567890123"} {
		if got, err := p.Parse(text, "IT"); !errors.Is(err, ErrNumber) {
			t.Errorf("%q: got %+v, %v, want an error", text, got, err)
		}
	}
}

// C27: old forms become the forms that are dialled today, and all forms of a person's number have the same key.
func TestOldForms(t *testing.T) {
	p := newParser(t)
	for _, c := range []struct{ text, region, e164, key string }{
		{"+52 1 55 1234 5678", "IT", "+525512345678", "+525512345678"},
		{"+52 55 1234 5678", "IT", "+525512345678", "+525512345678"},
		{"044 55 1234 5678", "MX", "+525512345678", "+525512345678"},
		{"1 55 1234 5678", "MX", "+525512345678", "+525512345678"},
		{"+54 9 11 2345 6789", "IT", "+5491123456789", "+541123456789"},
		{"+54 11 2345 6789", "IT", "+541123456789", "+541123456789"},
		{"011 15 2345 6789", "AR", "+5491123456789", "+541123456789"},
		{"+55 11 8765 4321", "IT", "+5511987654321", "+5511987654321"},
		{"(11) 8765-4321", "BR", "+5511987654321", "+5511987654321"},
		{"0 11 98765-4321", "BR", "+5511987654321", "+5511987654321"},
		{"+225 07 12 34 56", "IT", "+2250707123456", "+2250707123456"},
		{"05 12 34 56", "CI", "+2250505123456", "+2250505123456"},
		{"+229 97 12 34 56", "IT", "+2290197123456", "+2290197123456"},
		{"97 12 34 56", "BJ", "+2290197123456", "+2290197123456"},
		{"+84 162 987 6543", "IT", "+84329876543", "+84329876543"},
		{"0162 987 6543", "VN", "+84329876543", "+84329876543"},
	} {
		got, err := p.Parse(c.text, c.region)
		if err != nil || got.E164 != c.e164 || got.Key != c.key || !got.Valid {
			t.Errorf("%q in %s: got %+v, %v, want %s with key %s, valid", c.text, c.region, got, err, c.e164, c.key)
		}
	}
}

// Only mobile numbers can receive messages. All others have a class, so that the API can say why.
func TestClasses(t *testing.T) {
	p := newParser(t)
	for text, want := range map[string]audience.Class{
		"+393331230022": audience.Mobile, "+12125550123": audience.Mobile, "+390645201234": audience.FixedLine,
		"+39899123456": audience.Premium, "+449098790000": audience.Premium, "+19002345678": audience.Premium, "+979123456789": audience.Premium,
		"+39800123456": audience.Freephone, "+18005551234": audience.Freephone, "+80012345678": audience.Freephone,
		"+3933612345678": audience.Voicemail, "+447012345678": audience.Personal, "+447640123456": audience.Pager,
		"+881612345678": audience.Satellite, "+870773123456": audience.Satellite, "+883510012345": audience.Satellite,
		"+4915199234567": audience.Mobile, "+12005550123": audience.Unknown,
	} {
		n, err := p.Parse(text, "")
		if err != nil || n.Class != want || n.Valid != (want != audience.Unknown) || n.Class.TakesText() != (want == audience.Mobile) {
			t.Errorf("%s: got %s, valid %v, %v, want %s", text, n.Class.Name(), n.Valid, err, want.Name())
		}
	}
}

// A number without + is never taken for a mobile number of another country. It is also not accepted if its digits are
// another kind of number in its own region.
func TestAmbiguous(t *testing.T) {
	p := newParser(t)
	for _, c := range []struct{ text, region, with, country string }{
		{"33612345678", "IT", "+33612345678", "FR"}, // as an Italian number: a voicemail box
		{"34612345678", "IT", "+34612345678", "ES"},
		{"351912345678", "DE", "+351912345678", "PT"}, // as a German number: a fixed line in Dresden
		{"4915112345678", "IT", "+4915112345678", "DE"},
		{"5511987654321", "IT", "+5511987654321", "BR"},
		{"8613812345678", "US", "+8613812345678", "CN"},
		{"447400 123456", "FR", "+447400123456", "GB"},
	} {
		n, err := p.Parse(c.text, c.region)
		var bad *AmbiguousError
		if !errors.As(err, &bad) || !errors.Is(err, ErrNumber) || bad.With.E164 != c.with || bad.With.Country != c.country || bad.Region != c.region {
			t.Errorf("%s in %s: got %+v, %v, want an AmbiguousError with %s of %s", c.text, c.region, n, err, c.with, c.country)
			continue
		}
		if strings.Contains(err.Error(), c.text[:5]) {
			t.Errorf("got error %q, want none with the number in it", err)
		}
		if n, err := p.Parse(c.text, World); err != nil || n.E164 != c.with {
			t.Errorf("%s in the world: got %+v, %v, want %s", c.text, n, err, c.with)
		}
	}
	// A mobile number of its own region is accepted, whatever its digits mean in other countries.
	for text, region := range map[string]string{"3312345678": "IT", "393331234567": "IT", "2125550123": "US", "612345678": "ES", "0612345678": "FR"} {
		if n, err := p.Parse(text, region); err != nil || !n.Valid || n.Class != audience.Mobile || n.Country != region {
			t.Errorf("%s in %s: got %+v, %v, want a mobile number of it", text, region, n, err)
		}
	}
}

// Numbers of a country with one time zone have that zone, and not the zone of a distant city that the library names.
func TestZoneOfTheCountry(t *testing.T) {
	p := newParser(t)
	for text, want := range map[string]string{
		"+213551234567": "Africa/Algiers", "+212612345678": "Africa/Casablanca", "+218912345678": "Africa/Tripoli", "+50581234567": "America/Managua",
		"+211977123456": "Africa/Juba", "+970599123456": "Asia/Gaza", "+393331234567": "Europe/Rome", "+13105550123": "America/Los_Angeles",
		"+5592987654321": "America/Manaus", "+34612345678": "Europe/Madrid", "+34922123456": "Atlantic/Canary",
	} {
		if n, err := p.Parse(text, ""); err != nil || n.Zone != want {
			t.Errorf("%s: got zone %q, %v, want %s", text, n.Zone, err, want)
		}
	}
}

// Package hours can load every zone that a number may get.
func TestZonesLoad(t *testing.T) {
	p := newParser(t)
	nums, regions := seeds(p)
	for _, n := range nums {
		num, err := p.Parse(phonenumbers.Format(n, phonenumbers.E164), "")
		if err != nil {
			t.Errorf("%v: %v", n, err)
			continue
		}
		if num.Zone == "" && num.Country != "" {
			t.Errorf("%s: got no zone", num.Country)
		}
		if num.Zone != "" {
			if _, err := hours.Zone(num.Zone); err != nil {
				t.Errorf("%s: %v", num.Country, err)
			}
		}
	}
	for _, region := range regions {
		if _, err := hours.Zone(p.MainZone(region)); err != nil {
			t.Errorf("main zone of %s: %v", region, err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	p := newParser(b)
	for _, c := range []struct{ name, text, region string }{
		{"international", "+393331234567", "IT"},
		{"national", "333 123 4567", "IT"},
		{"prefix", "07400 123456", "GB"},
		{"nanpa", "+13105550123", "IT"},
		{"rewritten", "0 11 15-2345-6789", "AR"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Parse(c.text, c.region); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("library", func(b *testing.B) {
		for b.Loop() {
			if _, err := slow("+393331234567", "IT"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// X11: the zones that a number may be in.
func TestZonesOfNumbers(t *testing.T) {
	p := newParser(t)
	for number, want := range map[string]string{
		"+12125550123":  "America/New_York",
		"+16055551234":  "America/Denver America/North_Dakota/Center",
		"+393331234567": "Europe/Rome",
		"+818012345678": "Asia/Tokyo",
		"+351912345678": "Atlantic/Azores Europe/Lisbon", // a mobile
		"+8835100123":   "",
	} {
		n, err := p.Parse(number, "")
		if err != nil {
			t.Errorf("%s: %v", number, err)
			continue
		}
		got := Zones(n.E164, n.Country)
		slices.Sort(got)
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%s: got %s, want %s", number, text, want)
		}
		if n.Zone != "" && !slices.Contains(got, n.Zone) {
			t.Errorf("%s: its main zone %s is none of %v", number, n.Zone, got)
		}
	}
	for country, want := range map[string]string{"IT": "Europe/Rome", "JP": "Asia/Tokyo", "US": "America/New_York", "CA": "America/Toronto", "PT": "Atlantic/Azores Europe/Lisbon", "": ""} {
		if got := strings.Join(p.UsualZones(country), " "); got != want {
			t.Errorf("usual zones of %q: got %s, want %s", country, got, want)
		}
	}
}
