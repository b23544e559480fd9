// Package health carries reports about routes to the scheduler and the API. The senders report how hand-overs do, the
// trackers report what receipts say.
//
//	writes   health, key <route>/<process>: a report every 5 s and at each change of state; a tombstone when the
//	         process stops
//	reads    health, all of it, into memory
//
// A report older than [schemas.HealthValid] is ignored. So a killed process stops counting. If Kafka does not accept
// reports, the state of all routes becomes unknown. Unknown is not down: the scheduler suspends no campaign because of
// it.
package health
