package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"fanfare/cmd/fanfare/services"
	migrations "fanfare/schemas/sql"
)

// examineStore looks at the database of the control plane.
func examineStore(ctx context.Context, cfg Config) []Finding {
	if !cfg.Uses.Store {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*services.Timeout)
	defer cancel()
	if cfg.Postgres == "" {
		return examineSQLite(ctx, cfg, "store", "store.db", migrations.Files)
	}
	conn, p := services.OpenPostgres(ctx, cfg.Postgres)
	if p != nil {
		return []Finding{problem("store", p)}
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	all, err := examinePostgres(ctx, cfg, conn)
	if err != nil {
		all = append(all, bad("store", fmt.Sprintf("a query failed (%v)", err), "see the log of Postgres"))
	}
	return all
}

// storeConnections is how many connections one process opens at most.
const storeConnections = 16

func examinePostgres(ctx context.Context, cfg Config, conn *pgx.Conn) ([]Finding, error) {
	schema := cfg.Schema
	var about struct {
		version, database, user string
		most, used              int
		readOnly                string
		exists, create, usage   bool
	}
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version'), current_database(), current_user,
		current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_activity)::int, current_setting('transaction_read_only'),
		EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, schema).
		Scan(&about.version, &about.database, &about.user, &about.most, &about.used, &about.readOnly, &about.exists)
	if err != nil {
		return nil, err
	}
	all := []Finding{ok("store", fmt.Sprintf("Postgres %s at %s:%d, database %s, schema %s", before(about.version, " "), conn.Config().Host, conn.Config().Port, about.database, schema))}
	if about.readOnly == "on" {
		all = append(all, bad("store", "transactions are read-only", fmt.Sprintf("ALTER ROLE %s RESET default_transaction_read_only, or of the database", about.user)))
	}
	if left := about.most - about.used; left < storeConnections {
		all = append(all, note("store", fmt.Sprintf("%d of %d connections are taken; each process opens up to %d", about.used, about.most, storeConnections), "raise max_connections"))
	}
	offset, err := clockOffset(func() (at time.Time, err error) {
		err = conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&at)
		return
	})
	if err != nil {
		return all, err
	}
	all = append(all, clockFinding("store", offset)...)
	if !about.exists {
		if err := conn.QueryRow(ctx, "SELECT has_database_privilege(current_database(), 'CREATE')").Scan(&about.create); err != nil {
			return all, err
		}
		if !about.create {
			return append(all, bad("store", fmt.Sprintf("schema %s is not there, and user %s may not create it", schema, about.user),
				fmt.Sprintf("CREATE SCHEMA %s AUTHORIZATION %s, or GRANT CREATE ON DATABASE %s TO %s", schema, about.user, about.database, about.user))), nil
		}
		return append(all, note("store", "there are no tables yet", "fanfare serve creates them, or fanfare migrate")), nil
	}
	if err := conn.QueryRow(ctx, "SELECT has_schema_privilege($1, 'USAGE'), has_schema_privilege($1, 'CREATE')", schema).Scan(&about.usage, &about.create); err != nil {
		return all, err
	}
	if !about.usage {
		return append(all, bad("store", fmt.Sprintf("user %s may not use schema %s", about.user, schema), fmt.Sprintf("ALTER SCHEMA %s OWNER TO %s", schema, about.user))), nil
	}
	rows, err := conn.Query(ctx, `SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
		AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')) ORDER BY 1`, schema)
	if err != nil {
		return all, err
	}
	forbidden, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return all, err
	}
	if len(forbidden) > 0 {
		return append(all, bad("store", fmt.Sprintf("user %s may not read and write %s", about.user, few(forbidden)),
			fmt.Sprintf("GRANT ALL ON ALL TABLES IN SCHEMA %s TO %s; GRANT ALL ON ALL SEQUENCES IN SCHEMA %s TO %s", schema, about.user, schema, about.user))), nil
	}
	var have int64
	err = conn.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+pgx.Identifier{schema, "goose_db_version"}.Sanitize()).Scan(&have)
	if missing, ok := errors.AsType[*pgconn.PgError](err); ok && missing.Code == "42P01" {
		err = nil // there are no tables yet
	}
	if err != nil {
		return all, err
	}
	pending := schemaFinding("store", have, migrations.Files)
	all = append(all, pending)
	if pending.Level != OK && !about.create {
		all = append(all, bad("store", fmt.Sprintf("user %s may not create tables in schema %s", about.user, schema), fmt.Sprintf("ALTER SCHEMA %s OWNER TO %s", schema, about.user)))
	}
	return all, nil
}
