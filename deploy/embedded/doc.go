// Package embedded runs a Kafka broker and a Redis inside the process, so that Fanfare runs whole with nothing installed.
//
// The broker (kfake) keeps its topics, groups and transactions in the data directory and takes them up again after any end of
// the process, kill -9 included; a loss of power may cost the last writes. Redis (miniredis) lives in memory: nothing true is
// kept there, buckets fill again and look-ups are rebuilt from the topics.
//
// Two limits of this broker are made up for elsewhere: a transaction's end is written partition by partition, so a kill may
// show half of it (senders drop what they have seen, the scheduler checks itself at start), and an error while writing is only
// logged, so [Services.Failed] turns it into the end of the process.
package embedded
