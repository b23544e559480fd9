// Package store is the control plane's memory: tenants, keys, contacts, campaigns with their events, routes, senders, prices,
// the ledger of money, opt-outs, frozen audiences, and what of all this is still to be published.
//
// It promises: every change of a row bumps its version in the transaction that writes it, and what is newer than its
// published version is the outbox; a campaign moves only along the table of package schemas, with an event beside every
// move; money moves between accounts and none of them falls below zero; no method answers with another tenant's row, whose
// id is [schemas.ErrNotFound] like any unknown one.
//
// It does not promise that two processes see a change at the same instant ([Store.Changed] wakes the own process only), nor
// that what was committed is published: [Store.WaitPublished] waits for that.
//
// A SQLite store is one file, its log (-wal, -shm) while it is open, and lock files beside it that hold nothing: `VACUUM INTO`
// or sqlite3's .backup copy it while it is in use. What a backup does not know was published, is published again: readers
// ignore what is not newer.
//
// SQLite (one writer connection, many readers, WAL) and Postgres run the same SQL; see db.go for the little that differs.
//
//go:generate go tool -modfile=../../.tools/go.mod sqlc generate
package store
