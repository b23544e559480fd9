// Package api serves HTTP: campaigns, contacts, opt-outs and single sends as JSON under /api, the health and metrics of the
// process, and the live page. chi routes requests; huma parses parameters and generates the OpenAPI document.
//
// It promises: a 2xx is answered after the change is written to the store, or acknowledged by Kafka. A tenant never learns that
// another tenant's row exists. A request that cannot be understood is answered with the field, the reason and a fix, and changes
// nothing. Every campaign moves through the state machine of package schemas.
//
// It does not send. A confirm writes a row that the relay publishes; a single send writes a record on the route's
// transactional lane, or on the topic held until its time.
//
// One file per resource. [problem] has the errors and the strict reader of bodies.
package api
