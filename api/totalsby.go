package api

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// CampaignGroup has the figures of the campaigns with one value, such as a tag, to compare tags, channels, days and
// hours (R123).
type CampaignGroup struct {
	Value     string `json:"value" example:"sms" doc:"The tag, the channel, the day (YYYY-MM-DD) or the hour (00 to 23)."`
	Campaigns int    `json:"campaigns" doc:"Confirmed campaigns with this value."`
	Figures
	Cost Money `json:"cost" doc:"Billed cost of these campaigns so far."`
}

// groups has the sums of one comparison, by value.
type groups map[string]*groupSum

type groupSum struct {
	campaigns int
	sum       analytics.Figures
	cost      Money
}

func (g groups) add(value string, f *analytics.Figures, cost Money) {
	sum := g[value]
	if sum == nil {
		sum = &groupSum{}
		g[value] = sum
	}
	sum.campaigns++
	sum.sum.Add(f)
	sum.cost += cost
}

// list returns the groups in order of value.
func (g groups) list() []CampaignGroup {
	out := []CampaignGroup{}
	for _, value := range slices.SortedFunc(maps.Keys(g), cmp.Compare[string]) {
		sum := g[value]
		out = append(out, CampaignGroup{Value: value, Campaigns: sum.campaigns, Figures: figuresOf(&sum.sum), Cost: sum.cost})
	}
	return out
}

// compare sets the requested comparisons. Unlike the totals, it reads every confirmed campaign.
func (s *server) compare(ctx context.Context, who *principal, by string, from, to time.Time, out *Totals) error {
	wanted := map[string]groups{}
	for name := range strings.SplitSeq(by, ",") {
		switch name = strings.TrimSpace(name); name {
		case "tag", "channel", "day", "hour":
			wanted[name] = groups{}
		default:
			return problem.Field(problem.CodeInvalid, "by", "Campaigns cannot be compared by %q: want tag, channel, day or hour.", problem.Truncate(name, 20))
		}
	}
	zone, err := time.LoadLocation(who.tenant.Timezone)
	if err != nil {
		zone = time.UTC
	}
	put := func(channel schemas.Channel, c *store.Sending, f *analytics.Figures, cost Money) {
		for name, g := range wanted {
			switch {
			case name == "channel":
				g.add(schemas.ChannelName(channel), f, cost)
			case name == "tag":
				for _, tag := range c.Tags {
					g.add(tag, f, cost)
				}
			case c.Started.IsZero(): // a campaign that has not started has no day or hour
			case name == "day":
				g.add(c.Started.In(zone).Format(time.DateOnly), f, cost)
			case name == "hour":
				g.add(c.Started.In(zone).Format("15"), f, cost)
			}
		}
	}
	// Campaigns without kept figures: those that run, and those that have just ended.
	type running struct {
		channel schemas.Channel
		store.Sending
	}
	var open []running
	err = s.Store.EachSending(ctx, who.tenant.ID, from, to, func(channel schemas.Channel, c *store.Sending) {
		if c.Figures == nil {
			open = append(open, running{channel, *c})
			return
		}
		f := fromKept(c.Figures)
		put(channel, c, &f, Money(c.Figures.Cost))
	})
	if err != nil {
		return s.storeProblem(err)
	}
	for page := range slices.Chunk(open, 1000) {
		ids, rows := make([]string, len(page)), make([]store.Campaign, len(page))
		for i := range page {
			ids[i], rows[i] = page[i].ID(), page[i].Campaign
		}
		counts, _, err := s.figures.many(ctx, who.tenant.ID, ids)
		if err != nil {
			return err
		}
		costs, err := s.costs(ctx, who.tenant.ID, rows)
		if err != nil {
			return err
		}
		for i := range page {
			f := counts[ids[i]].Figures(page[i].Total)
			put(page[i].channel, &page[i].Sending, &f, costs[ids[i]])
		}
	}
	for name, list := range map[string]*[]CampaignGroup{"tag": &out.ByTag, "channel": &out.ByChannel, "day": &out.ByDay, "hour": &out.ByHour} {
		if g, ok := wanted[name]; ok {
			*list = g.list()
		}
	}
	return nil
}
