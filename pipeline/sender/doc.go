// Package sender hands messages over to carriers, each submission at most once, and says of every one what became of it.
//
//	reads      messages.<route>.txn, messages.<route>.bulk (one group and one intent window each)
//	follows    campaigns, control, suppressions (the control view)
//	writes     deliveries (outcomes), held (single messages that must wait), receipts (from the carrier's session, and parked ones
//	           once their submission is known), <topic>.dlq
//	keys       deliveries and held: <tenant>/<message id>; receipts: <route>/<provider id>
//	group      <prefix>sender.<route>.<lane>
//	Redis      the buckets of package ratelimit; the rendezvous of provider ids (package schemas)
//
// # Guarantee
//
// A submission (campaign, seq, try) is handed over at most once, through crashes, rebalances, paused processes and a log that is
// read again. One whose hand-over is doubtful becomes ambiguous and is never handed over again from here. Every message that is
// released gets an outcome; the outcome is written before the message counts as done. Outcomes are written at least once; they
// are idempotent by (submission, kind, code).
//
// # Before a hand-over
//
// In this order, see [judge]: uncertain (only report) · seen (the window drops it) · guard · version and state of the campaign ·
// tenant · opt-out · calling hours · validity · route and breaker · tokens. After the tokens everything but the tokens is asked
// once more. A deadline goes with the message to the connector, which tests it right before the write: the guard's, or half a second
// from now when that is sooner. What waits longer at the carrier goes back and is asked everything again.
//
//	Accepted      sent
//	Rejected      not_sent with the carrier's reason
//	Throttled     returned/THROTTLED with a time; the route's limit is halved for all and climbs back
//	Retryable     returned with a time
//	Unknown       ambiguous/TIMEOUT
//	Unsupported   returned/UNSUPPORTED, or not_sent when the chain has no next channel
//	no answer     ambiguous/TIMEOUT after max(2 s, 3 × p99); the late answer is written too and outranks it
//
// A single message that is returned is written to `held` first, for no chunk could make it again.
//
// # When something ends or fails
//
//	revoke, stop       nothing more is handed over, answers are awaited (10 s), the window hands over what is settled: nothing
//	                   becomes ambiguous
//	crash              the successor calls what was in flight ambiguous/CRASH
//	poison record      dead letter, and not_sent/RENDER_ERROR by header `submission`
//	Redis away         everything holds; nothing is returned. Outcomes with a provider's id wait seconds for it at most
//	view too old       everything holds (control 5 s, opt-outs 1.5 s)
//	carrier away       the breaker opens: returned/BREAKER with a time; then one batch tries
//	carrier throttles  returned/THROTTLED; half the pace
//	Kafka away         nothing is handed over once the guard expires; the window stays uncertain
//	store away         unaffected
package sender
