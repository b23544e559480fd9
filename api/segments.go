package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Segment is a contact list that is made from members of a campaign.
type Segment struct {
	ID         string    `json:"id" example:"seg_4k2m…" doc:"Given by the installation; kept for 7 days after the end."`
	CampaignID string    `json:"campaignId" doc:"Campaign whose members are selected."`
	Name       string    `json:"name" doc:"Name of the contact list when it was made."`
	ListID     string    `json:"listId" doc:"The contact list; it can be used while it fills, and is complete when status is done."`
	Status     string    `json:"status" enum:"queued,running,done,failed,cancelled" doc:"queued: no process has begun it yet. done: the list is complete."`
	Error      *string   `json:"error" doc:"Why it failed; while it runs, why its last step failed."`
	Selection  Selection `json:"selection"`
	Progress   float64   `json:"progress" doc:"0 to 1." example:"0.42"`
	Selected   uint64    `json:"selected" doc:"Members that the selection selected when the segment was ordered."`
	Done       uint64    `json:"done" doc:"How many of them were processed. Members whose contact was deleted since are not added to the list."`
	CreatedAt  string    `json:"createdAt" format:"date-time" doc:"When it was ordered."`
	FinishedAt *string   `json:"finishedAt" format:"date-time" doc:"When it ended, with or without success; null: it has not ended."`
}

// SegmentInput orders a segment.
type SegmentInput struct {
	Name      string    `json:"name" example:"Clicked the spring offer" doc:"Name of the new contact list."`
	Selection Selection `json:"selection,omitzero" doc:"Which members; default: those that have clicked a link."`
}

// segmentOrder is the order of a segment as the job stores it.
type segmentOrder struct{ Campaign, Name, Selection string }

type (
	segmentCreateIn struct {
		ID   string `path:"id" example:"camp_12345" doc:"Id of the campaign."`
		Body problem.Body[SegmentInput]
	}
	segmentCreateOut struct {
		Location string `header:"Location"`
		Body     *Segment
	}
	segmentIn struct {
		ID string `path:"id" example:"seg_4k2m…" doc:"Id of the segment."`
	}
	segmentOut  struct{ Body *Segment }
	segmentsOut struct{ Body *Page[*Segment] }
)

func (s *server) registerSegments() {
	register(s, operation{
		id: "createSegment", method: http.MethodPost, path: "/api/campaigns/{id}/segments", summary: "Make a contact list from members of a finished campaign", status: http.StatusAccepted,
		scope: store.ScopeContacts, errors: []int{400, 404, 409, 422}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "The members that selection selects now become a new contact list: for example, people who clicked in an SMS campaign become the audience of a WhatsApp campaign (R86, R164). " +
			"The answer comes at once; the list is filled in the background, also after a restart, and GET /api/segments/{id} returns the progress. " +
			"The list of a test key, or of a test campaign, is a test list.",
	}, s.createSegment)
	register(s, operation{
		id: "listSegments", method: http.MethodGet, path: "/api/segments", summary: "List segments of the last 7 days, newest first",
		scope: store.ScopeRead, errors: []int{422}, tag: campaignTag,
	}, func(ctx context.Context, in *exportsIn) (*segmentsOut, error) {
		page, err := jobPage(ctx, s, store.JobSegment, in.Page, in.Limit, in.Cursor, viewSegment)
		if err != nil {
			return nil, err
		}
		return &segmentsOut{page}, nil
	})
	register(s, operation{
		id: "getSegment", method: http.MethodGet, path: "/api/segments/{id}", summary: "Get the progress of a segment",
		scope: store.ScopeRead, errors: []int{404}, tag: campaignTag,
		describe: "The segment is kept for 7 days after it has ended; the list stays.",
	}, func(ctx context.Context, in *segmentIn) (*segmentOut, error) {
		j, err := s.job(ctx, store.JobSegment, in.ID)
		if err != nil {
			return nil, err
		}
		return &segmentOut{viewSegment(j)}, nil
	})
	register(s, operation{
		id: "cancelSegment", method: http.MethodPost, path: "/api/segments/{id}/cancel", summary: "Stop filling a segment",
		scope: store.ScopeContacts, errors: []int{404, 409}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "Contacts that are in the list already stay in it. A running segment stops within a second.",
	}, s.cancelSegment)
}

func (s *server) createSegment(ctx context.Context, in *segmentCreateIn) (*segmentCreateOut, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	if who.key.Test && !c.Test {
		return nil, problem.New(problem.CodeTestKey, "%s is not a test campaign, and a test key can make lists only from test campaigns.", c.ID())
	}
	name := strings.TrimSpace(in.Body.Value.Name)
	var ps problem.List
	checkName(&ps, name)
	if _, isID := store.ListNumber(name); isID {
		ps.Add(problem.CodeInvalid, "name", "The name must not look like the id of a list.")
	}
	if err := ps.Err(); err != nil {
		return nil, err
	}
	if c.State != schemas.StateCompleted && c.State != schemas.StateAborted {
		return nil, problem.New(problem.CodeWrongState, "%s is %s: a segment can be made only from a campaign that has ended.", c.ID(), schemas.StateName(c.State)).
			WithFix("Wait until it is completed, or abort it.")
	}
	people, err := s.peopleOf(ctx, c)
	if err != nil {
		return nil, err
	}
	if people.gone || len(people.index) == 0 {
		return nil, problem.New(problem.CodeWrongState, "The recipients of %s are not known any more: it ended too long ago, or had none.", c.ID()).
			WithFix("Make a list with POST /api/contacts/list.")
	}
	sel := in.Body.Value.Selection
	byClicks := sel.Selection == nil
	if byClicks {
		if sel.Selection, err = analytics.ParseSelection([]byte(`{"clicked":true}`)); err != nil {
			return nil, err
		}
	}
	chosen, _, err := s.selected(ctx, c, sel.Selection)
	if err != nil {
		return nil, err
	}
	chosen.RemoveRange(uint64(c.Total), 1<<32) // drop seqs that are not in the audience
	switch {
	case chosen.IsEmpty() && byClicks:
		return nil, problem.Field(problem.CodeRequired, "selection", "selection is required: without it the segment has the members that clicked, and no click of this campaign is known.").
			WithFix(`Select by something else, such as {"status": "delivered"} or {"replied": true}.`)
	case chosen.IsEmpty():
		return nil, problem.Field(problem.CodeInvalid, "selection", "The selection selects no recipient.").WithFix("POST /api/campaigns/%s/selection counts the recipients that a selection selects.", c.ID())
	}
	plan, total, err := encodePlan([]plannedCampaign{{c.Number, chosen}})
	if err != nil {
		return nil, err
	}
	j, err := s.jobOf(ctx, store.JobSegment, segmentOrder{c.ID(), name, sel.String()})
	if err != nil {
		return nil, err
	}
	j, _, err = s.Store.OrderSegment(ctx, j, name, who.key.Test || c.Test, plan, total)
	if err != nil {
		return nil, s.jobProblem(err)
	}
	return &segmentCreateOut{"/api/segments/" + j.ID, viewSegment(&j)}, nil
}

func (s *server) cancelSegment(ctx context.Context, in *segmentIn) (*segmentOut, error) {
	j, err := s.job(ctx, store.JobSegment, in.ID)
	if err != nil {
		return nil, err
	}
	if err := mayEnd(ctx, j); err != nil {
		return nil, err
	}
	if !j.Finished.IsZero() {
		return nil, problem.New(problem.CodeWrongState, "The segment has ended.").WithFix("GET /api/segments/%s returns its result.", j.ID)
	}
	if j, err = s.endJob(ctx, j); err != nil {
		return nil, err
	}
	return &segmentOut{viewSegment(j)}, nil
}

func viewSegment(j *store.Job) *Segment {
	var o segmentOrder
	_ = json.Unmarshal(j.Options, &o) // jobOf wrote them
	v := &Segment{
		ID: j.ID, CampaignID: o.Campaign, Name: o.Name, ListID: store.ListID(j.List), Status: string(j.State), Error: orNull(j.Error),
		Selected: j.Total, Done: j.Done, CreatedAt: stamp(j.Started), FinishedAt: stampOrNull(j.Finished),
	}
	if p := jobProgress(j); p != nil {
		v.Progress = *p
	}
	if sel, p := parseSelection([]byte(o.Selection)); p == nil {
		v.Selection = Selection{sel}
	}
	return v
}

// runSegment fills the list of a segment. The cursor is the seq to continue at.
func (s *server) runSegment(ctx context.Context, run *store.JobRun) error {
	raw, err := run.Plan(ctx)
	if err != nil {
		return err
	}
	plan, err := decodePlan(raw)
	if err != nil || len(plan) != 1 {
		return &store.JobError{Reason: "the plan of the job cannot be read"}
	}
	c, err := s.Store.Campaign(ctx, run.Tenant, schemas.CampaignID(plan[0].number))
	if err != nil {
		return goneForGood(err)
	}
	people, err := s.peopleOf(ctx, &c)
	if err != nil {
		return err
	}
	var contacts []uint64
	for more := run.Cursor != exportEnd; more; {
		var seqs []uint32
		var next uint32
		seqs, next, more = batchOf(plan[0].chosen, uint32(afterNumber(run.Cursor)))
		contacts = contacts[:0]
		for _, seq := range seqs {
			e, err := people.of(ctx, seq)
			if err != nil {
				return err
			}
			if people.gone {
				return &store.JobError{Reason: "the audience of the campaign was removed"}
			}
			if e != nil && e.ContactID != 0 {
				contacts = append(contacts, e.ContactID)
			}
		}
		cursor := exportEnd
		if more {
			cursor = strconv.FormatUint(uint64(next), 10)
		}
		if err := run.StepMembers(ctx, cursor, len(seqs), contacts); err != nil {
			return err
		}
		s.metrics.jobRows.WithLabelValues(string(run.Kind)).Add(float64(len(seqs)))
	}
	return nil
}
