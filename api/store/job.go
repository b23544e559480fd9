package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"fanfare/api/store/db"
	"fanfare/schemas"
)

// JobKind says what a job does.
type JobKind string

// Kinds of jobs.
const (
	JobExport  JobKind = "export"
	JobSegment JobKind = "segment"
	JobAudit   JobKind = "audit"
	JobErase   JobKind = "erasure"
)

// jobPrefix begins the ids of a kind.
var jobPrefix = map[JobKind]string{JobExport: "exp_", JobSegment: "seg_", JobAudit: "aud_", JobErase: "era_"}

// JobState says how far a job is.
type JobState string

// States of a job.
const (
	JobQueued    JobState = "queued"
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

const (
	// JobLife is how long an ended job and what it made are kept.
	JobLife = 7 * 24 * time.Hour
	// MaxOpenJobs is how many jobs of one kind may wait or run for a tenant at a time.
	MaxOpenJobs = 50
	// jobLimit is after how long a job fails that could not finish because a service that it needs is down.
	jobLimit = 24 * time.Hour
	// planPart is the number of the part that holds the plan of a job. Results have the numbers from 1.
	planPart = 0
)

// errJobGivenUp means that the job was begun mostClaims times: it probably crashes its process.
var errJobGivenUp = &JobError{fmt.Sprintf("it was begun %d times and never ended", mostClaims)}

// JobError is a permanent error of a job. After any other error, the job is tried again.
type JobError struct{ Reason string }

func (e *JobError) Error() string { return e.Reason }

// Job is work of a tenant that takes longer than a request. Any process runs it ([Store.RunJobs]).
type Job struct {
	ID      string
	Tenant  string
	Kind    JobKind
	State   JobState
	Error   string          // why the job failed; while it has not ended, why its last step failed
	Test    bool            // ordered with a test key
	By      string          // the key that ordered it
	Options json.RawMessage // what was ordered
	List    uint64          // number of the list that a segment fills
	Cursor  string          // where the next step begins
	Done    uint64          // rows done
	Total   uint64          // rows, if Known
	Known   bool            // Total is known
	Bytes   uint64          // of its result, before compression
	Started time.Time
	// Finished is zero until the job has ended.
	Finished time.Time

	owner  string
	claims int64
	cancel bool
}

func jobOf(r db.Job) Job {
	return Job{
		ID: r.ID, Tenant: r.Tenant, Kind: JobKind(r.Kind), State: JobState(r.State), Error: r.Error, Test: r.Test, By: r.ByWhom,
		Options: json.RawMessage(r.Options), List: uint64(r.List), Cursor: r.Position, Done: uint64(r.Done), Total: uint64(max(r.Total, 0)),
		Known: r.Total >= 0, Bytes: uint64(r.Bytes), Started: fromMS(r.StartedMs), Finished: fromMS(r.FinishedMs),
		owner: r.Owner, claims: r.Claims, cancel: r.Cancel,
	}
}

// OrderJob orders a job, which [Store.RunJobs] runs in any process. It reads Tenant, Kind, Test, By and Options of j. A
// [LimitError] says that too many jobs of the kind are open already.
func (s *Store) OrderJob(ctx context.Context, j Job) (Job, error) {
	err := s.write(ctx, func(tx *tx) (err error) {
		j, err = tx.orderJob(ctx, j)
		return err
	})
	if err != nil {
		return Job{}, fmt.Errorf("order %s: %w", j.Kind, err)
	}
	s.wakeJobs()
	return j, nil
}

// OrderSegment creates a contact list and orders the job that fills it. plan is the plan of the job ([JobRun.Plan]);
// total is how many contacts there will be.
func (s *Store) OrderSegment(ctx context.Context, j Job, name string, testList bool, plan []byte, total uint64) (Job, List, error) {
	name = strings.TrimSpace(name)
	if err := checkListName(name); err != nil {
		return Job{}, List{}, err
	}
	var l List
	packed := packPart(plan)
	j.Total, j.Known = total, true
	err := s.write(ctx, func(tx *tx) (err error) {
		if l, err = tx.createList(ctx, j.Tenant, name, testList); err != nil {
			return err
		}
		j.List = l.Number
		if j, err = tx.orderJob(ctx, j); err != nil {
			return err
		}
		return tx.PutJobPart(ctx, j.ID, planPart, packed)
	})
	if isTaken(err) {
		return Job{}, List{}, &NameError{Kind: "contact list", Name: name}
	}
	if err != nil {
		return Job{}, List{}, fmt.Errorf("order %s: %w", j.Kind, err)
	}
	s.wakeJobs()
	return j, l, nil
}

func (t *tx) orderJob(ctx context.Context, j Job) (Job, error) {
	open, err := t.CountOpenJobs(ctx, j.Tenant, string(j.Kind))
	if err != nil {
		return j, err
	}
	if open >= MaxOpenJobs {
		return j, &LimitError{Limit: LimitJobs, Want: uint64(open) + 1, Max: MaxOpenJobs}
	}
	j.ID, j.State, j.Started = jobPrefix[j.Kind]+randomText(24), JobQueued, t.at
	total := int64(-1)
	if j.Known {
		total = int64(j.Total)
	}
	return j, t.InsertJob(ctx, db.InsertJobParams{
		Total: total, ID: j.ID, Tenant: j.Tenant, Kind: string(j.Kind), Test: j.Test, ByWhom: j.By, Options: string(j.Options), List: int64(j.List), Now: t.now,
	})
}

func (s *Store) wakeJobs() {
	select {
	case s.jobs <- struct{}{}:
	default: // somebody is awake
	}
}

// Job returns a job of a tenant.
func (s *Store) Job(ctx context.Context, tenant string, kind JobKind, id string) (Job, error) {
	r, err := s.q.GetJob(ctx, tenant, string(kind), id)
	return jobOf(r), found(err, string(kind), id)
}

// JobFilter chooses jobs of a tenant. Newest first.
type JobFilter struct {
	Page
	Kind JobKind
	// After continues behind the job with this id that began at AfterTime, instead of at a page. New jobs then cause no
	// gap and no repetition.
	After     string
	AfterTime time.Time
}

// Jobs returns a page of jobs and how many there are in all.
func (s *Store) Jobs(ctx context.Context, tenant string, f JobFilter) ([]Job, int, error) {
	total, err := s.q.CountJobs(ctx, tenant, string(f.Kind))
	if err != nil {
		return nil, 0, fmt.Errorf("count jobs: %w", err)
	}
	limit, offset := f.bounds()
	arg := db.ListJobsParams{Tenant: tenant, Kind: string(f.Kind), BeforeMs: math.MaxInt64, Max: limit, Skip: offset}
	if f.After != "" {
		arg.BeforeMs, arg.Above, arg.Skip = ms(f.AfterTime), f.After, 0
	}
	rows, err := s.q.ListJobs(ctx, arg)
	out, err := all(rows, err, jobOf)
	if err != nil {
		return nil, 0, fmt.Errorf("jobs: %w", err)
	}
	return out, int(total), nil
}

// CancelJob cancels a job: at once if no process runs it, else at its next step. The error is [schemas.ErrTransition]
// when the job has ended.
func (s *Store) CancelJob(ctx context.Context, tenant string, kind JobKind, id string) error {
	if _, err := s.Job(ctx, tenant, kind, id); err != nil {
		return err
	}
	var n int64
	err := s.write(ctx, func(tx *tx) (err error) {
		n, err = tx.CancelJob(ctx, tx.now, tenant, id)
		return err
	})
	if err == nil && n == 0 {
		return fmt.Errorf("%s %s has ended: %w", kind, id, schemas.ErrTransition)
	}
	if err != nil {
		return fmt.Errorf("cancel %s: %w", id, err)
	}
	return s.dropCancelled(ctx, tenant, kind, id)
}

// dropCancelled removes the result of a job that was cancelled while no process ran it.
func (s *Store) dropCancelled(ctx context.Context, tenant string, kind JobKind, id string) error {
	j, err := s.Job(ctx, tenant, kind, id)
	if err != nil || j.State != JobCancelled {
		return err
	}
	return s.dropJobParts(ctx, id, false)
}

// RemoveJob removes an ended job and its result. The error is [schemas.ErrTransition] when the job has not ended.
func (s *Store) RemoveJob(ctx context.Context, tenant string, kind JobKind, id string) error {
	j, err := s.Job(ctx, tenant, kind, id)
	if err != nil {
		return err
	}
	if j.Finished.IsZero() {
		return fmt.Errorf("%s %s has not ended: %w", kind, id, schemas.ErrTransition)
	}
	return s.dropJobParts(ctx, id, true)
}

// JobParts calls each with the parts of the result of a finished job, in order, until each returns an error. A part is
// valid until each returns.
func (s *Store) JobParts(ctx context.Context, tenant string, kind JobKind, id string, each func(part []byte) error) error {
	if _, err := s.Job(ctx, tenant, kind, id); err != nil {
		return err
	}
	var buf []byte
	for after := int64(planPart); ; {
		r, err := s.q.NextJobPart(ctx, id, after)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("part %d of %s: %w", after+1, id, err)
		}
		if r.Part != after+1 { // the job was removed meanwhile
			return notFound(string(kind), id)
		}
		if buf, err = unpackPart(buf[:0], r.Data); err != nil {
			return fmt.Errorf("part %d of %s: %w", r.Part, id, err)
		}
		if err := each(buf); err != nil {
			return err
		}
		after = r.Part
	}
}

// RunJobs runs jobs until ctx ends: new orders, and jobs whose process is dead. A job that run cannot finish is given
// back, so that another process continues it at once. RunJobs calls ended with each job that it has ended.
func (s *Store) RunJobs(ctx context.Context, run func(context.Context, *JobRun) error, ended func(*Job)) error {
	g, ctx := errgroup.WithContext(ctx)
	for range jobsAtOnce {
		g.Go(func() error {
			for ctx.Err() == nil {
				wait := jobPoll
				ran, err := s.runJob(ctx, run, ended)
				if err != nil && ctx.Err() == nil {
					s.log.WarnContext(ctx, "job interrupted, a process will continue it", "err", err)
					wait = jobRetry
				} else if ran {
					continue
				}
				select {
				case <-ctx.Done():
				case <-s.jobs:
				case <-time.After(wait):
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// runJob runs one job, and reports whether there was one. An error means that the job is continued later.
func (s *Store) runJob(ctx context.Context, run func(context.Context, *JobRun) error, ended func(*Job)) (ran bool, err error) {
	owner := randomText(16)
	var row db.Job
	err = s.write(ctx, func(tx *tx) (err error) {
		row, err = tx.ClaimJob(ctx, owner, tx.now, tx.at.Add(-jobSilent).UnixMilli())
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("claim a job: %w", err)
	}
	r := &JobRun{Job: jobOf(row), s: s}
	switch {
	case r.cancel:
		err = errCancelled
	case r.claims > mostClaims:
		err = errJobGivenUp
	default:
		stop := r.touch(ctx)
		err = run(ctx, r)
		stop()
	}
	if errors.Is(err, errTaken) {
		return true, nil
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), jobRetry)
	defer cancel()
	err = r.end(clean, err, ctx.Err() != nil)
	if r.State != JobRunning {
		ended(&r.Job)
	}
	return true, err
}

// JobRun is a job that this process runs.
type JobRun struct {
	Job
	s *Store
}

// touch writes every few seconds that the job is still being run, until stop is called, because a step may take longer
// than jobSilent.
func (r *JobRun) touch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(jobSilent / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_ = r.s.write(ctx, func(tx *tx) error { // if this fails, the next step returns the error
					return tx.TouchJob(ctx, db.TouchJobParams{Now: tx.now, Tenant: r.Tenant, ID: r.ID, Owner: r.owner})
				})
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

// Plan returns the plan that an earlier run of the job has stored; nil if there is none.
func (r *JobRun) Plan(ctx context.Context) ([]byte, error) {
	packed, err := r.s.q.GetJobPart(ctx, r.ID, planPart)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("plan of %s: %w", r.ID, err)
	}
	return unpackPart(nil, packed)
}

// Begin stores the plan, with which another process can continue the job, and how many rows there will be.
func (r *JobRun) Begin(ctx context.Context, plan []byte, total uint64) error {
	packed := packPart(plan)
	return r.step(ctx, func(j *Job) { j.Total, j.Known = total, true }, func(tx *tx) error {
		return tx.PutJobPart(ctx, r.ID, planPart, packed)
	})
}

// Step stores a part of the result with that many rows and the cursor of the next step, in one transaction. After an
// error this process must not continue the job.
func (r *JobRun) Step(ctx context.Context, cursor string, rows int, part []byte) error {
	packed := packPart(part)
	return r.step(ctx, func(j *Job) {
		j.Cursor, j.Done, j.Bytes = cursor, j.Done+uint64(rows), j.Bytes+uint64(len(part))
	}, func(tx *tx) error { return tx.AddJobPart(ctx, r.ID, packed) })
}

// StepMembers adds contacts to the list of a segment, except those that do not exist or are in it already, and stores
// the cursor of the next step. rows is the number of rows by which the progress grows.
func (r *JobRun) StepMembers(ctx context.Context, cursor string, rows int, contacts []uint64) error {
	return r.step(ctx, func(j *Job) { j.Cursor, j.Done = cursor, j.Done+uint64(rows) }, func(tx *tx) error {
		err := tx.fill(ctx, r.Tenant, int64(r.List), contacts)
		if isNotFound(err) {
			return &JobError{"the contact list was deleted"}
		}
		return err
	})
}

// step writes the figures of the job and what extra writes, in one transaction.
func (r *JobRun) step(ctx context.Context, change func(*Job), extra func(*tx) error) error {
	next := r.Job
	change(&next)
	total := int64(-1)
	if next.Known {
		total = int64(next.Total)
	}
	err := r.s.write(ctx, func(tx *tx) error {
		cancel, err := tx.StepJob(ctx, db.StepJobParams{
			Position: next.Cursor, Done: int64(next.Done), Total: total, Bytes: int64(next.Bytes), Now: tx.now, Tenant: r.Tenant, ID: r.ID, Owner: r.owner,
		})
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return errTaken
		case err != nil:
			return err
		case cancel:
			return errCancelled
		}
		return extra(tx)
	})
	if err != nil {
		return fmt.Errorf("step of %s: %w", r.ID, err)
	}
	r.Job = next
	return nil
}

// end ends the job, or gives it back after a temporary error.
func (r *JobRun) end(ctx context.Context, cause error, stopping bool) error {
	state, reason := JobDone, ""
	var final *JobError
	switch {
	case cause == nil:
	case errors.Is(cause, errCancelled):
		state = JobCancelled
	case errors.As(cause, &final):
		state, reason = JobFailed, final.Reason
	case !stopping && r.s.now().Sub(r.Started) > jobLimit:
		state, reason = JobFailed, "it did not end within a day: "+cause.Error()
	default:
		if stopping {
			cause = nil
		} else {
			reason = "a service that it needs does not answer; it will continue by itself"
		}
		release := r.s.write(ctx, func(tx *tx) error {
			return tx.ReleaseJob(ctx, db.ReleaseJobParams{Error: reason, Tenant: r.Tenant, ID: r.ID, Owner: r.owner})
		})
		if err := errors.Join(cause, release); err != nil {
			return fmt.Errorf("job %s: %w", r.ID, err)
		}
		return nil
	}
	err := r.s.write(ctx, func(tx *tx) error {
		n, err := tx.FinishJob(ctx, db.FinishJobParams{State: string(state), Error: reason, Now: tx.now, Tenant: r.Tenant, ID: r.ID, Owner: r.owner})
		if err == nil && n == 0 {
			err = errTaken
		}
		return err
	})
	if errors.Is(err, errTaken) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("end job %s: %w", r.ID, err)
	}
	r.State, r.Error = state, reason
	if state == JobDone {
		return nil
	}
	return r.s.dropJobParts(ctx, r.ID, false)
}

// dropJobParts removes the result of a job, in several transactions, and then the job itself if job is true.
func (s *Store) dropJobParts(ctx context.Context, id string, job bool) error {
	for more := true; more; {
		err := s.write(ctx, func(tx *tx) error {
			const atOnce = 20
			n, err := tx.DropJobParts(ctx, id, atOnce)
			if more = n == atOnce; err != nil || more || !job {
				return err
			}
			return tx.DropJob(ctx, id)
		})
		if err != nil {
			return fmt.Errorf("drop job %s: %w", id, err)
		}
	}
	return nil
}

// collectJobs removes jobs that ended more than [JobLife] ago, with their results.
func (s *Store) collectJobs(ctx context.Context) error {
	for {
		old, err := s.q.OldJobs(ctx, s.now().Add(-JobLife).UnixMilli())
		if err != nil {
			return fmt.Errorf("find old jobs: %w", err)
		}
		if len(old) == 0 {
			return nil
		}
		for _, id := range old {
			if err := s.dropJobParts(ctx, id, true); err != nil {
				return err
			}
		}
	}
}

// The encoder and decoder of parts. EncodeAll and DecodeAll may be called concurrently.
var (
	packer = sync.OnceValue(func() *zstd.Encoder {
		// The options are valid
		e, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(jobsAtOnce))
		return e
	})
	unpacker = sync.OnceValue(func() *zstd.Decoder {
		d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(readConns)) // the options are valid
		return d
	})
)

func packPart(part []byte) []byte { return packer().EncodeAll(part, nil) }

func unpackPart(into, packed []byte) ([]byte, error) { return unpacker().DecodeAll(packed, into) }

// CampaignsSending returns the numbers of the campaigns of a tenant, including those of single sends, that may have
// handed messages over at or after from and before to; at most limit of them, in ascending order.
func (s *Store) CampaignsSending(ctx context.Context, tenant string, from, to time.Time, limit int) ([]uint64, error) {
	const slack = time.Hour // a message that was in flight when its campaign ended is handed over later
	rows, err := s.q.CampaignsSending(ctx, db.CampaignsSendingParams{Tenant: tenant, FromMs: from.Add(-slack).UnixMilli(), ToMs: to.UnixMilli(), Max: int64(limit)})
	out, err := all(rows, err, func(n int64) uint64 { return uint64(n) })
	if err != nil {
		return nil, fmt.Errorf("campaigns that sent: %w", err)
	}
	return out, nil
}
