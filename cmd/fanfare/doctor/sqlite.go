package doctor

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pressly/goose/v3"
)

// examineSQLite looks at a database under --data without creating one.
func examineSQLite(ctx context.Context, cfg Config, service, file string, migrations fs.ReadDirFS) []Finding {
	path := filepath.Join(cfg.Data, file)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return []Finding{ok(service, "SQLite, made at the first start in "+path)}
	}
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(2000)")
	if err != nil {
		return []Finding{bad(service, fmt.Sprintf("SQLite %s cannot be opened (%v)", path, err), "see who owns the file")}
	}
	defer db.Close()
	var have, tables int64
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema WHERE name = 'goose_db_version'").Scan(&tables)
	if err == nil && tables > 0 {
		err = db.QueryRowContext(ctx, "SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version").Scan(&have)
	}
	if err != nil {
		return []Finding{bad(service, fmt.Sprintf("SQLite %s cannot be read (%v)", path, err), "restore it from a copy (see deploy/README.md), or use another --data")}
	}
	if migrations == nil {
		return []Finding{ok(service, "SQLite "+path)}
	}
	f := schemaFinding(service, have, migrations)
	f.Found = "SQLite " + path + ": " + f.Found
	return []Finding{f}
}

// schemaFinding compares the newest migration that was applied with the newest one of this program.
func schemaFinding(service string, have int64, migrations fs.ReadDirFS) Finding {
	want, err := newest(migrations)
	switch {
	case err != nil:
		return bad(service, err.Error(), "build fanfare again")
	case have == 0:
		return note(service, "there are no tables yet", "fanfare serve creates them, or fanfare migrate")
	case have < want:
		return bad(service, fmt.Sprintf("tables are at version %d, this program wants %d", have, want), "run fanfare migrate with the same flags (fanfare serve does it when it starts)")
	case have > want:
		return bad(service, fmt.Sprintf("tables are at version %d, this program knows %d", have, want), "run the newer fanfare that made them")
	default:
		return ok(service, fmt.Sprintf("tables are at version %d, as they must be", have))
	}
}

// newest returns the version of the newest migration.
func newest(migrations fs.ReadDirFS) (int64, error) {
	entries, err := migrations.ReadDir(".")
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
		return 0, errors.New("this program contains no migrations")
	}
	return slices.Max(versions), nil
}
