package doctor

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"fanfare/deploy/testinfra"
	tables "fanfare/schemas/clickhouse"
)

// scriptedClickHouse answers each query whose text contains one of its keys with a row or an error.
type scriptedClickHouse struct {
	driver.Conn
	answers map[string]any
}

// scriptedRow is the one row of an answer.
type scriptedRow struct {
	driver.Row
	driver.Rows
	values []any
	err    error
	read   bool
}

func (c scriptedClickHouse) answer(query string) *scriptedRow {
	longest, found := "", any(fmt.Errorf("no answer to %q", query))
	for key, answer := range c.answers {
		if strings.Contains(query, key) && len(key) > len(longest) {
			longest, found = key, answer
		}
	}
	switch a := found.(type) {
	case error:
		return &scriptedRow{err: a}
	case []any:
		return &scriptedRow{values: a}
	default:
		return &scriptedRow{values: []any{a}}
	}
}

func (c scriptedClickHouse) QueryRow(_ context.Context, query string, _ ...any) driver.Row {
	return c.answer(query)
}

func (c scriptedClickHouse) Query(_ context.Context, query string, _ ...any) (driver.Rows, error) {
	r := c.answer(query)
	return scriptedRows{r}, r.err
}

func (r *scriptedRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	for i, d := range dest {
		reflect.ValueOf(d).Elem().Set(reflect.ValueOf(r.values[i]))
	}
	return nil
}

func (r *scriptedRow) Err() error           { return r.err }
func (r *scriptedRow) ScanStruct(any) error { return r.err }

// scriptedRows returns a scriptedRow as a result set of one row.
type scriptedRows struct{ *scriptedRow }

func (r scriptedRows) Next() bool {
	first := !r.read
	r.read = true
	return first
}
func (r scriptedRows) Close() error           { return nil }
func (r scriptedRows) Scan(dest ...any) error { return r.scriptedRow.Scan(dest...) }
func (r scriptedRows) Err() error             { return nil }
func (r scriptedRows) ScanStruct(any) error   { return nil }

func TestClickHouse(t *testing.T) {
	t.Parallel()
	want, err := newest(tables.Files)
	if err != nil {
		t.Fatal(err)
	}
	denied := &chgo.Exception{Code: codeAccessDenied, Message: "Not enough privileges"}
	for name, c := range map[string]struct {
		answers    map[string]any
		found, fix string
	}{
		"well":         {},
		"read only":    {map[string]any{"readonly": "1"}, "user me is read-only", "readonly = 0"},
		"clock":        {map[string]any{"now64": time.Now().Add(time.Hour)}, "ahead of this machine's", "synchronise the clocks"},
		"no insert":    {map[string]any{"CHECK GRANT INSERT": uint8(0)}, "user me may not INSERT on database test", "GRANT SELECT, INSERT, CREATE TABLE"},
		"denied":       {map[string]any{"CHECK GRANT CREATE VIEW": denied}, "may not CREATE VIEW", "ON test.* TO me"},
		"no database":  {map[string]any{"system.databases": uint64(0), "CREATE DATABASE": uint8(0)}, "may not CREATE DATABASE", "CREATE DATABASE ON test.* TO me"},
		"behind":       {map[string]any{"goose_db_version": want - 1}, fmt.Sprintf("tables are at version %d", want-1), "fanfare migrate"},
		"ahead":        {map[string]any{"goose_db_version": want + 1}, fmt.Sprintf("this program knows %d", want), "newer fanfare"},
		"disk is full": {map[string]any{"system.disks": []any{"default", uint64(5 << 20)}}, "disk default has 5 MB free", "free at least 1024 MB"},
	} {
		t.Run(name, func(t *testing.T) {
			answers := map[string]any{
				"version()": []any{"26.7.2.1", "me"}, "readonly": "0", "now64": time.Now(), "CHECK GRANT": uint8(1), "system.databases": uint64(1),
				"goose_db_version": want, "system.disks": []any{"default", uint64(5 << 30)},
			}
			maps.Copy(answers, c.answers)
			cfg := testConfig(t, func(cfg *Config) { cfg.ClickHouse = "clickhouse://me:secret@h:9000/d" })
			all, err := examineClickHouse(t.Context(), cfg, scriptedClickHouse{answers: answers})
			if err != nil {
				t.Fatal(err)
			}
			if c.found == "" {
				if len(of(all, OK)) != len(all) || strings.Contains(fmt.Sprint(all), "secret") {
					t.Errorf("got %+v, want all well and no password", all)
				}
				return
			}
			wantBad(t, all, c.found, c.fix)
			if len(of(all, Bad)) != 1 {
				t.Errorf("got %+v, want that alone", all)
			}
		})
	}
	none := &chgo.Exception{Code: codeUnknownDatabase}
	cfg := testConfig(t, func(cfg *Config) { cfg.ClickHouse = "clickhouse://h:9000/d" })
	all, err := examineClickHouse(t.Context(), cfg, scriptedClickHouse{answers: map[string]any{
		"version()": []any{"26.7.2.1", "me"}, "readonly": "0", "now64": time.Now(), "CHECK GRANT": uint8(1), "system.databases": uint64(0),
		"goose_db_version": none, "system.disks": denied,
	}})
	if err != nil || len(of(all, Bad)) > 0 || len(of(all, Note)) != 1 {
		t.Errorf("got %+v, %v before the first start, want a note", all, err)
	}
}

// A real server accepts the queries. A failing login is tested on a fake ClickHouse, because the server that our
// scripts start crashes after one.
func TestIntegrationDoctorClickHouse(t *testing.T) {
	addr := testinfra.Need(t, testinfra.ClickHouse)[testinfra.ClickHouse]
	examineIt := func(dsn string) []Finding {
		return examineStatistics(t.Context(), testConfig(t, func(c *Config) { c.ClickHouse, c.Schema = dsn, "doc"+shortID() }))
	}
	all := examineIt(addr)
	if notes := of(all, Note); len(of(all, Bad)) > 0 || len(notes) != 1 || !strings.Contains(notes[0].Found, "no tables yet") {
		t.Errorf("got %+v, want one note", all)
	}
	wantBad(t, examineIt(addr+"?readonly=2"), "is read-only", "readonly = 0")
}
