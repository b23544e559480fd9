// Package schemas has everything that processes exchange: the records of the topics (protobuf, in fanfare/v1), the
// topics themselves, the campaign state machine, the kinds and sub-statuses of delivery events with their precedence,
// and the ids. It imports no other package of Fanfare, so that every package may import it.
//
// The definitions here are a contract. A number never gets another meaning, a name is never reused, and a record of any
// released version can always be decoded. Golden records and a check for breaking changes verify this.
//
//go:generate go run ./enumgen
package schemas
