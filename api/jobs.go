package api

import (
	"context"

	"golang.org/x/sync/errgroup"

	"fanfare/api/store"
)

// RunJobs runs exports, segments, audits and erasures until ctx ends, including those that were ordered in other
// processes. It also checks the domains of links, and resumes campaigns that waited for one.
func (s *Server) RunJobs(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.s.watchDomains(ctx) })
	group.Go(func() error {
		return s.s.Store.RunJobs(ctx, s.s.runJob, func(j *store.Job) { s.s.metrics.jobs.WithLabelValues(string(j.Kind), string(j.State)).Inc() })
	})
	return group.Wait()
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
