package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// CampaignLinks has the clicks of a campaign (R86, R136, R138).
type CampaignLinks struct {
	CampaignID string `json:"campaignId" doc:"Id of the campaign."`
	Clicks
	Opens uint64     `json:"opens" doc:"How often links were opened, by people and by others: a link that was opened twice counts twice."`
	Links []LinkPart `json:"links" nullable:"false" doc:"Each link, in the order of the texts."`
	AsOf  *string    `json:"as_of" format:"date-time" doc:"Every event up to this time is counted."`
}

// Clicks counts recipients by who opened their links. A recipient may be in several counts.
type Clicks struct {
	Clicked    uint64      `json:"clicked" doc:"Recipients whose link a person opened."`
	Unsure     uint64      `json:"unsure" doc:"Recipients whose link was opened, perhaps by a person."`
	Previewed  uint64      `json:"previewed" doc:"Recipients whose link an app opened to show a preview."`
	Scanned    uint64      `json:"scanned" doc:"Recipients whose link a scanner opened."`
	ClickRate  float64     `json:"clickRate" doc:"Delivered recipients whose link a person opened, divided by delivered."`
	ByCountry  []ClickPart `json:"byCountry" nullable:"false" doc:"Those of clicked by country, the most first."`
	ByVariant  []ClickPart `json:"byVariant" nullable:"false" doc:"Those of clicked by variant, the most first; empty without variants."`
	clickers   *roaring.Bitmap
	byNoPerson map[schemas.Code]*roaring.Bitmap
}

// LinkPart has the clicks of one link.
type LinkPart struct {
	ID       string   `json:"id" doc:"Name of the link in statistics and selections; the same link in several variants has one id." example:"lnk_1"`
	URL      string   `json:"url" doc:"The address in the text."`
	Target   string   `json:"target" doc:"The address to which it redirects: url, with the parameters of utm."`
	Variants []uint32 `json:"variants" nullable:"false" doc:"The variants whose texts have it, from 1; empty without variants."`
	Clicks
}

// ClickPart counts recipients who clicked, of one country or variant.
type ClickPart struct {
	Value   string `json:"value" example:"IT" doc:"The country (ISO 3166-1 alpha-2), or the variant."`
	Clicked uint64 `json:"clicked" doc:"Recipients whose link a person opened."`
}

type (
	campaignLinksIn struct {
		ID string `path:"id" doc:"Id of the campaign." example:"camp_12345"`
	}
	campaignLinksOut struct{ Body *CampaignLinks }
)

func (s *server) registerLinkStats() {
	register(s, operation{
		id: "getCampaignLinks", method: http.MethodGet, path: "/api/campaigns/{id}/links", summary: "Clicks of a campaign by link, country and variant", scope: store.ScopeRead, errors: []int{404}, tag: campaignTag,
		describe: "Recipients are counted once for each link, by who opened it. getCampaignTimeline has the opens over time; createSegment makes a list of those who clicked.",
	}, s.campaignLinks)
}

func (s *server) campaignLinks(ctx context.Context, in *campaignLinksIn) (*campaignLinksOut, error) {
	c, err := s.campaign(ctx, requestOf(ctx).who, in.ID)
	if err != nil {
		return nil, err
	}
	out := &CampaignLinks{CampaignID: c.ID(), Links: []LinkPart{}}
	for _, l := range viewLinks(c) {
		i := slices.IndexFunc(out.Links, func(o LinkPart) bool { return o.ID == l.ID })
		if i < 0 {
			i, out.Links = len(out.Links), append(out.Links, LinkPart{ID: l.ID, URL: l.URL, Target: l.Target, Variants: []uint32{}})
		}
		if l.Variant != nil {
			out.Links[i].Variants = append(out.Links[i].Variants, *l.Variant)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, analyticsTimeout)
	defer cancel()
	out.AsOf = stampOrNull(s.figures.asOf(ctx)) // before the sets, which may have more
	sets, err := s.sets.of(ctx, c.Tenant, c.ID())
	if err != nil {
		return nil, err
	}
	points, err := s.Analytics.Timeline(ctx, c.Tenant, c.ID(), analytics.Span{Step: time.Hour})
	if err != nil {
		return nil, problem.Unavailable(5*time.Second, err, "The statistics cannot be read now.")
	}
	for _, p := range points {
		if p.Kind == schemas.KindClicked {
			out.Opens += p.N
		}
	}
	out.count(sets)
	return &campaignLinksOut{out}, nil
}

// count counts the recipients of sets.
func (l *CampaignLinks) count(sets *analytics.Sets) {
	for i := range sets.Statuses {
		set := &sets.Statuses[i]
		if set.Precedence != analytics.FactClicked && !analytics.NoPerson(set.Precedence) {
			continue
		}
		l.add(set.Precedence, set.Members)
		if at := slices.IndexFunc(l.Links, func(o LinkPart) bool { return o.ID == set.LinkID }); at >= 0 {
			l.Links[at].add(set.Precedence, set.Members)
		}
	}
	delivered := roaring.New()
	for p, members := range sets.Algebra().Disjoint() {
		if p < schemas.PrecedenceFacts && p.Bucket() == schemas.BucketDelivered {
			delivered.Or(members)
		}
	}
	l.finish(sets, delivered)
	for i := range l.Links {
		l.Links[i].finish(sets, delivered)
	}
}

// add adds the recipients of a class.
func (c *Clicks) add(class schemas.Precedence, members *roaring.Bitmap) {
	if c.clickers == nil {
		c.clickers, c.byNoPerson = roaring.New(), map[schemas.Code]*roaring.Bitmap{}
	}
	if class == analytics.FactClicked {
		c.clickers.Or(members)
		return
	}
	if c.byNoPerson[class.Code()] == nil {
		c.byNoPerson[class.Code()] = roaring.New()
	}
	c.byNoPerson[class.Code()].Or(members)
}

// finish computes the counts from the recipients that were added.
func (c *Clicks) finish(sets *analytics.Sets, delivered *roaring.Bitmap) {
	c.ByCountry, c.ByVariant = []ClickPart{}, []ClickPart{}
	if c.clickers == nil {
		return
	}
	for code, to := range map[schemas.Code]*uint64{schemas.CodeUnsure: &c.Unsure, schemas.CodePreview: &c.Previewed, schemas.CodeBot: &c.Scanned} {
		if members := c.byNoPerson[code]; members != nil {
			*to = members.GetCardinality()
		}
	}
	c.Clicked = c.clickers.GetCardinality()
	c.ClickRate = analytics.Rate(c.clickers.AndCardinality(delivered), delivered.GetCardinality())
	c.ByCountry = clickParts(sets, c.clickers, func(m *analytics.MessageSet) string { return m.Country })
	c.ByVariant = clickParts(sets, c.clickers, func(m *analytics.MessageSet) string {
		return pick(m.Variant == 0, "", strconv.Itoa(int(m.Variant)))
	})
}

// clickParts counts recipients by a field of their messages, the most first. A recipient whose messages have no value
// is not counted.
func clickParts(sets *analytics.Sets, clickers *roaring.Bitmap, of func(m *analytics.MessageSet) string) []ClickPart {
	members := map[string]*roaring.Bitmap{}
	for i := range sets.Messages {
		m := &sets.Messages[i]
		if value := of(m); value != "" {
			if members[value] == nil {
				members[value] = roaring.New()
			}
			members[value].Or(roaring.And(m.Members, clickers))
		}
	}
	out := []ClickPart{}
	for value, set := range members {
		if n := set.GetCardinality(); n > 0 {
			out = append(out, ClickPart{value, n})
		}
	}
	slices.SortFunc(out, func(a, b ClickPart) int {
		return cmp.Or(cmp.Compare(b.Clicked, a.Clicked), cmp.Compare(a.Value, b.Value))
	})
	return out
}
