// Package relay publishes the control plane: the newest state of every campaign, route, tenant, sender and opt-out that has
// changed in the store goes to its compacted topic, and by it to every process, within milliseconds.
//
// Reads: the store's rows whose version is above what was published (the outbox is those rows: a row that commits late is
// found late, never missed). Writes: `campaigns`, `control`, `suppressions`, one record per row, acknowledged by all replicas.
// Keys: those of package schemas; header `version` says which version of the row it is. Group: none. Idempotency key: (key,
// version).
//
// One relay leads, by a lock of the store; the others stand by. A leader that was cut off may still have a record in flight
// when the next one leads, so an old version can come to lie last on a topic: the leader follows its own topics, and what it
// finds to have gone backwards is published again. Readers ignore versions below what they know.
//
//	Kafka away        rows wait in the store; nothing is lost, nothing is marked; who reaches nobody gives the lead back
//	store away        nothing new is published; asked again every half second or so, and after ten seconds without an answer
//	lead lost         the session ends and the lead is taken again, by whoever is first
//	killed            what was published and not marked is published again: the same version, ignored by readers
//	stop              the batch in hand is acknowledged and marked, then the lead is given back
package relay
