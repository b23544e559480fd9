// Package feed is the analytics role: it reads topic `deliveries` and fills an [analytics.Store].
//
//   - Reads: `deliveries`, committed records only. Writes: the store; `deliveries.dlq`. Group: `analytics`.
//   - Unit of work: a batch, the records of one partition between two offsets. Its identity is the topic's id and the bounds.
//   - Guarantee: every record is in the store exactly once, whoever is killed when, for as long as the store recognises a
//     batch by its identity; and always as far as sets are concerned, to which a record may be added any number of times.
//
// # How a batch gets there
//
// Into a store that keeps positions ([analytics.Positioner], such as SQLite) rows and position go in one transaction. The
// store says where reading goes on; the group's offsets are for people who look at lag. A store that was lost, or put back
// from a copy, is filled from the log by itself.
//
// Into another (ClickHouse), in these steps:
//
//  1. commit offset = first, metadata = end: the batch is declared, and the one before it settled;
//  2. append the rows under the token `<topic id>-<partition>-<first>-<last>`, as often as it takes, always the same rows;
//  3. with the next batch's declaration, or when nothing more comes: commit offset = end, no metadata.
//
// Whoever is assigned a partition with a batch declared and not settled reads exactly [first, end) again and appends it under
// the same token, by which the store knows whether it has it. More or fewer rows under that token would be lost or count twice.
//
// # Whose event it is
//
// Tenant and month come from the control plane ([Campaigns], then Config.Lookup), never from the record. A campaign that is not
// there yet is waited for until the view is known to be newer than the record. A record that is no delivery event, of a
// campaign that nobody knows, or under another tenant's name goes to the dead letters and blocks nothing.
//
// # What happens when
//
//	the store is away       the same batches are tried again until it is back; reading stops when memory is full. Rebalances go on.
//	a row is refused        the batch is halved until the row stands alone; it becomes a dead letter, the rest is stored.
//	Kafka is away           nothing moves; a batch on its way is declared or not, both are resumed.
//	the partition is taken  what is gathered is forgotten; what is declared is the new owner's. No commit follows the hand-over.
//	stop                    what was read is appended within DrainTimeout and settled, then the group is left.
//	kill                    the partitions lie still for a session timeout; then as above.
//	records were deleted    reading goes on at the beginning of the log, an error is logged and counted.
//
// # How far it is
//
// AsOf is the time up to which everything in the topic is stored. Every interval the ends of the partitions are asked for;
// once a partition is stored up to there, it is complete as of the moment of asking. The store is told ([analytics.Store].Mark), so that
// whoever reads from it, in whatever process, can say so beside the figures.
package feed
