package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	tables "fanfare/schemas/clickhouse"
)

func clickHouseTongue(opts *chgo.Options) tongue {
	return tongue{
		flag: "--clickhouse", want: speaksClickHouse, secure: opts.TLS != nil, port: "the native one is 9000 by default, 9440 with TLS; 8123 is for HTTP",
		withTLS: "add ?secure=true to --clickhouse", without: "leave secure=true out of --clickhouse",
	}
}

// Codes of ClickHouse.
const (
	codeUnknownTable    = 60
	codeUnknownDatabase = 81
	codeUnknownUser     = 192
	codeReadOnly        = 164
	codeAccessDenied    = 497
	codeAuthentication  = 516
)

// openClickHouse connects as the roles do, without a database, and returns a connection once ClickHouse has let it in.
func openClickHouse(ctx context.Context, cfg Config) (driver.Conn, *trouble) {
	opts, err := chgo.ParseDSN(cfg.ClickHouse)
	if err != nil || len(opts.Addr) == 0 || opts.Addr[0] == "" {
		return nil, wrong("the address cannot be read", "want --clickhouse clickhouse://USER:PASSWORD@HOST:9000/DATABASE")
	}
	reachable, t := firstReachable(ctx, "--clickhouse", opts.Addr)
	if t != nil {
		return nil, t
	}
	opts.Auth.Database = ""
	opts.DialTimeout, opts.ReadTimeout = patience, 2*patience
	conn, err := chgo.Open(opts)
	if err == nil {
		if err = clickHouseTongue(opts).try(ctx, reachable, conn.Ping); err == nil {
			return conn, nil
		}
		_ = conn.Close()
	}
	return nil, clickHouseTrouble(ctx, reachable, opts, err)
}

// clickHouseTrouble puts an error of connecting into words.
func clickHouseTrouble(ctx context.Context, addr string, opts *chgo.Options, err error) *trouble {
	if refused, ok := errors.AsType[*chgo.Exception](err); ok {
		switch refused.Code {
		case codeAuthentication, codeUnknownUser:
			return wrong(fmt.Sprintf("%s refuses user %q or the password", addr, opts.Auth.Username), "correct them in --clickhouse clickhouse://USER:PASSWORD@"+addr)
		default:
			return wrong(fmt.Sprintf("%s refuses us (%s)", addr, oneLine(refused.Message)), "mend what it says; see the log of ClickHouse")
		}
	}
	if opts.TLS != nil {
		if t := tlsTrouble(addr, clickHouseTongue(opts).without, err); t != nil {
			return t
		}
	}
	if t := clickHouseTongue(opts).trouble(ctx, addr); t != nil {
		return t
	}
	return passing(fmt.Sprintf("%s does not answer as it should (%s)", addr, oneLine(err.Error())), "see the log of ClickHouse")
}

// examineAnalytics looks at where statistics are kept.
func examineAnalytics(ctx context.Context, cfg Config) []finding {
	if !cfg.needs(needAnalytics) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	if cfg.ClickHouse == "" {
		return examineSQLite(ctx, cfg, "statistics", "analytics.db", nil)
	}
	conn, t := openClickHouse(ctx, cfg)
	if t != nil {
		return []finding{bad("clickhouse", t.found, t.fix)}
	}
	defer conn.Close()
	all, err := examineClickHouse(ctx, cfg, conn)
	if err != nil {
		all = append(all, bad("clickhouse", fmt.Sprintf("does not answer a question (%v)", err), "see the log of ClickHouse"))
	}
	return all
}

// leastClickHouse is the first version in which the token of an insert reaches the tables behind views: without that an insert
// that is repeated counts twice there.
var leastClickHouse = [2]int{24, 8}

// leastFreeClickHouse is room for some ten million events.
const leastFreeClickHouse = 1 << 30

func examineClickHouse(ctx context.Context, cfg Config, conn driver.Conn) ([]finding, error) {
	database := cfg.schemaName()
	var version, user string
	if err := conn.QueryRow(ctx, "SELECT version(), currentUser()").Scan(&version, &user); err != nil {
		return nil, err
	}
	all := []finding{well("clickhouse", fmt.Sprintf("version %s at %s, database %s", version, before(strings.TrimPrefix(withoutPassword(cfg.ClickHouse), "clickhouse://"), "?"), database))}
	if major, minor := twoNumbers(version); major > 0 && (major < leastClickHouse[0] || major == leastClickHouse[0] && minor < leastClickHouse[1]) {
		all = append(all, bad("clickhouse", "it is of version "+version, fmt.Sprintf("use ClickHouse %d.%d or newer: an insert that is repeated counts twice in older ones", leastClickHouse[0], leastClickHouse[1])))
	}
	var readonly string
	if err := conn.QueryRow(ctx, "SELECT value FROM system.settings WHERE name = 'readonly'").Scan(&readonly); err == nil && readonly != "0" {
		return append(all, bad("clickhouse", fmt.Sprintf("user %s is read-only (readonly = %s)", user, readonly), "give the user a profile with readonly = 0")), nil
	}
	// The clock has milliseconds and is read within the query: it may be up to one earlier than we asked.
	off, err := clockOf(func() (at time.Time, err error) { err = conn.QueryRow(ctx, "SELECT now64(3)").Scan(&at); return })
	if err != nil {
		return all, err
	}
	all = append(all, clockFinding("clickhouse", off)...)
	all = append(all, clickHouseDisks(ctx, conn)...)

	rights, err := clickHouseRights(ctx, conn, database, user)
	if err != nil || len(rights) > 0 {
		return append(all, rights...), err
	}
	var have int64
	err = conn.QueryRow(ctx, "SELECT max(version_id) FROM `"+database+"`.goose_db_version").Scan(&have)
	var refused *chgo.Exception
	if errors.As(err, &refused) && (refused.Code == codeUnknownTable || refused.Code == codeUnknownDatabase) {
		err = nil
	}
	if err != nil {
		return all, err
	}
	return append(all, schemaFinding("clickhouse", have, tables.Files)), nil
}

// clickHouseRights asks for what migrations, inserts and questions need.
func clickHouseRights(ctx context.Context, conn driver.Conn, database, user string) ([]finding, error) {
	var exists uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM system.databases WHERE name = {db:String}", chgo.Named("db", database)).Scan(&exists); err != nil {
		return nil, err
	}
	needs := []string{"SELECT", "INSERT", "CREATE TABLE", "CREATE VIEW", "ALTER TABLE"}
	if exists == 0 {
		needs = append(needs, "CREATE DATABASE")
	}
	var lack []string
	for _, right := range needs {
		var ok uint8
		err := conn.QueryRow(ctx, "CHECK GRANT "+right+" ON `"+database+"`.*").Scan(&ok)
		var refused *chgo.Exception
		switch {
		case errors.As(err, &refused) && refused.Code == codeAccessDenied:
			ok = 0
		case errors.As(err, &refused): // a version that does not know the question
			return []finding{note("clickhouse", "the rights of user "+user+" cannot be asked for ("+oneLine(refused.Message)+")", "")}, nil
		case err != nil:
			return nil, err
		}
		if ok == 0 {
			lack = append(lack, right)
		}
	}
	if len(lack) == 0 {
		return nil, nil
	}
	return []finding{bad("clickhouse", fmt.Sprintf("user %s may not %s on database %s", user, strings.Join(lack, ", "), database),
		fmt.Sprintf("GRANT %s ON %s.* TO %s", strings.Join(needs, ", "), database, user))}, nil
}

// clickHouseDisks says which are full.
func clickHouseDisks(ctx context.Context, conn driver.Conn) (all []finding) {
	rows, err := conn.Query(ctx, "SELECT name, unreserved_space FROM system.disks WHERE is_read_only = 0 AND is_remote = 0")
	if err != nil {
		return nil // it is not ours to see
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var free uint64
		if rows.Scan(&name, &free) == nil && free < leastFreeClickHouse {
			all = append(all, bad("clickhouse", fmt.Sprintf("disk %s has %d MB free", name, free>>20), fmt.Sprintf("free at least %d MB: when it is full, statistics stand still", leastFreeClickHouse>>20)))
		}
	}
	return all
}

// twoNumbers reads the first two of a version.
func twoNumbers(version string) (major, minor int) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return 0, 0
	}
	major, _ = strconv.Atoi(parts[0])
	minor, _ = strconv.Atoi(parts[1])
	return major, minor
}
