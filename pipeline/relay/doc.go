// Package relay publishes the control plane: it writes the newest state of every changed campaign, route, tenant,
// sender and opt-out from the store to its compacted topic, which every process follows, within milliseconds.
//
// Reads: the store's rows whose version is above the published one. These rows are the outbox, so a transaction that
// commits late is found late and never missed. Writes: `campaigns`, `control`, `suppressions`, one record per row,
// acknowledged by all replicas. Keys: those of package schemas; header `version` says which version of the row it is.
// Group: none. Idempotency key: (key, version).
//
// A topic may lose its newest records: a disk that had not written yet, an unclean leader election, a topic that was
// deleted and created again. So the leader compares the store with its topics, when it begins to lead and ten minutes
// after each comparison: it reads the rows that are marked as published and then the topics to their ends, half a
// million rows at a time, and makes a row unpublished when the last record of its key has an older version, is missing,
// or is there although the row is gone. Users of the API need not wait for that: if they repeat a pause, an abort or an
// opt-out, the relay publishes it again.
//
// One relay leads, by a lock of the store; the others stand by. A leader that lost its connection may still have a
// record in flight when the next one leads, so an old version can become the last record of a key. The leader follows
// its own topics and publishes such a row again. Readers ignore versions below the one they know.
//
//	Kafka is unreachable  rows wait in the store; a leader whose records are not acknowledged gives up the lead
//	store is unreachable  nothing new is published; a call is given up after ten seconds and repeated after about half
//	                      a second
//	records lost          found at the start of a lead or within ten minutes, published again, counted in
//	                      fanfare_relay_republished_total
//	lead lost             the session ends, and the first relay that asks takes the lead
//	killed                rows that were published and not marked are published again: the same version, which readers
//	                      ignore
//	stop                  the current batch is acknowledged and marked, then the relay gives up the lead
package relay
