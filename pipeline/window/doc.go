// Package window runs the intent window: it hands each record of a topic over to a system outside Kafka at most once,
// and knows after a crash which records may have been handed over.
//
// A consumer that hands a record over and then commits its offset repeats the hand-over when it crashes in between; one
// that commits first loses the record. The window does neither. Before anything is done to a record, an offset commit
// declares it: the committed offset (the base) says what is settled, and the metadata of the same commit carries the
// head, the end of what may be in flight. The next owner of the partition reads both. Everything in [base, head) is
// uncertain, and the window reports it as ambiguous. If the outside system ignores a submission that it already has, or
// can be asked, the releaser resolves the doubt, and [Item.Doubt] keeps the record open meanwhile. Otherwise the record
// is never handed over again.
//
// [Window] has the rules. [Item] is one record: the window releases it, the releaser begins it and settles it.
//
// # How much is uncertain
//
// The head runs ahead of the hand-overs only as far as the next commits need: rate × about two commits, which are
// measured (1 to 2 ms on the embedded broker, 6 ms on Kafka), or 5 ms where that is more. So a crash leaves uncertain
// the records that the outside system has not answered, and a few more: about 50 in all at 1,500/s and a mean answer
// time of 27 ms. At a takeover, records whose outcome is already in topic Outcomes are not uncertain. One log line says
// how many records are uncertain, and of which campaigns.
//
// # Tenants
//
// With [Config.Tenant] the window declares the records of several tenants in turn: no tenant waits behind another
// tenant's backlog in the same partition. A record that goes ahead of the head is declared by its own offset, at most
// 600 of a partition at a time.
//
// # Records in doubt
//
// A record in doubt has its ambiguous outcome and takes no place of the window, so the others go on. The base stays
// below it: after another crash it is uncertain again, and the next owner continues to resolve it. The releaser decides
// whether it is handed over again; [Item.BeginAgain] says whether this process may do so. [Item.Clear] makes a record
// that was certainly not handed over a fresh one. A partition stops when 16,384 records wait behind its base;
// [Item.Crowded] reports that early enough to give the doubt up.
//
// The package promises that no record is handed over twice, unless the releaser says that this is safe: through
// crashes, rebalances, paused processes and a broker that has lost commits. It does not promise order between
// partitions, and it does not know what is in a record beyond its identity.
package window
