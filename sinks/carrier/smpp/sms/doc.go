// Package sms encodes texts as short messages and decodes them, as SMPP carries them. It knows the alphabets of
// data_coding, and the ways to cut a long text into parts and to join the parts (user data headers, SAR parameters,
// message_payload).
//
// [Encoder] encodes, with one buffer for all messages of a sender. [Decode] decodes one part, and [Joiner] joins parts.
// The tables of the alphabets, and the rule where to cut a text, are in package schemas/text, which also counts
// segments for the price.
package sms
