package phone

import (
	"github.com/nyaruka/phonenumbers"

	"fanfare/schemas/audience"
)

// classes maps the library's types of numbers to ours.
var classes = map[phonenumbers.PhoneNumberType]audience.Class{
	phonenumbers.FIXED_LINE:           audience.FixedLine,
	phonenumbers.MOBILE:               audience.Mobile,
	phonenumbers.FIXED_LINE_OR_MOBILE: audience.Mobile,
	phonenumbers.TOLL_FREE:            audience.Freephone,
	phonenumbers.PREMIUM_RATE:         audience.Premium,
	phonenumbers.SHARED_COST:          audience.SharedCost,
	phonenumbers.VOIP:                 audience.VoIP,
	phonenumbers.PERSONAL_NUMBER:      audience.Personal,
	phonenumbers.PAGER:                audience.Pager,
	phonenumbers.UAN:                  audience.UAN,
	phonenumbers.VOICEMAIL:            audience.Voicemail,
	phonenumbers.UNKNOWN:              audience.Unknown,
}

// satellites are the country codes (ITU-T E.164 assignments) of satellite and international networks (Inmarsat, the
// global mobile satellite system, and the networks of ships, aeroplanes and machines). The library calls their numbers
// mobile or VoIP, but messages to them cost many times as much.
var satellites = map[string]bool{"870": true, "881": true, "882": true, "883": true}

// class returns the class of a number.
func class(n parsed) audience.Class {
	c, ok := classes[n.kind]
	switch {
	case !ok:
		return audience.Other
	case c != audience.Unknown && n.region == phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY && len(n.e164) > 4 && satellites[n.e164[1:4]]:
		return audience.Satellite
	}
	return c
}
