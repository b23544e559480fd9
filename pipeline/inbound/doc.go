// Package inbound acts on what recipients did about what they are sent: it writes an opt-out to the store, from where
// it reaches every sender, keeps what they wrote as conversations, and says in the log of deliveries which message it
// answers.
//
//	reads    inbound (group inbound), the control-plane view, the store: campaigns that the view lacks, frozen audiences, owners of senders;
//	         deliveries (group recent): the last message of each sender to each number, for the index in Redis
//	writes   the store: suppressions and the proof of each, conversations, reviews and confirmations that are to be sent, in one transaction;
//	         replies: what was written, with its tenant; deliveries: opted_out and replied events; Redis: the index; inbound.dlq
//	keys     replies: <tenant>/<conversation id>; deliveries: <tenant>/<message id>
//	promise  at least once, and once in effect: a fact has an id, which the store keeps with its proof or its message. What was recorded is
//	         not recorded again, also when somebody has lifted the opt-out since; its events have the same id each time
//	order    what one recipient did by links of one message, and what one number writes by one route, stays in order
//	stop     the batch in hand is finished
//
// The edge answers a person, and a connector or the API the carrier, when Kafka has the fact. From there it takes a few
// milliseconds: this stage writes the row, the relay publishes it to topic suppressions, and every sender asks that
// topic's view before it hands anything over.
//
// A link names campaign and recipient, not the number: the edge has no store. This stage reads the number from the
// frozen audience; of a person who was erased the audience has the hash, and the opt-out holds by that.
//
// Whose a message is: see match in message.go. What it means: package keyword. The confirmation of an opt-out is sent
// by the API, which prices it and takes it from the store exactly once.
//
// Failures:
//
//	does not decode, no id, an unknown way              dead letter in inbound.dlq
//	campaign or audience gone, no such recipient        dead letter
//	a message to a sender that no tenant has            dead letter: give the sender to a tenant and replay
//	a message to a sender of several tenants, none of whom has written to the number   STOP opts out of all; anything else is a dead letter
//	the store is away                                   the batch waits: the opt-outs take effect once it is back
//	Redis is away                                       the batch waits, and nothing is sent meanwhile, for there are no tokens
//	Redis has lost the index                            messages find their tenant by the sender alone, until something is sent again
package inbound
