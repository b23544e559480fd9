// Package carrier is the contract between the sender and a carrier, which takes messages for delivery: an SMSC, an HTTP
// provider, the WhatsApp and RCS platforms, a telephone exchange, or the simulator. A [Connector] hands batches over
// and says, per message, what became of the hand-over; a [ReceiptSource] brings what the carrier says later.
//
// What the contract promises, and package carriertest checks of every connector:
//
//   - When [Connector.Send] returns nil, done is called exactly once for every index of the batch; when it returns an
//     error, nothing of the batch was handed over and done is never called.
//   - Nothing is written to the carrier after the deadline of a message: such a message gets [Retryable].
//   - After [Connector.Drain] has returned, done is not called any more. What had no answer by then got [Unknown].
//   - A receipt is acknowledged to the carrier only after emit has returned nil; until then it comes again.
//
// What it does not promise: that a message is delivered once. A carrier that took a message and whose answer was lost
// has taken it; such a hand-over is [Unknown]. [Caps] say what ends that doubt: handing over again under the same key,
// where the carrier ignores a key that it has had; asking, where it can be asked; else only a receipt or a person, and
// the sender never hands the message over again.
package carrier
