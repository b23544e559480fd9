// Package store is the database of the control plane: tenants, keys, contacts, campaigns with their events, routes,
// senders, prices, the ledger of money, opt-outs, frozen audiences, and the outbox of changes to publish.
//
// It promises: every change of a row increments its version in the transaction that writes it, and rows that are newer
// than their published version are the outbox; a campaign changes state only as the table of package schemas allows,
// with an event for every change; money moves between accounts and no account falls below zero; no method returns
// another tenant's row: the id of such a row gives [schemas.ErrNotFound], like an unknown id.
//
// It does not promise that two processes see a change at the same instant ([Store.Changed] wakes only its own process),
// nor that a committed change is already published: [Store.WaitPublished] waits for that.
//
// A SQLite store is one file, with its log (-wal, -shm) while it is open, and empty lock files beside it. `VACUUM INTO`
// or sqlite3's .backup copy it while it is in use. After a restore, changes that were published after the backup are
// published again; readers ignore records that are not newer.
//
// SQLite (one writer connection, many readers, WAL) and Postgres run the same SQL; see db.go for the few differences.
//
//go:generate go tool -modfile=../../.tools/go.mod sqlc generate
package store
