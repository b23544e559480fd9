package services

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var expectedPostgres = expected{
	flag: "--store", protocol: protocolPostgres, port: "Postgres' is 5432 by default", addTLS: "give the port of Postgres itself, which speaks TLS only when asked",
}

// OpenPostgres connects as the store does and returns a connection once Postgres has let it in.
func OpenPostgres(ctx context.Context, dsn string) (*pgx.Conn, *Problem) {
	pg, err := pgx.ParseConfig(dsn)
	if err != nil { // the text of err may hold the password
		return nil, Permanent("the address cannot be read", "want --store postgres://USER:PASSWORD@HOST:5432/DATABASE")
	}
	addr := fmt.Sprintf("%s:%d", pg.Host, pg.Port)
	if !strings.HasPrefix(pg.Host, "/") { // a path is a Unix socket
		if p := dial(ctx, "--store", addr); p != nil && len(pg.Fallbacks) == 0 {
			return nil, p
		}
	}
	var conn *pgx.Conn
	err = expectedPostgres.call(ctx, addr, func(ctx context.Context) (err error) {
		conn, err = pgx.ConnectConfig(ctx, pg)
		return err
	})
	if err != nil {
		return nil, postgresProblem(ctx, pg, addr, err)
	}
	if p := postgresNotUsable(ctx, conn, addr); p != nil {
		_ = conn.Close(context.WithoutCancel(ctx))
		return nil, p
	}
	return conn, nil
}

// leastPostgres is the first version with identity columns.
const leastPostgres = 10

// postgresNotUsable says that a Postgres which lets us in cannot be used: it is too old, or a standby, as it is in a
// failover.
func postgresNotUsable(ctx context.Context, conn *pgx.Conn, addr string) *Problem {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	version := conn.PgConn().ParameterStatus("server_version")
	first, _, _ := strings.Cut(version, ".")
	if major, err := strconv.Atoi(strings.TrimFunc(first, func(r rune) bool { return r < '0' || r > '9' })); err == nil && major < leastPostgres {
		return Permanent(fmt.Sprintf("%s is Postgres version %s", addr, version), fmt.Sprintf("use Postgres %d or newer: the tables use identity columns", leastPostgres))
	}
	var standby bool
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()", pgx.QueryExecModeSimpleProtocol).Scan(&standby); err != nil {
		return transient(fmt.Sprintf("%s does not answer as it should (%s)", addr, reason(err)), "see the log of Postgres")
	}
	if standby {
		return transient(addr+" is a standby and read-only", "give the address of the primary after --store")
	}
	return nil
}

// SQLSTATE codes, from appendix A of the manual of Postgres.
const (
	pgInvalidPassword = "28P01"
	pgNotAuthorized   = "28000"
	pgNoDatabase      = "3D000"
	pgTooManyClients  = "53300"
	pgCannotConnect   = "57P03"
)

// pgTransient are the classes of codes, and single codes, of conditions that pass: connections that break,
// serialization failures and deadlocks, missing resources (connections, memory, disk), a lock that another session
// holds, an operator's intervention (a shutdown or a start), errors of the system, and a transaction on a server that
// has just become a standby.
var pgTransient = []string{"08", "40", "53", "55P03", "57", "58", "25006"}

// PostgresMayPass reports whether an error of Postgres may go away while one waits.
func PostgresMayPass(err error) bool {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return slices.ContainsFunc(pgTransient, func(class string) bool { return strings.HasPrefix(refused.Code, class) })
	}
	return pgconn.Timeout(err) || pgconn.SafeToRetry(err) || connectionBroke(err)
}

// postgresProblem describes an error of connecting.
func postgresProblem(ctx context.Context, pg *pgx.ConnConfig, addr string, err error) *Problem {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch refused.Code {
		case pgInvalidPassword:
			return Permanent(fmt.Sprintf("%s refuses the password of user %q", addr, pg.User), "correct it in --store postgres://USER:PASSWORD@"+addr+"/"+pg.Database)
		case pgNotAuthorized:
			return Permanent(fmt.Sprintf("%s does not let us in (%s)", addr, OneLine(refused.Message)),
				fmt.Sprintf("createuser %s if it is not there, else add a line for it to pg_hba.conf; where that wants TLS, add ?sslmode=require to --store", pg.User))
		case pgNoDatabase:
			return Permanent(fmt.Sprintf("there is no database %q at %s", pg.Database, addr),
				fmt.Sprintf("createdb -h %s -p %d %s, or correct the name after --store", pg.Host, pg.Port, pg.Database))
		case pgTooManyClients:
			return transient(addr+" has no connection left", "raise max_connections, or put a pooler between")
		case pgCannotConnect:
			return transient(addr+" is starting up or shutting down", "wait, and start again")
		}
		p := Permanent(fmt.Sprintf("%s refuses us (%s)", addr, OneLine(refused.Message)), "do what it says; see the log of Postgres")
		if PostgresMayPass(err) {
			p.Wait = WaitLong
		}
		return p
	}
	if pg.TLSConfig != nil && strings.Contains(pg.ConnString(), "sslmode=") {
		if p := tlsProblem(addr, "add ?sslmode=disable to --store", err); p != nil {
			return p
		}
	}
	if strings.HasPrefix(pg.Host, "/") {
		return transient(fmt.Sprintf("cannot connect through %s (%s)", pg.Host, reason(err)), "start Postgres, or correct the address after --store")
	}
	if p := dial(ctx, "--store", addr); p != nil {
		return p
	}
	if pg.TLSConfig != nil && string(askWithin(ctx, addr, sslRequest)) == "N" {
		return Permanent(addr+" does not speak TLS", "add ?sslmode=disable to --store")
	}
	if p := expectedPostgres.problem(ctx, addr); p != nil {
		return p
	}
	return doubtful(fmt.Sprintf("%s does not let us in (%s)", addr, reason(err)), "if it has no TLS, add ?sslmode=disable to --store; else see the log of Postgres")
}
