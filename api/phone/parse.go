package phone

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nyaruka/phonenumbers"

	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// Number is a phone number.
type Number struct {
	E164    string // with +, in the form that is dialled today
	Key     string // the same for all forms of the number: see [schemas.NumberKey]
	Country string // ISO 3166-1 alpha-2; "" when the number belongs to no country, or is not valid in any
	Zone    string // IANA; "" when unknown
	Class   audience.Class
	// Valid: a numbering plan assigns the number. A number may have an E.164 form without being valid.
	Valid bool
}

// AmbiguousError is the error of a number without + that is no mobile number of its region, but one of another country
// when a + is put in front: 33612345678 in Italy. A wrong guess would send the message to a stranger.
type AmbiguousError struct {
	Region string // the region that the caller gave
	With   Number // the number with a + in front
}

// Error does not repeat the number, because errors are logged.
func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%v: it is not a mobile number of %s, but with a leading + it is one of %s: write the + if you mean that number", ErrNumber, e.Region, e.With.Country)
}

// Unwrap returns [ErrNumber].
func (e *AmbiguousError) Unwrap() error { return ErrNumber }

// maxE164 is the maximum number of digits (ITU-T E.164, clause 6.1). The library accepts 20.
const maxE164 = 15

// World is the region of numbers that have a country code and no +, as many programs export them (UN M49).
const World = "001"

// Parser parses phone numbers. It is safe for concurrent use.
type Parser struct {
	codes   [1000][]*plan // by country code, the main region first
	regions map[string]*plan
}

// NewParser returns a parser of the numbering plans of the library.
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

// Region reports whether numbers of that region can be read: one with a numbering plan, or [World].
func (p *Parser) Region(region string) bool { return p.regions[region] != nil || region == World }

// MainZone returns the time zone of the capital of a region, or of most of its people; "" when the region is unknown.
func (p *Parser) MainZone(region string) string { return mainZones[region] }

// Parse reads a number as people and programs write it. region is where a number without country code is from. An error
// wraps [ErrNumber] and says what is wrong; it may be an [AmbiguousError].
func (p *Parser) Parse(text, region string) (Number, error) {
	text, err := clean(text)
	if err != nil {
		return Number{}, err
	}
	bare := text != "" && text[0] >= '1' && text[0] <= '9'
	if region == World && bare {
		text, bare = "+"+text, false
	}
	n, err := p.read(text, region)
	if !bare || err == nil && n.Valid && n.Class == audience.Mobile {
		return n, err
	}
	if with, err := p.read("+"+text, ""); err == nil && with.Valid && with.Class == audience.Mobile && with.E164 != n.E164 {
		return Number{}, &AmbiguousError{region, with}
	}
	return n, err
}

// read parses a clean number.
func (p *Parser) read(text, region string) (Number, error) {
	n, ok := p.quick(text, region)
	if !ok {
		var err error
		if n, err = slow(text, region); err != nil {
			return Number{}, err
		}
	}
	if len(n.e164) > maxE164+1 {
		return Number{}, fmt.Errorf("%w: it has %d digits, and at most %d are possible", ErrNumber, len(n.e164)-1, maxE164)
	}
	out := Number{E164: n.e164, Key: schemas.NumberKey(n.e164), Valid: n.kind != phonenumbers.UNKNOWN, Class: class(n)}
	if !out.Valid && out.Key != out.E164 { // an old form, which is no longer in any plan
		if now, err := p.read(out.Key, ""); err == nil && now.Valid {
			return now, nil
		}
	}
	if n.region != phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY {
		out.Country = n.region
	}
	out.Zone = zone(n.e164, out.Country)
	return out, nil
}

// parsed is the result of the library for a number.
type parsed struct {
	e164   string
	region string
	kind   phonenumbers.PhoneNumberType
}

// slow parses a number with the library.
func slow(text, region string) (parsed, error) {
	n, err := phonenumbers.Parse(text, region)
	if err != nil {
		return parsed{}, fmt.Errorf("%w: %s", ErrNumber, refusal(err))
	}
	return parsed{
		e164:   phonenumbers.Format(n, phonenumbers.E164),
		region: phonenumbers.GetRegionCodeForNumber(n),
		kind:   phonenumbers.GetNumberType(n),
	}, nil
}

// refusal returns in our words why the library refused a number.
func refusal(err error) string {
	switch {
	case errors.Is(err, phonenumbers.ErrInvalidCountryCode):
		return "it has no country code, or one that does not exist"
	case errors.Is(err, phonenumbers.ErrNumTooLong):
		return "it has too many digits"
	case errors.Is(err, phonenumbers.ErrNotANumber):
		return "it has no digits, or too few"
	}
	return "it has too few digits"
}

// maxDigits is the most digits that the tables check. Longer texts are not phone numbers.
const maxDigits = 24

// quick gives the same result as the library for numbers of plain digits and punctuation. ok is false when the tables
// cannot decide and the caller must use the library.
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

// dialled parses digits as they are dialled in a region.
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

// plain collects the digits of a text. ok is false when the text has anything but digits, the usual punctuation and at
// most one leading plus.
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
	return digits, plus, len(digits) >= 3 // the library handles shorter numbers differently
}

// code cuts off the country code; the plan is nil when there is none.
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

// describe finds the region, among those that share the country code, and the type.
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
	return n, true // without a region, a number has no type
}
