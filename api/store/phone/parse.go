package phone

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nyaruka/phonenumbers"

	"fanfare/schemas/audience"
)

// Number is a phone number.
type Number struct {
	E164    string // with +
	Country string // ISO 3166-1 alpha-2; "" of a number that belongs to none, and of one that is not valid in any
	Zone    string // IANA; "" when unknown
	Class   audience.Class
	// Valid: assigned by a numbering plan. A number may have an E.164 form without being valid.
	Valid bool
}

// ErrNumber is wrapped by every error about a text that has no E.164 form.
var ErrNumber = errors.New("no phone number")

// maxE164 is how many digits a number has at most (ITU-T E.164, clause 6.1). The library lets 20 pass.
const maxE164 = 15

// Parser reads numbers. It may be used by many goroutines.
type Parser struct {
	codes   [1000][]*plan // by country code, the main region first
	regions map[string]*plan
}

// NewParser returns a parser over the metadata of the library.
func NewParser() (*Parser, error) {
	all, err := phonenumbers.MetadataCollection()
	if err != nil {
		return nil, fmt.Errorf("metadata of phone numbers: %w", err)
	}
	p := &Parser{regions: map[string]*plan{}}
	global := map[int]*plan{}
	for _, m := range all.GetMetadata() {
		pl := &plan{meta: m, region: m.GetId(), cc: int(m.GetCountryCode()), ccText: strconv.Itoa(int(m.GetCountryCode()))}
		if pl.region == phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY {
			global[pl.cc] = pl
		} else {
			p.regions[pl.region] = pl
		}
	}
	for cc := range p.codes {
		for _, region := range phonenumbers.GetRegionCodesForCountryCode(cc) {
			pl := p.regions[region]
			if region == phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY {
				pl = global[cc]
			}
			if pl == nil {
				return nil, fmt.Errorf("metadata of phone numbers: none for region %s of +%d", region, cc)
			}
			p.codes[cc] = append(p.codes[cc], pl)
		}
	}
	return p, nil
}

// Region reports whether there is a numbering plan of that region.
func (p *Parser) Region(region string) bool { return p.regions[region] != nil }

// MainZone returns the time zone of the capital of a region, or of most of its people; "" of an unknown one.
func (p *Parser) MainZone(region string) string { return mainZones[region] }

// Parse reads a number as people write it; region is where it is from when it has no country code.
func (p *Parser) Parse(text, region string) (Number, error) {
	n, ok := p.quick(text, region)
	if !ok {
		var err error
		if n, err = slow(text, region); err != nil {
			return Number{}, err
		}
	}
	if len(n.e164) > maxE164+1 {
		return Number{}, fmt.Errorf("%w: %d digits, at most %d", ErrNumber, len(n.e164)-1, maxE164)
	}
	out := Number{E164: n.e164, Valid: n.kind != phonenumbers.UNKNOWN, Class: class(n.kind)}
	if n.region != phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY {
		out.Country = n.region
	}
	out.Zone = zone(n.e164, out.Country)
	return out, nil
}

// parsed is what the library knows about a number.
type parsed struct {
	e164   string
	region string
	kind   phonenumbers.PhoneNumberType
}

func class(kind phonenumbers.PhoneNumberType) audience.Class {
	switch kind {
	case phonenumbers.MOBILE, phonenumbers.FIXED_LINE_OR_MOBILE:
		return audience.Mobile
	case phonenumbers.FIXED_LINE:
		return audience.FixedLine
	case phonenumbers.UNKNOWN:
		return audience.Unknown
	default:
		return audience.Other
	}
}

// zone is the main zone of the country when the number may be in it, else the first that the library names. A mobile number
// names every zone of its country: the first in the alphabet would wake all of Russia by the clock of Almaty. A number of no
// country is in no zone.
func zone(e164, country string) string {
	if country == "" {
		return ""
	}
	zones, err := phonenumbers.GetTimezonesForPrefix(e164)
	if err != nil || len(zones) == 0 || zones[0] == phonenumbers.UNKNOWN_TIMEZONE {
		return mainZones[country]
	}
	if main := mainZones[country]; slices.Contains(zones, main) {
		return main
	}
	return zones[0]
}

// slow asks the library.
func slow(text, region string) (parsed, error) {
	n, err := phonenumbers.Parse(text, region)
	if err != nil {
		return parsed{}, fmt.Errorf("%w: %w", ErrNumber, err)
	}
	return parsed{
		e164:   phonenumbers.Format(n, phonenumbers.E164),
		region: phonenumbers.GetRegionCodeForNumber(n),
		kind:   phonenumbers.GetNumberType(n),
	}, nil
}

// maxDigits is the longest that the tables are asked about; what is longer is no number.
const maxDigits = 24

// quick does what the library does with numbers of plain digits and punctuation. ok is false when it has no answer: the
// library is to be asked then.
func (p *Parser) quick(text, region string) (n parsed, ok bool) {
	if len(text) > phonenumbers.MAX_INPUT_STRING_LENGTH {
		return n, false
	}
	var buf [maxDigits]byte
	digits, plus, ok := plain(buf[:0], text)
	if !ok {
		return n, false
	}
	home := p.regions[region]
	if home != nil {
		if home.load(); home.bad || home.idd.none {
			return n, false
		}
	}
	var pl *plan
	var nsn []byte
	switch {
	case plus:
		pl, nsn = p.code(digits)
	case home == nil:
		return n, false
	default:
		pl, nsn = p.dialled(home, digits)
	}
	if pl == nil {
		return n, false
	}
	if pl.load(); pl.bad || len(nsn) < phonenumbers.MIN_LENGTH_FOR_NSN {
		return n, false
	}
	stripped := pl.withoutPrefix(nsn)
	switch pl.length(len(stripped)) {
	case phonenumbers.TOO_SHORT, phonenumbers.IS_POSSIBLE_LOCAL_ONLY, phonenumbers.INVALID_LENGTH:
	default:
		nsn = stripped
	}
	if len(nsn) < phonenumbers.MIN_LENGTH_FOR_NSN || len(nsn) > phonenumbers.MAX_LENGTH_FOR_NSN {
		return n, false
	}
	return p.describe(pl, nsn)
}

// dialled reads digits as they are dialled in a region.
func (p *Parser) dialled(home *plan, digits []byte) (*plan, []byte) {
	if rest, abroad := home.withoutIDD(digits); abroad {
		return p.code(rest)
	}
	if strings.HasPrefix(string(digits), home.ccText) { // the country code without a plus?
		rest := home.withoutPrefix(digits[len(home.ccText):])
		if !home.general.pattern.full(digits) && home.general.pattern.full(rest) || home.length(len(digits)) == phonenumbers.TOO_LONG {
			return p.codes[home.cc][0], rest
		}
	}
	return home, digits
}

// plain gathers the digits of a text that has nothing but them, the usual punctuation and one plus at most, before them.
func plain(digits []byte, text string) (_ []byte, plus, ok bool) {
	for i := range len(text) {
		switch c := text[i]; {
		case c >= '0' && c <= '9':
			if len(digits) == maxDigits {
				return nil, false, false
			}
			digits = append(digits, c)
		case c == '+':
			if plus || len(digits) > 0 {
				return nil, false, false
			}
			plus = true
		case c == ' ' || c == '-' || c == '.' || c == '(' || c == ')' || c == '/':
		default:
			return nil, false, false
		}
	}
	return digits, plus, len(digits) >= 3 // fewer are a case of their own in the library
}

// code cuts the country code off; nil when there is none.
func (p *Parser) code(digits []byte) (*plan, []byte) {
	if len(digits) <= phonenumbers.MIN_LENGTH_FOR_NSN || digits[0] == '0' {
		return nil, nil
	}
	cc := 0
	for i := range min(phonenumbers.MAX_LENGTH_COUNTRY_CODE, len(digits)) {
		cc = cc*10 + int(digits[i]-'0')
		if plans := p.codes[cc]; len(plans) > 0 {
			return plans[0], digits[i+1:]
		}
	}
	return nil, nil
}

// describe finds the region among those of the country code, and the type.
func (p *Parser) describe(pl *plan, nsn []byte) (n parsed, ok bool) {
	n.e164, n.kind = "+"+pl.ccText+string(nsn), phonenumbers.UNKNOWN
	plans := p.codes[pl.cc]
	if len(plans) == 1 {
		n.region = plans[0].region
		if plans[0].load().bad {
			return n, false
		}
		n.kind = plans[0].kind(nsn)
		return n, true
	}
	for _, r := range plans {
		if r.load().bad {
			return n, false
		}
		kind := r.kind(nsn)
		if r.leading != nil {
			if !r.leading.prefix(nsn) {
				continue
			}
		} else if kind == phonenumbers.UNKNOWN {
			continue
		}
		n.region, n.kind = r.region, kind
		return n, true
	}
	return n, true // of no region, and so of no type
}
