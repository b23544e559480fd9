// Package callback reads what carriers reported by calling us. The API has verified each callback, written it to the
// topic as it came, and answered the carrier; this stage makes receipts of it, and messages that recipients wrote.
//
//	reads    callbacks (group callback)
//	writes   receipts, key <route>/<provider id>; inbound, key <route>/<number>: what recipients wrote; callbacks.dlq
//	promise  at least once. The same callback gives the same receipts with the same ids, and a recipient's state is
//	         the greatest event seen, so a callback may come late, twice and in any order
//	stop     the batch in hand is finished
//
// How a callback is read depends on the configuration of its route, and on nothing else.
//
// Failures:
//
//	does not decode, the carrier's format is not understood   dead letter in callbacks.dlq
//	route unknown, or its connector has no callbacks          dead letter: mend the route and replay
package callback
