package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
)

// orderJob queues an export of n rows.
func (e *env) orderJob(t store.Tenant, n int) store.Job {
	e.Helper()
	j, err := e.s.OrderJob(e.Context(), store.Job{Tenant: t.ID, Kind: store.JobExport, By: "key", Options: []byte(strconv.Itoa(n))})
	e.must(err)
	return j
}

// counting is a job that writes the numbers below the number of rows that was ordered, 100 in a step, one per line.
func counting(ctx context.Context, r *store.JobRun) error {
	n, err := strconv.Atoi(string(r.Options))
	if err != nil {
		return &store.JobError{Reason: err.Error()}
	}
	if plan, err := r.Plan(ctx); err != nil {
		return err
	} else if plan == nil {
		if err := r.Begin(ctx, []byte("up"), uint64(n)); err != nil {
			return err
		}
	} else if string(plan) != "up" {
		return &store.JobError{Reason: fmt.Sprintf("got plan %q", plan)}
	}
	for at, _ := strconv.Atoi(r.Cursor); at < n; {
		to := min(at+100, n)
		var b strings.Builder
		for i := at; i < to; i++ {
			fmt.Fprintln(&b, i)
		}
		if err := r.Step(ctx, strconv.Itoa(to), to-at, []byte(b.String())); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// numbersBelow returns what counting writes for n.
func numbersBelow(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

// made returns what a job has written.
func (e *env) made(j store.Job) string {
	e.Helper()
	var b strings.Builder
	e.must(e.s.JobParts(e.Context(), j.Tenant, j.Kind, j.ID, func(part []byte) error { b.Write(part); return nil }))
	return b.String()
}

// runJobs runs jobs until ok accepts the state of this one.
func (e *env) runJobs(s *store.Store, j store.Job, run func(context.Context, *store.JobRun) error, ok func(store.Job) bool) store.Job {
	e.Helper()
	ctx, cancel := context.WithCancel(e.Context())
	done := make(chan error, 1)
	go func() { done <- s.RunJobs(ctx, run, func(*store.Job) {}) }()
	defer func() {
		cancel()
		e.must(<-done)
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { //nolint:forbidigo // a test polls
		now := e.jobNow(j)
		if ok(now) {
			return now
		}
		if time.Now().After(deadline) {
			e.Fatalf("got %+v after a minute", now)
		}
	}
}

func (e *env) jobNow(j store.Job) store.Job {
	e.Helper()
	now, err := e.s.Job(e.Context(), j.Tenant, j.Kind, j.ID)
	e.must(err)
	return now
}

func jobEnded(j store.Job) bool { return !j.Finished.IsZero() }

var jobTests = []test{
	{"X7: a job runs to its end, and what it made is read in order", func(e *env) {
		t := e.tenant("acme")
		j := e.orderJob(t, 1_050)
		equal(e, "state", j.State, store.JobQueued)
		got := e.runJobs(e.s, j, counting, jobEnded)
		equal(e, "state", got.State, store.JobDone)
		equal(e, "rows", got.Done, 1_050)
		equal(e, "total", got.Total, 1_050)
		equal(e, "bytes", got.Bytes, uint64(len(numbersBelow(1_050))))
		equal(e, "made", e.made(j), numbersBelow(1_050))
		e.wantErr(e.s.CancelJob(e.Context(), t.ID, j.Kind, j.ID), schemas.ErrTransition)
	}},
	{"X7: a job goes on where a process left it, and writes nothing twice", func(e *env) {
		t := e.tenant("acme")
		j := e.orderJob(t, 2_050)
		crashes := 0
		for die := int64(2); ; die++ { // each process dies later than the one before it
			if die > 60 {
				e.Fatal("got no end after 60 processes")
			}
			ctx, cancel := context.WithCancel(e.Context())
			s, arm := e.mortal(die, cancel)
			arm()
			e.must(s.RunJobs(ctx, counting, func(*store.Job) {}))
			now := e.jobNow(j)
			if jobEnded(now) {
				equal(e, "state", now.State, store.JobDone)
				break
			}
			if die%2 == 0 { // a crash does not release the job
				crashes++
				e.exec("UPDATE jobs SET owner = 'dead', state = 'running' WHERE finished_ms = 0")
				e.clock.add(31 * time.Second)
			}
		}
		if crashes == 0 {
			e.Error("no process died")
		}
		equal(e, "rows", e.jobNow(j).Done, 2_050)
		equal(e, "made", e.made(j), numbersBelow(2_050))
	}},
	{"X7: a process that was silent for too long writes nothing into a job that another one has taken over", func(e *env) {
		t := e.tenant("acme")
		j := e.orderJob(t, 1_000)
		other := e.open()
		var hung atomic.Bool
		slow := func(ctx context.Context, r *store.JobRun) error {
			if hung.Swap(true) { // the second goroutine of the same process
				return counting(ctx, r)
			}
			if err := r.Step(ctx, "100", 100, []byte(numbersBelow(100))); err != nil {
				return err
			}
			e.clock.add(31 * time.Second) // this process hangs, and another one takes over
			e.runJobs(other, j, counting, jobEnded)
			return r.Step(ctx, "200", 100, []byte("twice"))
		}
		got := e.runJobs(e.s, j, slow, jobEnded)
		equal(e, "state", got.State, store.JobDone)
		equal(e, "made", e.made(j), numbersBelow(1_000))
	}},
	{"X7: a job is cancelled, queued or running, and leaves nothing", func(e *env) {
		t := e.tenant("acme")
		queued := e.orderJob(t, 10)
		e.must(e.s.CancelJob(e.Context(), t.ID, queued.Kind, queued.ID))
		equal(e, "queued", e.jobNow(queued).State, store.JobCancelled)
		e.wantErr(e.s.CancelJob(e.Context(), t.ID, queued.Kind, "exp_none"), schemas.ErrNotFound)
		running := e.orderJob(t, 1_000)
		got := e.runJobs(e.s, running, func(ctx context.Context, r *store.JobRun) error {
			for i := 0; ; i++ { // an endless loop, which ends when a step returns an error
				if i == 3 {
					e.must(e.s.CancelJob(ctx, t.ID, running.Kind, running.ID))
				}
				if i > 4 {
					return &store.JobError{Reason: "it went on after it was cancelled"}
				}
				if err := r.Step(ctx, strconv.Itoa(i), 1, []byte("x\n")); err != nil {
					return err
				}
			}
		}, jobEnded)
		equal(e, "running", got.State, store.JobCancelled)
		e.noParts(running)
	}},
	{"X7: a job that fails says why, one whose service is away goes on", func(e *env) {
		t := e.tenant("acme")
		bad := e.orderJob(t, 10)
		got := e.runJobs(e.s, bad, func(ctx context.Context, r *store.JobRun) error {
			if err := r.Step(ctx, "1", 1, []byte("x")); err != nil {
				return err
			}
			return fmt.Errorf("run: %w", &store.JobError{Reason: "the list was deleted"})
		}, jobEnded)
		equal(e, "state", got.State, store.JobFailed)
		equal(e, "error", got.Error, "the list was deleted")
		e.noParts(bad)

		away := e.orderJob(t, 10)
		err := errors.New("away")
		got = e.runJobs(e.s, away, func(context.Context, *store.JobRun) error { return err }, func(j store.Job) bool { return j.Error != "" })
		equal(e, "state", got.Finished.IsZero(), true)
		e.clock.add(25 * time.Hour)
		got = e.runJobs(e.open(), away, func(context.Context, *store.JobRun) error { return err }, jobEnded)
		equal(e, "state after a day", got.State, store.JobFailed)

		deadly := e.orderJob(t, 10)
		e.exec("UPDATE jobs SET claims = 20 WHERE finished_ms = 0")
		got = e.runJobs(e.s, deadly, counting, jobEnded)
		equal(e, "state of one that ends its process each time", got.State, store.JobFailed)
	}},
	{"X7: an ended job is kept for 7 days, then removed with what it made", func(e *env) {
		t := e.tenant("acme")
		old := e.orderJob(t, 250)
		e.runJobs(e.s, old, counting, jobEnded)
		e.clock.add(7*24*time.Hour - time.Minute)
		e.must(e.s.Collect(e.Context()))
		equal(e, "made", e.made(old), numbersBelow(250))
		young := e.orderJob(t, 10)
		e.runJobs(e.s, young, counting, jobEnded)
		e.clock.add(2 * time.Minute)
		e.must(e.s.Collect(e.Context()))
		_, err := e.s.Job(e.Context(), t.ID, old.Kind, old.ID)
		e.wantErr(err, schemas.ErrNotFound)
		e.noParts(old)
		equal(e, "made by the younger", e.made(young), numbersBelow(10))
		e.must(e.s.RemoveJob(e.Context(), t.ID, young.Kind, young.ID))
		e.noParts(young)
		open := e.orderJob(t, 10)
		e.wantErr(e.s.RemoveJob(e.Context(), t.ID, open.Kind, open.ID), schemas.ErrTransition)
	}},
	{"P7: a tenant has no job of another", func(e *env) {
		t, other := e.tenant("acme"), e.tenant("other")
		j := e.orderJob(t, 10)
		_, err := e.s.Job(e.Context(), other.ID, j.Kind, j.ID)
		e.wantErr(err, schemas.ErrNotFound)
		_, err = e.s.Job(e.Context(), t.ID, store.JobSegment, j.ID)
		e.wantErr(err, schemas.ErrNotFound)
		e.wantErr(e.s.CancelJob(e.Context(), other.ID, j.Kind, j.ID), schemas.ErrNotFound)
		e.wantErr(e.s.RemoveJob(e.Context(), other.ID, j.Kind, j.ID), schemas.ErrNotFound)
		e.wantErr(e.s.JobParts(e.Context(), other.ID, j.Kind, j.ID, func([]byte) error { return nil }), schemas.ErrNotFound)
		rows, total, err := e.s.Jobs(e.Context(), other.ID, store.JobFilter{Kind: j.Kind})
		e.must(err)
		equal(e, "jobs of the other", len(rows)+total, 0)
	}},
	{"X7: a tenant with many jobs does not hold up another, and has a bound", func(e *env) {
		t, other := e.tenant("acme"), e.tenant("other")
		for range store.MaxOpenJobs {
			e.orderJob(t, 1)
			e.clock.add(time.Second)
		}
		_, err := e.s.OrderJob(e.Context(), store.Job{Tenant: t.ID, Kind: store.JobExport, Options: []byte("1")})
		e.wantErr(err, store.ErrLimit)
		e.exec("UPDATE jobs SET owner = 'busy', seen_ms = seen_ms + 3600000 WHERE id = (SELECT MIN(id) FROM jobs)")
		late := e.orderJob(other, 1)
		var first string
		e.runJobs(e.s, late, func(_ context.Context, r *store.JobRun) error {
			if first == "" {
				first = r.Tenant
			}
			return nil
		}, jobEnded)
		equal(e, "tenant that came first", first, other.ID)
	}},
	{"R86: a segment's list holds the contacts that still exist, once, however often its process dies", func(e *env) {
		t := e.tenant("acme")
		var contacts []uint64
		for i := range 30 {
			c, err := e.s.CreateContact(e.Context(), store.Contact{Tenant: t.ID, Phone: mobile(i), FirstName: "Anna"})
			e.must(err)
			contacts = append(contacts, c.Number)
		}
		e.must(e.s.DeleteContact(e.Context(), t.ID, contacts[7], 0))
		j, l, err := e.s.OrderSegment(e.Context(), store.Job{Tenant: t.ID, Kind: store.JobSegment, Options: []byte("{}")}, " engaged ", true, []byte("plan"), 30)
		e.must(err)
		equal(e, "name", l.Name, "engaged")
		equal(e, "test list", l.Test, true)
		_, _, err = e.s.OrderSegment(e.Context(), store.Job{Tenant: t.ID, Kind: store.JobSegment, Options: []byte("{}")}, "engaged", false, nil, 0)
		e.wantErr(err, store.ErrNameTaken)
		_, err = e.s.AddToList(e.Context(), t.ID, l.Number, contacts[3:5]) // a user changes the list during the job
		e.must(err)
		runs := 0
		got := e.runJobs(e.s, j, func(ctx context.Context, r *store.JobRun) error {
			runs++
			at, _ := strconv.Atoi(r.Cursor)
			for ; at < 30; at += 10 {
				if err := r.StepMembers(ctx, strconv.Itoa(at+10), 10, contacts[at:at+10]); err != nil {
					return err
				}
				if runs == 1 { // release the job, so that another process takes it over
					e.exec("UPDATE jobs SET owner = '' WHERE finished_ms = 0")
				}
			}
			return nil
		}, jobEnded)
		equal(e, "state", got.State, store.JobDone)
		equal(e, "done", got.Done, 30)
		if runs < 2 {
			e.Errorf("got %d runs, want one that was cut off", runs)
		}
		l, err = e.s.List(e.Context(), t.ID, l.Number)
		e.must(err)
		equal(e, "members", l.Members, 29)
		fields, err := e.s.ListFields(e.Context(), t.ID, []uint64{l.Number})
		e.must(err)
		equal(e, "members with a first name", fields.Names["first_name"], 29)

		j, l, err = e.s.OrderSegment(e.Context(), store.Job{Tenant: t.ID, Kind: store.JobSegment, Options: []byte("{}")}, "gone", false, nil, 30)
		e.must(err)
		e.must(e.s.DeleteList(e.Context(), t.ID, l.Number, 0))
		got = e.runJobs(e.s, j, func(ctx context.Context, r *store.JobRun) error { return r.StepMembers(ctx, "1", 1, contacts[:1]) }, jobEnded)
		equal(e, "state of one whose list is deleted", got.State, store.JobFailed)
	}},
	{"R86: a segment's list has the same counts as a list that was filled otherwise", func(e *env) {
		t := e.tenant("acme")
		origin := e.list(t, "origin")
		var file strings.Builder
		file.WriteString("phone,first_name,last_name,email,city,opt_in\n")
		const n = 90
		for i := range n {
			row := []string{mobile(i), "Anna", "", "", "", ""}
			if i%2 == 0 {
				row[2] = "Rossi"
			}
			if i%3 == 0 {
				row[3] = "a@example.com"
			}
			if i%5 == 0 {
				row[4] = "Roma"
			}
			if i%7 == 0 {
				row[5] = "yes"
			}
			file.WriteString(strings.Join(row, ",") + "\n")
		}
		e.load(t, origin, importfile.CSV, file.String())
		e.must(e.s.Suppress(e.Context(), t.ID, "api", mobile(3), mobile(50)))
		page, _, err := e.s.Contacts(e.Context(), t.ID, store.ContactFilter{Page: store.Page{Limit: n}, List: origin.Number})
		e.must(err)
		contacts := make([]uint64, 0, n)
		for _, c := range page {
			contacts = append(contacts, c.Number)
		}
		equal(e, "contacts", len(contacts), n)
		j, l, err := e.s.OrderSegment(e.Context(), store.Job{Tenant: t.ID, Kind: store.JobSegment, Options: []byte("{}")}, "engaged", false, []byte("plan"), n)
		e.must(err)
		_, err = e.s.AddToList(e.Context(), t.ID, l.Number, []uint64{contacts[20], contacts[70]})
		e.must(err)
		var scattered []uint64 // no two with consecutive numbers; one is twice in the audience
		for i := n - 1; i >= 40; i -= 2 {
			scattered = append(scattered, contacts[i])
		}
		scattered = append(scattered, contacts[n-1])
		got := e.runJobs(e.s, j, func(ctx context.Context, r *store.JobRun) error {
			return errors.Join(
				r.StepMembers(ctx, "1", 40, contacts[:40]), // a range of numbers
				r.StepMembers(ctx, "2", 26, scattered),
				r.StepMembers(ctx, "3", 24, contacts[40:]),
				r.StepMembers(ctx, "4", 0, nil))
		}, jobEnded)
		equal(e, "state", got.State, store.JobDone)
		for _, list := range []uint64{origin.Number, l.Number} {
			fields, err := e.s.ListFields(e.Context(), t.ID, []uint64{list})
			e.must(err)
			equal(e, "members with a first name", fields.Names["first_name"], n)
			equal(e, "members with a last name", fields.Names["last_name"], 45)
			equal(e, "members with an e-mail address", fields.Names["email"], 30)
			equal(e, "members with a city", fields.Names["city"], 18)
			count, err := e.s.CountAudience(e.Context(), t.ID, []uint64{list}, sms)
			e.must(err)
			equal(e, "members", count.Total, n)
			equal(e, "members who have opted out", count.OptedOut, 2)
		}
		checkMembers(e)
	}},
}

// noParts waits until the store has removed everything that a job wrote.
func (e *env) noParts(j store.Job) {
	e.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { //nolint:forbidigo // a test polls
		var n int
		e.must(e.sql.QueryRowContext(e.Context(), "SELECT COUNT(*) FROM job_parts WHERE job = '"+j.ID+"'").Scan(&n))
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			e.Fatalf("got %d parts of %s, want none", n, j.ID)
		}
	}
}
