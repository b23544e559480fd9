// Package webhook posts events to customers' endpoints: about their messages, about replies of recipients, and about
// their campaigns (X6, R107).
//
//	reads    deliveries, campaigns and replies (group webhook), the endpoints in the store, the control view
//	writes   webhook_items in the store; deliveries.dlq, campaigns.dlq, replies.dlq
//	key      (endpoint, event id): an event that is read again is queued once
//	promise  each event that an endpoint wants is posted until the endpoint has taken it, at least once; the events of
//	         a message, and those of a campaign, one after another in the order of the log
//
// Two parts run beside each other. The reader (handle.go) turns records into items, an event for an endpoint, and
// commits its offsets after the store has them. The deliverer (deliver.go, lane.go) posts the due items and records the
// answers. So a kill -9 at any moment loses nothing: an event is in the log, or it is pending in the store. After a
// kill it may repeat a request whose answer was not recorded. The repetition has the same webhook-id, by which
// receivers ignore it.
//
// # Why the store holds the retries
//
// A topic returns records in the order in which they were written. But other endpoints must not wait behind the backlog
// of an endpoint that has been down for five days, each event of the backlog is due at its own time, and the customer
// wants to list it, repeat a part of it, or delete it. An index answers all of that. With a topic, Fanfare would need a
// partition per endpoint, or all backlogs in memory. The price is one row per event and endpoint, written in the
// batches of the log, and one update per answer.
//
// # When an endpoint gets a request
//
// Each endpoint has a lane of its own, so a slow or dead one holds up no other. A process leases endpoints in the store
// for 12 s; it is the only one that posts to them, and another takes over when the lease ends. A lane takes at most 100
// items, only the first pending one of each message, and makes up to 10 requests at a time. A request may take 5 s.
//
//	2xx                  delivered
//	410                  the endpoint is disabled at once
//	429, 503 and others with Retry-After: nothing is posted to the endpoint before, for an hour at most
//	anything else        the event is tried again after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h (± 10 %),
//	                     then given up
//	three failures in a row: one request at a time, after half of the time since the first failure, from 5 s to 5 min
//	(± 20 %); such a request is no try of its event, so an outage costs no event its tries
//	five days of nothing but failures: the endpoint is disabled; the tenant's other endpoints get endpoint.disabled
//
// A redirect is a failure. Fanfare never connects to a private, local or otherwise special address, whatever a name
// resolves to, unless Config.Allow has its range. It does not use proxies of the environment, because they would
// connect in place of Fanfare.
//
// # What happens when
//
//	the store is away          nothing is read or posted; offsets stay; what was answered meanwhile is recorded for 10
//	                           s, then posted again
//	Kafka is away              what is queued is posted; recovery waits
//	does not decode, no such campaign, or not of its tenant   dead letter
//	stop                       requests in hand are finished (5 s) and recorded, the leases given back
//	kill                       a lease time (12 s) later another process, or the next start, goes on
//
// The client's own reference is in every event of a message. Receipts do not have it, so the reader keeps it from the
// outcomes of senders. A receipt that is read before the outcome of its hand-over waits two seconds for it.
package webhook
