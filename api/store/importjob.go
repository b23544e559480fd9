package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	"fanfare/api/importfile"
	"fanfare/api/store/db"
	"fanfare/schemas"
)

// An import of an uploaded file is a job: its row in the table imports is the order, and any process runs it
// ([Store.RunImports]). The figures are written in the same transaction as the contacts they count. So another process
// can continue exactly where the first stopped: it reads the file again from the beginning and skips that many rows.

const (
	// jobSilent is how long the process of an import may write no figures before another one takes the import over.
	jobSilent = 30 * time.Second
	// jobPoll is how often a process looks for imports that were ordered in another process.
	jobPoll = time.Second
	// jobRetry is how long a process waits after an error of the database.
	jobRetry = 5 * time.Second
	// jobsAtOnce is how many jobs a process runs at the same time, so that a small file need not wait for a large one.
	jobsAtOnce = 2
	// mostClaims is how often an import is begun before it fails. It ends an import that crashes its process each time.
	mostClaims = 20
	// mostRejects is the most refused rows that wait in memory for the next transaction.
	mostRejects = 2_000
)

// errCancelled means that a client has cancelled the import.
var errCancelled = errors.New("import cancelled")

// errGivenUp means that the import was begun mostClaims times: it probably crashes its process.
var errGivenUp = fmt.Errorf("it was begun %d times and never ended; the rows it had read are kept", mostClaims)

// errTaken means that another process runs the import.
var errTaken = errors.New("another process has taken the import over")

// jobOptions are the options of an import as they are stored in its row.
type jobOptions struct {
	Region  string            `json:",omitempty"`
	Columns map[string]string `json:",omitempty"`
}

// StartImport orders the import of an uploaded file into a list. [Store.RunImports] runs it, in any process. A
// [FieldError] says what is wrong with the options or with the beginning of the file. It is [ErrErasureRuns] while a
// person of the tenant is being erased.
func (s *Store) StartImport(ctx context.Context, tenant string, list uint64, upload string, opts ImportOptions) (ImportReport, error) {
	u, err := s.GetUpload(ctx, tenant, upload)
	if err != nil {
		return ImportReport{}, err
	}
	im, err := s.importerOf(ctx, tenant, list, opts)
	if err != nil {
		return ImportReport{}, fmt.Errorf("import: %w", err)
	}
	from, err := importfile.Open(&uploadReader{ctx: ctx, s: s, id: u.ID}, importfile.Options{Format: u.Format, Charset: u.Charset, Columns: opts.Columns})
	if err != nil {
		return ImportReport{}, fmt.Errorf("import: %w", im.broken(err))
	}
	if err := from.Close(); err != nil {
		return ImportReport{}, fmt.Errorf("import: %w", err)
	}
	options, err := json.Marshal(jobOptions{im.region, opts.Columns})
	if err != nil {
		return ImportReport{}, fmt.Errorf("import: %w", err)
	}
	r := &im.report
	r.ID, r.State, r.Source, r.Bytes = newImportID(), ImportQueued, u.Source, u.Bytes
	err = s.write(ctx, func(tx *tx) error {
		if err := tx.noErasures(ctx, tenant); err != nil {
			return err
		}
		r.Started, r.Seen = tx.at, tx.at
		return tx.InsertImport(ctx, db.InsertImportParams{
			ID: r.ID, Tenant: tenant, List: int64(list), Source: r.Source, State: string(r.State), Upload: u.ID, Options: string(options),
			Bytes: int64(r.Bytes), Now: tx.now,
		})
	})
	if err != nil {
		return ImportReport{}, fmt.Errorf("import: %w", err)
	}
	select {
	case s.ordered <- struct{}{}:
	default: // a wake-up is pending already
	}
	return *r, nil
}

// CancelImport cancels an import; the contacts it has stored are kept. The error is [schemas.ErrTransition] when the
// import has ended. A process that runs the import stops at its next batch, within a second.
func (s *Store) CancelImport(ctx context.Context, tenant, id string) error {
	return s.write(ctx, func(tx *tx) error {
		n, err := tx.CancelImport(ctx, tx.now, tenant, id)
		if err != nil || n == 1 {
			return err
		}
		if _, err := tx.GetImport(ctx, tenant, id); err != nil {
			return found(err, "import", id)
		}
		return fmt.Errorf("import %s has ended: %w", id, schemas.ErrTransition)
	})
}

// RunImports runs imports of uploaded files until ctx ends: new orders, and imports whose process is dead. It gives
// back an import that it cannot finish, so that another process continues it at once.
func (s *Store) RunImports(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range jobsAtOnce {
		g.Go(func() error {
			for ctx.Err() == nil {
				wait := jobPoll
				ran, err := s.runImport(ctx)
				if err != nil && ctx.Err() == nil {
					s.log.WarnContext(ctx, "import interrupted, a process will continue it", "err", err)
					wait = jobRetry
				} else if ran {
					continue
				}
				select {
				case <-ctx.Done():
				case <-s.ordered:
				case <-time.After(wait):
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// runImport runs one import, and reports whether there was one. An error comes from the database; the import is
// continued later.
func (s *Store) runImport(ctx context.Context) (ran bool, err error) {
	owner := randomText(16)
	var row db.Import
	err = s.write(ctx, func(tx *tx) (err error) {
		row, err = tx.ClaimImport(ctx, owner, tx.now, s.now().Add(-jobSilent).UnixMilli())
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("claim an import: %w", err)
	}
	err = s.runClaimed(ctx, row)
	if errors.Is(err, errTaken) {
		return true, nil // the process that runs it removes the file
	}
	if err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), jobRetry)
		defer cancel()
		release := s.write(clean, func(tx *tx) error { return tx.ReleaseImport(clean, row.Tenant, row.ID, owner) })
		return true, fmt.Errorf("import %s: %w", row.ID, errors.Join(err, release))
	}
	return true, s.dropUpload(context.WithoutCancel(ctx), row.Upload)
}

// runClaimed runs an import to its end. An error comes from the database or from ctx.
func (s *Store) runClaimed(ctx context.Context, row db.Import) error {
	var o jobOptions
	if err := json.Unmarshal([]byte(row.Options), &o); err != nil {
		return err // written by us
	}
	opts := ImportOptions{Region: o.Region, Columns: o.Columns}
	im, err := s.importerOf(ctx, row.Tenant, uint64(row.List), opts)
	if im == nil && !isNotFound(err) && !errors.Is(err, ErrInvalid) {
		return err
	}
	if im == nil { // the list was deleted
		im = &importer{s: s}
	}
	im.report, im.owner, im.resume = importOf(row), row.Owner, uint64(row.RowsRead)
	im.file = &uploadReader{ctx: ctx, s: s, id: row.Upload}
	switch {
	case err != nil:
	case row.Cancel:
		err = errCancelled
	case row.Claims > mostClaims:
		err = errGivenUp
	default:
		err = im.runFile(ctx, row, opts)
	}
	if err != nil && !im.final(err) {
		return err
	}
	im.conclude(err)
	return im.save(context.WithoutCancel(ctx))
}

func (im *importer) runFile(ctx context.Context, row db.Import, opts ImportOptions) error {
	u, err := im.s.GetUpload(ctx, row.Tenant, row.Upload)
	if isNotFound(err) {
		return fmt.Errorf("%w: the uploaded file was removed", ErrStream)
	}
	if err != nil {
		return err
	}
	opts.Format, opts.Charset = u.Format, u.Charset
	return im.run(ctx, opts, im.file)
}

// final reports whether an error ends the import: an error of the file does, an error of the database does not.
func (im *importer) final(err error) bool {
	if im.file.err != nil {
		return false
	}
	return errors.Is(err, errCancelled) || errors.Is(err, errGivenUp) || errors.Is(err, ErrStream) || errors.Is(err, ErrInvalid) || isNotFound(err)
}

// skip reads the rows that an earlier process has imported or refused, so that later rows with the same numbers are
// recognised.
func (im *importer) skip(ctx context.Context, from importfile.Reader, row *importfile.Row) error {
	for range im.resume {
		err := from.Next(row)
		var bad *importfile.RowError
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.As(err, &bad):
			continue
		case err != nil:
			return im.broken(err)
		}
		_ = im.row(row) // the earlier process has recorded a refusal
		if time.Since(im.shown) >= showEvery {
			if err := im.s.write(ctx, func(tx *tx) error { return im.show(ctx, tx) }); err != nil {
				return err
			}
		}
	}
	return nil
}
