package phone

import (
	"regexp"
	"strings"
	"sync"

	"github.com/nyaruka/phonenumbers"
)

// A plan is the numbering plan of a region, or of a country code that belongs to no region, as tables. The tables are
// built when the first number needs them, so that a file with numbers of one country needs the memory of one country.
type plan struct {
	meta   *phonenumbers.PhoneMetadata
	region string
	cc     int

	once sync.Once
	// bad: a pattern of this plan cannot be converted to tables, so the library must parse its numbers.
	bad     bool
	general desc
	types   []typed
	fixed   desc
	mobile  desc
	leading *dfa // matches the first digits of the region, if they distinguish regions that share a country code

	lengths, local uint64 // bit sets of possible lengths, nationwide and within an area
	least, most    int

	national strip // the national prefix
	idd      strip // the international prefix
	ccText   string
}

// desc is one kind of number.
type desc struct {
	none    bool
	lengths uint64 // 0: any
	pattern *dfa
}

type typed struct {
	kind phonenumbers.PhoneNumberType
	desc
}

// strip describes a prefix that is removed.
type strip struct {
	none bool
	// Reports whether the prefix is present; nil when only the expression can tell, because it also matches the end
	match   *dfa
	literal int            // its length when the prefix is plain digits
	re      *regexp.Regexp // otherwise: finds where it ends, and what it captures
	rule    string         // how a match is rewritten, "" when it is only removed
}

func bits(lengths []int32) (set uint64) {
	for _, l := range lengths {
		if l >= 0 && l < 64 {
			set |= 1 << l
		}
	}
	return set
}

func (p *plan) desc(d *phonenumbers.PhoneNumberDesc) desc {
	if d == nil || d.GetNationalNumberPattern() == "" || len(d.GetPossibleLength()) > 0 && bits(d.GetPossibleLength()) == 0 {
		return desc{none: true} // an empty pattern matches the empty number only
	}
	pattern, err := compile(d.GetNationalNumberPattern())
	if err != nil {
		p.bad = true
		return desc{none: true}
	}
	return desc{lengths: bits(d.GetPossibleLength()), pattern: pattern}
}

func (p *plan) strip(pattern, rule string) strip {
	if pattern == "" {
		return strip{none: true}
	}
	s := strip{rule: rule}
	var err error
	if s.match, err = compile(pattern); err != nil {
		s.match = nil
	}
	if strings.Trim(pattern, "0123456789") == "" {
		s.literal = len(pattern)
		if rule == "" {
			return s
		}
	}
	if s.re, err = regexp.Compile("^(?:" + pattern + ")"); err != nil {
		p.bad = true
	}
	return s
}

// load builds the tables once.
func (p *plan) load() *plan {
	p.once.Do(func() {
		m := p.meta
		general := m.GetGeneralDesc()
		p.general = p.desc(general)
		for _, t := range []struct {
			kind phonenumbers.PhoneNumberType
			desc *phonenumbers.PhoneNumberDesc
		}{ // in the order in which the library checks
			{phonenumbers.PREMIUM_RATE, m.GetPremiumRate()},
			{phonenumbers.TOLL_FREE, m.GetTollFree()},
			{phonenumbers.SHARED_COST, m.GetSharedCost()},
			{phonenumbers.VOIP, m.GetVoip()},
			{phonenumbers.PERSONAL_NUMBER, m.GetPersonalNumber()},
			{phonenumbers.PAGER, m.GetPager()},
			{phonenumbers.UAN, m.GetUan()},
			{phonenumbers.VOICEMAIL, m.GetVoicemail()},
		} {
			if d := p.desc(t.desc); !d.none {
				p.types = append(p.types, typed{t.kind, d})
			}
		}
		p.fixed, p.mobile = p.desc(m.GetFixedLine()), p.desc(m.GetMobile())
		if lead := m.GetLeadingDigits(); lead != "" {
			var err error
			if p.leading, err = compile(lead); err != nil {
				p.bad = true
			}
		}
		lengths := general.GetPossibleLength()
		if len(lengths) == 0 || lengths[0] < 0 || p.general.none {
			p.bad = true
			return
		}
		p.lengths, p.local = bits(lengths), bits(general.GetPossibleLengthLocalOnly())
		p.least, p.most = int(lengths[0]), int(lengths[len(lengths)-1])
		p.national = p.strip(m.GetNationalPrefixForParsing(), m.GetNationalPrefixTransformRule())
		p.idd = p.strip(m.GetInternationalPrefix(), "")
	})
	return p
}

func (d *desc) matches(nsn []byte) bool {
	if d.none || d.lengths != 0 && (len(nsn) >= 64 || d.lengths&(1<<len(nsn)) == 0) {
		return false
	}
	return d.pattern.full(nsn)
}

// kind returns the type of a national number.
func (p *plan) kind(nsn []byte) phonenumbers.PhoneNumberType {
	if !p.general.matches(nsn) {
		return phonenumbers.UNKNOWN
	}
	for i := range p.types {
		if p.types[i].matches(nsn) {
			return p.types[i].kind
		}
	}
	same := p.meta.GetSameMobileAndFixedLinePattern()
	if p.fixed.matches(nsn) {
		if same || p.mobile.matches(nsn) {
			return phonenumbers.FIXED_LINE_OR_MOBILE
		}
		return phonenumbers.FIXED_LINE
	}
	if !same && p.mobile.matches(nsn) {
		return phonenumbers.MOBILE
	}
	return phonenumbers.UNKNOWN
}

// length compares a number of digits with the lengths of the plan.
func (p *plan) length(n int) phonenumbers.ValidationResult {
	switch {
	case n < 64 && p.local&(1<<n) != 0:
		return phonenumbers.IS_POSSIBLE_LOCAL_ONLY
	case p.least == n:
		return phonenumbers.IS_POSSIBLE
	case p.least > n:
		return phonenumbers.TOO_SHORT
	case p.most < n:
		return phonenumbers.TOO_LONG
	case p.lengths&(1<<n) != 0:
		return phonenumbers.IS_POSSIBLE
	}
	return phonenumbers.INVALID_LENGTH
}

// withoutPrefix removes the national prefix, unless the number is valid in the plan only with the prefix.
func (p *plan) withoutPrefix(nsn []byte) []byte {
	s := &p.national
	if len(nsn) == 0 || s.none || s.match != nil && !s.match.prefix(nsn) {
		return nsn
	}
	var rest []byte
	if s.re == nil {
		rest = nsn[s.literal:]
	} else {
		groups := s.re.FindSubmatchIndex(nsn)
		if groups == nil {
			return nsn
		}
		if last := groups[len(groups)-2]; s.rule == "" || last < 0 {
			rest = nsn[groups[1]:]
		} else {
			rest = s.re.ReplaceAll(nsn, []byte(s.rule))
		}
	}
	if p.general.pattern.full(nsn) && !p.general.pattern.full(rest) {
		return nsn
	}
	return rest
}

// withoutIDD removes the international prefix; ok is false when there is none.
func (p *plan) withoutIDD(digits []byte) (rest []byte, ok bool) {
	s := &p.idd
	if s.match != nil && !s.match.prefix(digits) {
		return nil, false
	}
	if s.re == nil {
		rest = digits[s.literal:]
	} else {
		at := s.re.FindIndex(digits)
		if at == nil {
			return nil, false
		}
		rest = digits[at[1]:]
	}
	if len(rest) > 0 && rest[0] == '0' { // no country code begins with 0
		return nil, false
	}
	return rest, true
}
