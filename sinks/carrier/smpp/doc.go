// Package smpp is the connector to a message centre that speaks SMPP 3.4 or 5.0. [Dial] binds as [Config] says;
// [Connector] hands over and brings receipts and what recipients write.
//
// # What happens to a hand-over
//
// A message becomes one submit_sm, or one per part. It waits for a place in the window of a session, is put into the
// session's queue and written with whatever else waits there, and keeps its place until the answer comes:
//
//	answer OK                                   accepted, with the message centre's id
//	answer of another status                    what codes.csv says: rejected, throttled (0x58, 0x14) or retryable
//	expired or withdrawn before the write       retryable, code `deadline`; tested right before the system call
//	no session for a second                     retryable, code `not connected`
//	the connection breaks before it is written  retryable
//	the connection breaks after that            unknown: the message centre may have it
//	no answer within AnswerTimeout              unknown
//
// SMPP has no idempotency, and a query needs the message centre's id, so unknown stays until a receipt or a late answer
// comes. The connector turns a late answer into a receipt with our submission id: BUFFERED if the message was taken,
// else FAILED.
//
// Of a long text all parts are queued together. A part that is throttled while others were taken is written again for a
// few seconds, also past the deadline: the message has begun, and no other process sends it. If it is still not taken,
// the message counts as accepted, and a receipt says FAILED for that part.
//
// When the message centre throttles, the window of that session is halved, and grows back by one per window of answers;
// the sender lowers the rate of the route.
//
// # Receipts
//
// A deliver_sm is answered after emit has returned nil, which is after Kafka's acknowledgement; after an error it is
// answered with ESME_RX_T_APPN, and the message centre sends it again. Package dlr reads it. Ids are unique only per
// session at some message centres: the number of the recipient comes with each receipt and keeps them apart.
//
// What recipients write comes from [Connector.Inbound], its parts joined. While Inbound is not being called, the
// connector refuses such messages with ESME_RX_T_APPN, and they stay with the message centre.
//
// # Sessions
//
// Config.Binds sessions are kept. After a silence the connector sends enquire_link; a session without an answer ends
// and is bound again after a pause that doubles, with jitter. Drain unbinds.
//
// The packages below it: pdu (units), sms (texts), dlr (receipts), smsc (the other end, for the simulator and tests).
// The meanings of status codes are in codes.csv, which package codes reads.
package smpp
