// Package edge answers requests for the links in messages. It is separate from the API: it needs no store, no Redis and
// no statistics, only the campaigns of topic `campaigns` and the domains of topic `control`, which it holds in memory.
//
//	reads    campaigns and domains, through the control-plane view
//	writes   deliveries: a clicked event for each opening of a link
//	         inbound: an opt-out for each form that is sent from the page of {{opt_out}}
//	promise  a request is answered even while Kafka is down: a record that is not published within [Config.Patience]
//	         is kept in a bounded file and published later. The click or opt-out of an answered request survives kill
//	         -9 of the process
//	key      each click event has its own id; a second publication of the event has the same id. Opt-outs of one
//	         second have one id
//
// A token names campaign, recipient and link, and carries a MAC ([schemas.Keys.ParseLink]). So the edge needs no table
// of recipients; a forged token costs one hash and writes nothing; and a link leads only to an address in the
// campaign's frozen link table.
//
// GET and HEAD only show a page or redirect. The opt-out page acts only on POST, because scanners follow links. It
// needs neither a cookie nor a script, so a one-click request (RFC 8058) works too.
//
// Failures:
//
//	token with a wrong MAC               404 page
//	campaign unknown, or links expired   410 page
//	host of neither the installation     421 page, except for opt-out links
//	nor a domain of the tenant
//	view not read to its end yet         503 page with Retry-After, for a campaign that is not in it
//	too many requests from one address   429 page with Retry-After, nothing written
//	Kafka down                           redirected or opted out; the record waits in the file. When the file is full,
//	                                     clicks are dropped and counted, and an opt-out is answered 503
package edge
