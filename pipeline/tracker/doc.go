// Package tracker turns what carriers say into delivery events: whose message it was, what became of it in our words, and
// whether anything may follow.
//
//	reads    receipts (group tracker), the view of campaigns and routes, the rendezvous in Redis
//	writes   deliveries, key <tenant>/<message id>; receipts.dlq
//	promise  at least once: the same receipt gives the same event under the same id, and the state of a recipient is the
//	         greatest event seen, so receipts may come late, twice and in any order
//
// Whose it was: by our own submission id where the carrier echoes it, which must bear our signature; else by the carrier's id,
// through pipeline/stream/rendezvous. A receipt that overtakes the answer to its hand-over is parked there, and the sender
// publishes it again with the submission. Tenant, campaign and sender come from the campaign, never from the receipt.
//
// What became of it:
//
//	BUFFERED          buffered/ENROUTE
//	DELIVERED, READ   delivered, read
//	FAILED            bounced, when the campaign can retry or fall back from that sub-status at all; else undelivered
//	UNKNOWN           nothing: the message stays awaiting
//	one of n parts    delivered when all are; undelivered/PARTIAL when one has failed for good
//
// A single send is not retried, and of a campaign that is settled nothing follows: both are undelivered at once. Otherwise the
// scheduler ends each bounce, by another deal or as undelivered.
//
// The carrier's code becomes a sub-status by the connector, or by codes.csv; what neither knows is UNDELIVERED_OTHER and keeps
// its raw code. Times are the carrier's, held between the campaign's confirmation and a minute after the receipt came in. The
// country is left empty: it is the message's, which `sent` names, and a calling code does not tell it (+1, +39, +44).
//
// When something is wrong:
//
//	does not decode, no status, names nobody, signed by another   receipts.dlq
//	Redis away                     receipts without our id, or in parts, wait, and those behind them in the batch
//	Redis has lost the rendezvous  it is filled again from `deliveries` and `receipts`; the same receipts wait meanwhile
//	campaign unknown               waits until the view has been read to its end since the receipt came, then receipts.dlq
package tracker
