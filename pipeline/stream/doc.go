// Package stream runs the stages of the pipeline on Kafka: it knows topics, groups, offsets and transactions, and nothing of
// what is in the records.
//
//   - [Stage] is the one runner: bounded batches, handle, publish, commit; at least once, or exactly once by transactions.
//     Poison records go to `<topic>.dlq` with their cause, a handler's error is retried for ever, a stop finishes the batch in hand.
//   - [Tail] follows topics from their beginning without a group and knows how fresh it is; [View] is the control plane as
//     every process sees it: campaigns, routes, tenants, senders, opt-outs.
//   - [Window] hands records over to somebody outside, each at most once: what may be in flight is declared in the metadata of
//     the offset commit before anything is done to it.
//   - [EnsureTopics] and [EnsureOffsets] make and verify what the rest stands on.
//
// It promises that nothing vanishes and nothing blocks a partition, and, of the window, that no record is handed over twice:
// through crashes, rebalances, paused processes and a broker that forgot commits. It does not promise order between partitions.
package stream
