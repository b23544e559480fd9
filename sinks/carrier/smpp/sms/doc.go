// Package sms makes short messages of a text and a text of short messages, as SMPP carries them: the alphabets behind
// data_coding, and the ways in which a long text is cut into parts and joined again (user data headers, SAR parameters,
// message_payload).
//
// [Encoder] writes, with one buffer for all messages of a sender. [Decode] reads one part, and [Joiner] joins parts.
// The tables of the alphabets and the rule where a text is cut are those of package schemas/text, which counted and
// priced the segments.
package sms
