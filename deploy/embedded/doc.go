// Package embedded runs a Kafka broker and a Redis inside the process, so that Fanfare runs completely without other
// installed software.
//
// The broker (kfake) keeps its topics, groups and transactions in the data directory and continues with them after any
// end of the process, including kill -9. A power failure may lose the last writes. Redis (miniredis) is in memory only:
// buckets fill again, and the index of provider ids is filled again from the topics. Its keys expire about when they
// should, see expireKeys.
//
// This broker has two limits. It writes the end of a transaction partition by partition, so a kill may leave half of
// it: senders drop messages that they have already seen, and the scheduler checks its deals at its start. It only logs
// an error while writing, so [Services.Failed] reports it and the process ends.
package embedded
