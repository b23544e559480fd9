package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"

	tables "fanfare/schemas/clickhouse"
	migrations "fanfare/schemas/sql"
)

func postgresTongue() tongue {
	return tongue{
		flag: "--store", want: speaksPostgres, port: "Postgres' is 5432 by default", withTLS: "give the port of Postgres itself, which speaks TLS only when asked",
	}
}

// openPostgres connects as the store does and returns a connection once Postgres has let it in.
func openPostgres(ctx context.Context, cfg Config) (*pgx.Conn, *trouble) {
	pg, err := pgx.ParseConfig(cfg.Store)
	if err != nil { // which may hold the password
		return nil, wrong("the address cannot be read", "want --store postgres://USER:PASSWORD@HOST:5432/DATABASE")
	}
	addr := fmt.Sprintf("%s:%d", pg.Host, pg.Port)
	if !strings.HasPrefix(pg.Host, "/") { // else it is a socket
		if t := dialTrouble(ctx, "--store", addr); t != nil && len(pg.Fallbacks) == 0 {
			return nil, t
		}
	}
	var conn *pgx.Conn
	err = postgresTongue().try(ctx, addr, func(ctx context.Context) (err error) {
		conn, err = pgx.ConnectConfig(ctx, pg)
		return err
	})
	if err != nil {
		return nil, postgresTrouble(ctx, pg, addr, err)
	}
	return conn, nil
}

// postgresTrouble puts an error of connecting into words.
func postgresTrouble(ctx context.Context, pg *pgx.ConnConfig, addr string, err error) *trouble {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch refused.Code {
		case "28P01":
			return wrong(fmt.Sprintf("%s refuses the password of user %q", addr, pg.User), "correct it in --store postgres://USER:PASSWORD@"+addr+"/"+pg.Database)
		case "28000":
			return wrong(fmt.Sprintf("%s does not let us in (%s)", addr, oneLine(refused.Message)), fmt.Sprintf("createuser %s if it is not there, else add a line for it to pg_hba.conf; where that wants TLS, add ?sslmode=require to --store", pg.User))
		case "3D000":
			return wrong(fmt.Sprintf("there is no database %q at %s", pg.Database, addr), fmt.Sprintf("createdb -h %s -p %d %s, or correct the name after --store", pg.Host, pg.Port, pg.Database))
		case "53300":
			return wrong(addr+" has no connection left", "raise max_connections, or put a pooler between")
		case "57P03":
			return passing(addr+" is starting up or shutting down", "wait, and start again")
		}
		return wrong(fmt.Sprintf("%s refuses us (%s)", addr, oneLine(refused.Message)), "mend what it says; see the log of Postgres")
	}
	if pg.TLSConfig != nil && strings.Contains(pg.ConnString(), "sslmode=") {
		if t := tlsTrouble(addr, "add ?sslmode=disable to --store", err); t != nil {
			return t
		}
	}
	if strings.HasPrefix(pg.Host, "/") {
		return wrong(fmt.Sprintf("cannot connect through %s (%s)", pg.Host, oneLine(err.Error())), "start Postgres, or correct the address after --store")
	}
	if t := dialTrouble(ctx, "--store", addr); t != nil {
		return t
	}
	if pg.TLSConfig != nil && string(askWithin(ctx, addr, sslRequest)) == "N" {
		return wrong(addr+" does not speak TLS", "add ?sslmode=disable to --store")
	}
	if t := postgresTongue().trouble(ctx, addr); t != nil {
		return t
	}
	return wrong(fmt.Sprintf("%s does not let us in (%s)", addr, oneLine(err.Error())), "where it does not know TLS add ?sslmode=disable to --store; else see the log of Postgres")
}

// examineStore looks at the control plane's memory.
func examineStore(ctx context.Context, cfg Config) []finding {
	if !cfg.needs(needStore) && cfg.IDKey != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	if cfg.Store == "" {
		return examineSQLite(ctx, cfg, "store", "store.db", migrations.Files)
	}
	conn, t := openPostgres(ctx, cfg)
	if t != nil {
		return []finding{bad("store", t.found, t.fix)}
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	all, err := examinePostgres(ctx, cfg, conn)
	if err != nil {
		all = append(all, bad("store", fmt.Sprintf("Postgres does not answer a question (%v)", err), "see the log of Postgres"))
	}
	return all
}

// leastPostgres is the first version that has identity columns.
const leastPostgres = 10

// connectionsOfStore is how many connections one process may open.
const connectionsOfStore = 16

func examinePostgres(ctx context.Context, cfg Config, conn *pgx.Conn) ([]finding, error) {
	schema := cfg.schemaName()
	var about struct {
		version, database, user        string
		number, most, used             int
		readOnly                       string
		replica, exists, create, usage bool
	}
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('server_version_num')::int, current_database(), current_user,
		current_setting('max_connections')::int, (SELECT count(*) FROM pg_stat_activity)::int, pg_is_in_recovery(), current_setting('transaction_read_only'),
		EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)`, schema).
		Scan(&about.version, &about.number, &about.database, &about.user, &about.most, &about.used, &about.replica, &about.readOnly, &about.exists)
	if err != nil {
		return nil, err
	}
	all := []finding{well("store", fmt.Sprintf("Postgres %s at %s:%d, database %s, schema %s", before(about.version, " "), conn.Config().Host, conn.Config().Port, about.database, schema))}
	if about.number < leastPostgres*10_000 {
		all = append(all, bad("store", "Postgres is of version "+about.version, fmt.Sprintf("use Postgres %d or newer: identity columns are relied on", leastPostgres)))
	}
	switch {
	case about.replica:
		all = append(all, bad("store", "this Postgres is a standby: nothing can be written", "give the address of the primary after --store"))
	case about.readOnly == "on":
		all = append(all, bad("store", "transactions are read-only", fmt.Sprintf("ALTER ROLE %s RESET default_transaction_read_only, or of the database", about.user)))
	}
	if left := about.most - about.used; left < connectionsOfStore {
		all = append(all, note("store", fmt.Sprintf("%d of %d connections are taken; each process opens up to %d", about.used, about.most, connectionsOfStore), "raise max_connections"))
	}
	off, err := clockOf(func() (at time.Time, err error) {
		err = conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&at)
		return
	})
	if err != nil {
		return all, err
	}
	all = append(all, clockFinding("store", off)...)
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
	var have *int64
	err = conn.QueryRow(ctx, "SELECT max(version_id) FROM "+pgx.Identifier{schema, "goose_db_version"}.Sanitize()).Scan(&have)
	if missing, ok := errors.AsType[*pgconn.PgError](err); ok && missing.Code == "42P01" {
		err = nil // there is no such table yet
	}
	if err != nil {
		return all, err
	}
	pending := schemaFinding("store", value(have), migrations.Files)
	all = append(all, pending)
	if pending.Level != levelOK && !about.create {
		all = append(all, bad("store", fmt.Sprintf("user %s may not create tables in schema %s", about.user, schema), fmt.Sprintf("ALTER SCHEMA %s OWNER TO %s", schema, about.user)))
	}
	return all, nil
}

func value(v *int64) int64 {
	if v == nil {
		return 0
	}
	return *v
}

// examineSQLite looks at a database under --data without making one.
func examineSQLite(ctx context.Context, cfg Config, service, file string, files fs.ReadDirFS) []finding {
	path := filepath.Join(cfg.Data, file)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return []finding{well(service, "SQLite, made at the first start in "+path)}
	}
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(2000)")
	if err != nil {
		return []finding{bad(service, fmt.Sprintf("SQLite %s cannot be opened (%v)", path, err), "see who owns the file")}
	}
	defer db.Close()
	var have, tables int64
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name = 'goose_db_version'").Scan(&tables)
	if err == nil && tables > 0 {
		err = db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version").Scan(&have)
	}
	if err != nil {
		return []finding{bad(service, fmt.Sprintf("SQLite %s cannot be read (%v)", path, err), "bring back a copy of it (see deploy/README.md), or take another --data")}
	}
	if files == nil {
		return []finding{well(service, "SQLite "+path)}
	}
	f := schemaFinding(service, have, files)
	f.Found = "SQLite " + path + ": " + f.Found
	return []finding{f}
}

// schemaFinding compares the newest migration applied with the newest one that this program knows.
func schemaFinding(service string, have int64, files fs.ReadDirFS) finding {
	want, err := newest(files)
	switch {
	case err != nil:
		return bad(service, err.Error(), "build fanfare anew")
	case have == 0:
		return note(service, "there are no tables yet", "fanfare serve creates them, or fanfare migrate")
	case have < want:
		return bad(service, fmt.Sprintf("tables are at version %d, this program wants %d", have, want), "run fanfare migrate with the same flags (fanfare serve does it when it starts)")
	case have > want:
		return bad(service, fmt.Sprintf("tables are at version %d, this program knows %d", have, want), "run the newer fanfare that made them")
	default:
		return well(service, fmt.Sprintf("tables are at version %d, as they must be", have))
	}
}

// newest is the version of the newest migration.
func newest(files fs.ReadDirFS) (int64, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return 0, fmt.Errorf("migrations: %w", err)
	}
	var versions []int64
	for _, e := range entries {
		if v, err := goose.NumericComponent(e.Name()); err == nil {
			versions = append(versions, v)
		}
	}
	if len(versions) == 0 {
		return 0, errors.New("there are no migrations in this program")
	}
	return slices.Max(versions), nil
}

var _ fs.ReadDirFS = tables.Files
