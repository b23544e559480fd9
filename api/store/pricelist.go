package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"fanfare/api/store/db"
	"fanfare/schemas"
	"fanfare/schemas/pricing"
)

// PriceDoc is the document of a resource of [KindPrice]: one row of a tenant's price list (R113). Its name is the
// rule's key.
type PriceDoc struct {
	Channel   schemas.Channel
	Country   string    `json:",omitempty"`
	From      uint64    `json:",omitempty"`
	ValidFrom time.Time `json:",omitzero"`
	Micros    uint64
}

// Rule returns the document as a rule of the price list.
func (d PriceDoc) Rule() pricing.Rule { return pricing.Rule(d) }

// priceRows returns the rows of a tenant's price list. There are at most [pricing.MaxRules].
func priceRows(ctx context.Context, q *db.Queries, tenant string) ([]db.Resource, error) {
	return q.ListResources(ctx, db.ListResourcesParams{Tenant: tenant, Kind: string(KindPrice), Max: pricing.MaxRules + 1})
}

// PutPrices writes rows of a tenant's price list in one transaction: it changes rows that exist, adds the others, and
// with replace deletes all rows that are not in rules. It returns how many rows it added, changed and deleted.
// Confirmed campaigns keep their prices.
func (s *Store) PutPrices(ctx context.Context, tenant string, rules []pricing.Rule, replace bool, by string) (added, changed, deleted int, err error) {
	err = s.write(ctx, func(tx *tx) error {
		added, changed, deleted = 0, 0, 0
		if _, err := tx.GetTenant(ctx, tenant); err != nil {
			return found(err, "tenant", tenant)
		}
		rows, err := priceRows(ctx, tx.Queries, tenant)
		if err != nil {
			return err
		}
		have := make(map[string]db.Resource, len(rows))
		for _, r := range rows {
			have[r.Name] = r
		}
		for i := range rules {
			rule := &rules[i]
			if rule.Micros > schemas.MaxPriceMicros {
				return &FieldError{"Micros", fmt.Sprint(rule.Micros), fmt.Sprintf("want at most %d", uint64(schemas.MaxPriceMicros))}
			}
			doc, err := json.Marshal(PriceDoc(*rule))
			if err != nil {
				return err
			}
			row, ok := have[rule.Key()]
			delete(have, rule.Key())
			switch {
			case !ok:
				added++
				next, err := tx.Counter(ctx, 1, "resource")
				if err != nil {
					return err
				}
				err = tx.InsertResource(ctx, db.InsertResourceParams{
					Number: next - 1, Tenant: tenant, Kind: string(KindPrice), Name: rule.Key(), Search: fold(rule.Key()), Status: "active", Doc: string(doc), CreatedBy: by, Now: tx.now,
				})
				if err != nil {
					return err
				}
			case !samePrice(row.Doc, rule.Micros):
				changed++
				if err := tx.updateResource(ctx, row, row.Status, string(doc), 0); err != nil {
					return err
				}
			}
		}
		if len(rows)+added > pricing.MaxRules && !replace {
			return &FieldError{"Prices", fmt.Sprint(len(rows) + added), fmt.Sprintf("a price list has at most %d rows", pricing.MaxRules)}
		}
		if !replace {
			return nil
		}
		for _, row := range have {
			deleted++
			if err := tx.updateResource(ctx, row, row.Status, row.Doc, tx.now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, 0, fmt.Errorf("write prices: %w", err)
	}
	return added, changed, deleted, nil
}

// samePrice reports whether a row already has this price. All its other fields are part of its key.
func samePrice(raw string, micros uint64) bool {
	var doc PriceDoc
	return json.Unmarshal([]byte(raw), &doc) == nil && doc.Micros == micros
}

// updateResource writes a row if it still has the version that was read.
func (t *tx) updateResource(ctx context.Context, row db.Resource, status, doc string, deleted int64) error {
	n, err := t.UpdateResource(ctx, db.UpdateResourceParams{
		Name: row.Name, Search: row.Search, Status: status, Doc: doc, DeletedMs: deleted, UpdatedMs: t.now,
		Tenant: row.Tenant, Kind: row.Kind, Number: row.Number, Version: row.Version,
	})
	return one(n, err, row.Kind, uint64(row.Version))
}

// PriceList returns a tenant's price list: the prices of the channels, which apply to every country and volume without
// a row, and the rows for single countries and volumes.
func (s *Store) PriceList(ctx context.Context, tenant string) (pricing.List, error) {
	list, err := prices(ctx, s.q, tenant)
	slices.SortFunc(list, func(a, b pricing.Rule) int { return compareRules(&a, &b) })
	return list, err
}

func compareRules(a, b *pricing.Rule) int {
	if a.Channel != b.Channel {
		return int(a.Channel) - int(b.Channel)
	}
	if a.Key() < b.Key() {
		return -1
	}
	return 1
}

// priceRules reads the rows of the price list.
func priceRules(ctx context.Context, q *db.Queries, tenant string) (pricing.List, error) {
	rows, err := priceRows(ctx, q, tenant)
	if err != nil {
		return nil, fmt.Errorf("price list: %w", err)
	}
	out := make(pricing.List, 0, len(rows))
	for _, r := range rows {
		var doc PriceDoc
		if err := json.Unmarshal([]byte(r.Doc), &doc); err != nil {
			return nil, fmt.Errorf("price list: row %d: %w", r.Number, err)
		}
		out = append(out, doc.Rule())
	}
	return out, nil
}
