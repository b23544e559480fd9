// Package postgrestest is a Postgres for tests that fails when a test wants it to: it refuses connections, answers
// statements and commits with an error, cuts connections, or does not answer. It speaks the protocol of Postgres to its
// clients. Behind it is either a SQLite file, which understands nearly all statements of package store, so that tests
// need nothing installed, or a real Postgres.
package postgrestest
