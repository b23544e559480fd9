// Package plan decides which recipients are dealt, and when, and when a campaign is over. It is the pure part of the
// scheduler: it has no Kafka client, no store and no clock. Its input is delivery events, records of the control plane
// and the time; its output is deals, ends and moves of campaigns. The package imports schemas only, so the compiler
// keeps that promise.
//
// A [Planner] keeps, per campaign and try, sets of recipients that only grow: dealt, answered, handed over by price,
// doubtful, returned, bounced by code, final. So events may arrive late, twice and in any order, and the next leader,
// which reads them again from an older offset, has the same sets.
//
//	planner.go   records of campaigns, routes, tenants and senders
//	observe.go   delivery events
//	follow.go    what follows a return or a bounce: a retry, the next leg, an end
//	retries.go   how often a recipient is tried on a leg, and when a retry is due
//	ends.go      recipients that are not dealt again: final, lost, or without a receipt
//	summary.go   whether a campaign is done, and how many receipts it awaits
//	deal.go      deals: deficit round robin over tenants, then campaigns, as far as the limits have room
//	zones.go     calling hours on the clocks of each recipient
//	domains.go   domains of links, which the store reserves for the next recipients
//	calls.go     calls that go on at the same time
//	held.go      single sends that wait for their time
//	care.go      campaigns that are suspended because of their routes, and resumed
//	failover.go  the route that carries a leg while its own route cannot
//	moves.go     start, complete, settle, and the requests to the store
//	snapshot.go  what is written in topic cursors; restore.go reads it back
//	campaign.go, sets.go  what is known of one campaign, and of one try of its recipients
//
// How much is dealt: in flight is dealt less answered. A deal is made while every level (route, tenant, sender,
// campaign) has less in flight than it can take in one second and the carrier's 99th percentile answer time. A chunk is
// a quarter of that at most, of a limit up to 100/s a whole second of it, and never crosses a blob.
//
// A round looks only at campaigns that are awake (awake.go): something about them changed, or their time has come. The
// rings of the routes (ring.go) hold only campaigns with recipients to deal.
package plan
