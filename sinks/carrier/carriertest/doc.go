// Package carriertest holds every connector to the contract of package carrier: what a sender builds on, checked against a peer that
// answers late, never, or not at all.
//
// A connector's own tests call [Run] with a function that opens it at a peer of theirs, such as the protocol's simulator.
package carriertest
