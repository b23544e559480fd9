// Package tracker turns carriers' receipts (DLRs) into delivery events. It finds the message that a receipt is about,
// maps the carrier's status to ours, and decides whether another try may follow.
//
//	reads    receipts (group tracker), the control view, the index of provider ids in Redis (pipeline/dlrindex)
//	writes   deliveries, key <tenant>/<message id>; receipts.dlq
//	promise  at least once. The same receipt gives the same event with the same id, and a recipient's state is the
//	         greatest event seen, so receipts may come late, twice and in any order
//
// Which message: by our submission id, where the carrier echoes it and its signature is ours; else by the carrier's id,
// through the index. A receipt that comes before the answer to its hand-over is parked in the index, and the sender
// publishes it again with the submission id. Tenant, campaign and sender are taken from the campaign, never from the
// receipt.
//
// What the receipt becomes (mapping.go):
//
//	BUFFERED          buffered/ENROUTE
//	DELIVERED, READ   delivered, read
//	FAILED            bounced if the campaign's policy allows a retry or a fallback after this sub-status, else
//	                  undelivered
//	UNKNOWN           no event: the message stays awaiting
//	one of n parts    delivered when all parts are; undelivered/PARTIAL when one has failed for good
//
// The scheduler neither retries single sends nor deals in settled campaigns: a negative receipt of either makes the
// recipient undelivered at once. In all other campaigns the scheduler ends each bounce: it deals again, or calls the
// recipient undelivered.
//
// The carrier's code becomes our sub-status: the connector's mapping comes first, then codes.csv, then
// UNDELIVERED_OTHER with the raw code kept. The time is the carrier's, clamped to the span from the campaign's
// confirmation to the arrival of the receipt. The country is left empty: the event `sent` has it, and the calling code
// is not enough (+1, +39 and +44 are shared by countries).
//
// Failures:
//
//	does not decode, no status, no submission, forged signature   dead letter in receipts.dlq
//	Redis is down             receipts without our id, or in parts, wait, and so does the rest of their batch
//	Redis has lost the index  it is rebuilt from `deliveries` and `receipts`; the same receipts wait meanwhile
//	campaign unknown          the receipt waits until the view is newer than the receipt, then becomes a dead letter
package tracker
