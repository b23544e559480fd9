// Package api serves HTTP: campaigns, contacts, opt-outs and single sends as JSON under /api, the health and metrics of
// the process, and the live page. chi routes requests; huma parses parameters and generates the OpenAPI document.
//
// It promises: it answers 2xx only after the change is written to the store or acknowledged by Kafka. A tenant never
// learns that another tenant's row exists. An invalid request changes nothing, and its answer names the field, the
// reason and a fix. A campaign changes state only as the state machine of package schemas allows.
//
// It does not send messages. A confirm writes a row that the relay publishes; a single send writes a record to the
// route's transactional lane, or to topic held if it has a later time.
//
// There is one file per resource. [problem] has the errors and the strict reader of bodies.
package api
