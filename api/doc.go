// Package api is the HTTP surface: campaigns, contacts, opt-outs and single sends, as JSON under /api, beside the health of the
// process, its metrics, and the live page. It is chi for routes and huma for parameters and the OpenAPI document.
//
// It promises: what a 2xx says has been written, to the store or to Kafka, before it was said. A tenant never learns that
// another tenant's row exists. A request that is not understood is answered with the field, the reason and what to do, and
// changes nothing. Every campaign moves through the one state machine of package schemas.
//
// It does not send: a confirm is a row in the store that the relay publishes, and a single send is a record on the route's
// transactional lane.
package api
