package store

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
)

// Erasure is the record that a person was erased. It does not contain the number.
type Erasure struct {
	ID         string // of the job
	Tenant     string
	NumberHash string // keyed, in hexadecimal, as opt-outs have it
	By         string
	RequestID  string
	Removed    Removed
	Ordered    time.Time
	// Finished is zero until everything is removed.
	Finished time.Time
	// Failed is why the erasure ended before everything was removed; "" while it runs, and when it is finished.
	Failed string
}

// Removed counts what an erasure removed.
type Removed struct {
	Contacts   int    // rows of contacts, including deleted ones
	OptOuts    int    // opt-outs, and changes of opt-outs, that keep the hash in place of the number
	Audiences  int    // recipients of frozen audiences
	Recipients uint64 // of campaigns and single sends, in the statistics
	Exports    int    // files that were made before
	Uploads    int    // files that were not imported yet
	Rejects    int    // lists of rows that imports refused
	Answers    int    // answers kept for repeated requests
	Webhooks   int    // events that waited for an endpoint, and clients' references of messages
	Messages   int    // of conversations
}

// most returns the larger of each count, because a repeated erasure finds less than the first one.
func (r Removed) most(o Removed) Removed {
	return Removed{
		Contacts: max(r.Contacts, o.Contacts), OptOuts: max(r.OptOuts, o.OptOuts), Audiences: max(r.Audiences, o.Audiences),
		Recipients: max(r.Recipients, o.Recipients), Exports: max(r.Exports, o.Exports), Uploads: max(r.Uploads, o.Uploads),
		Rejects: max(r.Rejects, o.Rejects), Answers: max(r.Answers, o.Answers), Webhooks: max(r.Webhooks, o.Webhooks),
		Messages: max(r.Messages, o.Messages),
	}
}

// erasureHash is the text that replaces the number of an erased person wherever a number is required: the hash, with a
// mark with which no number begins.
func (s *Store) erasureHash(tenant, phone string) string {
	hash := s.keys.NumberHash(tenant, phone)
	return hex.EncodeToString(hash[:])
}

const erasedMark = "#"

// ErrImportRuns is returned while an import of the tenant runs: it would bring the person back.
var ErrImportRuns = errors.New("an import is running")

// ErrErasureRuns is returned by an import while a person of the tenant is being erased: it could bring the person back.
var ErrErasureRuns = errors.New("an erasure is running")

// Queries of erasures.
const (
	insertErasure = `INSERT INTO erasures (id, tenant, number_hash, by_whom, request_id, removed, ordered_ms, finished_ms) VALUES (?, ?, ?, ?, ?, '', ?, 0)`
	countErasure  = `UPDATE erasures SET removed = ? WHERE tenant = ? AND id = ? AND finished_ms = 0`
	finishErasure = `UPDATE erasures SET finished_ms = ? WHERE tenant = ? AND id = ? AND finished_ms = 0`
	// The job of an erasure that failed is removed a week later. An erasure that is not finished and has no job has
	// failed.
	erasureColumns = `SELECT e.id, e.tenant, e.number_hash, e.by_whom, e.request_id, e.removed, e.ordered_ms, e.finished_ms,
  COALESCE(j.finished_ms, 1), COALESCE(j.error, '') FROM erasures e LEFT JOIN jobs j ON j.id = e.id AND j.tenant = e.tenant`
	getErasure   = erasureColumns + ` WHERE e.tenant = ? AND e.id = ?`
	listErasures = erasureColumns + ` WHERE e.tenant = ? ORDER BY e.ordered_ms DESC, e.id DESC LIMIT ? OFFSET ?`
	// The record is finished a moment before the job: nothing is left to be removed then.
	openErasures = `SELECT COUNT(*) FROM jobs j JOIN erasures e ON e.id = j.id AND e.tenant = j.tenant
  WHERE j.tenant = ? AND j.kind = '` + string(JobErase) + `' AND j.finished_ms = 0 AND e.finished_ms = 0`
	countErasures = `SELECT COUNT(*) FROM erasures WHERE tenant = ?`
	openImports   = `SELECT COUNT(*) FROM imports WHERE tenant = ? AND finished_ms = 0`
)

// OrderErasure records that a person is to be erased, and orders the job that does it. The number (E.164 with +) is
// kept with the job until it ends, and nowhere else. The error is [ErrImportRuns] while an import of the tenant runs.
func (s *Store) OrderErasure(ctx context.Context, j Job, phone, requestID string) (Job, error) {
	if s.keys == nil {
		return Job{}, errNoKeys
	}
	j.Kind, j.Options = JobErase, []byte("{}")
	plan := packPart([]byte(phone))
	err := s.write(ctx, func(tx *tx) (err error) {
		// With this lock, either an import that is ordered now sees the erasure, or the erasure sees the import
		if err := tx.lockMembers(ctx, j.Tenant); err != nil {
			return err
		}
		var running int
		if err := tx.raw.QueryRowContext(ctx, openImports, j.Tenant).Scan(&running); err != nil {
			return err
		}
		if running > 0 {
			return ErrImportRuns
		}
		if j, err = tx.orderJob(ctx, j); err != nil {
			return err
		}
		if _, err := tx.raw.ExecContext(ctx, insertErasure, j.ID, j.Tenant, s.erasureHash(j.Tenant, phone), j.By, requestID, tx.now); err != nil {
			return err
		}
		return tx.PutJobPart(ctx, j.ID, planPart, plan)
	})
	if err != nil {
		return Job{}, fmt.Errorf("order an erasure: %w", err)
	}
	s.wakeJobs()
	return j, nil
}

func scanErasure(row interface{ Scan(...any) error }) (e Erasure, err error) {
	var removed, reason string
	var ordered, finished, ended int64
	if err := row.Scan(&e.ID, &e.Tenant, &e.NumberHash, &e.By, &e.RequestID, &removed, &ordered, &finished, &ended, &reason); err != nil {
		return e, err
	}
	if finished == 0 && ended > 0 {
		e.Failed = orElse(reason, "its job ended before everything was removed")
	}
	e.Ordered, e.Finished = fromMS(ordered), fromMS(finished)
	if removed != "" {
		err = json.Unmarshal([]byte(removed), &e.Removed)
	}
	return e, err
}

// Erasure returns the record of an erasure.
func (s *Store) Erasure(ctx context.Context, tenant, id string) (Erasure, error) {
	e, err := scanErasure(s.d.read.QueryRowContext(ctx, getErasure, tenant, id))
	return e, found(err, "erasure", id)
}

// Erasures returns a page of the records of erasures, newest first, and how many there are.
func (s *Store) Erasures(ctx context.Context, tenant string, page Page) (out []Erasure, total int, err error) {
	if err := s.d.read.QueryRowContext(ctx, countErasures, tenant).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count erasures: %w", err)
	}
	limit, offset := page.bounds()
	rows, err := s.d.read.QueryContext(ctx, listErasures, tenant, limit, offset)
	if err != nil {
		return nil, 0, fmt.Errorf("erasures: %w", err)
	}
	defer rows.Close()
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		e, err := scanErasure(rows)
		if err != nil {
			return nil, 0, fmt.Errorf("erasures: %w", err)
		}
		out = append(out, e)
	}
	return out, total, rows.Err()
}

// noErasures returns [ErrErasureRuns] while a person of the tenant is being erased.
func (t *tx) noErasures(ctx context.Context, tenant string) error {
	if err := t.lockMembers(ctx, tenant); err != nil {
		return err
	}
	var running int
	if err := t.raw.QueryRowContext(ctx, openErasures, tenant).Scan(&running); err != nil {
		return err
	}
	if running > 0 {
		return ErrErasureRuns
	}
	return nil
}

// erasePlan is the plan of an erasure once its rows are erased. Before, the plan is the number alone.
type erasePlan struct {
	Phone      string
	Recipients map[string][]byte // by campaign, Roaring bitmaps
}

// EraseNumber returns the number that the job of an erasure must erase, "" if everything is removed already, and the
// recipients that an earlier run has kept ([JobRun.KeepErasure]).
func (r *JobRun) EraseNumber(ctx context.Context) (phone string, recipients map[string]*roaring.Bitmap, err error) {
	recipients = map[string]*roaring.Bitmap{}
	plan, err := r.Plan(ctx)
	if err != nil || !bytes.HasPrefix(plan, []byte("{")) {
		return string(plan), recipients, err
	}
	var kept erasePlan
	if err := json.Unmarshal(plan, &kept); err != nil {
		return "", nil, fmt.Errorf("plan of %s: %w", r.ID, err)
	}
	for campaign, set := range kept.Recipients {
		recipients[campaign] = roaring.New()
		if err := recipients[campaign].UnmarshalBinary(set); err != nil {
			return "", nil, fmt.Errorf("plan of %s: %w", r.ID, err)
		}
	}
	return kept.Phone, recipients, nil
}

// KeepErasure notes what was removed so far, and which recipients the person was, because no audience names the person
// any more.
func (r *JobRun) KeepErasure(ctx context.Context, phone string, removed Removed, recipients map[string]*roaring.Bitmap) error {
	plan := erasePlan{phone, map[string][]byte{}}
	for campaign, set := range recipients {
		var err error
		if plan.Recipients[campaign], err = set.ToBytes(); err != nil {
			return err
		}
	}
	text, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	packed := packPart(text)
	return r.step(ctx, func(*Job) {}, func(tx *tx) error {
		if err := tx.countErasure(ctx, &r.Job, removed); err != nil {
			return err
		}
		return tx.PutJobPart(ctx, r.ID, planPart, packed)
	})
}

// CountErasure notes what was removed, and drops the number. [JobRun.EndErasure] follows.
func (r *JobRun) CountErasure(ctx context.Context, removed Removed) error {
	return r.step(ctx, func(*Job) {}, func(tx *tx) error {
		if err := tx.countErasure(ctx, &r.Job, removed); err != nil {
			return err
		}
		_, err := tx.raw.ExecContext(ctx, "DELETE FROM job_parts WHERE job = ?", r.ID)
		return err
	})
}

func (t *tx) countErasure(ctx context.Context, j *Job, removed Removed) error {
	e, err := scanErasure(t.raw.QueryRowContext(ctx, getErasure, j.Tenant, j.ID))
	if err != nil {
		return err
	}
	text, err := json.Marshal(e.Removed.most(removed))
	if err != nil {
		return err
	}
	_, err = t.raw.ExecContext(ctx, countErasure, string(text), j.Tenant, j.ID)
	return err
}

// EndErasure rewrites the store's file ([Store.Compact]) and completes the record of the erasure.
func (r *JobRun) EndErasure(ctx context.Context) error {
	if err := r.s.Compact(ctx); err != nil {
		return err
	}
	return r.step(ctx, func(*Job) {}, func(tx *tx) error {
		_, err := tx.raw.ExecContext(ctx, finishErasure, tx.now, r.Tenant, r.ID)
		return err
	})
}
