// Package sql holds the migrations of the control plane's store: numbered, forward only, embedded, one set for SQLite
// and Postgres.
//
// They are written in the SQL of SQLite; package store translates the few words that Postgres spells differently:
// INTEGER (64 bits here) into BIGINT, a key that numbers itself into an identity, BLOB into BYTEA, INSTR into STRPOS.
// Nothing else may differ: a migration uses no function of one dialect only, and AUTOINCREMENT only in a key. Times are
// milliseconds since the Unix epoch, UTC; 0 means never; money is micro-units.
//
// A migration that has been released is never edited. Rows that must be published to other processes have the columns
// version and published_version: the outbox is the rows whose version is above published_version.
package sql

import "embed"

// Files are the migrations, in the form that goose reads.
//
//go:embed *.sql
var Files embed.FS
