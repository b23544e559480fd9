package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"fanfare/cmd/fanfare/services"
	tables "fanfare/schemas/clickhouse"
)

// Error codes of ClickHouse.
const (
	codeUnknownTable    = 60
	codeUnknownDatabase = 81
	codeAccessDenied    = 497
)

// examineStatistics looks at the database of the statistics.
func examineStatistics(ctx context.Context, cfg Config) []Finding {
	if !cfg.Uses.Statistics {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*services.Timeout)
	defer cancel()
	if cfg.ClickHouse == "" {
		return examineSQLite(ctx, cfg, "statistics", "analytics.db", nil)
	}
	conn, p := services.OpenClickHouse(ctx, cfg.ClickHouse)
	if p != nil {
		return []Finding{problem("clickhouse", p)}
	}
	defer conn.Close()
	all, err := examineClickHouse(ctx, cfg, conn)
	if err != nil {
		all = append(all, bad("clickhouse", fmt.Sprintf("a query failed (%v)", err), "see the log of ClickHouse"))
	}
	return all
}

// leastFreeClickHouse holds about ten million events.
const leastFreeClickHouse = 1 << 30

func examineClickHouse(ctx context.Context, cfg Config, conn driver.Conn) ([]Finding, error) {
	database := cfg.Schema
	var version, user string
	if err := conn.QueryRow(ctx, "SELECT version(), currentUser()").Scan(&version, &user); err != nil {
		return nil, err
	}
	all := []Finding{ok("clickhouse", fmt.Sprintf("version %s at %s, database %s", version, before(strings.TrimPrefix(services.WithoutPassword(cfg.ClickHouse), "clickhouse://"), "?"), database))}
	var readonly string
	if err := conn.QueryRow(ctx, "SELECT value FROM system.settings WHERE name = 'readonly'").Scan(&readonly); err == nil && readonly != "0" {
		return append(all, bad("clickhouse", fmt.Sprintf("user %s is read-only (readonly = %s)", user, readonly), "give the user a profile with readonly = 0")), nil
	}
	// now64(3) has milliseconds and is cut off, so it may be up to a millisecond before we asked.
	offset, err := clockOffset(func() (at time.Time, err error) { err = conn.QueryRow(ctx, "SELECT now64(3)").Scan(&at); return })
	if err != nil {
		return all, err
	}
	all = append(all, clockFinding("clickhouse", offset)...)
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

// clickHouseRights checks the rights that migrations, inserts and queries need.
func clickHouseRights(ctx context.Context, conn driver.Conn, database, user string) ([]Finding, error) {
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
		case errors.As(err, &refused): // this version has no CHECK GRANT
			return []Finding{note("clickhouse", "the rights of user "+user+" cannot be checked ("+services.OneLine(refused.Message)+")", "")}, nil
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
	return []Finding{bad("clickhouse", fmt.Sprintf("user %s may not %s on database %s", user, strings.Join(lack, ", "), database),
		fmt.Sprintf("GRANT %s ON %s.* TO %s", strings.Join(needs, ", "), database, user))}, nil
}

// clickHouseDisks names the disks that are nearly full.
func clickHouseDisks(ctx context.Context, conn driver.Conn) (all []Finding) {
	rows, err := conn.Query(ctx, "SELECT name, unreserved_space FROM system.disks WHERE is_read_only = 0 AND is_remote = 0")
	if err != nil {
		return nil // the user may not read system.disks
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var free uint64
		if rows.Scan(&name, &free) == nil && free < leastFreeClickHouse {
			all = append(all, bad("clickhouse", fmt.Sprintf("disk %s has %d MB free", name, free>>20), fmt.Sprintf("free at least %d MB: when it is full, statistics stop", leastFreeClickHouse>>20)))
		}
	}
	return all
}
