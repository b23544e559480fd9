package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/go-json-experiment/json"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// ReplayOptions says whether a campaign can be replayed, and to which recipients (R139 to R152).
type ReplayOptions struct {
	CampaignID    string         `json:"campaignId" doc:"Id of the original campaign."`
	Name          string         `json:"name" doc:"Name of the original campaign."`
	Allowed       bool           `json:"allowed" doc:"True: a replay can be made now."`
	AllowedFrom   *string        `json:"allowedFrom" format:"date-time" doc:"A day after the first submission, or what the policy of the tenant says; null if nothing was sent."`
	AllowedUntil  *string        `json:"allowedUntil" format:"date-time" doc:"From then on it is not allowed any more: a calendar month after the first submission, on the clock of the tenant, or what its policy says."`
	Reason        *string        `json:"reason" doc:"Why it is not allowed, in a sentence."`
	Statuses      []ReplayStatus `json:"statuses" nullable:"false" doc:"The four statuses that a replay can select, empty ones too."`
	SuggestedName string         `json:"suggestedName" doc:"Default name of a replay: the date and time, in the tenant's zone."`
	Channel       string         `json:"channel" doc:"First channel of the original: sms, rcs, whatsapp or voice."`
	Message       *string        `json:"message" doc:"What the replay sends unless another message is given."`
	Sender        string         `json:"sender" doc:"Sender of a replay: the sender of its original."`
	Route         string         `json:"route" doc:"Route of a replay: the route of its original."`
	CostPerOne    Money          `json:"costPerMessage" doc:"Price of one message, at today's prices (R115)."`
	Currency      string         `json:"currency" doc:"ISO 4217 code."`
	AsOf          *string        `json:"as_of" format:"date-time" doc:"Every event up to this time is counted; null: none is."`
}

// ReplayStatus is a status that can be selected, with its sub-statuses.
type ReplayStatus struct {
	Status      string      `json:"status" enum:"Delivered,UnDelivered,NotSent,Sent" doc:"The word for it in the field statuses of a replay."`
	Count       uint64      `json:"count" doc:"Recipients with this status."`
	Description string      `json:"description" doc:"What it means, in a sentence."`
	SubStatuses []SubStatus `json:"subStatuses" nullable:"false" doc:"Sub-statuses that occur with it, with their counts."`
}

// replayStatuses are the statuses of B with the buckets that they cover in the statistics.
var replayStatuses = []struct {
	name, description string
	buckets           []schemas.Bucket
}{
	{"Delivered", "The message arrived.", []schemas.Bucket{schemas.BucketDelivered}},
	{"UnDelivered", "The carrier took the message and could not deliver it.", []schemas.Bucket{schemas.BucketUndelivered}},
	{"NotSent", "The message was not handed over: it could not be sent, or was skipped.", []schemas.Bucket{schemas.BucketNotSent, schemas.BucketSkipped}},
	{"Sent", "The message was handed over and has no final receipt, or it is unknown whether it was handed over.", []schemas.Bucket{schemas.BucketAwaiting, schemas.BucketAmbiguous}},
}

// ReplayInput orders a replay. It selects recipients either by statuses and subStatuses or by a selection.
type ReplayInput struct {
	Statuses        []string               `json:"statuses,omitzero" doc:"Delivered, UnDelivered, NotSent, Sent: all recipients with one of these statuses."`
	SubStatuses     []string               `json:"subStatuses,omitzero" doc:"In addition to statuses: all recipients with one of these sub-statuses." example:"ABSENT_SUBSCRIBER"`
	Selection       *Selection             `json:"selection,omitzero"`
	Name            string                 `json:"name,omitzero" doc:"Default: the date and time, in the tenant's zone."`
	Message         string                 `json:"message,omitzero" doc:"Default: the message of the original. A text for SMS, a template id for RCS and WhatsApp."`
	TemplateID      string                 `json:"templateId,omitzero" doc:"An approved template of the channel, by id or name, instead of message."`
	SendImmediately bool                   `json:"sendImmediately,omitzero" doc:"true: sending begins when the replay is confirmed. false, without scheduledTime: a person starts it."`
	ScheduledTime   problem.Optional[When] `json:"scheduledTime,omitzero"`
}

// ReplayMade is a new replay. It is confirmed like any other campaign.
type ReplayMade struct {
	Campaign
	Replay ReplayInfo `json:"replay" doc:"What the campaign repeats."`
}

// ReplayInfo says what a campaign replays.
type ReplayInfo struct {
	CampaignID    string    `json:"campaignId" doc:"The replay."`
	Name          string    `json:"name" doc:"Name of the replay."`
	State         string    `json:"state" doc:"State of the replay, such as configured or sending."`
	ReplayOf      string    `json:"replayOf" doc:"The original."`
	ReplayOfName  string    `json:"replayOfName" doc:"Name of the original."`
	Selection     Selection `json:"selection"`
	Selected      uint32    `json:"selected" doc:"Recipients that the selection selected when the replay was made. Recipients that have opted out since, or cannot be sent to, are not sent to."`
	CreatedAt     string    `json:"createdAt" format:"date-time" doc:"When the replay was made."`
	EstimatedCost *Money    `json:"estimatedCost,omitempty" doc:"Cost of sending to all selected recipients; the price of the campaign leaves out those that are not sent to."`
}

// Replays is the lineage of a campaign: what it replays, and its replays.
type Replays struct {
	CampaignID string       `json:"campaignId" doc:"The campaign of the request."`
	ReplayOf   []ReplayInfo `json:"replayOf" nullable:"false" doc:"The campaign that this one replays, the campaign that that one replays, and so on: nearest first."`
	Replays    []ReplayInfo `json:"replays" nullable:"false" doc:"Replays of this campaign, and replays of those; at most 1,000."`
}

type (
	replayIn struct {
		ID string `path:"id" example:"camp_12345" doc:"Id of the original campaign."`
	}
	replayOptionsOut struct{ Body *ReplayOptions }
	replayMakeIn     struct {
		ID    string `path:"id" example:"camp_12345" doc:"Id of the original campaign."`
		Vocab string `query:"vocab" doc:"Vocabulary of status: e (default), a, b, c or d."`
		Body  problem.Body[ReplayInput]
	}
	replayMadeOut struct {
		Location string `header:"Location"`
		ETag     string `header:"ETag"`
		Body     *ReplayMade
	}
	replaysOut struct{ Body *Replays }
)

func (s *server) registerReplays() {
	register(s, operation{
		id: "getReplayOptions", method: http.MethodGet, path: "/api/campaigns/{id}/replay", summary: "Get whether a campaign can be replayed, and to which recipients",
		scope: store.ScopeRead, errors: []int{404}, tag: campaignTag,
	}, s.replayOptions)
	register(s, operation{
		id: "replayCampaign", method: http.MethodPost, path: "/api/campaigns/{id}/replay", summary: "Make a campaign that sends again to some of the recipients", status: http.StatusCreated,
		scope: store.ScopeCampaigns, errors: []int{400, 404, 409, 422}, testKeys: testKeysConfined, tag: campaignTag,
		describe: "The new campaign has the message, the sender and the route of the original; the message may be changed. Get its price, then confirm it.",
	}, s.makeReplay)
	register(s, operation{
		id: "listReplays", method: http.MethodGet, path: "/api/campaigns/{id}/replays", summary: "Lineage of a campaign: what it replays, and its replays",
		scope: store.ScopeRead, errors: []int{404}, tag: campaignTag,
	}, s.listReplays)
}

// replayWindow is when a campaign may be replayed (R141, C21): at or after from and before until. A month is a calendar
// month on the clock of the tenant; one that ends on a day which the next month lacks ends on that month's last day.
func replayWindow(started time.Time, zone *time.Location, w ReplayWindow) (from, until time.Time) {
	from = started.Add(time.Duration(w.AfterHours) * time.Hour)
	if w.Days != nil {
		return from, started.Add(time.Duration(*w.Days) * 24 * time.Hour)
	}
	local := started.In(zone)
	year, month, day := local.Date()
	lastDay := time.Date(year, month+2, 0, 0, 0, 0, 0, zone).Day()
	hour, minute, second := local.Clock()
	until = time.Date(year, month+1, min(day, lastDay), hour, minute, second, local.Nanosecond(), zone)
	return from, until.UTC()
}

// replayWindowOf is when a campaign of a tenant may be replayed, by the tenant's policy.
func (s *server) replayWindowOf(ctx context.Context, who *principal, c *store.Campaign) (from, until time.Time, err error) {
	_, doc, err := s.policyRow(ctx, who.tenant.ID)
	if err != nil {
		return from, until, err
	}
	from, until = replayWindow(c.Started, zoneOf(&who.tenant), doc.replay())
	return from, until, nil
}

func zoneOf(tenant *store.Tenant) *time.Location {
	zone, err := time.LoadLocation(tenant.Timezone)
	if err != nil {
		return time.UTC
	}
	return zone
}

// mayReplay returns why a campaign cannot be replayed now, "" if it can; it may be from from until until.
func (s *server) mayReplay(who *principal, c *store.Campaign, from, until time.Time) string {
	now := s.Now()
	switch {
	case !who.tenant.CampaignsEnabled:
		return "The tenant does not have campaigns_enabled."
	case c.State != schemas.StateCompleted && c.State != schemas.StateAborted:
		return fmt.Sprintf("The campaign is %s; only a campaign that was submitted, and is completed or aborted, can be replayed.", schemas.StateName(c.State))
	case c.Removed:
		return "The campaign was removed."
	case c.Started.IsZero() || c.FreezeID == "":
		return "No message of the campaign was sent."
	case now.Before(from):
		return fmt.Sprintf("The campaign began at %s; it can be replayed from %s.", stamp(c.Started), stamp(from))
	case !now.Before(until):
		return fmt.Sprintf("The campaign began at %s; it could be replayed until %s.", stamp(c.Started), stamp(until))
	}
	return ""
}

func (s *server) replayOptions(ctx context.Context, in *replayIn) (*replayOptionsOut, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	r, err := s.reports.of(ctx, who.tenant.ID, c.ID())
	if err != nil {
		return nil, err
	}
	cost, err := s.roughCost(ctx, who, c, 1)
	if err != nil {
		return nil, err
	}
	from, until, err := s.replayWindowOf(ctx, who, c)
	if err != nil {
		return nil, err
	}
	f := r.stats.Figures(c.Total)
	out := &ReplayOptions{
		CampaignID: c.ID(), Name: c.Name, Reason: orNull(s.mayReplay(who, c, from, until)), Statuses: replayTree(&f), SuggestedName: s.replayName(who), Channel: channelOf(c),
		Message: orNull(c.Body), Sender: replaySender(c, &who.tenant), Route: replayRoute(c, &who.tenant), CostPerOne: cost,
		Currency: who.tenant.Currency, AsOf: stampOrNull(r.stats.AsOf),
	}
	if !textChannel(&c.Spec) {
		out.Message = orNull(c.TemplateID)
	}
	out.Allowed = out.Reason == nil
	if !c.Started.IsZero() {
		out.AllowedFrom, out.AllowedUntil = stampOrNull(from), stampOrNull(until)
	}
	return &replayOptionsOut{out}, nil
}

// replayTree groups the sub-statuses by the statuses of B.
func replayTree(f *analytics.Figures) []ReplayStatus {
	out := make([]ReplayStatus, len(replayStatuses))
	for i, status := range replayStatuses {
		out[i] = ReplayStatus{Status: status.name, Description: status.description, SubStatuses: []SubStatus{}}
		for _, branch := range f.Tree {
			if !slices.Contains(status.buckets, branch.Bucket) {
				continue
			}
			out[i].Count += branch.N
			for _, leaf := range branch.Codes {
				info, _ := schemas.LookupCode(leaf.Code)
				out[i].SubStatuses = append(out[i].SubStatuses, SubStatus{schemas.CodeName(leaf.Code), leaf.N, info.Description})
			}
		}
	}
	return out
}

// replayName returns the default name of a replay (R3).
func (s *server) replayName(who *principal) string {
	return s.Now().In(zoneOf(&who.tenant)).Format("2006-01-02 15:04")
}

// replaySender and replayRoute return the sender and route that the original was confirmed with, because the tenant's
// defaults may have changed since (R148). A test was confirmed with a simulated route instead of its own.
func replaySender(c *store.Campaign, tenant *store.Tenant) string {
	if c.Sender == "" && len(c.Named) > 0 && c.Named[0].Sender != "" {
		return c.Named[0].Sender // the name of the agent or channel
	}
	if c.Sender == "" && len(c.Legs) == 1 {
		return c.Legs[0].Sender
	}
	return sender(c, tenant)
}

func replayRoute(c *store.Campaign, tenant *store.Tenant) string {
	if c.Route == "" && len(c.Legs) == 1 && !c.Test {
		return c.Legs[0].Route
	}
	return route(c, tenant)
}

// selection returns the recipients that a replay sends to, as a selection.
func (in *ReplayInput) selection() (*analytics.Selection, error) {
	if in.Selection != nil && in.Selection.Selection != nil {
		if len(in.Statuses)+len(in.SubStatuses) > 0 {
			return nil, problem.Field(problem.CodeInvalid, "selection", "Send either selection, or statuses and subStatuses.")
		}
		return in.Selection.Selection, nil
	}
	var either []any
	for i, name := range in.Statuses {
		found := false
		for _, status := range replayStatuses {
			if !strings.EqualFold(status.name, name) {
				continue
			}
			found = true
			var buckets []any
			for _, b := range status.buckets {
				buckets = append(buckets, b.String())
			}
			either = append(either, map[string]any{"status": buckets})
		}
		if !found {
			return nil, problem.Field(problem.CodeInvalid, fmt.Sprintf("statuses[%d]", i), "%q is not a status: want Delivered, UnDelivered, NotSent or Sent.", problem.Truncate(name, 40))
		}
	}
	for i, name := range in.SubStatuses {
		if _, ok := schemas.ParseCode(name); !ok {
			return nil, problem.Field(problem.CodeInvalid, fmt.Sprintf("subStatuses[%d]", i), "%q is not a sub-status.", problem.Truncate(name, 40)).
				WithFix("GET /api/campaigns/{id}/replay lists those of the campaign.")
		}
		either = append(either, map[string]any{"subStatus": name})
	}
	if len(either) == 0 {
		return nil, problem.Field(problem.CodeRequired, "statuses", "Send statuses, subStatuses or a selection.")
	}
	text, err := json.Marshal(map[string]any{"or": either})
	if err != nil {
		return nil, err
	}
	sel, p := parseSelection(text)
	if p != nil {
		return nil, p
	}
	return sel, nil
}

func (s *server) makeReplay(ctx context.Context, in *replayMakeIn) (*replayMadeOut, error) {
	at, err := s.loadCampaign(ctx, in.ID, "", in.Vocab)
	if err != nil {
		return nil, err
	}
	who, origin, body := at.who, at.campaign, &in.Body.Value
	if err := testKeyMay(who, origin); err != nil {
		return nil, err
	}
	from, until, err := s.replayWindowOf(ctx, who, origin)
	if err != nil {
		return nil, err
	}
	if why := s.mayReplay(who, origin, from, until); why != "" {
		return nil, problem.New(problem.CodeNotReplayable, "%s", why)
	}
	sel, err := body.selection()
	if err != nil {
		return nil, err
	}
	c := store.Campaign{Tenant: origin.Tenant, Spec: origin.Spec, State: schemas.StateConfigured}
	c.Sender, c.Route = replaySender(origin, &who.tenant), replayRoute(origin, &who.tenant)
	c.TestRun = origin.Test || who.key.Test
	c.Ambiguous, c.Weights, c.Countries, c.LinkTable, c.Forecast, c.Editors = nil, nil, nil, nil, nil, []string{who.by()}
	if body.Message != "" || body.TemplateID != "" { // one message replaces the variants
		c.Variants = nil
	}
	if err := s.applyReplay(ctx, who, body, &c); err != nil {
		return nil, err
	}
	chosen, err := s.chosenNow(ctx, origin, sel)
	if err != nil {
		return nil, err
	}
	selected := uint32(chosen.GetCardinality())
	if selected == 0 {
		return nil, problem.Field(problem.CodeInvalid, "selection", "The selection selects no recipient.").WithFix("GET /api/campaigns/%s/replay counts the recipients of each status.", origin.ID())
	}
	made, err := s.Store.CreateReplay(ctx, c, origin, sel.String(), chosen, s.cause(ctx))
	if errors.Is(err, schemas.ErrNotFound) {
		return nil, problem.New(problem.CodeNotReplayable, "The audience of the campaign has been removed.").Because(err)
	}
	if err != nil {
		return nil, s.storeProblem(err)
	}
	made.Countries = origin.Countries
	cost, err := s.roughCost(ctx, who, &made, uint64(selected))
	if err != nil {
		return nil, err
	}
	out := &ReplayMade{Campaign: *view(&made, &who.tenant, at.vocab), Replay: ReplayInfo{
		CampaignID: made.ID(), Name: made.Name, State: schemas.StateName(made.State), ReplayOf: origin.ID(), ReplayOfName: origin.Name,
		Selection: Selection{sel}, Selected: selected, CreatedAt: stamp(made.Created), EstimatedCost: &cost,
	}}
	return &replayMadeOut{"/api/campaigns/" + made.ID(), etag(made.Version), out}, nil
}

// roughCost returns the cost of sending the message of a campaign to n recipients, in the proportions of its audience's
// countries.
func (s *server) roughCost(ctx context.Context, who *principal, c *store.Campaign, n uint64) (Money, error) {
	if c.Test {
		return 0, nil
	}
	segs, err := s.segments(ctx, who, c)
	if err != nil {
		return 0, err
	}
	return Money(priceOf(c, &who.tenant, legs(c, who.prices, n, s.Now()), mixOf(c.Countries).spread(n), segs).cost), nil
}

// applyReplay applies the changes of the client to a copy of the original.
func (s *server) applyReplay(ctx context.Context, who *principal, body *ReplayInput, c *store.Campaign) error {
	var change CampaignInput
	c.Schedule, c.SendImmediately = nil, body.SendImmediately
	change.Name = problem.Optional[string]{Set: true, Value: body.Name}
	if body.Name == "" {
		change.Name.Value = s.replayName(who)
	}
	change.ScheduledTime = body.ScheduledTime
	if body.Message != "" && body.TemplateID != "" {
		return problem.Field(problem.CodeInvalid, "templateId", "Send either message or templateId.")
	}
	change.Message = problem.Optional[string]{Set: body.Message != "", Value: body.Message}
	if body.TemplateID != "" {
		content, err := s.importedTemplate(ctx, body.TemplateID, c)
		if err != nil {
			return err
		}
		change.Message = problem.Optional[string]{Set: true, Value: content}
	}
	ps := change.apply(&c.Spec, &who.tenant, s.Now(), nil)
	return ps.Err()
}

// importedTemplate returns the message that a template gives (R147): its text for SMS, its id for other channels.
func (s *server) importedTemplate(ctx context.Context, ref string, c *store.Campaign) (string, error) {
	r := s.templates()
	row, err := r.find(ctx, s, ref)
	if p := (*problem.Problem)(nil); errors.As(err, &p) && p.Code == problem.CodeNotFound {
		return "", s.unknownName(ctx, "templateId", store.KindTemplate, ref)
	}
	if err != nil {
		return "", err
	}
	doc, err := r.doc(row)
	if err != nil {
		return "", err
	}
	if channel := schemas.ChannelName(c.Channel()); doc.Channel != channel {
		return "", problem.Field(problem.CodeInvalid, "templateId", "The template is for %s, but the campaign's channel is %s.", doc.Channel, channel)
	}
	if row.Status != templateApproved {
		return "", problem.Field(problem.CodeInvalid, "templateId", "The template is %s; only an approved template can be sent.", row.Status)
	}
	if textChannel(&c.Spec) {
		return doc.Body, nil
	}
	return row.ID(), nil
}

// chosenNow evaluates a selection on sets that it reads now, not on cached ones, because the replay keeps the result.
func (s *server) chosenNow(ctx context.Context, c *store.Campaign, sel *analytics.Selection) (*roaring.Bitmap, error) {
	ctx, cancel := context.WithTimeout(ctx, setsTimeout)
	defer cancel()
	sets, err := s.Analytics.Sets(ctx, c.Tenant, c.ID())
	var chosen *roaring.Bitmap
	if err == nil {
		chosen, err = sel.Evaluate(ctx, sets, c.Total, func(ctx context.Context, kind schemas.Kind, from, to int64) (*roaring.Bitmap, error) {
			return s.Analytics.Happened(ctx, c.Tenant, c.ID(), kind, from, to)
		})
	}
	if err != nil {
		return nil, problem.Unavailable(5*time.Second, err, "The statistics cannot be read now.")
	}
	chosen.RemoveRange(uint64(c.Total), 1<<32) // the audience has no such seq
	return chosen, nil
}

// replayKeeps refuses a change of a field that a replay has from its original (R148, R149).
func replayKeeps(before, after *store.Spec) *problem.Problem {
	if before.ReplayOf == 0 {
		return nil
	}
	for _, fixed := range []struct {
		field string
		same  bool
	}{
		// A change of channel would reset the sender
		{"contactList", len(after.Lists) == 0},
		{"channel", before.Channel() == after.Channel()},
		{"sendingMode", slices.Equal(before.Chain, after.Chain)},
		{"sender", before.Sender == after.Sender},
		{"route", before.Route == after.Route},
	} {
		if !fixed.same {
			p := problem.Field(problem.CodeReplayFixed, fixed.field, "A replay of %s keeps its %s.", schemas.CampaignID(before.ReplayOf), fixed.field)
			return p
		}
	}
	return nil
}

func (s *server) listReplays(ctx context.Context, in *replayIn) (*replaysOut, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	out := &Replays{CampaignID: c.ID(), ReplayOf: []ReplayInfo{}, Replays: []ReplayInfo{}}
	known := map[uint64]*store.Campaign{c.Number: c}
	for number, replay := c.Number, c.ReplayOf; replay != 0; {
		r, err := s.Store.ReplayOf(ctx, who.tenant.ID, number)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		info, origin, err := s.replayInfo(ctx, who, &r, known)
		if err != nil {
			return nil, err
		}
		out.ReplayOf = append(out.ReplayOf, *info)
		number, replay = origin.Number, origin.ReplayOf
	}
	const most = 1000
	for open := []uint64{c.Number}; len(open) > 0 && len(out.Replays) < most; open = open[1:] {
		rows, err := s.Store.Replays(ctx, who.tenant.ID, open[0])
		if err != nil {
			return nil, s.storeProblem(err)
		}
		for i := range rows[:min(len(rows), most-len(out.Replays))] {
			info, _, err := s.replayInfo(ctx, who, &rows[i], known)
			if err != nil {
				return nil, err
			}
			out.Replays = append(out.Replays, *info)
			open = append(open, rows[i].Campaign)
		}
	}
	return &replaysOut{out}, nil
}

// replayInfo describes a replay. It reads each campaign once.
func (s *server) replayInfo(ctx context.Context, who *principal, r *store.Replay, known map[uint64]*store.Campaign) (info *ReplayInfo, origin *store.Campaign, err error) {
	get := func(number uint64) (*store.Campaign, error) {
		if known[number] == nil {
			c, err := s.Store.Campaign(ctx, who.tenant.ID, schemas.CampaignID(number))
			if err != nil {
				return nil, s.storeProblem(err)
			}
			known[number] = &c
		}
		return known[number], nil
	}
	made, err := get(r.Campaign)
	if err != nil {
		return nil, nil, err
	}
	if origin, err = get(r.Origin); err != nil {
		return nil, nil, err
	}
	sel, p := parseSelection([]byte(r.Selection))
	if p != nil {
		return nil, nil, p
	}
	return &ReplayInfo{
		CampaignID: made.ID(), Name: made.Name, State: schemas.StateName(made.State), ReplayOf: origin.ID(), ReplayOfName: origin.Name,
		Selection: Selection{sel}, Selected: r.Selected, CreatedAt: stamp(r.Created),
	}, origin, nil
}
