package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/go-json-experiment/json"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Sources are what an audit counts a campaign from, beside the store and the statistics.
type Sources interface {
	// Log reads what the topics deliveries and chunks hold of a campaign up to now, without the statistics. It may take
	// minutes.
	Log(ctx context.Context, tenant, campaign string) (*LogRecord, error)
	// Carrier reads the record that the simulated carrier keeps of a campaign, nil if this process does not keep it.
	Carrier(ctx context.Context, campaign string) (*CarrierRecord, error)
}

// LogRecord is what the log holds of one campaign.
type LogRecord struct {
	Sets     *analytics.Sets
	Cost     []analytics.CostLine
	InFlight uint64
	// Dealt are the recipients that were dealt.
	Dealt *roaring.Bitmap
	// Events and Deals of the campaign; Refused are records of any campaign that cannot be read.
	Events, Deals, Refused uint64
	// Read is when it had been read: nothing that was written later is in the record.
	Read time.Time
	// Newest is the time of the newest event.
	Newest time.Time
}

// CarrierRecord is what a carrier wrote down about one campaign.
type CarrierRecord struct {
	// Accepted are the recipients that have an accepted submission, Delivered those whose receipts say delivered, Owed
	// those whose receipt is not due yet.
	Accepted, Delivered, Owed *roaring.Bitmap
}

// Audit is a campaign counted from each source, and the differences.
type Audit struct {
	CampaignID  string        `json:"campaignId" doc:"Campaign that is counted."`
	Status      string        `json:"status" enum:"queued,running,done,failed,cancelled" doc:"Ask again until it is done."`
	Error       *string       `json:"error" doc:"Why it failed; of one that runs, what holds it up."`
	OK          *bool         `json:"ok" doc:"True: each difference is explained, or 0. Null until it is done."`
	Unexplained int           `json:"unexplained" doc:"Figures with a difference that nothing explains."`
	Figures     []AuditFigure `json:"figures" nullable:"false" doc:"Each figure as each source has it; empty until the audit is done."`
	Notes       []string      `json:"notes" nullable:"false" doc:"What was read, and what was not there to be read."`
	StartedAt   string        `json:"startedAt" format:"date-time" doc:"When the audit was ordered, in UTC."`
	FinishedAt  *string       `json:"finishedAt" format:"date-time" doc:"When it ended, in UTC; null while it runs."`
}

// AuditFigure is one figure as each source has it.
type AuditFigure struct {
	Name        string       `json:"name" doc:"What is counted." example:"delivered"`
	Unit        string       `json:"unit" enum:"recipients,money" doc:"recipients: values are whole numbers of them. money: values are amounts of the tenant's currency."`
	Values      []AuditValue `json:"values" nullable:"false" doc:"One for each source that has the figure."`
	Difference  float64      `json:"difference" doc:"Between the greatest and the least value; of recipients whom the carrier names, how many only one of both has."`
	Explained   bool         `json:"explained" doc:"True also when there is no difference."`
	Explanation *string      `json:"explanation" doc:"Where the difference comes from; of one that is not explained, what was looked for."`
}

// AuditValue is what one source says.
type AuditValue struct {
	Source string  `json:"source" enum:"log,statistics,ledger,campaign,carrier" doc:"Where the value comes from. log: the topics of Kafka; carrier: the record of the simulated carrier."`
	Value  float64 `json:"value" doc:"Recipients, or an amount of the tenant's currency."`
}

type (
	auditIn struct {
		ID   string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
		Wait int    `query:"wait" minimum:"0" maximum:"30" default:"20" doc:"Seconds to wait for the end of the audit."`
	}
	auditOrderIn struct {
		ID string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
	}
	auditOut struct{ Body *Audit }
)

// auditOrder is what was ordered, as the job keeps it.
type auditOrder struct{ Campaign string }

// auditPoll is how often a request that waits looks whether the audit has ended.
const auditPoll = 50 * time.Millisecond

func (s *server) registerAudits() {
	register(s, operation{
		id: "createCampaignAudit", method: http.MethodPost, path: "/api/campaigns/{id}/audit", summary: "Count a campaign again from every source, and compare",
		status: http.StatusAccepted, scope: store.ScopeCampaigns, errors: []int{404, 409}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "Counts the recipients of the campaign and its cost from the log (the topics deliveries and chunks), from the statistics, from the ledger, and from the " +
			"record of the simulated carrier where the campaign went through it. Each difference is explained, or is not. It reads the whole log, which may take minutes: " +
			"the audit runs in the background, and GET of the same path says when it is done. Traffic may go on meanwhile. An audit of the campaign that runs is the answer; " +
			"a second one is not ordered.",
	}, s.orderAudit)
	register(s, operation{
		id: "getCampaignAudit", method: http.MethodGet, path: "/api/campaigns/{id}/audit", summary: "Get the newest audit of a campaign",
		scope: store.ScopeRead, errors: []int{404, 409}, tag: campaignTag,
		describe: "Waits for the end of an audit that runs, as long as wait says; its status is running when it has not ended then. It orders none: POST of the same path does. " +
			"An audit is kept for a week.",
	}, s.campaignAudit)
}

// auditable returns a campaign that there is something to count of. A test key orders audits only of test campaigns.
func (s *server) auditable(ctx context.Context, id string, order bool) (*store.Campaign, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, id)
	if err != nil {
		return nil, err
	}
	if order && who.key.Test && !c.Test {
		return nil, problem.New(problem.CodeTestKey, "%s is not a test campaign, and a test key can order audits only of test campaigns.", c.ID())
	}
	if c.Confirmed.IsZero() {
		return nil, problem.New(problem.CodeWrongState, "%s is %s: there is nothing to count before it is confirmed.", c.ID(), schemas.StateName(c.State))
	}
	return c, nil
}

func (s *server) orderAudit(ctx context.Context, in *auditOrderIn) (*auditOut, error) {
	c, err := s.auditable(ctx, in.ID, true)
	if err != nil {
		return nil, err
	}
	j, err := s.newestAudit(ctx, c)
	if err != nil {
		return nil, err
	}
	if j == nil || !j.Finished.IsZero() {
		order, err := s.jobOf(ctx, store.JobAudit, auditOrder{c.ID()})
		if err != nil {
			return nil, err
		}
		if order, err = s.Store.OrderJob(ctx, order); err != nil {
			return nil, s.jobProblem(err)
		}
		j = &order
	}
	out, err := s.viewAudit(ctx, c, j)
	if err != nil {
		return nil, err
	}
	return &auditOut{out}, nil
}

func (s *server) campaignAudit(ctx context.Context, in *auditIn) (*auditOut, error) {
	c, err := s.auditable(ctx, in.ID, false)
	if err != nil {
		return nil, err
	}
	j, err := s.newestAudit(ctx, c)
	if err != nil {
		return nil, err
	}
	if j == nil {
		return nil, problem.New(problem.CodeNotFound, "%s was not audited in the last days.", c.ID()).WithFix("POST /api/campaigns/%s/audit orders an audit.", c.ID())
	}
	for deadline := time.Now().Add(time.Duration(in.Wait) * time.Second); j.Finished.IsZero() && time.Now().Before(deadline) && !s.stopping(); {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(auditPoll):
		}
		if j, err = s.job(ctx, store.JobAudit, j.ID); err != nil {
			return nil, err
		}
	}
	out, err := s.viewAudit(ctx, c, j)
	if err != nil {
		return nil, err
	}
	return &auditOut{out}, nil
}

// stopping reports whether the server was told to stop.
func (s *server) stopping() bool {
	select {
	case <-s.Done:
		return true
	default:
		return false
	}
}

// newestAudit returns the newest audit of a campaign, nil if there is none among the newest audits of the tenant.
func (s *server) newestAudit(ctx context.Context, c *store.Campaign) (*store.Job, error) {
	const recent = 1_000
	jobs, _, err := s.Store.Jobs(ctx, c.Tenant, store.JobFilter{Kind: store.JobAudit, Page: store.Page{Limit: recent}})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	for i := range jobs {
		var o auditOrder
		if json.Unmarshal(jobs[i].Options, &o) == nil && o.Campaign == c.ID() {
			return &jobs[i], nil
		}
	}
	return nil, nil
}

// auditResult is what the job of an audit makes.
type auditResult struct {
	Figures []AuditFigure
	Notes   []string
}

func (s *server) viewAudit(ctx context.Context, c *store.Campaign, j *store.Job) (*Audit, error) {
	v := &Audit{
		CampaignID: c.ID(), Status: string(j.State), Error: orNull(j.Error), Figures: []AuditFigure{}, Notes: []string{}, StartedAt: stamp(j.Started),
		FinishedAt: stampOrNull(j.Finished),
	}
	if j.State != store.JobDone {
		return v, nil
	}
	err := s.Store.JobParts(ctx, j.Tenant, j.Kind, j.ID, func(part []byte) error {
		r, err := decodeAudit(part)
		if err != nil {
			return fmt.Errorf("result of %s: %w", j.ID, err)
		}
		v.Figures, v.Notes = r.Figures, r.Notes
		return nil
	})
	if err != nil {
		return nil, s.storeProblem(err)
	}
	for i := range v.Figures {
		if !v.Figures[i].Explained {
			v.Unexplained++
		}
	}
	v.OK = new(v.Unexplained == 0)
	return v, nil
}

// runAudit counts a campaign from every source. The order is what makes it exact while traffic goes on: what the
// statistics and the carrier said before the log was read is in the log, and what is in the log is in the statistics
// that are read last.
func (s *server) runAudit(ctx context.Context, run *store.JobRun) error {
	if run.Cursor == exportEnd { // the process ended between the result and the end
		return nil
	}
	var o auditOrder
	if err := json.Unmarshal(run.Options, &o); err != nil {
		return &store.JobError{Reason: "its options cannot be read"}
	}
	if s.Sources == nil {
		return &store.JobError{Reason: "this process cannot read the log"}
	}
	c, err := s.Store.Campaign(ctx, run.Tenant, o.Campaign)
	if errors.Is(err, schemas.ErrNotFound) {
		return &store.JobError{Reason: "the campaign is gone"}
	}
	if err != nil {
		return err
	}
	in := auditInput{campaign: &c}
	if in.carrierBefore, err = s.carrierRecord(ctx, &c); err != nil {
		return err
	}
	if in.before, err = s.Analytics.Sets(ctx, run.Tenant, o.Campaign); err != nil {
		return err
	}
	costs, err := s.Analytics.Cost(ctx, run.Tenant, o.Campaign)
	if err != nil {
		return err
	}
	in.costBefore = costs[o.Campaign]
	if in.log, err = s.Sources.Log(ctx, run.Tenant, o.Campaign); err != nil {
		return err
	}
	if err := s.auditAfter(ctx, &c, &in); err != nil {
		return err
	}
	result, err := encodeAudit(in.compare())
	if err != nil {
		return err
	}
	return run.Step(ctx, exportEnd, 1, result)
}

// auditAfter reads what is to be compared with the log, once the statistics have what the log had.
func (s *server) auditAfter(ctx context.Context, c *store.Campaign, in *auditInput) (err error) {
	for deadline := time.Now().Add(s.AuditSettle); ; {
		if in.asOf, err = s.Analytics.AsOf(ctx); err != nil {
			return err
		}
		if !in.behind() || time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(auditPoll):
		}
	}
	if in.after, err = s.Analytics.Sets(ctx, c.Tenant, c.ID()); err != nil {
		return err
	}
	costs, err := s.Analytics.Cost(ctx, c.Tenant, c.ID())
	if err != nil {
		return err
	}
	in.cost = costs[c.ID()]
	flying, err := s.Analytics.InFlight(ctx, c.Tenant, c.ID())
	if err != nil {
		return err
	}
	in.inFlight = flying[c.ID()]
	if in.carrierAfter, err = s.carrierRecord(ctx, c); err != nil {
		return err
	}
	if in.ledger, err = s.capturedInLedger(ctx, c); err != nil {
		return err
	}
	now, err := s.Store.Campaign(ctx, c.Tenant, c.ID())
	if err != nil {
		return err
	}
	in.campaignAfter = &now
	balance, err := s.Store.Balance(ctx, c.Tenant)
	in.owed = balance.Owed
	return err
}

// carrierRecord is the record of the simulated carrier, if everything of the campaign goes through it.
func (s *server) carrierRecord(ctx context.Context, c *store.Campaign) (*CarrierRecord, error) {
	for _, leg := range c.Legs {
		r, err := s.routes.route(ctx, leg.Route)
		if errors.Is(err, schemas.ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if !s.Connectors.simulates(r.Connector) {
			return nil, nil
		}
	}
	return s.Sources.Carrier(ctx, c.ID())
}

// capturedInLedger sums what the ledger has captured for a campaign.
func (s *server) capturedInLedger(ctx context.Context, c *store.Campaign) (micros uint64, err error) {
	const atOnce = 1_000
	for f := (store.LedgerFilter{Campaign: c.ID(), Page: store.Page{Limit: atOnce}}); ; {
		rows, _, err := s.Store.NewestLedger(ctx, c.Tenant, f)
		if err != nil {
			return 0, err
		}
		for i := range rows {
			if rows[i].To == store.AccountCaptured {
				micros += rows[i].Micros
			}
			if rows[i].From == store.AccountCaptured {
				micros -= rows[i].Micros
			}
		}
		if len(rows) < atOnce {
			return micros, nil
		}
		f.Before = rows[len(rows)-1].ID
	}
}
