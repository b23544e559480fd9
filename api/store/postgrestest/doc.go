// Package postgrestest is a Postgres for tests that fails when it is told to: it refuses connections, answers
// statements and commits with an error, cuts connections, and keeps silent. It speaks the protocol of Postgres to its
// clients. Behind it is either a SQLite file, whose words are nearly those of package store, so that tests need nothing
// installed, or a real Postgres.
package postgrestest
