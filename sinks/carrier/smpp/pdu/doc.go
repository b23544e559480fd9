// Package pdu reads and writes the protocol data units of SMPP 3.4 and 5.0, for both ends of a session: the units with
// which a client and a message centre bind, submit, deliver, query and cancel messages, and keep a session alive.
//
// A unit is a [Header] and a body. [Reader] cuts a stream into units and limits their size. Each body has a type with a
// decoding function, and an Append method that writes the whole unit. A decoding function takes the body as a string,
// and all its fields are substrings of it. So a unit needs one allocation, and later reads do not overwrite it. Writing
// allocates nothing but the buffer.
//
// Reading accepts known faults of message centres that lose no information: a missing final zero, texts longer than the
// standard allows, bytes after the last field. Where the reader would have to guess, it returns an error.
package pdu
