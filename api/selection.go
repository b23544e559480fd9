package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/singleflight"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/sinks/analytics"
)

// Selection selects recipients of a campaign. Members, replays, segments and exports use the same expression.
type Selection struct{ *analytics.Selection }

// UnmarshalJSONFrom reads a selection strictly: an error names the path of the wrong part.
func (s *Selection) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	parsed, p := parseSelection(v)
	if p != nil {
		return p
	}
	s.Selection = parsed
	return nil
}

// MarshalJSONTo writes the selection with sorted names.
func (s Selection) MarshalJSONTo(e *jsontext.Encoder) error {
	if s.Selection == nil {
		return e.WriteToken(jsontext.Null)
	}
	return e.WriteValue(jsontext.Value(s.String()))
}

// Schema documents the expression.
func (Selection) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeObject, AdditionalProperties: true,
		Description: "Selects recipients of a campaign. Each member of the object is a condition, and a recipient must meet all of them; {} selects all recipients. " +
			`{"and": [selection, …]}, {"or": [selection, …]}, {"not": selection}; ` +
			"status (" + strings.Join(analytics.SelectionStatuses, ", ") + "; sent is awaiting, undelivered or delivered; failed is notSent or undelivered); " +
			"subStatus (such as ABSENT_SUBSCRIBER); channel, variant, country and leg of a message that the recipient got or would have got; " +
			"try (1 to 255: has an event of that try); clicked, replied, optedOut (true or false); link (a person clicked the link with that id); " +
			`time ({"event": "sent", "from": …, "to": …}: has such an event at or after from and before to; RFC 3339). ` +
			"An array in place of a value matches any of its values.",
		Examples: []any{map[string]any{"or": []any{map[string]any{"status": "undelivered"}, map[string]any{"status": "delivered", "clicked": false}}}},
	}
}

// parseSelection parses a selection. A problem names the wrong part.
func parseSelection(text []byte) (*analytics.Selection, *problem.Problem) {
	parsed, err := analytics.ParseSelection(text)
	if err == nil {
		return parsed, nil
	}
	path, detail := "", err.Error()
	if bad, ok := errors.AsType[*analytics.SelectionError](err); ok {
		path, detail = bad.Path, bad.Detail
	}
	field := "selection"
	if path != "" {
		field += "." + path
	}
	return nil, problem.Field(problem.CodeInvalid, problem.Truncate(field, 200), "%s", detail).
		WithFix(`A selection is an object of conditions, such as {"status": ["undelivered", "notSent"], "not": {"subStatus": "BARRED"}}.`)
}

// SelectionPreview has the number of recipients that a selection selects.
type SelectionPreview struct {
	CampaignID    string    `json:"campaignId" doc:"Id of the campaign."`
	Selection     Selection `json:"selection" doc:"The selection as it was read, with sorted names."`
	Count         uint64    `json:"count" doc:"Recipients that the selection selects now."`
	Total         uint64    `json:"total" doc:"Recipients of the campaign."`
	EstimatedCost Money     `json:"estimatedCost" doc:"Cost of sending the message of the campaign again to the selected recipients, at today's prices (R115). It includes recipients that have opted out since, which the price of a replay leaves out."`
	Currency      string    `json:"currency" doc:"ISO 4217 code."`
	AsOf          *string   `json:"as_of" format:"date-time" doc:"Every event up to this time is counted."`
}

// SelectionInput is the body of a preview.
type SelectionInput struct {
	Selection Selection `json:"selection"`
}

type (
	selectionIn struct {
		ID   string `path:"id" example:"camp_12345" doc:"Id of the campaign."`
		Body problem.Body[SelectionInput]
	}
	selectionOut struct{ Body *SelectionPreview }
)

func (s *server) registerSelections() {
	register(s, operation{
		id: "previewSelection", method: http.MethodPost, path: "/api/campaigns/{id}/selection", summary: "Count the recipients that a selection selects",
		scope: store.ScopeRead, errors: []int{400, 404, 422}, testKeys: testKeysConfined, tag: campaignTag,
	}, s.previewSelection)
}

func (s *server) previewSelection(ctx context.Context, in *selectionIn) (*selectionOut, error) {
	who := requestOf(ctx).who
	c, err := s.campaign(ctx, who, in.ID)
	if err != nil {
		return nil, err
	}
	sel := in.Body.Value.Selection
	if sel.Selection == nil {
		return nil, problem.Field(problem.CodeRequired, "selection", "selection is required.")
	}
	chosen, sets, err := s.selected(ctx, c, sel.Selection)
	if err != nil {
		return nil, err
	}
	cost, err := s.roughCost(ctx, who, c, chosen.GetCardinality())
	if err != nil {
		return nil, err
	}
	out := &SelectionPreview{
		CampaignID: c.ID(), Selection: sel, Count: chosen.GetCardinality(), Total: sets.Everybody(c.Total).GetCardinality(), EstimatedCost: cost,
		Currency: who.tenant.Currency, AsOf: stampOrNull(s.figures.asOf(ctx)),
	}
	return &selectionOut{out}, nil
}

// selected evaluates a selection on a campaign.
func (s *server) selected(ctx context.Context, c *store.Campaign, sel *analytics.Selection) (*roaring.Bitmap, *analytics.Sets, error) {
	sets, err := s.sets.of(ctx, c.Tenant, c.ID())
	if err != nil {
		return nil, nil, err
	}
	chosen, err := sel.Evaluate(ctx, sets, c.Total, func(ctx context.Context, kind schemas.Kind, from, to int64) (*roaring.Bitmap, error) {
		return s.Analytics.Happened(ctx, c.Tenant, c.ID(), kind, from, to)
	})
	if err != nil {
		return nil, nil, problem.Unavailable(5*time.Second, err, "The statistics cannot be read now.")
	}
	return chosen, sets, nil
}

// setCache caches the sets of the campaigns that were requested last, for as long as [reports] keeps a report. So
// reading all pages of a list of members queries the sets only once.
type setCache struct {
	store   analytics.Store
	maxAge  time.Duration
	reading singleflight.Group

	mu    sync.Mutex
	known map[string]knownSets
}

type knownSets struct {
	*analytics.Sets
	until time.Time
}

// maxKnownSets is the most campaigns whose sets are cached. The sets of a campaign with 1,000,000 recipients take about
// 2 MB.
const maxKnownSets = 16

func newSetCache(st analytics.Store, maxAge time.Duration) *setCache {
	return &setCache{store: st, maxAge: maxAge, known: map[string]knownSets{}}
}

// of returns the sets of a campaign. The caller must not modify them.
func (c *setCache) of(ctx context.Context, tenant, campaign string) (*analytics.Sets, error) {
	key := schemas.CampaignKey(tenant, campaign)
	c.mu.Lock()
	known := c.known[key]
	c.mu.Unlock()
	if known.Sets != nil && time.Now().Before(known.until) {
		return known.Sets, nil
	}
	reading := c.reading.DoChan(key, func() (any, error) {
		// Other requests wait for the same read, so it does not end with this request.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), setsTimeout)
		defer cancel()
		began := time.Now()
		sets, err := c.store.Sets(ctx, tenant, campaign)
		if err != nil {
			return nil, err
		}
		c.keep(key, sets, time.Since(began))
		return sets, nil
	})
	select {
	case <-ctx.Done():
		return nil, problem.Unavailable(5*time.Second, ctx.Err(), "The statistics cannot be read now.")
	case got := <-reading:
		if got.Err != nil {
			return nil, problem.Unavailable(5*time.Second, got.Err, "The statistics cannot be read now.")
		}
		sets, _ := got.Val.(*analytics.Sets)
		return sets, nil
	}
}

// setsTimeout is how long the sets of a campaign may take to read.
const setsTimeout = 10 * time.Second

func (c *setCache) keep(key string, sets *analytics.Sets, took time.Duration) {
	if c.maxAge < 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxKnownSets {
		clear(c.known)
	}
	c.known[key] = knownSets{sets, time.Now().Add(max(c.maxAge, min(refreshShare*took, reportMaxAge)))}
}
