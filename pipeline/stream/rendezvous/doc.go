// Package rendezvous is where sender and tracker find each other when a carrier does not echo our id: a table in Redis of
// provider id -> submission, and of the receipts that came before their submission was known. Both use this package, so that
// they agree on keys and scripts (which [schemas] holds, as it does all that crosses processes).
//
// The sender, when a carrier that does not echo has answered with its id:
//
//	parked, err := table.Put(ctx, entries)     // retry until it succeeds: without it the receipts wait for nothing
//	publish every receipt of parked to `receipts` and await the acknowledgement
//	err = table.Clear(ctx, entries)            // of those that had any
//
// The tracker, for a receipt without our id:
//
//	ids, err := table.Find(ctx, sightings)     // a zero id: the receipt is parked
//
// Neither order nor repetition matters: each call is one script, and doing one again changes nothing. Redis may lose all of it:
// [Table.Ready] says whether it has, and the tracker fills it again from `deliveries` and `receipts`.
package rendezvous
