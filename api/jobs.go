package api

import (
	"context"

	"fanfare/api/store"
)

// RunJobs runs exports, segments, audits and erasures until ctx ends, including those that were ordered in other
// processes.
func (s *Server) RunJobs(ctx context.Context) error {
	return s.s.Store.RunJobs(ctx, s.s.runJob, func(j *store.Job) { s.s.metrics.jobs.WithLabelValues(string(j.Kind), string(j.State)).Inc() })
}

// runJob runs a job to its end. A [store.JobError] ends it; after any other error it is continued later.
func (s *server) runJob(ctx context.Context, run *store.JobRun) error {
	s.metrics.jobsRunning.WithLabelValues(string(run.Kind)).Inc()
	defer s.metrics.jobsRunning.WithLabelValues(string(run.Kind)).Dec()
	switch run.Kind {
	case store.JobExport:
		return s.runExport(ctx, run)
	case store.JobSegment:
		return s.runSegment(ctx, run)
	case store.JobAudit:
		return s.runAudit(ctx, run)
	case store.JobErase:
		return s.runErasure(ctx, run)
	}
	return &store.JobError{Reason: "this program does not know this kind of job"}
}
