// Package phone reads phone numbers: their E.164 form, country, class, validity and time zone.
//
// The numbering plans are those of libphonenumber (github.com/nyaruka/phonenumbers), and a test over all regions holds the
// answers to be the library's. The library needs 25 microseconds a number and this package half of one, which lets an import
// spend its time in the database: the regular expressions of the plans become tables over the ten digits (dfa.go), and the
// steps of parsing are the library's, in the same order (parse.go). What the tables cannot decide is left to the library.
//
// The package is stricter than the library where a wrong answer would reach the wrong person:
//
//   - letters, extensions and fractions are refused by name (clean.go), where the library drops them or dials them;
//   - a number without + that is no mobile number of its region, but is one of another country with the +, is refused with
//     that reading ([AmbiguousError]);
//   - old forms of numbers become the ones that work today (package schemas, NumberKey);
//   - satellite numbers are no mobile numbers (class.go).
package phone
