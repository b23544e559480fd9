// Package inbound acts on what recipients did about what they are sent: it writes an opt-out to the store, from where
// it reaches every sender, and says in the log of deliveries which message it answers.
//
//	reads    inbound (group inbound), the control-plane view, the store: campaigns that the view lacks, frozen audiences
//	writes   the store: suppressions and the proof of each, in one transaction; deliveries: an opted_out event; inbound.dlq
//	promise  at least once, and once in effect: a fact has an id, which the store keeps with its proof. What was recorded is not recorded
//	         again, also when somebody has lifted the opt-out since; its event has the same id each time
//	order    what one recipient did by links of one message stays in order
//	stop     the batch in hand is finished
//
// The edge answers a person when Kafka has the fact. From there it takes a few milliseconds: this stage writes the row,
// the relay publishes it to topic suppressions, and every sender asks that topic's view before it hands anything over.
//
// A link names campaign and recipient, not the number: the edge has no store. This stage reads the number from the
// frozen audience.
//
// Failures:
//
//	does not decode, no id, an unknown way        dead letter in inbound.dlq
//	campaign or audience gone, no such recipient  dead letter
//	the recipient was erased                      dead letter: its number is gone, so it cannot be opted out
//	the store is away                             the batch waits: the opt-outs take effect once it is back
package inbound
