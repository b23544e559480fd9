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
// The connector queues all parts of a long text together. If some parts are accepted and others throttled, it writes the
// throttled ones again for a few seconds, even after the deadline, because the message has begun and no other process
// sends it. If a part is still not accepted, the message counts as accepted, and a receipt says FAILED for that part.
//
// When the message centre throttles, the window of that session is halved, and grows back by one per window of answers;
// the sender lowers the rate of the route.
//
// # Receipts
//
// The connector answers a deliver_sm after emit has returned nil, which is after Kafka's acknowledgement. After an error
// it answers with ESME_RX_T_APPN, and the message centre sends the receipt again. Package dlr parses receipts. At some
// message centres ids are unique only per session; the recipient's number in each receipt distinguishes them.
//
// [Connector.Inbound] brings the messages of recipients, with their parts joined. While no call of Inbound is running,
// the connector refuses such messages with ESME_RX_T_APPN, and the message centre keeps them.
//
// # Sessions
//
// The connector keeps Config.Binds sessions. After a silence it sends enquire_link. If no answer comes, it ends the
// session and binds again after a pause that doubles, with jitter. Drain unbinds.
//
// The packages below it: pdu (units), sms (texts), dlr (receipts), smsc (the other end, for the simulator and tests).
// The meanings of status codes are in codes.csv, which package codes reads.
package smpp
