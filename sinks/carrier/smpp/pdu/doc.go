// Package pdu reads and writes the protocol data units of SMPP 3.4 and 5.0, for both ends of a session: all that a
// client and a message centre say to each other to bind, to hand over, to deliver, to ask and to keep a session alive.
//
// A unit is a [Header] and a body. [Reader] cuts a stream into units and bounds their size; each body has a type with a
// decoding function and an Append method that writes the whole unit. Decoding takes the body as a string, and all its
// fields are substrings of it: one allocation per unit, and nothing that a later read overwrites. Writing does not
// allocate beyond the buffer.
//
// Reading is lenient where message centres are known to stray and nothing is lost by it (a missing final zero, texts
// longer than the standard allows, bytes after the last field), and strict where going on would be guessing.
package pdu
