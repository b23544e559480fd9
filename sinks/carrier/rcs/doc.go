// Package rcs is the connector to RCS for Business (Google's RBM API): texts and rich cards of a brand's agent.
//
// # What happens to a hand-over
//
// A message is one request, and its id at the platform is our submission id, written as a UUID. The platform ignores an
// id that the agent has used before, so a hand-over in doubt is repeated and never makes a second message.
//
//	expired or withdrawn before the write       retryable, code `deadline`; tested right before the system call
//	no connection                               retryable, code `not connected`
//	no access token                             retryable, code `no token`: nothing was handed over
//	200, and 409 of an id that it has had       accepted
//	404: no RCS, or not at this operator        unsupported: the next channel of the chain is tried at once
//	400: the phone cannot show it               unsupported too, and NOT_SENT_OTHER where no channel follows
//	401, 403                                    retryable: the account or the agent is wrong, not the message
//	429                                         throttled
//	other 4xx                                   rejected
//	5xx, no answer, a broken connection         unknown: handed over again under the same id
//
// codes.csv has the words of the platform's errors with their meanings.
//
// # Who has RCS
//
// With Config.Capabilities the connector queries the platform about the recipients of a batch in one request
// (users:batchGet) before it hands the messages over, and remembers the answers. If a recipient has no RCS, the result
// is unsupported without a hand-over. If the query fails, the connector hands the message over, and a 404 says that the
// recipient has no RCS.
//
// # Time
//
// The end of a message's validity is given as expireTime, 10 s to 15 days from now. At that time the platform revokes a
// message that has not reached the phone and sends TTL_EXPIRATION_REVOKED. It is EXPIRED here and lets the next channel
// of the chain begin. If the platform could not revoke it (TTL_EXPIRATION_REVOKE_FAILED), the message stays awaiting.
// DELIVERED wins over both.
//
// # Callbacks
//
// Register https://YOUR-HOST/api/callback/ROUTE as the agent's or the partner's webhook, with the clientToken of the
// route. The connector verifies each callback by X-Goog-Signature, which signs the event in it.
//
// Package rbm is the server side, for the simulator and tests.
package rcs
