// Package feed is the analytics role: it reads topics `deliveries` and `chunks` and fills an [analytics.Store].
//
//   - Reads: `deliveries` (what happened to each recipient) in group `analytics`, and `chunks` (which recipients were
//     dealt when, so that the store knows who is in flight) in group `analytics-deals`; committed records only. Writes:
//     the store; `deliveries.dlq`, `chunks.dlq`.
//   - Unit of work: a batch, the records of one partition between two offsets. The topic's id, the partition and the
//     two offsets identify it.
//   - Guarantee: every record is stored exactly once, whatever process is killed at whatever moment, as long as the
//     store still recognises the batch by its identity. Sets are exact without that condition, because adding a member
//     twice changes nothing.
//
// # How a batch is stored
//
// A store that keeps positions ([analytics.Positioner], such as SQLite) writes rows and position in one transaction.
// The feed then starts reading at the store's position; the group's offsets only serve tools that show lag. A store
// that was lost, or was restored from a copy, is filled from the log without further action.
//
// For any other store (ClickHouse) the feed works in these steps:
//
//  1. commit offset = first, metadata = end. This declares the batch, and settles the one before it;
//  2. append the rows under the token `<topic id>-<partition>-<first>-<last>`, repeatedly until it succeeds, always the
//     same rows;
//  3. with the declaration of the next batch, or when there are no more records: commit offset = end, without metadata.
//
// A process that is assigned a partition with a declared and unsettled batch reads exactly [first, end) again and
// appends it under the same token. The token tells the store whether it already has the batch. Under the same token,
// additional rows would be lost and other rows would count twice; that is why the bounds must be the same.
//
// # Which campaign an event belongs to
//
// Tenant and month come from the control plane ([Campaigns], then Config.Lookup), never from the record. If the view
// does not have the campaign yet, the feed waits until the view is known to be newer than the record. A record goes to
// the dead letters, and blocks nothing, if it is not a delivery event, if its campaign does not exist, or if it names
// another tenant than its campaign.
//
// # What happens when
//
//	the store is away        the feed retries the same batches until the store is back; it stops reading when memory
//	                         is full; rebalances continue
//	the store refuses a row  the batch is halved until the row is alone; the row becomes a dead letter, the others are
//	                         stored
//	Kafka is away            nothing moves; a batch in progress is declared or not, and both cases are resumed
//	a partition is revoked   undeclared rows are dropped; a declared batch is left to the new owner; no commit follows
//	                         the revocation
//	stop                     the records that were read are appended within DrainTimeout and settled, then the feed
//	                         leaves the group
//	kill                     the partitions are idle for a session timeout, then reassigned as above
//	records were deleted     reading continues at the beginning of the log; an error is logged and counted
//
// # How current the store is
//
// AsOf is the time up to which the store holds everything in `deliveries`. Once per interval the feed asks for the ends
// of the partitions; a partition that is stored up to its end is complete as of the time of the question. The feed
// reports the time to the store ([analytics.Store].Mark), so that every process that reads the store can show it beside
// the figures.
package feed
