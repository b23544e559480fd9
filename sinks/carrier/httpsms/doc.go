// Package httpsms is the connector to providers that accept SMS over HTTP. There is one connector for all providers. A
// [Spec] describes a provider as data: how to make a request from a message, what an answer means, and how to verify
// and parse a callback. The files in presets are the specs of known providers. A route names one of them and gives its
// values (account, key), or has its own spec.
//
// # What happens to a hand-over
//
// One Send is one request, with as many messages as the provider accepts (Spec.Request.Max).
//
//	a message is expired or withdrawn           retryable, code `deadline`; tested when the request is about to be
//	                                            written
//	no connection                               retryable, code `not connected`
//	the answer takes the message                accepted, with the provider's id, or ours where it gives none
//	the answer refuses it                       what the spec's codes say; a code that the spec lacks is rejected
//	401, 402, 403, 404, 405, 407, redirects     retryable: the account or the configuration is wrong, not the message
//	408, 425, 429                               throttled, or retryable: not taken
//	other 4xx                                   rejected, or what the spec says of the code in the answer
//	5xx, no answer, a broken connection         unknown, unless the spec says that the provider takes nothing then
//
// If an idle connection turns out to be closed, net/http repeats a request by itself, but only if it can rewind the
// body. Here it cannot, so each request is made once. A spec may name a header for our submission id. This counts as
// idempotency only if the spec says that the provider promises it.
//
// # Callbacks
//
// The endpoint calls [Connector.Verify] with each unchanged callback, and stores it. [Connector.Parse] parses it later.
// Most providers return our submission id in the callback's address or body. If not, the tracker matches the receipt by
// the provider's id.
//
// # Templates
//
// A text in a spec may have placeholders, {{name}}: to, toDigits, from, text, key, encoding, segments, validitySeconds,
// validityMinutes, validityMillis, notAfter, receipts (the callback's address), values.NAME, meta.NAME. Each value is
// encoded for its place (JSON, form, URL), so a text cannot break out of it. {{name:number}}, alone in a JSON string,
// becomes a number. A field whose name ends in ? is omitted if its value is empty.
package httpsms
