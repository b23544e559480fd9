package api

import (
	"context"
	"net/http"
	"time"

	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Totals has the statistics over all campaigns of the tenant, without tests and removed campaigns.
type Totals struct {
	Campaigns int            `json:"campaigns" doc:"Campaigns of the period, drafts included, without tests and removed ones."`
	ByStatus  map[string]int `json:"byStatus" doc:"Number of campaigns by status in the words of vocab; empty ones are left out."`
	ByState   map[string]int `json:"byState" doc:"Number of campaigns by state; empty ones are left out."`
	Figures
	Cost     Money   `json:"cost" doc:"Billed cost so far, without reserved money."`
	Currency string  `json:"currency" doc:"ISO 4217 code."`
	AsOf     *string `json:"as_of" format:"date-time" doc:"Every event up to this time is counted; null: none is."`

	ByTag     []CampaignGroup `json:"byTag" nullable:"false" doc:"Only with ?by=tag. A campaign with two tags counts for both."`
	ByChannel []CampaignGroup `json:"byChannel" nullable:"false" doc:"Only with ?by=channel. By the first channel of the chain."`
	ByDay     []CampaignGroup `json:"byDay" nullable:"false" doc:"Only with ?by=day. By the day on which the campaign started, in the tenant's time zone."`
	ByHour    []CampaignGroup `json:"byHour" nullable:"false" doc:"Only with ?by=hour. By the hour of day in which the campaign started, in the tenant's time zone."`

	sum analytics.Figures
}

type (
	totalsIn struct {
		Vocab     string `query:"vocab" doc:"Vocabulary of status: e (default), a, b, c or d."`
		By        string `query:"by" doc:"Compare campaigns: any of tag, channel, day and hour, separated by commas."`
		StartDate string `query:"startDate" doc:"Created at or after: a date, or RFC 3339."`
		EndDate   string `query:"endDate" doc:"Created before the end of the date, or before the RFC 3339 time."`
	}
	totalsOut struct{ Body *Totals }
)

func (s *server) registerTotals() {
	register(s, operation{
		id: "getCampaignsStats", method: http.MethodGet, path: "/api/campaigns/stats", summary: "Statistics over all campaigns",
		scope: store.ScopeRead, errors: []int{422}, tag: campaignTag,
	}, s.allStats)
}

// keepAfter is how long after its end the figures of a campaign are taken as final and stored. A receipt that comes
// later corrects them at the next request for the campaign's statistics.
const keepAfter = time.Hour

// allStats adds the stored figures of ended campaigns to the current figures of the others. So its duration depends
// only on the number of campaigns that run or have just ended.
func (s *server) allStats(ctx context.Context, in *totalsIn) (*totalsOut, error) {
	who := requestOf(ctx).who
	vocab, p := vocabulary(in.Vocab)
	if p != nil {
		return nil, p
	}
	from, p := day(in.StartDate, "startDate", false)
	if p != nil {
		return nil, p
	}
	to, p := day(in.EndDate, "endDate", true)
	if p != nil {
		return nil, p
	}
	out := &Totals{ByStatus: map[string]int{}, ByState: map[string]int{}, Currency: who.tenant.Currency}
	counts, err := s.Store.CountCampaigns(ctx, who.tenant.ID, from, to)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	for _, c := range counts {
		if c.Test || c.Removed {
			continue
		}
		out.Campaigns += c.N
		out.count(c.State, vocab, c.N)
	}
	asOf, err := s.addRunning(ctx, out, vocab, from, to)
	if err != nil {
		return nil, err
	}
	// Read last: a campaign whose figures addRunning has just stored is in this sum, and not in the one before.
	kept, err := s.Store.SumFigures(ctx, who.tenant.ID, from, to)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	sum := fromKept(&kept)
	out.sum.Add(&sum)
	out.Cost += Money(kept.Cost)
	out.Figures, out.AsOf = figuresOf(&out.sum), stampOrNull(asOf)
	if in.By != "" {
		if err := s.compare(ctx, who, in.By, from, to, out); err != nil {
			return nil, err
		}
	}
	return &totalsOut{out}, nil
}

// addRunning adds the figures of confirmed campaigns whose figures are not stored. It stores figures that are final by
// now, and leaves them out of the sum.
func (s *server) addRunning(ctx context.Context, out *Totals, vocab schemas.Vocabulary, from, to time.Time) (asOf time.Time, err error) {
	const page = 1000
	tenant := requestOf(ctx).who.tenant.ID
	above := uint64(0)
	for {
		rows, err := s.Store.Unkept(ctx, tenant, above, page)
		if err != nil {
			return asOf, s.storeProblem(err)
		}
		if len(rows) == 0 {
			if asOf.IsZero() {
				asOf = s.figures.asOf(ctx)
			}
			return asOf, nil
		}
		above = rows[len(rows)-1].Number
		ids := make([]string, len(rows))
		for i := range rows {
			ids[i] = rows[i].ID()
		}
		grid, at, err := s.figures.many(ctx, tenant, ids)
		if err != nil {
			return asOf, err
		}
		asOf = at
		costs, err := s.costs(ctx, tenant, rows)
		if err != nil {
			return asOf, err
		}
		final := map[uint64]store.KeptFigures{}
		for i := range rows {
			c := &rows[i]
			one := grid[c.ID()].Figures(c.Total)
			if !c.Ended.IsZero() && at.After(c.Ended.Add(keepAfter)) {
				kept := toKept(&one)
				kept.Cost = c.Captured
				final[c.Number] = kept
				continue
			}
			if c.Created.Before(from) || !to.IsZero() && !c.Created.Before(to) {
				continue
			}
			out.sum.Add(&one)
			out.Cost += costs[c.ID()]
			if state, _ := stateOfFigures(c, &one, at); state != c.State {
				out.count(c.State, vocab, -1)
				out.count(state, vocab, 1)
			}
		}
		if len(final) > 0 {
			if err := s.Store.KeepFigures(ctx, tenant, final); err != nil {
				return asOf, s.storeProblem(err)
			}
		}
	}
}

// count counts n campaigns of a state. A state without campaigns is left out.
func (t *Totals) count(state schemas.State, vocab schemas.Vocabulary, n int) {
	add := func(m map[string]int, key string) {
		if m[key] += n; m[key] <= 0 {
			delete(m, key)
		}
	}
	add(t.ByStatus, schemas.Word(state, vocab))
	add(t.ByState, schemas.StateName(state))
}

// correctTotals replaces the stored figures of a campaign by those that were just read. The answer does not depend on
// it, so errors are only logged.
func (s *server) correctTotals(ctx context.Context, c *store.Campaign, f *analytics.Figures) {
	if c.Ended.IsZero() || c.Removed {
		return
	}
	if err := s.Store.CorrectFigures(ctx, c, toKept(f)); err != nil {
		s.Logger.WarnContext(ctx, "kept figures not corrected", "campaign", c.ID(), "err", err.Error())
	}
}

func toKept(f *analytics.Figures) store.KeptFigures {
	return store.KeptFigures{
		Total: f.Total, Pending: f.Pending, Ambiguous: f.Ambiguous, NotSent: f.NotSent, Skipped: f.Skipped, Awaiting: f.Awaiting,
		Unconfirmed: f.Unconfirmed, Undelivered: f.Undelivered, Delivered: f.Delivered, Read: f.Read, Clickers: f.Clickers,
		DeliveredClickers: f.DeliveredClickers,
	}
}

func fromKept(k *store.KeptFigures) analytics.Figures {
	return analytics.Figures{
		Total: k.Total, Pending: k.Pending, Ambiguous: k.Ambiguous, NotSent: k.NotSent, Skipped: k.Skipped, Awaiting: k.Awaiting,
		Unconfirmed: k.Unconfirmed, Undelivered: k.Undelivered, Delivered: k.Delivered, Read: k.Read, Clickers: k.Clickers,
		DeliveredClickers: k.DeliveredClickers, Sent: k.Awaiting + k.Undelivered + k.Delivered, Failed: k.Undelivered + k.NotSent,
	}
}
