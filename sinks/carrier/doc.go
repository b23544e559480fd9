// Package carrier is the contract between the sender and a carrier, which takes messages for delivery: an SMSC, an HTTP
// provider, the WhatsApp and RCS platforms, a telephone exchange, or the simulator. A [Connector] hands batches over
// and returns an [Outcome] per message; a [ReceiptSource] brings the carrier's later receipts.
//
// What the contract promises, and package carriertest checks of every connector:
//
//   - When [Connector.Send] returns nil, done is called exactly once for every index of the batch; when it returns an
//     error, nothing of the batch was handed over and done is never called.
//   - Nothing is written to the carrier after the deadline of a message: such a message gets [Retryable].
//   - After [Connector.Drain] has returned, done is not called any more. Hand-overs without an answer by then got
//     [Unknown].
//   - A receipt is acknowledged to the carrier only after emit has returned nil; until then it comes again.
//
// The contract does not promise that a message is delivered once. If the carrier took a message and its answer was
// lost, the hand-over is [Unknown]. [Caps] say what ends that doubt: a second hand-over under the same key, if the
// carrier ignores a key that it already has; a query, if the carrier can be asked. Otherwise only a receipt or a person
// ends it, and the sender never hands the message over again.
package carrier
