// Package smsc is the server side of SMPP: a message centre that accepts binds and submit_sm, and sends receipts. It
// stores no messages. The [Line] behind it decides the fate of each message. A line fulfils the contract of package
// carrier: it is the simulator, whose ground truth then also covers SMPP, or a stub in a test.
//
// The message centre makes its own message ids: one number per unit, in the spelling that [Quirks] names. It hands a
// text of several parts to the line as one message, once all parts have come; the message names its number ([MetaRef]).
// Receipts of the line are for the message or for each part, and the message centre sends one for each unit. A part
// whose other parts never come is answered, but not handed over.
//
// A client puts the submission id of a message into a parameter of its choice (Config.ReferenceTLV). If a message has
// none, the message centre gives it a submission id, so that the ground truth knows it as well.
//
// Quirks are ways in which message centres differ from the standard and from each other: the spelling of ids, the form
// of receipts, limits, and the ways in which they fail.
package smsc
