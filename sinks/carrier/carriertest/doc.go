// Package carriertest tests that a connector keeps the contract of package carrier, against a peer that answers late,
// never answers, or cannot be reached.
//
// A connector's own tests call [Run] with a function that opens it at a peer of theirs, such as the protocol's
// simulator.
package carriertest
