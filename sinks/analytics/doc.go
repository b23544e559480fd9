// Package analytics is the contract of the stores that answer what happened to every recipient: how many are where, who
// they are, what it cost, and the whole story of one of them. Implementations are in the folders below; package
// analyticstest holds the suite that each of them passes; package feed fills a store from topic `deliveries`.
//
// # Sets, not counters
//
// Every delivery event about a recipient has a precedence, one number (package schemas). A recipient's state is the greatest
// precedence seen. For each campaign and precedence a store keeps the set of recipients that ever reached it, as a Roaring
// bitmap of seq; who is in state p is
//
//	set(p) minus the union of all sets above p
//
// and n(p) is the size of that. So every figure is a sum of disjoint n(p), and does not depend on the order in which events
// come, on how often they come, or on any clock. [Algebra] is that arithmetic in Go.
//
// Promised by every implementation:
//   - An answer holds whole batches only, and never less than an answer before it.
//   - The identities total = pending + ambiguous + notSent + skipped + sent and sent = awaiting + undelivered + delivered.
//   - The same event twice changes no figure, set, member or cost, wherever it stands in whatever batch.
//   - The same batch twice, with its identity, changes nothing at all: the timeline is exact too.
//   - Every question names a tenant, and nothing of another tenant is in the answer (P7): a foreign campaign looks like one
//     without events.
//
// Not promised: recipients without any event are in no set. A store does not know how large an audience is; who asks does.
package analytics
