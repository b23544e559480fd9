// Package httpsms is the connector to providers that take SMS over HTTP. There is one connector; what a provider wants
// is data, a [Spec]: how a request is made of a message, what an answer means, how a callback is verified and read. The
// files in presets are the specs of providers that are known; a route names one of them and gives its values (account,
// key), or brings a spec of its own.
//
// # What happens to a hand-over
//
// One Send is one request, with as many messages as the provider takes (Spec.Request.Max).
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
// net/http repeats a request by itself when an idle connection turns out to be closed, but only if it can rewind the
// body. Here it cannot, so each request is made once. A spec may name a header for our submission id; it counts as
// idempotency only when the spec says that the provider promises it.
//
// # Callbacks
//
// The endpoint has [Connector.Verify] look at each callback as it came, stores it, and [Connector.Parse] reads it
// later. Most providers return our submission id in the callback's address or body. Otherwise the receipt is matched by
// the provider's id.
//
// # Templates
//
// A text in a spec may have placeholders, {{name}}: to, toDigits, from, text, key, encoding, segments, validitySeconds,
// validityMinutes, validityMillis, notAfter, receipts (the callback's address), values.NAME, meta.NAME. Each value is
// encoded as its place wants it (JSON, form, URL), so a text can never break out of it. {{name:number}}, alone in a
// JSON string, makes a number. A field whose name ends in ? is left out when its value is empty.
package httpsms
