// Package sql holds the migrations of the control plane's store: numbered, forward only, embedded, one set for SQLite
// and Postgres.
//
// They are written in SQLite's words; package store turns the few that Postgres spells otherwise: INTEGER (64 bits
// here) into BIGINT, a key that numbers itself into an identity, BLOB into BYTEA, INSTR into STRPOS. Nothing else may
// differ: no dialect's own functions, no AUTOINCREMENT but in a key. Times are milliseconds since the Unix epoch, UTC,
// and 0 is never; money is micro-units.
//
// A migration that has been released is never edited. Rows that other processes must hear of carry version and
// published_version: what is newer than published is the outbox.
package sql

import "embed"

// Files are the migrations, in the form that goose reads.
//
//go:embed *.sql
var Files embed.FS
