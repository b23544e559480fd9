// Package inbound acts on what recipients do and write. It writes opt-outs to the store, from where they reach every
// sender. It keeps messages of recipients as conversations. It writes to `deliveries` which message a recipient
// answered.
//
//	reads    inbound (group inbound); the control-plane view; the store: campaigns that the view lacks, frozen
//	         audiences, owners of senders; deliveries (group recent): the last message of each sender to each
//	         number, for the index in Redis
//	writes   the store, in one transaction: suppressions and the proof of each, conversations, reviews, and
//	         confirmations that are to be sent; replies: the message with its tenant; deliveries: opted_out and
//	         replied events; Redis: the index; inbound.dlq
//	keys     replies: <tenant>/<conversation id>; deliveries: <tenant>/<message id>
//	promise  at least once, with one effect: each fact has an id, which the store keeps with its proof or its
//	         message. The store does not record a fact twice, even if the opt-out was lifted in between. The
//	         events of a fact have the same id each time
//	order    what one recipient did by links of one message stays in order, and so does what one number writes
//	         on one route
//	stop     the stage finishes the batch in hand
//
// The edge answers the person, and a connector or the API answers the carrier, as soon as Kafka has the record. The
// opt-out then takes effect within some milliseconds: this stage writes the row, the relay publishes it to the topic
// suppressions, and every sender asks its view of that topic before it hands a message over.
//
// A link names the campaign and the recipient, not the number, because the edge has no store. This stage reads the
// number from the frozen audience. For an erased person the audience has only the hash, and the stage records the
// opt-out by the hash.
//
// How the stage finds the tenant of a message: see match in message.go. What the message means: see package keyword.
// The API sends the confirmation of an opt-out: it prices the confirmation and sends it at most once.
//
// Failures:
//
//	no record of this version, no id, unknown way       dead letter in inbound.dlq
//	campaign, audience or recipient is missing          dead letter
//	a message to a sender that no tenant has            dead letter: give the sender to a tenant and replay
//	a message to a sender of several tenants,           STOP opts out of all of them; anything else is a dead
//	none of which has sent to the number                letter
//	the store is away                                   the batch waits; opt-outs take effect when the store is back
//	Redis is away                                       the batch waits after its opt-outs by links took effect;
//	                                                    later batches wait; the senders send nothing without tokens
//	Redis has lost the index                            the sender alone decides the tenant, until a tenant sends
//	                                                    to the number again
package inbound
