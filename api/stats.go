package api

import (
	"context"
	"net/http"
	"sync"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	fanfarev1 "fanfare/schemas/fanfare/v1"
	"fanfare/sinks/analytics"
)

// Figures are the counts of one campaign or of many. Always totalMessages = pending + ambiguous + notSent + skipped + sent, and
// sent = delivered + undelivered + awaiting; failed = undelivered + notSent.
type Figures struct {
	TotalMessages uint64  `json:"totalMessages"`
	Sent          uint64  `json:"sent" doc:"Left our servers to carriers."`
	Delivered     uint64  `json:"delivered"`
	Failed        uint64  `json:"failed" doc:"undelivered + notSent."`
	Pending       uint64  `json:"pending" doc:"Not dealt, in flight, or waiting to be tried again."`
	DeliveryRate  float64 `json:"deliveryRate" doc:"delivered / sent."`
	FailureRate   float64 `json:"failureRate" doc:"failed / (sent + notSent)."`

	Ambiguous           uint64  `json:"ambiguous" doc:"The carrier may or may not have taken it: held, and resolved by the receipt."`
	NotSent             uint64  `json:"notSent" doc:"Could not be sent."`
	Skipped             uint64  `json:"skipped" doc:"Was not to be sent: opted out, duplicate, cancelled."`
	Awaiting            uint64  `json:"awaiting" doc:"Left, nothing final known."`
	Unconfirmed         uint64  `json:"unconfirmed" doc:"The part of awaiting whose receipt window is over."`
	Undelivered         uint64  `json:"undelivered"`
	Read                uint64  `json:"read" doc:"The part of delivered that was read."`
	Clicked             uint64  `json:"clicked" doc:"People who clicked a link."`
	ClickRate           float64 `json:"clickRate" doc:"Of delivered."`
	DeliveryRateOfTotal float64 `json:"deliveryRateOfTotal"`
	FailureRateOfTotal  float64 `json:"failureRateOfTotal"`
}

// figuresOf puts the figures of package analytics into E's words.
func figuresOf(f *analytics.Figures) Figures {
	return Figures{
		TotalMessages: f.Total, Sent: f.Sent, Delivered: f.Delivered, Failed: f.Failed, Pending: f.Pending,
		DeliveryRate: f.DeliveryRate, FailureRate: f.FailureRate, Ambiguous: f.Ambiguous, NotSent: f.NotSent, Skipped: f.Skipped,
		Awaiting: f.Awaiting, Unconfirmed: f.Unconfirmed, Undelivered: f.Undelivered, Read: f.Read, Clicked: f.Clickers,
		ClickRate: f.ClickRate, DeliveryRateOfTotal: f.DeliveryRateOfTotal, FailureRateOfTotal: f.FailureRateOfTotal,
	}
}

// Stats are the statistics of a campaign: E's fields (R102), then ours.
type Stats struct {
	CampaignID string `json:"campaignId"`
	Name       string `json:"name"`
	Status     string `json:"status"`
	Figures
	StartTime               *string `json:"startTime" format:"date-time"`
	EstimatedCompletionTime *string `json:"estimatedCompletionTime" format:"date-time" doc:"When everything is handed over; null while nobody can say."`

	State           string  `json:"state"`
	Paused          bool    `json:"paused"`
	SuspendedReason *string `json:"suspendedReason"`
	Settled         bool    `json:"settled"`
	InFlight        *uint64 `json:"inFlight" doc:"The part of pending that is on its way; null when it is not known."`
	Cost            Money   `json:"cost" doc:"Of what was handed over so far (R114)."`
	Currency        string  `json:"currency"`
	Statuses        []Group `json:"statuses" nullable:"false" doc:"Every status with its sub-statuses; those of nobody are left out."`
	AsOf            *string `json:"as_of" format:"date-time" doc:"Everything that happened until then is counted."`
}

// Group is one status and its sub-statuses.
type Group struct {
	Status      string      `json:"status" example:"undelivered"`
	Count       uint64      `json:"count"`
	SubStatuses []SubStatus `json:"subStatuses" nullable:"false"`
}

// SubStatus is one outcome code.
type SubStatus struct {
	Code        string `json:"code" example:"ABSENT_SUBSCRIBER"`
	Count       uint64 `json:"count"`
	Description string `json:"description"`
}

// Totals are statistics over all campaigns of the tenant but tests and removed ones.
type Totals struct {
	Campaigns int            `json:"campaigns"`
	ByStatus  map[string]int `json:"byStatus"`
	ByState   map[string]int `json:"byState"`
	Figures
	Cost     Money   `json:"cost" doc:"Reserved or captured so far, by all of them."`
	Currency string  `json:"currency"`
	AsOf     *string `json:"as_of" format:"date-time"`
}

type (
	statsIn struct {
		ID    string `path:"id" example:"camp_12345"`
		Vocab string `query:"vocab"`
	}
	statsOut struct{ Body *Stats }
	totalsIn struct {
		Vocab     string `query:"vocab"`
		StartDate string `query:"startDate"`
		EndDate   string `query:"endDate"`
	}
	totalsOut struct{ Body *Totals }
)

func (s *server) registerStats() {
	register(s, operation{
		id: "getCampaignsStats", method: http.MethodGet, path: "/api/campaigns/stats", summary: "Statistics over all campaigns",
		scope: store.ScopeRead, errors: []int{422}, tag: campaignTag,
	}, s.allStats)
	register(s, operation{
		id: "getCampaignStats", method: http.MethodGet, path: "/api/campaigns/{id}/stats", summary: "Statistics of a campaign, as they are now",
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
	counts, err := s.figures.of(ctx, who.tenant.ID, c.ID())
	if err != nil {
		return nil, err
	}
	f := counts.Figures(c.Total)
	out := &Stats{
		CampaignID: c.ID(), Name: c.Name, Status: schemas.Word(c.State, vocab), Figures: figuresOf(&f), StartTime: stampOrNull(c.Started),
		EstimatedCompletionTime: s.eta(ctx, who, c, f.Pending), State: schemas.StateName(c.State), Paused: c.State == fanfarev1.State_STATE_PAUSED,
		Settled: !c.Settled.IsZero(), Currency: who.tenant.Currency, Statuses: tree(&f), AsOf: stampOrNull(counts.AsOf),
	}
	if c.State == fanfarev1.State_STATE_SUSPENDED {
		out.SuspendedReason = orNull(c.Reason)
	}
	if out.Cost, err = s.figures.cost(ctx, who.tenant.ID, c.ID()); err != nil {
		return nil, err
	}
	return &statsOut{out}, nil
}

// eta is when the last message is handed over: it is known of a campaign that sends, will send, or has sent.
func (s *server) eta(ctx context.Context, who *principal, c *store.Campaign, pending uint64) *string {
	now := s.Now()
	switch c.State {
	case fanfarev1.State_STATE_COMPLETED:
		return stampOrNull(c.Completed)
	case fanfarev1.State_STATE_SCHEDULED:
		if c.Scheduled.After(now) {
			now = c.Scheduled
		}
		if c.FreezeID == "" {
			pending = uint64(c.Quote.Contacts)
		}
	case fanfarev1.State_STATE_SENDING, fanfarev1.State_STATE_PREPARING:
		if c.FreezeID == "" {
			pending = uint64(c.Quote.Contacts)
		}
	default:
		return nil
	}
	end, ok := s.finish(ctx, who, c, now, pending)
	if !ok {
		return nil
	}
	return stampOrNull(end.Truncate(time.Second))
}

// tree is the sub-status tree in the API's words.
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

func (s *server) allStats(ctx context.Context, in *totalsIn) (*totalsOut, error) {
	who := requestOf(ctx).who
	vocab, p := vocabulary(in.Vocab)
	if p != nil {
		return nil, p
	}
	f := store.CampaignFilter{Page: store.Page{Limit: 1000}}
	if f.From, p = day(in.StartDate, "startDate", false); p != nil {
		return nil, p
	}
	if f.To, p = day(in.EndDate, "endDate", true); p != nil {
		return nil, p
	}
	out := &Totals{ByStatus: map[string]int{}, ByState: map[string]int{}, Currency: who.tenant.Currency}
	var all analytics.Figures
	var asOf time.Time
	for {
		rows, _, err := s.Store.Campaigns(ctx, who.tenant.ID, f)
		if err != nil {
			return nil, s.storeProblem(err)
		}
		var ids []string
		for i := range rows {
			if !rows[i].Test {
				ids = append(ids, rows[i].ID())
			}
		}
		grid, at, err := s.figures.grid(ctx, who.tenant.ID, ids)
		if err != nil {
			return nil, err
		}
		asOf = at
		for i := range rows {
			c := &rows[i]
			f.After = c.Number
			if c.Test {
				continue
			}
			out.Campaigns++
			out.ByStatus[schemas.Word(c.State, vocab)]++
			out.ByState[schemas.StateName(c.State)]++
			out.Cost += Money(c.Reserved + c.Captured)
			one := grid[c.ID()].Figures(c.Total)
			addFigures(&all, &one)
		}
		if len(rows) < f.Limit {
			break
		}
	}
	all.DeliveryRate, all.FailureRate = ratio(all.Delivered, all.Sent), ratio(all.Failed, all.Sent+all.NotSent)
	all.DeliveryRateOfTotal, all.FailureRateOfTotal = ratio(all.Delivered, all.Total), ratio(all.Failed, all.Total)
	all.ClickRate = ratio(all.Clickers, all.Delivered)
	out.Figures, out.AsOf = figuresOf(&all), stampOrNull(asOf)
	return &totalsOut{out}, nil
}

func addFigures(sum, one *analytics.Figures) {
	sum.Total += one.Total
	sum.Pending += one.Pending
	sum.Ambiguous += one.Ambiguous
	sum.NotSent += one.NotSent
	sum.Skipped += one.Skipped
	sum.Sent += one.Sent
	sum.Awaiting += one.Awaiting
	sum.Unconfirmed += one.Unconfirmed
	sum.Undelivered += one.Undelivered
	sum.Delivered += one.Delivered
	sum.Read += one.Read
	sum.Failed += one.Failed
	sum.Clickers += one.Clickers
}

// ratio has 4 decimals and is 0 of nothing (C7).
func ratio(n, d uint64) float64 {
	if d == 0 {
		return 0
	}
	return float64((n*20000+d)/(2*d)) / 10000
}

// analyticsTimeout is how long a question may take before the last answer is given instead.
const analyticsTimeout = 3 * time.Second

// maxFigures bounds the answers remembered.
const maxFigures = 10_000

// figureCache asks the analytics store, and remembers its last answers: while it is away they are given again, and as_of says
// how old they are (P5).
type figureCache struct {
	store analytics.Store

	mu    sync.Mutex
	last  map[string]analytics.Stats // by tenant/campaign
	costs map[string]Money
}

func newFigureCache(st analytics.Store) *figureCache {
	return &figureCache{store: st, last: map[string]analytics.Stats{}, costs: map[string]Money{}}
}

func (f *figureCache) of(ctx context.Context, tenant, campaign string) (analytics.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	key := schemas.CampaignKey(tenant, campaign)
	got, err := f.store.Stats(ctx, tenant, campaign)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		if old, ok := f.last[key]; ok {
			return old, nil
		}
		return analytics.Stats{}, unavailable(5*time.Second, err, "The statistics cannot be read at present.")
	}
	keep(f.last, key, got)
	return got, nil
}

// grid answers for many campaigns; campaigns in which nothing happened are zero.
func (f *figureCache) grid(ctx context.Context, tenant string, campaigns []string) (map[string]analytics.Stats, time.Time, error) {
	if len(campaigns) == 0 {
		return nil, time.Time{}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	asOf, err := f.store.AsOf(ctx)
	var got map[string]analytics.Stats
	if err == nil {
		got, err = f.store.Grid(ctx, tenant, campaigns)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		for id, st := range got {
			keep(f.last, schemas.CampaignKey(tenant, id), st)
		}
		return got, asOf, nil
	}
	got, asOf = map[string]analytics.Stats{}, time.Time{}
	for _, id := range campaigns {
		if old, ok := f.last[schemas.CampaignKey(tenant, id)]; ok {
			got[id] = old
			if asOf.IsZero() || old.AsOf.Before(asOf) {
				asOf = old.AsOf
			}
		}
	}
	if len(got) == 0 {
		return nil, time.Time{}, unavailable(5*time.Second, err, "The statistics cannot be read at present.")
	}
	return got, asOf, nil
}

// cost is what was handed over so far.
func (f *figureCache) cost(ctx context.Context, tenant, campaign string) (Money, error) {
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	key := schemas.CampaignKey(tenant, campaign)
	lines, err := f.store.Cost(ctx, tenant, campaign)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		if old, ok := f.costs[key]; ok {
			return old, nil
		}
		return 0, unavailable(5*time.Second, err, "The cost cannot be read at present.")
	}
	var sum Money
	for _, l := range lines {
		sum += Money(l.Micros)
	}
	keep(f.costs, key, sum)
	return sum, nil
}

func keep[V any](m map[string]V, key string, v V) {
	if len(m) >= maxFigures {
		clear(m)
	}
	m[key] = v
}
