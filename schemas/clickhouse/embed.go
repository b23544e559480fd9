// Package clickhouse holds the tables of analytics in ClickHouse, as numbered migrations: forward only, each of them safe to run
// again. Names are unqualified: the connection chooses the database.
package clickhouse

import "embed"

// Files are the migrations, in the form that goose reads.
//
//go:embed *.sql
var Files embed.FS
