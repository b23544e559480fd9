// Package scheduler runs the only stage that deals: it decides which recipients are tried, now or again, and when a
// campaign is over. The decisions are made in package plan, which is pure; this package elects a leader, reads and
// writes topics, and asks the store.
//
//	reads    deliveries (no group, from the offsets in cursors), the view of campaigns, routes, tenants and senders,
//	         cursors, held, messages.<route>.txn; the store: the freeze and its index,
//	         and domains of links for the next recipients
//	writes   chunks, key <tenant>/<campaign>#<blob>; cursors, key <tenant>/<campaign>, …/sets/<part>, offsets;
//	         deliveries, key <tenant>/<message id>: the last event of a recipient that is not dealt again;
//	         messages.<route>.txn and tombstones in held: single sends whose time has come; moves of campaigns in the
//	         store
//	group    scheduler, on the only partition of cursors: its owner leads, the other processes stand by
//	promise  a (recipient, try) is dealt once, and again only on proof that the try before did not arrive
//
//	scheduler.go   configuration, and Run
//	leadership.go  who leads, and for how long
//	lead.go        the loop of the leader, and what it reads
//	takeover.go    what a new leader reads first, and its self-check
//	step.go        one round of decisions, and the calls of the store
//	snapshot.go    writing the sets to cursors
//	write.go       records and transactions
//
// Every decision is written in one transaction with the cursor that lists it. The transactional id is constant: a new
// leader takes it first, which fences its predecessor, and then reads cursors and held. If the outcome of a transaction
// is unknown, the leader discards its state and reads the topics again.
//
// Idempotency key: (campaign, seq, try); of chunks, the number of the deal. A broker that tore a transaction (kfake,
// killed in the middle of one) may show the cursor without the chunks, or the chunks without the cursor. So a new
// leader looks in chunks for every deal that the cursors list since their sets were written: it makes a missing deal
// again, identical, and counts the recipients of a chunk that no cursor lists as dealt.
//
// When something is wrong:
//
//	killed                           a standby leads after a session timeout, from what is in the topics
//	view older than 5 s              no deals, no ends, no moves
//	the MayDeal hook returns an error  no deals and no ends; campaigns are still moved
//	a route is down                  its campaigns are suspended, and resumed when it is up again (plan/care.go);
//	                                 the state of the routes comes from topic health
//	store unreachable                messages that were dealt are sent; no campaign is frozen, started or completed;
//	                                 campaigns with links on domains are dealt as far as domains are reserved
//	no domain of links has room      the campaign is suspended (no_domains) once no recipient is in flight
//	store has another version        the move is dropped and decided again on the next record
//	delivery event cannot be read    deliveries.dlq and a log line; the other readers have its outcome
//	cursor or chunk cannot be read   its campaign is suspended (broken_record) and set aside, cursors.dlq or
//	                                 chunks.dlq; all others are dealt
//	a newer version wrote cursors    this version keeps fields that it does not know and writes them again unchanged
//	a deal is never answered         ambiguous/LOST ten minutes after its not_after
//	a cancel is never answered       skipped/CANCELLED, written by the scheduler after twenty minutes
//	cursors are lost                 the chunks since the campaign was confirmed are read and counted as dealt
package scheduler
