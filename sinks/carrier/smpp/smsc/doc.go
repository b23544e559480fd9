// Package smsc is the other end of an SMPP session: a message centre that binds clients, takes submit_sm and sends
// receipts. It has no memory and no opinion of its own. What becomes of a message is decided by the [Line] behind it,
// which is anything that keeps the contract of package carrier: the simulator, whose one ground truth then covers SMPP
// too, or a stub in a test.
//
// Message ids are its own: a number per unit, in the spelling that [Quirks] says. A text of several parts is handed to
// the line once all parts have come, as one message, which names its number ([MetaRef]); its receipts come back for the
// message or for each part, and are sent for each unit. A part that stays alone is answered, and never handed over.
//
// A client says which submission a message is in a parameter of its own choosing (Config.ReferenceTLV). Messages of
// clients that say nothing get a submission id here, so that the ground truth knows them as well.
//
// Quirks are the ways in which message centres differ from the standard and from each other: spelling of ids, form of
// receipts, limits, and how they fail.
package smsc
