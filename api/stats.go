package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Figures are the counts of one campaign or of many. The identities always hold: totalMessages = pending + ambiguous +
// notSent + skipped + sent, and sent = delivered + undelivered + awaiting. failed = undelivered + notSent.
type Figures struct {
	TotalMessages uint64  `json:"totalMessages" doc:"Recipients: pending + ambiguous + notSent + skipped + sent."`
	Sent          uint64  `json:"sent" doc:"Messages that a carrier accepted."`
	Delivered     uint64  `json:"delivered" doc:"Messages that arrived, as their receipts say."`
	Failed        uint64  `json:"failed" doc:"undelivered + notSent."`
	Pending       uint64  `json:"pending" doc:"Not sent yet, in flight, or waiting for a retry."`
	DeliveryRate  float64 `json:"deliveryRate" doc:"delivered / sent."`
	FailureRate   float64 `json:"failureRate" doc:"failed / (sent + notSent)."`

	Ambiguous           uint64  `json:"ambiguous" doc:"The carrier may or may not have accepted it. Held until a receipt, the carrier or a person resolves it."`
	NotSent             uint64  `json:"notSent" doc:"Messages that could not be sent."`
	Skipped             uint64  `json:"skipped" doc:"Not sent on purpose: opted out, duplicate, cancelled."`
	Awaiting            uint64  `json:"awaiting" doc:"Sent, without a final receipt."`
	Unconfirmed         uint64  `json:"unconfirmed" doc:"Those of awaiting whose receipt window is over."`
	Undelivered         uint64  `json:"undelivered" doc:"Messages that a carrier accepted and did not deliver, finally."`
	Read                uint64  `json:"read" doc:"Those of delivered that were read."`
	Clicked             uint64  `json:"clicked" doc:"People who clicked a link."`
	ClickRate           float64 `json:"clickRate" doc:"clicked divided by delivered."`
	OptedOut            uint64  `json:"optedOut" doc:"People who opted out in answer to a message of it."`
	DeliveryRateOfTotal float64 `json:"deliveryRateOfTotal" doc:"delivered / totalMessages."`
	FailureRateOfTotal  float64 `json:"failureRateOfTotal" doc:"failed / totalMessages."`
}

// figuresOf converts the figures of package analytics to E's words.
func figuresOf(f *analytics.Figures) Figures {
	return Figures{
		TotalMessages: f.Total, Sent: f.Sent, Delivered: f.Delivered, Failed: f.Failed, Pending: f.Pending,
		DeliveryRate: f.DeliveryRate, FailureRate: f.FailureRate, Ambiguous: f.Ambiguous, NotSent: f.NotSent, Skipped: f.Skipped,
		Awaiting: f.Awaiting, Unconfirmed: f.Unconfirmed, Undelivered: f.Undelivered, Read: f.Read, Clicked: f.Clickers,
		ClickRate: f.ClickRate, OptedOut: f.OptedOut, DeliveryRateOfTotal: f.DeliveryRateOfTotal, FailureRateOfTotal: f.FailureRateOfTotal,
	}
}

// Stats are the statistics of a campaign: E's fields (R102), then ours.
type Stats struct {
	CampaignID string `json:"campaignId" doc:"Id of the campaign."`
	Name       string `json:"name" doc:"Name of the campaign."`
	Status     string `json:"status" doc:"The state in the words of vocab."`
	Figures
	StartTime               *string `json:"startTime" format:"date-time" doc:"When sending began; null: it has not begun."`
	EstimatedCompletionTime *string `json:"estimatedCompletionTime" format:"date-time" doc:"When everything will be handed over; null when no forecast is possible."`

	State           string  `json:"state" doc:"Such as sending, paused or completed; completed only when the figures have all hand-overs."`
	Paused          bool    `json:"paused" doc:"True: a person has paused it."`
	SuspendedReason *string `json:"suspendedReason" doc:"Why the installation has suspended it; null: it is not suspended."`
	Settled         bool    `json:"settled" doc:"True: the cost is final, and no more receipts are waited for."`
	Simulated       bool    `json:"simulated" doc:"True: a route of the campaign is a simulator, so these figures are not about people."`
	InFlight        uint64  `json:"inFlight" doc:"Recipients whose current try has no outcome yet. They are counted as pending, or as awaiting if an earlier try failed."`
	AmbiguousNote   *string `json:"ambiguousNote" doc:"What ambiguous means for this campaign and what ends it, in a sentence; null if no recipient is ambiguous."`
	Cost            Money   `json:"cost" doc:"Billed cost so far (R114): messages that a carrier accepted, and ambiguous messages that a receipt confirmed, without failures that are not billed."`
	Currency        string  `json:"currency" doc:"ISO 4217 code."`
	Throughput      float64 `json:"throughput" doc:"Messages handed over per second, over the last ten seconds."`
	Statuses        []Group `json:"statuses" nullable:"false" doc:"Every status with its sub-statuses; empty ones are left out."`
	Hints           []Hint  `json:"hints" nullable:"false" doc:"What a person should look at, and what to do."`

	ByChannel   []Part          `json:"byChannel" nullable:"false" doc:"A recipient that was tried on two channels counts for both; likewise for routes and legs."`
	ByVariant   []Part          `json:"byVariant" nullable:"false" doc:"By the variant of the text."`
	ByCountry   []Part          `json:"byCountry" nullable:"false" doc:"ISO 3166-1 alpha-2."`
	BySubStatus []SubStatusPart `json:"bySubStatus" nullable:"false" doc:"All sub-statuses in one list, the most frequent first."`
	ByRoute     []Part          `json:"byRoute" nullable:"false" doc:"By the route of the message."`
	ByLeg       []Part          `json:"byLeg" nullable:"false" doc:"Legs of the chain of channels, numbered from 1."`
	AsOf        *string         `json:"as_of" format:"date-time" doc:"Every event up to this time is counted."`
}

// Part has the figures of the recipients whose message has one value of a dimension, such as one channel. Recipients
// without a message, such as those not dealt yet, are in no part.
type Part struct {
	Value string `json:"value" example:"sms" doc:"The channel, variant, country, route or leg."`
	Figures
	Cost Money `json:"cost" doc:"Billed cost of these messages so far."`
}

// SubStatusPart has the number of recipients with a status and sub-status.
type SubStatusPart struct {
	Value       string `json:"value" example:"ABSENT_SUBSCRIBER" doc:"The sub-status."`
	Status      string `json:"status" example:"undelivered" doc:"Status of these recipients in the words of statuses."`
	Count       uint64 `json:"count" doc:"Recipients with it."`
	Description string `json:"description" doc:"What it means, in a sentence; empty: nothing more is known."`
}

// Group is one status and its sub-statuses.
type Group struct {
	Status      string      `json:"status" example:"undelivered" doc:"pending, ambiguous, notSent, skipped, awaiting, undelivered or delivered."`
	Count       uint64      `json:"count" doc:"Recipients with this status."`
	SubStatuses []SubStatus `json:"subStatuses" nullable:"false" doc:"The same recipients by sub-status."`
}

// SubStatus is one outcome code.
type SubStatus struct {
	Code        string `json:"code" example:"ABSENT_SUBSCRIBER" doc:"The sub-status."`
	Count       uint64 `json:"count" doc:"Recipients with it."`
	Description string `json:"description" doc:"What it means, in a sentence; empty: nothing more is known."`
}

type (
	statsIn struct {
		ID    string `path:"id" example:"camp_12345" doc:"Id of the campaign."`
		Vocab string `query:"vocab" doc:"Vocabulary of status: e (default), a, b, c or d."`
	}
	statsOut struct{ Body *Stats }
)

func (s *server) registerStats() {
	s.registerTotals()
	register(s, operation{
		id: "getCampaignStats", method: http.MethodGet, path: "/api/campaigns/{id}/stats", summary: "Get the current statistics of a campaign",
		scope: store.ScopeRead, errors: []int{404}, tag: campaignTag,
	}, s.campaignStats)
}

func (s *server) campaignStats(ctx context.Context, in *statsIn) (*statsOut, error) {
	who := requestOf(ctx).who
	vocab, p := vocabulary(in.Vocab)
	if p != nil {
		return nil, p
	}
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	r, err := s.reports.of(ctx, who.tenant.ID, c.ID())
	if err != nil {
		return nil, err
	}
	f := r.stats.Figures(c.Total)
	s.correctTotals(ctx, c, &f)
	state, settled := stateOfFigures(c, &f, r.stats.AsOf)
	out := &Stats{
		CampaignID: c.ID(), Name: c.Name, Status: schemas.Word(state, vocab), Figures: figuresOf(&f), StartTime: stampOrNull(c.Started),
		EstimatedCompletionTime: s.eta(ctx, who, c, &r.stats, f.Pending), State: schemas.StateName(state), Paused: c.State == schemas.StatePaused,
		Settled: settled, Simulated: s.simulated(ctx, c, &who.tenant), InFlight: r.inFlight, AmbiguousNote: ambiguousNote(&f), Throughput: r.throughput(), Cost: r.micros(),
		Currency: who.tenant.Currency, Statuses: tree(&f), Hints: hintsOf(&f, r.by[analytics.ByRoute]), AsOf: stampOrNull(r.stats.AsOf),
		ByChannel: r.parts(analytics.ByChannel), ByVariant: r.parts(analytics.ByVariant), ByCountry: r.parts(analytics.ByCountry),
		ByRoute: r.parts(analytics.ByRoute), ByLeg: r.parts(analytics.ByLeg), BySubStatus: bySubStatus(&f),
	}
	if c.State == schemas.StateSuspended {
		out.SuspendedReason = orNull(c.Reason)
	}
	if !c.Settled.IsZero() { // the cost in the ledger is final
		out.Cost, out.InFlight = Money(c.Captured), 0
	}
	return &statsOut{out}, nil
}

// throughput returns the messages handed over per second during [recentSpan].
func (r *report) throughput() float64 {
	return math.Round(float64(r.recent)/recentSpan.Seconds()*10) / 10
}

// parts returns the figures of each value of a dimension, the largest first.
func (r *report) parts(by analytics.Dimension) []Part {
	costs := map[string]Money{}
	for i := range r.cost {
		costs[r.cost[i].Value(by)] += Money(r.cost[i].Micros)
	}
	out := make([]Part, 0, len(r.by[by]))
	for value, stats := range r.by[by] {
		f := stats.Figures(0)
		out = append(out, Part{Value: value, Figures: figuresOf(&f), Cost: costs[value]})
	}
	slices.SortFunc(out, func(a, b Part) int {
		return cmp.Or(cmp.Compare(b.TotalMessages, a.TotalMessages), cmp.Compare(a.Value, b.Value))
	})
	return out
}

// bySubStatus lists the sub-statuses of all statuses, the most frequent first.
func bySubStatus(f *analytics.Figures) []SubStatusPart {
	out := []SubStatusPart{}
	for _, b := range f.Tree {
		for _, leaf := range b.Codes {
			info, _ := schemas.LookupCode(leaf.Code)
			out = append(out, SubStatusPart{Value: schemas.CodeName(leaf.Code), Status: b.Bucket.String(), Count: leaf.N, Description: info.Description})
		}
	}
	slices.SortStableFunc(out, func(a, b SubStatusPart) int { return cmp.Compare(b.Count, a.Count) })
	return out
}

// ambiguousNote explains the ambiguous recipients of a campaign; nil if there are none.
func ambiguousNote(f *analytics.Figures) *string {
	if f.Ambiguous == 0 {
		return nil
	}
	var codes []string
	for _, b := range f.Tree {
		for _, leaf := range b.Codes {
			if b.Bucket == schemas.BucketAmbiguous && leaf.Code != schemas.CodeUnspecified {
				codes = append(codes, fmt.Sprintf("%s %d", schemas.CodeName(leaf.Code), leaf.N))
			}
		}
	}
	who, they := "recipient", "it is"
	if f.Ambiguous > 1 {
		who, they = "recipients", "they are"
	}
	detail := ""
	if len(codes) > 0 {
		detail = " (" + strings.Join(codes, ", ") + ")"
	}
	note := fmt.Sprintf("It is unknown whether the carrier accepted the message to %d %s%s; %s not sent to again until the carrier's receipt, a query to the carrier (if it can be queried) or your decision resolves it.",
		f.Ambiguous, who, detail, they)
	return &note
}

// costs returns what campaigns have cost so far. For a settled campaign it returns the captured amount. Before that,
// the statistics apply the rule of the bill (package billing) to the events that they have.
func (s *server) costs(ctx context.Context, tenant string, campaigns []store.Campaign) (map[string]Money, error) {
	settled := map[string]Money{}
	var open []string
	for i := range campaigns {
		if c := &campaigns[i]; c.Settled.IsZero() {
			open = append(open, c.ID())
		} else {
			settled[c.ID()] = Money(c.Captured)
		}
	}
	if len(open) == 0 {
		return settled, nil
	}
	out, err := s.figures.costsOf(ctx, tenant, open...)
	if err != nil {
		return nil, err
	}
	maps.Copy(out, settled)
	return out, nil
}

// figuresGrace is the longest time for which a completed campaign is still shown as sending because some of its
// recipients have no event in the statistics. It is longer than the difference between the clocks of two machines.
const figuresGrace = time.Minute

// stateOfFigures returns the state to show with figures. It returns completed, or settled, only if the figures contain
// everything that happened up to that time. So a client that polls until it reads `completed` has the final number of
// sent messages.
func stateOfFigures(c *store.Campaign, f *analytics.Figures, asOf time.Time) (state schemas.State, settled bool) {
	state = c.State
	if state == schemas.StateCompleted {
		// as_of comes from the clock of the process that reads the topic, and c.Completed from the scheduler's clock.
		// When the clocks differ, recipients without an outcome (pending) show that events are missing.
		if asOf.Before(c.Completed) || f.Pending > 0 && asOf.Before(c.Completed.Add(figuresGrace)) {
			state = schemas.StateSending
		}
	}
	return state, !c.Settled.IsZero() && !asOf.Before(c.Settled)
}

// eta returns when the last message will be or was handed over. It is known for campaigns that are scheduled, running
// or completed.
func (s *server) eta(ctx context.Context, who *principal, c *store.Campaign, stats *analytics.Stats, pending uint64) *string {
	now := s.Now()
	switch c.State {
	case schemas.StateCompleted:
		return stampOrNull(c.Completed)
	case schemas.StateScheduled:
		if c.Scheduled.After(now) {
			now = c.Scheduled
		}
		if c.FreezeID == "" {
			pending = uint64(c.Quote.Contacts)
		}
	case schemas.StateSending, schemas.StatePreparing:
		if c.FreezeID == "" {
			pending = uint64(c.Quote.Contacts)
		}
	default:
		return nil
	}
	var shares []zoneShare
	if c.CallingHours != nil && c.CallingHours.Recipients && c.FreezeID != "" {
		var err error
		if shares, err = s.sharesOfPending(ctx, c, stats); err != nil {
			return nil // a forecast is not worth an error
		}
		pending = 0
		for _, g := range shares {
			pending += g.n
		}
	}
	end, ok := s.finish(ctx, who, c, now, pending, shares)
	if !ok {
		return nil
	}
	return stampOrNull(end.Truncate(time.Second))
}

// tree returns the sub-statuses grouped by status.
func tree(f *analytics.Figures) []Group {
	out := make([]Group, 0, len(f.Tree))
	for _, b := range f.Tree {
		g := Group{Status: b.Bucket.String(), Count: b.N, SubStatuses: make([]SubStatus, 0, len(b.Codes))}
		for _, leaf := range b.Codes {
			info, _ := schemas.LookupCode(leaf.Code)
			g.SubStatuses = append(g.SubStatuses, SubStatus{schemas.CodeName(leaf.Code), leaf.N, info.Description})
		}
		out = append(out, g)
	}
	return out
}
