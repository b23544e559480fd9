// Package clickhouse holds the ClickHouse tables of the analytics store, as numbered migrations: forward only, and each
// may be executed again. Table names are unqualified, because the connection selects the database.
package clickhouse

import "embed"

// Files are the migrations, in the form that goose reads.
//
//go:embed *.sql
var Files embed.FS
