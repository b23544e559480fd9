// Package phone reads phone numbers: E.164 form, country, class, validity and time zone.
//
// It answers exactly as libphonenumber does (github.com/nyaruka/phonenumbers), and a test over all regions holds it to that,
// but in half a microsecond instead of twenty-five: an import of a million contacts spends its time in the database. The
// metadata of the library holds a regular expression for each kind of number of each region; here they become tables over
// the ten digits (dfa.go), and the steps of parsing are the library's, in the same order (parse.go). What has letters,
// extensions or other unusual characters in it, and whatever is no number, is left to the library itself.
package phone
