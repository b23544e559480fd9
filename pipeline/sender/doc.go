// Package sender hands messages over to carriers, each submission at most once, and writes an outcome for each message.
//
//	reads      messages.<route>.txn, messages.<route>.bulk (one group and one intent window each)
//	follows    campaigns, control, suppressions (the control view)
//	writes     deliveries (outcomes), held (single messages that must wait), receipts (from the carrier's session, and
//	           parked ones once their submission is known), inbound (what recipients wrote, from the carrier's
//	           session), <topic>.dlq
//	keys       deliveries and held: <tenant>/<message id>; receipts: <route>/<provider id>; inbound: <route>/<number>
//	group      <prefix>sender.<route>.<lane>
//	Redis      the buckets of package ratelimit; the rendezvous of provider ids (package schemas)
//
// # Guarantee
//
// A submission (campaign, seq, try) is handed over at most once, through crashes, rebalances, paused processes and a
// log that is read again. A message whose hand-over is in doubt becomes ambiguous at once; see below for what ends the
// doubt. Every message that is released gets an outcome; the outcome is written before the message counts as done.
// Outcomes are written at least once; they are idempotent by (submission, kind, code).
//
// Single sends (lane txn) of several tenants are handed over in turn, so one tenant's flood does not delay another's
// message. The messages of the other lane were dealt fairly by the scheduler.
//
// # Before a hand-over
//
// [judge] checks, in this order: uncertain (then it is only reported) · guard · age of the view · version and state of
// the campaign · tenant · opt-out (but not of the message that confirms it) · calling hours (on the recipient's clocks
// where the campaign asks for it) · validity · route and breaker. Then the message takes its tokens, and all checks run
// once more. (The window has dropped duplicates before.)
//
// The connector gets a deadline with each message and tests it right before it writes: the earliest of the guard, half
// a second after the checks, and the moment at which a check would fail because time has passed. While a message waits
// in the connector the checks go on, each time the control plane changes and every 50 ms; a message that fails them is
// withdrawn, and a Send that waits for the carrier's window is interrupted. What the connector did not write goes back
// into the queue and is judged again: it was not handed over, so it costs no try.
//
// What the carrier's answer becomes, see [classify]:
//
//	Accepted      sent
//	Rejected      not_sent with the carrier's reason
//	Throttled     returned/THROTTLED with a time; the route's limit is halved for all and climbs back
//	Retryable     returned with a time
//	Unknown       ambiguous/TIMEOUT, in doubt
//	Unsupported   returned/UNSUPPORTED, or not_sent when the chain has no next channel
//	no answer     ambiguous/TIMEOUT after max(2 s, 3 × p99), in doubt; the late answer is written too and outranks it
//
// A single message that is returned is written to `held` first, because no chunk can make it again.
//
// # Doubt
//
// A hand-over is in doubt when its answer is not known: the last owner of the partition crashed, or the carrier did not
// answer. What ends the doubt depends on the carrier; the connector's [carrier.Caps] say it:
//
//	DoubtKeyHeader,  the message is handed over again under the same submission id; a carrier that had it answers as
//	DoubtNaturalID   before and sends nothing. It is judged first, because the first hand-over may never have
//	                 happened: nothing is repeated while the campaign is paused, and nothing for a recipient who has
//	                 opted out. With DoubtKeyHeader nothing is repeated once the carrier may have forgotten the id.
//	DoubtQuery       the carrier is asked by our id. When it does not have the message, and none can be on its way any
//	                 more, the message is handed over, or given back, like any other.
//	DoubtNone        a receipt or a person.
//
// Resolving a doubt is no new try. While the carrier answers and the message may be sent, a doubt ends within 30 s of
// the takeover. After 10 minutes, or when so many messages wait behind it that its partition would stop, the doubt is
// given up: a receipt or a person ends it. After another crash the next owner continues. One log line says how many
// messages a takeover found uncertain, and of which campaigns; another says how their doubts ended.
//
// # When something ends or fails
//
//	revoke, stop       nothing more is handed over, answers are awaited (10 s), the window hands over what is settled:
//	                   nothing becomes ambiguous
//	crash              the next owner calls what was in flight ambiguous/CRASH, and ends the doubt where it can
//	poison record      dead letter, and not_sent/RENDER_ERROR for the submission that its header names
//	forged record      its id is missing or not signed by our keys: dead letter, counted, no outcome
//	Redis away         whatever the reason, also a wrong password: all messages wait; none is returned. Outcomes
//	                   with a provider's id wait half a second for it; an id that is owed to the index then is put
//	                   there later, by the next owner of the partition if this one dies
//	view too old       all messages wait (control 5 s, opt-outs 1.5 s)
//	carrier away       the breaker opens: returned/BREAKER with a time; then one batch tries
//	carrier throttles  returned/THROTTLED; half the pace
//	Kafka away         nothing is handed over once the guard expires; the window stays uncertain
//	store away         unaffected
package sender
