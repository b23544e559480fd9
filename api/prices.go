package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"fanfare/api/problem"
	"fanfare/api/store"
	"fanfare/schemas"
	"fanfare/schemas/pricing"
)

// PriceRow is a row of a tenant's price list (R113, X13).
type PriceRow struct {
	ID        string  `json:"id" example:"price_10001" doc:"Given by the installation; it never changes."`
	Channel   string  `json:"channel" enum:"sms,rcs,whatsapp,voice" doc:"The channel that the price is for."`
	Country   *string `json:"country" doc:"ISO 3166-1 alpha-2; null: every country without its own row." example:"IT"`
	From      uint64  `json:"from" doc:"Smallest volume for which the price applies. Volume is the recipients of the campaign, or 1 for a single message."`
	ValidFrom *string `json:"validFrom" format:"date-time" doc:"From when on it applies; null: always."`
	Price     Money   `json:"price" doc:"Price of one segment (sms), message (rcs, whatsapp) or minute (voice), in the tenant's currency."`
	CreatedBy string  `json:"createdBy" doc:"Id of the person or API key that created it."`
	CreatedAt string  `json:"createdAt" format:"date-time" doc:"When it was created."`
	UpdatedAt string  `json:"updatedAt" format:"date-time" doc:"When it was last changed."`
	DeletedAt *string `json:"deletedAt" format:"date-time" doc:"When it was deleted; null: not deleted."`
	Version   uint64  `json:"version" doc:"Rises with every change. As the ETag it is the value of If-Match."`
}

// PriceRowInput creates or changes a row.
type PriceRowInput struct {
	Channel   problem.Optional[string] `json:"channel,omitzero" doc:"sms, rcs, whatsapp or voice."`
	Country   problem.Optional[string] `json:"country,omitzero" doc:"A code of two letters; null or left out: every country."`
	From      problem.Optional[uint64] `json:"from,omitzero" doc:"Smallest volume; default: 0."`
	ValidFrom problem.Optional[string] `json:"validFrom,omitzero" doc:"A date, which begins at midnight UTC, or RFC 3339 with an offset; null or left out: always."`
	Price     problem.Optional[Money]  `json:"price,omitzero" doc:"With at most 6 decimals."`
}

func (s *server) priceRows() *resource[PriceRowInput, store.PriceDoc, PriceRow] {
	return &resource[PriceRowInput, store.PriceDoc, PriceRow]{
		kind: store.KindPrice, path: "/api/prices", one: "rate", many: "the rates of the price list", tag: moneyTag, write: store.ScopeAdmin,
		apply: func(_ context.Context, _ *principal, in *PriceRowInput, row *store.Resource, d *store.PriceDoc) error {
			return in.apply(row, d)
		},
		view: func(row *store.Resource, d *store.PriceDoc) *PriceRow {
			return &PriceRow{
				ID: row.ID(), Channel: schemas.ChannelName(d.Channel), Country: orNull(d.Country), From: d.From, ValidFrom: stampOrNull(d.ValidFrom), Price: Money(d.Micros),
				CreatedBy: row.CreatedBy, CreatedAt: stamp(row.Created), UpdatedAt: stamp(row.Updated), DeletedAt: stampOrNull(row.Deleted), Version: row.Version,
			}
		},
	}
}

func (in *PriceRowInput) apply(row *store.Resource, d *store.PriceDoc) error {
	var ps problem.List
	if in.Channel.Set {
		channel, ok := schemas.ParseChannel(in.Channel.Value)
		if !ok || schemas.ChannelName(channel) != in.Channel.Value {
			ps.Add(problem.CodeInvalid, "channel", "%q is not a channel: want sms, rcs, whatsapp or voice.", problem.Truncate(in.Channel.Value, 40))
		}
		d.Channel = channel
	}
	if d.Channel == schemas.ChannelUnspecified && !in.Channel.Set {
		ps.Add(problem.CodeRequired, "channel", "The channel is missing: want sms, rcs, whatsapp or voice.")
	}
	if in.Country.Set {
		if d.Country = strings.ToUpper(in.Country.Value); !pricing.ValidCountry(d.Country) {
			ps.Add(problem.CodeInvalid, "country", "%q is not a country: want a code of two letters such as IT.", problem.Truncate(in.Country.Value, 40))
		}
	}
	set(&in.From, &d.From, func(n uint64) {
		if n > schemas.MaxSeq {
			ps.Add(problem.CodeInvalid, "from", "%d is more than the recipients of any campaign.", n)
		}
	})
	if in.ValidFrom.Set {
		d.ValidFrom = store.PriceDoc{}.ValidFrom
		if !in.ValidFrom.Null {
			at, err := pricing.ParseDate(in.ValidFrom.Value)
			if err != nil || at.Unix() < 0 {
				ps.Add(problem.CodeInvalid, "validFrom", "%q is not a date: want 2026-01-31, or RFC 3339 with an offset.", problem.Truncate(in.ValidFrom.Value, 40))
			}
			d.ValidFrom = at
		}
	}
	switch {
	case in.Price.Set && (in.Price.Value < 0 || uint64(in.Price.Value) > schemas.MaxPriceMicros):
		ps.Add(problem.CodeInvalid, "price", "%s is not between 0 and %s.", in.Price.Value, Money(schemas.MaxPriceMicros))
	case in.Price.Set && !in.Price.Null:
		d.Micros = uint64(in.Price.Value)
	case row.Version == 0:
		ps.Add(problem.CodeRequired, "price", "The price is missing.")
	}
	rule := d.Rule()
	row.Name, row.Status = rule.Key(), "active"
	return ps.Err()
}

type (
	priceCSVIn  struct{}
	priceCSVOut struct {
		ContentType string `header:"Content-Type" doc:"text/csv, in UTF-8."`
		Disposition string `header:"Content-Disposition" doc:"attachment, with a name for the file."`
		Body        []byte
	}
	priceImportIn struct {
		Replace bool `query:"replace" doc:"Delete the rows that the file does not have."`
		body    io.Reader
	}
	priceImportOut struct{ Body *PriceImport }
)

// PriceImport is the result of the import of a price list.
type PriceImport struct {
	Rows    int `json:"rows" doc:"Rows of the file, without the heading."`
	Added   int `json:"added" doc:"New rows. The price of a whole channel is not counted as added or changed."`
	Changed int `json:"changed" doc:"Rows with another price than before."`
	Deleted int `json:"deleted" doc:"Rows that were deleted because the file does not have them; 0 without replace."`
}

// Resolve keeps the body as a stream, so that huma does not read it.
func (in *priceImportIn) Resolve(ctx huma.Context) []error {
	r, _ := humachi.Unwrap(ctx)
	in.body = r.Body
	return nil
}

const moneyTag = "Money"

// maxPriceCSV is the maximum size of a price list, in bytes: enough for [pricing.MaxRules] rows.
const maxPriceCSV = 1 << 20

func (s *server) registerPrices() {
	registerResource(s, s.priceRows())
	register(s, operation{
		id: "exportPrices", method: http.MethodGet, path: "/api/prices/export", summary: "The price list as CSV", scope: store.ScopeRead, tag: moneyTag,
		describe: "Columns channel, country, from, validFrom, price. The prices of the channels come first; they apply where no other row does.",
	}, s.exportPrices)
	csvBody := map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: huma.TypeString}, Example: "channel,country,from,validFrom,price\nsms,IT,0,,0.045\n"}}
	s.api.OpenAPI().Paths["/api/prices/export"].Get.Responses["200"].Content = csvBody
	register(s, operation{
		id: "importPrices", method: http.MethodPost, path: "/api/prices/import", summary: "Write the price list from CSV", scope: store.ScopeAdmin,
		errors: []int{400, 413, 415, 422}, streamed: true, maxBody: maxPriceCSV, tag: moneyTag,
		describe: "Writes all rows or none: an error names the line of the wrong row. A row without country, from and validFrom is the price of its channel, which replace does not delete. Confirmed campaigns keep their prices.",
	}, s.importPrices)
	s.api.OpenAPI().Paths["/api/prices/import"].Post.RequestBody = &huma.RequestBody{Required: true, Content: csvBody}
}

func (s *server) exportPrices(ctx context.Context, _ *priceCSVIn) (*priceCSVOut, error) {
	list, err := s.Store.PriceList(ctx, requestOf(ctx).who.tenant.ID)
	if err != nil {
		return nil, s.storeProblem(err)
	}
	var b bytes.Buffer
	if err := pricing.WriteCSV(&b, list); err != nil {
		return nil, err
	}
	return &priceCSVOut{"text/csv; charset=utf-8", `attachment; filename="prices.csv"`, b.Bytes()}, nil
}

func (s *server) importPrices(ctx context.Context, in *priceImportIn) (*priceImportOut, error) {
	raw, err := io.ReadAll(io.LimitReader(s.stalling(ctx, in.body), maxPriceCSV+1))
	switch {
	case err != nil:
		return nil, problem.New(problem.CodeMalformed, "The body ended before it was complete.").Because(err)
	case len(raw) > maxPriceCSV:
		return nil, problem.New(problem.CodeBodyTooLarge, "The price list has more than %d bytes.", maxPriceCSV)
	}
	list, err := pricing.ReadCSV(bytes.NewReader(raw))
	if wrong := (*pricing.RowError)(nil); errors.As(err, &wrong) {
		return nil, problem.Field(problem.CodeInvalid, wrong.Column, "Line %d: %s.", wrong.Line, wrong.Reason).WithFix("Correct the line, and send the whole file again: nothing was written.")
	}
	if err != nil {
		return nil, err
	}
	who := requestOf(ctx).who
	rules := make([]pricing.Rule, 0, len(list))
	base := map[schemas.Channel]uint64{}
	for _, r := range list {
		if r.Country == "" && r.From == 0 && r.ValidFrom.IsZero() {
			base[r.Channel] = r.Micros
			continue
		}
		rules = append(rules, r)
	}
	for channel, micros := range base {
		if err := s.Store.SetPrice(ctx, who.tenant.ID, channel, micros); err != nil {
			return nil, s.storeProblem(err)
		}
	}
	added, changed, deleted, err := s.Store.PutPrices(ctx, who.tenant.ID, rules, in.Replace, who.by())
	if err != nil {
		return nil, s.storeProblem(err)
	}
	return &priceImportOut{&PriceImport{len(list), added, changed, deleted}}, nil
}
