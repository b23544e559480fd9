// Package edge answers what the public opens: the links of messages. It is apart from the API: it needs no store, no
// Redis and no statistics, only the campaigns as topic `campaigns` has them, in memory.
//
//	reads    campaigns, through the control-plane view
//	writes   deliveries: a clicked event for each opening of a link
//	promise  a redirect is answered although Kafka is away: what cannot be published within [Config.Patience] is kept in a bounded file
//	         and published later. A click that was answered survives kill -9 of the process
//	key      the event of a click has an id of its own, which a second publication repeats
//
// A token names campaign, recipient and link, and carries a MAC ([schemas.Keys.ParseLink]): there is no table of recipients, an unknown
// token costs a hash and nothing is written for it, and no address leads to a place that is not in the campaign's frozen table.
//
// GET and HEAD only ever show or redirect.
//
// Failures:
//
//	token of no campaign of ours         404 page
//	campaign gone, or its links expired  410 page
//	view not read to its end yet         503 with Retry-After
//	too much from one address            429 with Retry-After, nothing written
//	Kafka away                           redirected; the click waits in the file. When the file is full, clicks are dropped and counted
package edge
