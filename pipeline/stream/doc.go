// Package stream runs the stages of the pipeline on Kafka: it knows topics, groups, offsets and transactions, but not
// the content of the records.
//
//   - [Stage] runs a handler: bounded batches, handle, publish, commit; at least once, or exactly once by transactions.
//     Poison records go to `<topic>.dlq` with their cause, an error of the handler is retried until it passes, a stop
//     finishes the current batch.
//   - [Tail] follows topics from their beginning without a group, and knows how up to date it is.
//   - [EnsureTopics] and [EnsureOffsets] create and verify topics and first offsets.
//
// It promises that no record vanishes and no record blocks a partition. It does not promise order between partitions.
package stream
