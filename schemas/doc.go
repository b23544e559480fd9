// Package schemas holds every shape that crosses a process: the records of the topics (protobuf, in fanfare/v1), the topics
// themselves, the campaign state machine, the kinds and sub-statuses of delivery events with the precedence that joins them,
// and the ids. It imports nothing else of Fanfare, so that anything may import it.
//
// What is written here is a contract. A number is never given another meaning, a name is never reused, and a record written
// by any released version decodes for ever: golden records and a breaking-change check hold that.
//
//go:generate go run ./enumgen
package schemas
