package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
)

// upload stores a file.
func (e *env) upload(t store.Tenant, file string) store.Upload {
	e.Helper()
	u, err := e.s.SaveUpload(e.Context(), t.ID, store.Upload{Source: "people.csv"}, strings.NewReader(file))
	e.must(err)
	return u
}

// order queues the import of a file.
func (e *env) order(t store.Tenant, l store.List, file string) store.ImportReport {
	e.Helper()
	r, err := e.s.StartImport(e.Context(), t.ID, l.Number, e.upload(t, file).ID, store.ImportOptions{})
	e.must(err)
	return r
}

// ended runs import jobs until this one has ended.
func (e *env) ended(s *store.Store, r store.ImportReport) store.ImportReport {
	e.Helper()
	ctx, cancel := context.WithCancel(e.Context())
	done := make(chan error, 1)
	go func() { done <- s.RunImports(ctx) }()
	defer func() {
		cancel()
		e.must(<-done)
	}()
	return e.wait(r, func(r store.ImportReport) bool { return !r.Finished.IsZero() })
}

// wait polls a report until ok accepts it.
func (e *env) wait(r store.ImportReport, ok func(store.ImportReport) bool) store.ImportReport {
	e.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { //nolint:forbidigo // a test polls
		now, err := e.s.ImportReport(e.Context(), r.Tenant, r.ID)
		e.must(err)
		if ok(now) {
			return now
		}
		if time.Now().After(deadline) {
			e.Fatalf("got %+v after a minute", now)
		}
	}
}

// people returns a file of n rows. Every seventh row is invalid, and every eleventh repeats an earlier number.
func people(n int) string {
	var b strings.Builder
	b.WriteString("phone;first_name\n")
	for i := range n {
		switch {
		case i%7 == 0:
			fmt.Fprintf(&b, "nobody %d;X\n", i)
		case i%11 == 0:
			fmt.Fprintf(&b, "%s;Again\n", mobile(i/2|1))
		default:
			fmt.Fprintf(&b, "%s;Anna %d\n", mobile(i), i)
		}
	}
	return b.String()
}

// mortal opens the database as a process that dies when it reads its clock for the nth time after arm was called.
func (e *env) mortal(n int64, die func()) (s *store.Store, arm func()) {
	e.Helper()
	var left atomic.Int64
	left.Store(1 << 40)
	cfg := e.cfg
	cfg.Now = func() time.Time {
		if left.Add(-1) == 0 {
			die()
		}
		return e.clock.now()
	}
	s, err := store.Open(e.Context(), cfg)
	e.must(err)
	e.Cleanup(func() { e.must(s.Close()) })
	return s, func() { left.Store(n) }
}

var importJobTests = []test{
	{"X1: a job imports as a request does, and drops the file", func(e *env) {
		t := e.tenant("acme")
		one, other := e.list(t, "one"), e.list(t, "other")
		want, err := e.s.Import(e.Context(), t.ID, one.Number, store.ImportOptions{}, strings.NewReader(people(3_000)), nil)
		e.must(err)
		r := e.order(t, other, people(3_000))
		equal(e, "state", r.State, store.ImportQueued)
		got := e.ended(e.s, r)
		equal(e, "state", got.State, store.ImportDone)
		equal(e, "figures", figures(got), figures(want)) // a contact that is new in one list is new in the other, too
		equal(e, "bytes read", got.BytesRead, uint64(len(people(3_000))))
		equal(e, "rejected", len(got.Rejected), len(want.Rejected))
		_, err = e.s.GetUpload(e.Context(), t.ID, "upl_none")
		e.wantErr(err, schemas.ErrNotFound)
		var parts int
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { //nolint:forbidigo // a test polls
			e.must(e.sql.QueryRowContext(e.Context(), "SELECT COUNT(*) FROM upload_parts").Scan(&parts))
			if parts == 0 || time.Now().After(deadline) {
				break
			}
		}
		equal(e, "parts of the file that are kept", parts, 0)
	}},
	{"X1: an import goes on where a process left it, and counts nothing twice", func(e *env) {
		t := e.tenant("acme")
		whole, cut := e.list(t, "whole"), e.list(t, "cut")
		const n = 9_000
		want, err := e.s.Import(e.Context(), t.ID, whole.Number, store.ImportOptions{}, strings.NewReader(people(n)), nil)
		e.must(err)
		r := e.order(t, cut, people(n))
		for die := int64(4); ; die++ { // each process dies later than the one before it
			if die > 60 {
				e.Fatal("got no end after 60 processes")
			}
			ctx, cancel := context.WithCancel(e.Context())
			s, arm := e.mortal(die, cancel)
			arm()
			e.must(s.RunImports(ctx))
			if die%2 == 0 { // a crash does not release the job
				e.exec("UPDATE imports SET owner = 'dead' WHERE finished_ms = 0")
				e.clock.add(31 * time.Second)
			}
			got, err := e.s.ImportReport(e.Context(), t.ID, r.ID)
			e.must(err)
			equal(e, "rows accounted for", got.Total, got.RowsRead)
			if !got.Finished.IsZero() {
				equal(e, "state", got.State, store.ImportDone)
				equal(e, "figures", figures(got), figures(want))
				break
			}
		}
		l, err := e.s.List(e.Context(), t.ID, cut.Number)
		e.must(err)
		equal(e, "members", l.Members, want.Imported)
		rows := 0
		e.must(e.s.ImportRejects(e.Context(), t.ID, r.ID, func(some []store.Rejected) error {
			for _, row := range some {
				if row.Line != uint64(7*rows+2) {
					e.Fatalf("refused row %d: got line %d, want %d", rows, row.Line, 7*rows+2)
				}
				rows++
			}
			return nil
		}))
		equal(e, "refused rows", uint64(rows), want.Invalid)
		equal(e, "of which the report names", len(e.wait(r, func(store.ImportReport) bool { return true }).Rejected), store.MaxRejected)
	}},
	{"X1: an import that ends the process each time is given up", func(e *env) {
		t := e.tenant("acme")
		r := e.order(t, e.list(t, "l"), people(10))
		e.exec("UPDATE imports SET claims = 20")
		got := e.ended(e.s, r)
		equal(e, "state", got.State, store.ImportFailed)
		if !strings.Contains(got.Error, "20 times") {
			e.Errorf("got error %q, want how often it was begun", got.Error)
		}
	}},
	{"X1: an import can be cancelled", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		queued := e.order(t, l, people(10))
		e.must(e.s.CancelImport(e.Context(), t.ID, queued.ID))
		got, err := e.s.ImportReport(e.Context(), t.ID, queued.ID)
		e.must(err)
		equal(e, "queued", got.State, store.ImportCancelled)
		e.wantErr(e.s.CancelImport(e.Context(), t.ID, queued.ID), schemas.ErrTransition)
		e.wantErr(e.s.CancelImport(e.Context(), t.ID, "imp_none"), schemas.ErrNotFound)

		got, err = e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{}, strings.NewReader(people(9_000)), func(r store.ImportReport) {
			if r.RowsRead > 0 && r.Finished.IsZero() {
				e.must(e.s.CancelImport(e.Context(), t.ID, r.ID))
			}
		})
		e.must(err)
		equal(e, "running", got.State, store.ImportCancelled)
		l, err = e.s.List(e.Context(), t.ID, l.Number)
		e.must(err)
		equal(e, "members that are kept", l.Members, got.Imported)
		if got.RowsRead >= 9_000 {
			e.Errorf("got %d rows read, want fewer than all", got.RowsRead)
		}

		gone := e.order(t, l, people(10)) // the process died before it saw the cancellation
		e.exec("UPDATE imports SET owner = 'dead', state = 'running' WHERE finished_ms = 0")
		e.must(e.s.CancelImport(e.Context(), t.ID, gone.ID))
		e.clock.add(31 * time.Second)
		equal(e, "of a dead process", e.ended(e.s, gone).State, store.ImportCancelled)
	}},
	{"X1: an import into a list that is deleted meanwhile fails", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		r := e.order(t, l, people(10))
		e.must(e.s.DeleteList(e.Context(), t.ID, l.Number, 0))
		equal(e, "state", e.ended(e.s, r).State, store.ImportFailed)
	}},
	{"X1: what is wrong with a file is said at once", func(e *env) {
		t := e.tenant("acme")
		l := e.list(t, "l")
		for _, c := range []struct {
			file string
			opts store.ImportOptions
		}{
			{"name\nAnna\n", store.ImportOptions{}},
			{"phone\n+393330000001\n", store.ImportOptions{Columns: map[string]string{"cell": "phone"}}},
			{"phone\n+393330000001\n", store.ImportOptions{Region: "XX"}},
		} {
			_, err := e.s.StartImport(e.Context(), t.ID, l.Number, e.upload(t, c.file).ID, c.opts)
			e.wantErr(err, store.ErrInvalid)
		}
		_, err := e.s.StartImport(e.Context(), t.ID, l.Number, e.upload(t, "name;cell\nAnna;+393330000001\n").ID, store.ImportOptions{Columns: map[string]string{"cell": "phone"}})
		e.must(err)
	}},
	{"X1: an import counts the contacts that had opted out", func(e *env) {
		t := e.tenant("acme")
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(1), mobile(2), mobile(1_000_000)))
		e.must(e.s.Lift(e.Context(), t.ID, "api", mobile(2)))
		got := e.ended(e.s, e.order(t, e.list(t, "l"), "phone\n"+mobile(1)+"\n"+mobile(1)+"\n"+mobile(2)+"\n"+mobile(3)+"\n"))
		equal(e, "imported", got.Imported, 3)
		equal(e, "opted out", got.OptedOut, 1)
	}},
	{"X1: a file that no import uses is kept for a day", func(e *env) {
		t := e.tenant("acme")
		waits, forgotten := e.upload(t, people(10)), e.upload(t, people(10))
		_, err := e.s.StartImport(e.Context(), t.ID, e.list(t, "l").Number, waits.ID, store.ImportOptions{})
		e.must(err)
		e.clock.add(23 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		_, err = e.s.GetUpload(e.Context(), t.ID, forgotten.ID)
		e.must(err)
		e.clock.add(2 * time.Hour)
		e.must(e.s.Collect(e.Context()))
		_, err = e.s.GetUpload(e.Context(), t.ID, forgotten.ID)
		e.wantErr(err, schemas.ErrNotFound)
		_, err = e.s.GetUpload(e.Context(), t.ID, waits.ID)
		e.must(err)
	}},
}
