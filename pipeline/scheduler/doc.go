// Package scheduler is the one dealer: it alone decides that a recipient is tried, now or again, and that a campaign is over.
//
//	reads    deliveries (no group, from the offsets in cursors), the view of campaigns, routes, tenants and senders, cursors,
//	         held, messages.<route>.txn; the store, for the freeze and its index
//	writes   chunks, key <tenant>/<campaign>#<deal>; cursors, key <tenant>/<campaign>, …/sets/<part>, offsets;
//	         deliveries, key <tenant>/<message id>: what ends a recipient whom nothing follows;
//	         messages.<route>.txn and tombstones in held: single sends whose time has come; moves of campaigns in the store
//	group    scheduler, on the only partition of cursors: who has it deals, the others stand by
//	promise  a (recipient, try) is dealt once, and again only on proof that the try before did not arrive
//
// It is a pure core and a shell. The core (core.go and the files it names) has no client and no clock: delivery events,
// records and the time come in; deals, ends and moves come out. It keeps, per campaign and try, sets of recipients that only
// grow: dealt, answered, handed over by price, doubtful, returned, bounced by code, final. So events may come late, twice and
// in any order, and a successor that reads them again from an older offset knows the same.
//
//	handle.go    events in
//	follow.go    what follows a return or a bounce: a retry, the next leg, an end; who is lost; when the silence is over
//	deal.go      deals out: deficit round robin over tenants, then campaigns, as far as the limits have room
//	moves.go     start, complete, settle, and what is asked of the store
//	cursor.go    what is written in cursors, and read back
//
// The shell (scheduler.go, lead.go, takeover.go, write.go) leads or stands by, reads, and writes every decision in one
// transaction with the cursor that names it. The transactional id is constant: a new leader takes it first, which fences its
// predecessor, and reads cursors and held afterwards. Whenever a transaction is in doubt the leader throws away what it knows
// and begins anew from the topics.
//
// How much is dealt: in flight is dealt less answered. A deal is made while every level (route, tenant, sender, campaign) has
// less in flight than it can take in one second and the carrier's 99th percentile answer time. A chunk is a quarter of that at
// most, and never crosses a blob.
//
// Idempotency key: (campaign, seq, try), of chunks the number of the deal. A broker that tore a transaction (kfake killed in
// the middle of one) may show its cursor without its chunks, or the other way round: at the start every deal that the cursors
// name since their sets is looked for in chunks and made again to the letter when it is missing, and a chunk that no cursor
// names is taken for dealt.
//
// When something is wrong:
//
//	killed                         the standby leads after a session timeout; what is in the topics is what counts
//	view older than 5 s            no deals, no ends, no moves
//	the MayDeal hook says no       the same, but moves are made
//	store away                     who is dealt is sent; nothing is frozen, started, completed
//	store has another version      the decision is dropped and made again on the next record
//	record does not decode         deliveries.dlq and a log line; the other readers have its outcome
//	a deal is never answered       ambiguous/LOST ten minutes after its not_after
//	a cancel is never answered     skipped/CANCELLED, written here after twenty minutes
//	cursors are gone               the chunks since the campaign's start are read and taken for dealt
package scheduler
