// Package health carries how the routes do from the processes that hand messages over, and from those that read
// receipts, to the scheduler and the API.
//
//	writes   health, key <route>/<process>: a report every 5 s and at each change of state; a tombstone when the
//	         process stops
//	reads    health, all of it, into memory
//
// A report older than [schemas.HealthValid] says nothing, so a process that was killed is forgotten, and a topic that
// cannot be written makes the state of the routes unknown. Unknown is not down: no campaign is suspended for it.
package health
