package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"

	"fanfare/api/importfile"
	"fanfare/api/store/db"
	"fanfare/schemas/text"
)

const (
	// uploadPart is how many bytes of a file one row holds, before compression. Other writers wait while a part is
	// written.
	uploadPart = 512 << 10
	// uploadLife is how long an uploaded file is kept if it is not imported.
	uploadLife = 24 * time.Hour
	// rejectLife is how long refused rows are kept.
	rejectLife = 30 * 24 * time.Hour
)

// Upload is an uploaded file in the store. Any process can import it, also after a restart.
type Upload struct {
	ID      string // upl_<random>
	Tenant  string
	Source  string // name of the file
	Format  importfile.Format
	Charset string
	Bytes   uint64 // as the client sent it, compressed or not
	Expires time.Time
}

func uploadOf(r db.Upload) Upload {
	return Upload{
		ID: r.ID, Tenant: r.Tenant, Source: r.Source, Format: importfile.Format(r.Format), Charset: r.Charset, Bytes: uint64(r.Bytes),
		Expires: fromMS(r.SeenMs).Add(uploadLife),
	}
}

// SaveUpload stores a file for a day, or until it is imported. It reads in to its end; when in fails, nothing is
// stored. u has what the client said about the file.
func (s *Store) SaveUpload(ctx context.Context, tenant string, u Upload, in io.Reader) (Upload, error) {
	u.ID, u.Tenant = "upl_"+randomText(24), tenant
	u.Source = text.Shorten(strings.ToValidUTF8(u.Source, "?"), maxName)
	err := s.write(ctx, func(tx *tx) error {
		if _, err := tx.GetTenant(ctx, tenant); err != nil {
			return found(err, "tenant", tenant)
		}
		return tx.InsertUpload(ctx, db.InsertUploadParams{
			ID: u.ID, Tenant: tenant, Source: u.Source, Format: string(u.Format), Charset: u.Charset, Now: tx.now,
		})
	})
	if err == nil {
		if err = s.fillUpload(ctx, &u, in); err != nil {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			_ = s.dropUpload(clean, u.ID) // Collect removes what is left
		}
	}
	if err != nil {
		return Upload{}, fmt.Errorf("store the file: %w", err)
	}
	return u, nil
}

func (s *Store) fillUpload(ctx context.Context, u *Upload, in io.Reader) error {
	part := make([]byte, uploadPart)
	var packed []byte
	for n := int64(0); ; n++ {
		size, readErr := io.ReadFull(in, part)
		last := errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF)
		if readErr != nil && !last {
			return readErr
		}
		packed = s2.Encode(packed[:cap(packed)], part[:size])
		u.Bytes += uint64(size)
		err := s.write(ctx, func(tx *tx) error {
			rows, err := tx.GrowUpload(ctx, int64(size), tx.now, u.ID)
			if err == nil && rows != 1 {
				err = notFound("upload", u.ID) // the upload took longer than a day and was removed
			}
			if err == nil && size > 0 {
				err = tx.InsertUploadPart(ctx, u.ID, n, packed)
			}
			if err == nil && last {
				_, err = tx.CompleteUpload(ctx, string(u.Format), tx.now, u.ID)
				u.Expires = tx.at.Add(uploadLife)
			}
			return err
		})
		if err != nil || last {
			return err
		}
	}
}

// GetUpload returns an uploaded file.
func (s *Store) GetUpload(ctx context.Context, tenant, id string) (Upload, error) {
	r, err := s.q.GetUpload(ctx, tenant, id)
	return uploadOf(r), found(err, "upload", id)
}

// uploadReader reads an uploaded file, part by part.
type uploadReader struct {
	ctx  context.Context //nolint:containedctx // io.Reader has no context parameter; the reader lives only during one call
	s    *Store
	id   string
	next int64
	rest []byte
	part []byte
	read uint64 // bytes that were read
	// err is an error of the database. It does not mean that the file is damaged.
	err error
}

// Read reads the next part.
func (r *uploadReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		packed, err := r.s.q.GetUploadPart(r.ctx, r.id, r.next)
		if errors.Is(err, sql.ErrNoRows) {
			return 0, io.EOF
		}
		if err != nil {
			r.err = err
			return 0, err
		}
		if r.part, err = s2.Decode(r.part[:cap(r.part)], packed); err != nil {
			return 0, fmt.Errorf("part %d of %s: %w", r.next, r.id, err)
		}
		r.rest = r.part
		r.next++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.read += uint64(n)
	return n, nil
}

// PreviewRow is a row of a file as an import would read it.
type PreviewRow struct {
	Line  uint64
	Cells []string // as in the file, one for each column; none for vCard and JSON
	Phone string   // E.164; "" when the row would be refused
	// Reason is why the row would be refused, and Column which column is at fault.
	Column, Reason string
}

// Preview says how an import would read a file.
type Preview struct {
	Format  importfile.Format
	Columns []importfile.Column
	Rows    []PreviewRow
	// NoPhone: the headers do not name a phone column.
	NoPhone bool
}

// PreviewUpload reads the first rows of an uploaded file as an import with these options would.
func (s *Store) PreviewUpload(ctx context.Context, u Upload, opts ImportOptions, rows int) (Preview, error) {
	t, err := s.Tenant(ctx, u.Tenant)
	if err != nil {
		return Preview{}, err
	}
	region := orElse(strings.ToUpper(opts.Region), t.Region)
	if !s.phones.Region(region) {
		return Preview{}, &FieldError{"Region", opts.Region, "want an ISO 3166-1 alpha-2 code such as IT"}
	}
	im := &importer{s: s, region: region}
	from, err := importfile.Open(&uploadReader{ctx: ctx, s: s, id: u.ID}, importfile.Options{
		Format: u.Format, Charset: u.Charset, Columns: opts.Columns, Preview: true,
	})
	if err != nil {
		return Preview{}, im.broken(err)
	}
	defer func() { _ = from.Close() }()
	out := Preview{Format: from.Format()}
	var row importfile.Row
	for len(out.Rows) < rows {
		err := from.Next(&row)
		if errors.Is(err, io.EOF) {
			break
		}
		p := PreviewRow{}
		var bad *importfile.RowError
		switch {
		case errors.As(err, &bad):
		case err != nil:
			return Preview{}, im.broken(err)
		default:
			var numbers []importfile.Cell
			for _, c := range row.Cells {
				if c.Column.Kind == importfile.Phone {
					numbers = append(numbers, c)
				}
			}
			n, refusal := im.number(numbers)
			if bad = refusal; bad == nil {
				p.Phone = n.E164
			}
		}
		if bad != nil {
			p.Column, p.Reason = bad.Column, bad.Reason
		}
		p.Line = row.Line
		for _, cell := range from.Raw() {
			p.Cells = append(p.Cells, text.Shorten(strings.ToValidUTF8(cell, "?"), 200))
		}
		out.Rows = append(out.Rows, p)
	}
	out.NoPhone = true
	for _, c := range from.Columns() {
		out.Columns = append(out.Columns, *c)
		out.NoPhone = out.NoPhone && c.Kind != importfile.Phone
	}
	return out, nil
}

// dropUpload removes a file, in several transactions.
func (s *Store) dropUpload(ctx context.Context, id string) error {
	for more := true; more; {
		err := s.write(ctx, func(tx *tx) error {
			const atOnce = 20
			n, err := tx.DropUploadParts(ctx, id, atOnce)
			if more = n == atOnce; err != nil || more {
				return err
			}
			return tx.DropUpload(ctx, id)
		})
		if err != nil {
			return fmt.Errorf("drop upload %s: %w", id, err)
		}
	}
	return nil
}

// collectUploads removes files that were not imported within [uploadLife], and refused rows older than [rejectLife].
func (s *Store) collectUploads(ctx context.Context) error {
	gone, err := s.q.GoneUploads(ctx, s.now().Add(-uploadLife).UnixMilli())
	if err != nil {
		return fmt.Errorf("find old uploads: %w", err)
	}
	for _, id := range gone {
		if err := s.dropUpload(ctx, id); err != nil {
			return err
		}
	}
	if err := s.write(ctx, func(tx *tx) error { return tx.DropRejects(ctx, s.now().Add(-rejectLife).UnixMilli()) }); err != nil {
		return fmt.Errorf("drop refused rows: %w", err)
	}
	return nil
}
