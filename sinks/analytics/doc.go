// Package analytics is the contract of the stores that answer what happened to the recipients of a campaign: how many
// are in each state, which ones, what they cost, and all events of one of them. Packages sqlite and clickhouse
// implement it, package analyticstest is the conformance suite of both, and package feed fills a store from topic
// `deliveries`.
//
// # Sets, not counters
//
// Every delivery event has a precedence, which is one number (package schemas). A recipient's state is the greatest
// precedence of its events. For each campaign and precedence a store keeps the set of recipients that ever reached it,
// as a Roaring bitmap of seq. The recipients in state p are
//
//	set(p) minus the union of all sets above p
//
// and n(p) is the size of that set. Every figure is a sum of disjoint n(p), so it does not depend on the order of the
// events, on duplicates, or on a clock. [Algebra] implements this in Go.
//
// Every implementation promises:
//   - An answer contains whole batches only, and is never older than an earlier answer.
//   - The identities total = pending + ambiguous + notSent + skipped + sent and sent = awaiting + undelivered +
//     delivered.
//   - A duplicate of an event, in the same or in another batch, changes no figure, set, member or cost.
//   - A repeated batch with the same identity changes nothing at all, so the timeline is exact too.
//   - Every query names a tenant, and the answer contains nothing of another tenant (P7): another tenant's campaign
//     looks like one without events.
//
// Recipients without events are in no set. A store does not know the size of an audience; the caller does.
package analytics
