package store

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"fanfare/api/store/db"
)

func importOf(r db.Import) ImportReport {
	out := ImportReport{
		ID: r.ID, Tenant: r.Tenant, List: uint64(r.List), Source: r.Source, State: ImportState(r.State), Error: r.Error,
		RowsRead: uint64(r.RowsRead), Total: uint64(r.Total), Imported: uint64(r.Imported), Updated: uint64(r.Updated),
		Unchanged: uint64(r.Unchanged), Duplicates: uint64(r.Duplicates), Invalid: uint64(r.Invalid), Unreachable: uint64(r.Unreachable),
		OptedOut: uint64(r.OptedOut), Bytes: uint64(r.Bytes), BytesRead: uint64(r.BytesRead),
		Started: fromMS(r.StartedMs), Seen: fromMS(r.SeenMs), Finished: fromMS(r.FinishedMs),
	}
	_ = json.Unmarshal([]byte(r.Rejected), &out.Rejected) // written by us
	return out
}

// ImportReport returns the report of an import, finished or not, with the first [MaxRejected] rows that it refused.
func (s *Store) ImportReport(ctx context.Context, tenant, id string) (ImportReport, error) {
	r, err := s.q.GetImport(ctx, tenant, id)
	if err = found(err, "import", id); err != nil {
		return ImportReport{}, err
	}
	out := importOf(r)
	if len(out.Rejected) > 0 {
		return out, nil
	}
	err = s.rejects(ctx, id, func(rows []Rejected) (more bool, err error) {
		out.Rejected = append(out.Rejected, rows[:min(len(rows), MaxRejected-len(out.Rejected))]...)
		return len(out.Rejected) < MaxRejected, nil
	})
	return out, err
}

// ImportRejects calls each with the rows that an import refused, in batches in the order of the file, until each
// returns an error. They are kept for a month.
func (s *Store) ImportRejects(ctx context.Context, tenant, id string, each func([]Rejected) error) error {
	r, err := s.q.GetImport(ctx, tenant, id)
	if err = found(err, "import", id); err != nil {
		return err
	}
	if old := importOf(r).Rejected; len(old) > 0 {
		return each(old)
	}
	return s.rejects(ctx, id, func(rows []Rejected) (bool, error) { return true, each(rows) })
}

func (s *Store) rejects(ctx context.Context, id string, each func([]Rejected) (more bool, err error)) error {
	for after := int64(0); ; {
		const atOnce = 10
		parts, err := s.q.ListRejects(ctx, id, after, atOnce)
		if err != nil {
			return fmt.Errorf("refused rows of %s: %w", id, err)
		}
		for _, p := range parts {
			var rows []Rejected
			if err := json.Unmarshal([]byte(p.Data), &rows); err != nil {
				return fmt.Errorf("refused rows of %s: %w", id, err)
			}
			if more, err := each(rows); err != nil || !more {
				return err
			}
			after = p.Part
		}
		if len(parts) < atOnce {
			return nil
		}
	}
}

// ImportFilter chooses imports of a tenant. Newest first.
type ImportFilter struct {
	Page
	List uint64 // number, 0: into all lists
	// After continues behind the import with this id that began at AfterTime, instead of at a page. New imports then
	// cause no gap and no repetition.
	After     string
	AfterTime time.Time
}

// Imports returns a page of imports, without the rows that they refused, and how many there are in all.
func (s *Store) Imports(ctx context.Context, tenant string, f ImportFilter) ([]ImportReport, int, error) {
	total, err := s.q.CountImports(ctx, tenant, int64(f.List))
	if err != nil {
		return nil, 0, fmt.Errorf("count imports: %w", err)
	}
	limit, offset := f.bounds()
	arg := db.ListImportsParams{Tenant: tenant, List: int64(f.List), BeforeMs: math.MaxInt64, Max: limit, Skip: offset}
	if f.After != "" {
		arg.BeforeMs, arg.Above, arg.Skip = ms(f.AfterTime), f.After, 0
	}
	rows, err := s.q.ListImports(ctx, arg)
	out, err := all(rows, err, importOf)
	if err != nil {
		return nil, 0, fmt.Errorf("imports: %w", err)
	}
	return out, int(total), nil
}
