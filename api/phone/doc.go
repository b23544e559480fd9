// Package phone reads phone numbers: their E.164 form, country, class, validity and time zone.
//
// The numbering plans come from libphonenumber (github.com/nyaruka/phonenumbers), and a test over all regions checks
// that the results are the same as the library's. The library needs 25 microseconds per number and this package half a
// microsecond, so that an import spends its time in the database and not in parsing. This package converts the regular
// expressions of the plans to tables over the ten digits (dfa.go) and takes the same steps as the library, in the same
// order (parse.go). It calls the library for numbers that the tables cannot decide.
//
// The package is stricter than the library where a wrong answer would reach the wrong person:
//
//   - it refuses letters, extensions and fractions (clean.go), which the library drops or converts to digits;
//   - a number without + that is no mobile number of its region, but is one of another country with the +, is refused
//     with that reading ([AmbiguousError]);
//   - it converts old forms of numbers to the forms that work today (package schemas, NumberKey);
//   - it does not class satellite numbers as mobile numbers (class.go).
package phone
