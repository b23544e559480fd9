package schemas

import "strings"

// NumberKey returns a key that is the same for all forms of an E.164 number (with +). In some countries a number has,
// or had, two forms: an address book or a carrier may use the old form, and a receipt or an opt-out the new one.
//
//   - Mexico: until 2019 the ten digits of a mobile number had a 1 before them when dialled from abroad, and 044, 045
//     or 01 at home; all four are gone.
//   - Argentina: mobile numbers are +54 9 and ten digits for voice calls from abroad, and +54 and the same ten digits
//     in many messages; no other line has the ten digits.
//   - Brazil: between 2012 and 2016 mobile numbers of eight digits, which began with 6 to 9, got a 9 in front.
//   - Ivory Coast: since 31 January 2021 numbers have ten digits; the digits of the operator came in front.
//   - Benin: since 30 November 2024 numbers have ten digits; 01 came in front.
//   - Vietnam: in 2018 mobile numbers of ten digits became numbers of nine; see vietnam.
//
// Code that must know whether two numbers are the same compares keys: contacts, members of lists, opt-outs (through
// [Keys.NumberHash]). Keys are E.164 numbers that can be dialled, except those of Argentina, which lack the 9.
//
// Keys are stored in the database, so a new rule needs a migration like 00006.
func NumberKey(e164 string) string {
	if len(e164) < 4 {
		return e164
	}
	switch e164[1] {
	case '5':
		switch digits := e164[3:]; {
		case strings.HasPrefix(e164, "+52") && len(digits) > 10 && mexico[digits[:len(digits)-10]]:
			return "+52" + digits[len(digits)-10:]
		case strings.HasPrefix(e164, "+549") && len(digits) == 11 && digits[1] <= '3':
			return "+54" + digits[1:]
		case strings.HasPrefix(e164, "+55") && len(digits) == 10 && digits[2] >= '6':
			return e164[:5] + "9" + e164[5:]
		}
	case '2':
		switch digits := e164[4:]; {
		case len(digits) != 8:
		case strings.HasPrefix(e164, "+229"):
			return e164[:4] + "01" + digits
		case strings.HasPrefix(e164, "+225"):
			return e164[:4] + ivoryCoast(digits) + digits
		}
	case '8':
		if strings.HasPrefix(e164, "+841") && len(e164) == len("+841621234567") {
			if prefix := vietnam[e164[3:6]]; prefix != "" {
				return "+84" + prefix + e164[6:]
			}
		}
	}
	return e164
}

// mexico has the old prefixes before the ten digits of a mobile number.
var mexico = map[string]bool{"1": true, "01": true, "044": true, "045": true}

// ivoryCoast returns the two digits that the old number of eight digits got in front, "" when it is no mobile number:
// the second digit tells the operator. It does not convert fixed lines, which begin with 2 or 3, because they get no
// messages.
func ivoryCoast(digits string) string {
	switch digits[0] {
	case '1', '2', '3':
		return ""
	}
	switch digits[1] {
	case '0', '1', '2', '3':
		if digits[:2] == "00" {
			return ""
		}
		return "01" // Moov
	case '4', '5', '6':
		return "05" // MTN
	default:
		return "07" // Orange
	}
}

// vietnam maps the first three digits of an old mobile number of ten digits to the first two of its new nine.
var vietnam = map[string]string{
	"120": "70", "121": "79", "122": "77", "126": "76", "128": "78", // MobiFone
	"123": "83", "124": "84", "125": "85", "127": "81", "129": "82", // Vinaphone
	"162": "32", "163": "33", "164": "34", "165": "35", "166": "36", "167": "37", "168": "38", "169": "39", // Viettel
	"186": "56", "188": "58", // Vietnamobile
	"199": "59", // Gmobile
}
