package storetest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"golang.org/x/sync/errgroup"

	"fanfare/api/importfile"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/audience"
)

// plainAnswers stores answers unencrypted.
var plainAnswers = store.Answers{
	Open:   func(b []byte) ([]byte, error) { return b, nil },
	Erased: func([]byte) ([]byte, error) { return []byte(`{"erased":true}`), nil },
}

var erasureTests = []test{
	{"a person is taken out of every table, and of no other tenant's", func(e *env) {
		a, b := e.limited("a", 1000), e.limited("b", 1000)
		gone, stays := mobile(1), mobile(2)
		digits := strings.TrimPrefix(gone, "+")
		list := e.list(a, "people", gone, stays)
		e.list(b, "people", gone, stays)
		e.must(e.s.Suppress(e.Context(), a.ID, "api", gone))
		e.must(e.s.Suppress(e.Context(), b.ID, "api", gone))
		frozen, _ := e.freeze(e.confirm(e.campaign(a, "c", list), 0))
		begun, err := e.s.Begin(e.Context(), a.ID, "r", "k", []byte("b"))
		e.must(err)
		e.must(e.s.Finish(e.Context(), begun, 201, []byte(`{"phoneNumber":"`+gone+`"}`)))
		other, err := e.s.Begin(e.Context(), a.ID, "r", "other", []byte("b"))
		e.must(err)
		e.must(e.s.Finish(e.Context(), other, 201, []byte(`{"phoneNumber":"`+stays+`"}`)))
		hook := e.webhook(a, "mine")
		item := hookItem(hook, "mine", "msg_1")
		item.Data = []byte(`{"to":"` + gone + `"}`)
		e.must(e.s.QueueWebhooks(e.Context(), []schemas.WebhookItem{item}, nil))
		e.upload(a, "phone\n"+gone)
		export, err := e.s.OrderJob(e.Context(), store.Job{Tenant: a.ID, Kind: store.JobExport, By: "key", Options: []byte("{}")})
		e.must(err)
		theirs, dumped := e.dump(b), e.dump(a)
		if !strings.Contains(dumped, digits) {
			e.Fatal("the number is nowhere before it is erased")
		}

		removed, recipients, err := e.s.EraseRows(e.Context(), a.ID, gone, plainAnswers)
		e.must(err)
		equal(e, "removed", removed, store.Removed{Contacts: 1, OptOuts: 2, Audiences: 1, Uploads: 1, Answers: 1, Webhooks: 1})
		exports, err := e.s.EraseExports(e.Context(), a.ID)
		e.must(err)
		equal(e, "exports removed", exports, 1)
		equal(e, "campaigns it was a recipient of", len(recipients), 1)
		equal(e, "recipients", recipients[frozen.ID()].GetCardinality(), uint64(1))
		if now := e.dump(a); strings.Contains(now, digits) || strings.Contains(e.table("suppression_log", a), digits) {
			e.Errorf("the number is still there:\n%s", now)
		}
		if !strings.Contains(e.dump(a), strings.TrimPrefix(stays, "+")) {
			e.Error("another person is gone too")
		}
		equal(e, "rows of another tenant", e.dump(b), theirs)
		_, err = e.s.Job(e.Context(), a.ID, store.JobExport, export.ID)
		e.wantErr(err, schemas.ErrNotFound)

		// The erased recipient keeps its place in the frozen audience, but is not sent to.
		index, err := e.s.Blobs(e.Context(), frozen.FreezeID)
		e.must(err)
		flags := map[string]audience.Flag{}
		for _, x := range index {
			data, err := e.s.Blob(e.Context(), frozen.FreezeID, x.Blob)
			e.must(err)
			r, err := audience.NewReader(data)
			e.must(err)
			for entry := new(audience.Entry); r.Next(entry); {
				flags[entry.To] = entry.Flag
				if entry.To == "" && (entry.ContactID != 0 || len(entry.Attrs) != 1 || entry.Attrs[0].Name != audience.ErasedHash) {
					e.Errorf("got entry %+v, want nothing of the person", entry)
				}
			}
		}
		equal(e, "flags by number", fmt.Sprint(flags), fmt.Sprint(map[string]audience.Flag{"": audience.OptedOut, stays: audience.OK}))
		// A client that repeats a request still gets an answer, and the request does not run again.
		again, err := e.s.Begin(e.Context(), a.ID, "r", "k", []byte("b"))
		e.must(err)
		equal(e, "claim of the repeated request", again.State, store.ClaimReplay)
		equal(e, "its answer", string(again.Response), `{"erased":true}`)

		// The opt-out still holds but is not listed. A client that knows the number can lift it.
		out, err := e.s.Suppressed(e.Context(), a.ID, gone, schemas.ChannelSMS)
		e.must(err)
		equal(e, "still opted out", out, true)
		_, n, err := e.s.Suppressions(e.Context(), a.ID, store.Page{}, "")
		e.must(err)
		equal(e, "opt-outs listed", n, 0)
		e.must(e.s.Lift(e.Context(), a.ID, "api", gone))
		out, err = e.s.Suppressed(e.Context(), a.ID, gone, schemas.ChannelSMS)
		e.must(err)
		equal(e, "opted out after it was lifted", out, false)

		// A person can be added again and erased again. Erasing an unknown number is not an error.
		e.list(a, "again", gone)
		removed, _, err = e.s.EraseRows(e.Context(), a.ID, gone, plainAnswers)
		e.must(err)
		equal(e, "removed the second time", removed.Contacts, 1)
		removed, _, err = e.s.EraseRows(e.Context(), a.ID, mobile(77), plainAnswers)
		e.must(err)
		equal(e, "removed of an unknown number", removed, store.Removed{})
		e.must(e.s.Compact(e.Context()))
	}},
	{"people of one audience may be erased at the same time", func(e *env) {
		t := e.limited("a", 1000)
		var phones []string
		for i := range 12 {
			phones = append(phones, mobile(i))
		}
		c, _ := e.freeze(e.confirm(e.campaign(t, "c", e.list(t, "people", append(phones, mobile(99))...)), 0))
		var g errgroup.Group
		for _, phone := range phones {
			g.Go(func() error {
				removed, recipients, err := e.s.EraseRows(e.Context(), t.ID, phone, plainAnswers)
				if err == nil && (removed.Audiences != 1 || len(recipients) != 1) {
					err = fmt.Errorf("erased %+v, want one place", removed)
				}
				return err
			})
		}
		e.must(g.Wait())
		equal(e, "entries", e.thaw(c).flags(), strings.Repeat(":3 ", len(phones))+mobile(99)+":0")
	}},
	{"an erasure waits for an audience that is being written", func(e *env) {
		t := e.limited("a", 1000)
		e.load(t, e.list(t, "people"), importfile.CSV, "phone,email\n"+mobile(1)+",anna@example.com\n")
		begun, err := e.s.Begin(e.Context(), t.ID, "r", "k", []byte("b"))
		e.must(err)
		e.must(e.s.Finish(e.Context(), begun, 201, []byte(`{"email":"anna@example.com"}`)))
		e.exec("INSERT INTO freezes (id, tenant, campaign, state, seen_ms) VALUES ('writing', '" + t.ID + "', 1, 0, 0)")
		if _, _, err := e.s.EraseRows(e.Context(), t.ID, mobile(1), plainAnswers); err == nil {
			e.Error("while an audience is being written: got no error")
		}
		left, err := e.s.ContactByPhone(e.Context(), t.ID, mobile(1))
		e.must(err)
		equal(e, "deleted, so that the next audience has no such contact", !left.Deleted.IsZero(), true)
		e.exec("UPDATE freezes SET state = 1 WHERE id = 'writing'")
		removed, _, err := e.s.EraseRows(e.Context(), t.ID, mobile(1), plainAnswers)
		e.must(err)
		equal(e, "removed once it is written", removed, store.Removed{Contacts: 1, Answers: 1})
	}},
	{"a replay leaves out who was erased", func(e *env) {
		t := e.limited("a", 1000)
		l := e.list(t, "people", mobile(1), mobile(2))
		origin, _ := e.freeze(e.confirm(e.campaign(t, "c", l), 0))
		_, _, err := e.s.EraseRows(e.Context(), t.ID, mobile(1), plainAnswers)
		e.must(err)
		c := e.replay(origin, 0, 1)
		sample, err := e.s.ReplaySample(e.Context(), &c, 2)
		e.must(err)
		equal(e, "people of the sample", len(sample), 1)
		_, f := e.freeze(e.confirm(c, 0))
		equal(e, "entries", f.flags(), mobile(2)+":0")
	}},
	{"the record of an erasure has no number, and its job forgets it", func(e *env) {
		a := e.limited("a", 1000)
		j, err := e.s.OrderErasure(e.Context(), store.Job{Tenant: a.ID, By: "key"}, mobile(1), "req")
		e.must(err)
		record, err := e.s.Erasure(e.Context(), a.ID, j.ID)
		e.must(err)
		if record.NumberHash == "" || len(record.NumberHash) != 2*len(e.keys.NumberHash(a.ID, mobile(1))) || record.By != "key" || record.RequestID != "req" || !record.Finished.IsZero() {
			e.Errorf("got %+v, want a record with the hash", record)
		}
		ctx, stop := context.WithCancel(e.Context())
		runs := 0
		e.must(e.s.RunJobs(ctx, func(ctx context.Context, run *store.JobRun) error {
			runs++
			phone, recipients, err := run.EraseNumber(ctx)
			e.must(err)
			equal(e, "the number", phone, mobile(1))
			equal(e, "recipients of an earlier run", len(recipients), 0)
			e.must(run.KeepErasure(ctx, phone, store.Removed{Contacts: 1, Audiences: 2}, map[string]*roaring.Bitmap{"camp_1": roaring.BitmapOf(3, 4)}))
			phone, recipients, err = run.EraseNumber(ctx)
			e.must(err)
			equal(e, "the number once the rows are erased", phone, mobile(1))
			equal(e, "recipients kept", recipients["camp_1"].String(), "{3,4}")
			// When the job is run again, it finds no audience.
			e.must(run.CountErasure(ctx, store.Removed{Contacts: 1, Recipients: 7}))
			phone, _, err = run.EraseNumber(ctx)
			e.must(err)
			equal(e, "the number when everything is removed", phone, "")
			return run.EndErasure(ctx)
		}, func(*store.Job) { stop() }))
		equal(e, "runs", runs, 1)
		rows, n, err := e.s.Erasures(e.Context(), a.ID, store.Page{})
		e.must(err)
		equal(e, "records", n, 1)
		if len(rows) != 1 || rows[0].Removed != (store.Removed{Contacts: 1, Audiences: 2, Recipients: 7}) || rows[0].Failed != "" || rows[0].Finished.IsZero() {
			e.Errorf("got %+v, want one that is finished", rows)
		}
		digits := strings.TrimPrefix(mobile(1), "+")
		if strings.Contains(e.dump(a), digits) {
			e.Errorf("the number is in a table:\n%s", e.dump(a))
		}
	}},
	{"an erasure waits for imports", func(e *env) {
		a := e.limited("a", 1000)
		list := e.list(a, "people")
		e.order(a, list, "phone\n"+mobile(3))
		_, err := e.s.OrderErasure(e.Context(), store.Job{Tenant: a.ID, By: "key"}, mobile(1), "")
		e.wantErr(err, store.ErrImportRuns)
	}},
	{"imports wait for an erasure, until it has failed", func(e *env) {
		a, b := e.limited("a", 1000), e.limited("b", 1000)
		list, theirs := e.list(a, "people"), e.list(b, "people")
		file := e.upload(a, "phone\n"+mobile(3))
		j, err := e.s.OrderErasure(e.Context(), store.Job{Tenant: a.ID, By: "key"}, mobile(1), "")
		e.must(err)
		_, err = e.s.StartImport(e.Context(), a.ID, list.Number, file.ID, store.ImportOptions{})
		e.wantErr(err, store.ErrErasureRuns)
		from := func(t store.Tenant, l store.List) error {
			_, err := e.s.Import(e.Context(), t.ID, l.Number, store.ImportOptions{Format: importfile.CSV}, strings.NewReader("phone\n"+mobile(3)), nil)
			return err
		}
		e.wantErr(from(a, list), store.ErrErasureRuns)
		e.must(from(b, theirs))
		record, err := e.s.Erasure(e.Context(), a.ID, j.ID)
		e.must(err)
		equal(e, "failed while it goes on", record.Failed, "")
		e.runJobs(e.s, j, func(context.Context, *store.JobRun) error {
			return &store.JobError{Reason: "it did not end within a day"}
		}, jobEnded)
		record, err = e.s.Erasure(e.Context(), a.ID, j.ID)
		e.must(err)
		equal(e, "failed", record.Failed, "it did not end within a day")
		e.must(from(a, list))
		e.clock.add(store.JobLife + time.Hour)
		e.must(e.s.Collect(e.Context())) // the job is removed, the record of the erasure stays
		record, err = e.s.Erasure(e.Context(), a.ID, j.ID)
		e.must(err)
		if record.Failed == "" || !record.Finished.IsZero() {
			e.Errorf("a week later: got %+v, want it failed", record)
		}
	}},
}

// table returns the rows of a tenant in one table as text.
func (e *env) table(name string, t store.Tenant) string {
	e.Helper()
	var b strings.Builder
	e.dumpTable(&b, name, t)
	return b.String()
}
